//! The client's side of a connection: its socket, and what has arrived there and is not used yet.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::net::buffer::Input;
use crate::net::socket::{self, Patience, Stall, Wait};

/// See the module's documentation.
pub(crate) struct Client {
    pub(super) socket: Arc<TcpStream>,
    /// Its address, as it stands in the log.
    pub(super) peer: Arc<str>,
    pub(super) input: Input,
    /// A read for the next head might find bytes. Reads of a body do not change it.
    pub(super) has_input: bool,
    patience: Patience,
}

/// What a client has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrived {
    Something,
    Nothing,
    End,
}

impl Client {
    pub(super) fn new(socket: TcpStream, peer: SocketAddr, patience: Patience) -> Self {
        Client {
            socket: Arc::new(socket),
            peer: peer.to_string().into(),
            input: Input::default(),
            has_input: true,
            patience,
        }
    }

    /// Takes in what is here of a head, without waiting. A socket that failed has come to its end.
    pub(super) fn read_head(&mut self) -> Arrived {
        let space = self.input.space();
        let room = space.len();
        match socket::read_now(&self.socket, space) {
            Ok(Some(0)) | Err(_) => Arrived::End,
            Ok(Some(length)) => {
                self.input.filled(length);
                // A read that did not fill its buffer has emptied the socket.
                self.has_input = length == room;
                Arrived::Something
            }
            Ok(None) => {
                self.has_input = false;
                Arrived::Nothing
            }
        }
    }

    /// Reads a piece of a body, into `direct` or else into the connection's buffer. A body is on
    /// its way, so its next piece is looked for before it is waited for.
    ///
    /// # Errors
    /// As [`socket::read`].
    pub(super) fn read_body(
        &mut self,
        direct: Option<&mut [u8]>,
        longest: Duration,
    ) -> Result<usize, Stall> {
        let Client {
            socket,
            input,
            patience,
            ..
        } = self;
        let is_direct = direct.is_some();
        let space = direct.unwrap_or_else(|| input.space());
        let length = match socket::read_now(socket, space).map_err(Stall::Io)? {
            Some(length) => length,
            None => {
                socket::give_up_turn();
                let how = Wait {
                    longest,
                    watched: socket::NOBODY,
                };
                socket::read(socket, space, *patience, how)?
            }
        };
        if !is_direct {
            input.filled(length);
        }
        Ok(length)
    }

    /// Takes in what has arrived, and only that: a connection that waits keeps no buffer. `spare` is
    /// the thread's.
    pub(super) fn take_in(&mut self, spare: &mut Vec<u8>) -> Arrived {
        if !self.input.bytes().is_empty() {
            return Arrived::Something;
        }
        self.input.lend(spare);
        let arrived = self.read_head();
        self.input.give_back(spare);
        arrived
    }

    /// Lets the client see a reset: the only way to tell it that a body which ends with the
    /// connection is not whole.
    pub(super) fn reset_on_close(&self) {
        if let Err(error) = socket2::SockRef::from(&*self.socket).set_linger(Some(Duration::ZERO)) {
            log::debug!("{}: no reset on close: {error}", self.peer);
        }
    }
}
