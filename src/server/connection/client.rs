//! The client's side of a connection: its socket, and what has arrived there and is not used yet.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::net::buffer::ReadBuffer;
use crate::net::socket::{self, ReadTimeout};
use crate::net::wait::{self, WaitError, WaitOptions};

/// See the module's documentation.
pub(crate) struct Client {
    pub(crate) socket: Arc<TcpStream>,
    /// Its address, as it stands in the log.
    pub(crate) peer: Arc<str>,
    pub(crate) input: ReadBuffer,
    /// A read for the next head might find bytes. Reads of a body do not change it.
    pub(crate) has_input: bool,
    read_timeout: ReadTimeout,
}

/// What a client has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadOutcome {
    Something,
    Nothing,
    End,
}

impl Client {
    pub(crate) fn new(socket: TcpStream, peer: SocketAddr, read_timeout: ReadTimeout) -> Self {
        Client {
            socket: Arc::new(socket),
            peer: peer.to_string().into(),
            input: ReadBuffer::default(),
            has_input: true,
            read_timeout,
        }
    }

    /// Takes in what is here of a head, without waiting. A socket that failed has come to its end.
    pub(crate) fn read_head(&mut self) -> ReadOutcome {
        let space = self.input.space();
        let room = space.len();
        match socket::try_read(&self.socket, space) {
            Ok(Some(0)) | Err(_) => ReadOutcome::End,
            Ok(Some(length)) => {
                self.input.filled(length);
                // A read that did not fill its buffer has emptied the socket.
                self.has_input = length == room;
                ReadOutcome::Something
            }
            Ok(None) => {
                self.has_input = false;
                ReadOutcome::Nothing
            }
        }
    }

    /// Reads a piece of a body, into `direct` or else into the connection's buffer. A body is on
    /// its way, so its next piece is looked for before it is waited for.
    ///
    /// # Errors
    /// As [`socket::read`].
    pub(crate) fn read_body(
        &mut self,
        direct: Option<&mut [u8]>,
        timeout: Duration,
    ) -> Result<usize, WaitError> {
        let Client {
            socket,
            input,
            read_timeout,
            ..
        } = self;
        let is_direct = direct.is_some();
        let space = direct.unwrap_or_else(|| input.space());
        let length = match socket::try_read(socket, space).map_err(WaitError::Io)? {
            Some(length) => length,
            None => {
                wait::before_blocking();
                let options = WaitOptions {
                    timeout,
                    watched: wait::UNWATCHED,
                };
                socket::read(socket, space, *read_timeout, options)?
            }
        };
        if !is_direct {
            input.filled(length);
        }
        Ok(length)
    }

    /// Takes in what has arrived, and only that: a connection that waits keeps no buffer. `spare` is
    /// the thread's.
    pub(crate) fn take_in(&mut self, spare: &mut Vec<u8>) -> ReadOutcome {
        if !self.input.bytes().is_empty() {
            return ReadOutcome::Something;
        }
        self.input.borrow_storage(spare);
        let arrived = self.read_head();
        self.input.return_storage(spare);
        arrived
    }

    /// Lets the client see a reset: the only way to tell it that a body which ends with the
    /// connection is not whole.
    pub(crate) fn reset_on_close(&self) {
        if let Err(error) = socket2::SockRef::from(&*self.socket).set_linger(Some(Duration::ZERO)) {
            log::debug!("{}: no reset on close: {error}", self.peer);
        }
    }
}
