//! The client's socket and the bytes that have arrived on it and are not yet used.
//!
//! Called by the thread that owns the connection at that moment.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::http1::error::HttpError;
use crate::net::buffer::ReadBuffer;
use crate::net::socket::{self, ReadTimeout};
use crate::net::wait::{CallContext, WaitError};

/// The client's end of a connection.
pub(crate) struct Client {
    pub(crate) socket: Arc<TcpStream>,
    /// Its address, as the log shows it.
    pub(crate) peer: Arc<str>,
    pub(crate) input: ReadBuffer,
    /// Whether a read for the next head could find bytes. Reads of a body do not change it.
    pub(crate) may_have_input: bool,
    read_timeout: ReadTimeout,
}

/// What a read that does not wait has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadOutcome {
    Received,
    Nothing,
    /// The end of the stream, or a socket that has failed.
    End,
}

/// Why the client's side of an exchange ended early.
#[derive(Debug)]
pub enum ClientError {
    /// The client closed the connection.
    Closed,
    /// It did not read its response for the client timeout.
    TimedOut,
    /// Its request body is rejected: too slow, too large or malformed.
    Rejected(HttpError),
}

impl Client {
    pub(crate) fn new(socket: TcpStream, peer: SocketAddr, read_timeout: ReadTimeout) -> Self {
        Client {
            socket: Arc::new(socket),
            peer: peer.to_string().into(),
            input: ReadBuffer::default(),
            may_have_input: true,
            read_timeout,
        }
    }

    /// Reads once what has arrived of a head, without waiting.
    pub(crate) fn read_head(&mut self) -> ReadOutcome {
        let space = self.input.space();
        let capacity = space.len();
        match socket::try_read(&self.socket, space) {
            Ok(Some(0)) | Err(_) => ReadOutcome::End,
            Ok(Some(length)) => {
                self.input.filled(length);
                // A read that did not fill its buffer has emptied the socket.
                self.may_have_input = length == capacity;
                ReadOutcome::Received
            }
            Ok(None) => {
                self.may_have_input = false;
                ReadOutcome::Nothing
            }
        }
    }

    /// Reads a piece of a body, into `direct` or else into the connection's buffer. Tries before it
    /// waits, since the next piece of a body has often arrived already.
    ///
    /// # Errors
    /// As [`socket::read`].
    pub(crate) fn read_body(
        &mut self,
        direct: Option<&mut [u8]>,
        timeout: Duration,
        call: CallContext<'_>,
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
                call.before_blocking();
                socket::read(socket, space, *read_timeout, timeout, call.unwatched())?
            }
        };
        if !is_direct {
            input.filled(length);
        }
        Ok(length)
    }

    /// Reads what has arrived, unless some input is here already. `storage` is the thread's; the client
    /// keeps the received bytes only.
    pub(crate) fn read_available(&mut self, storage: &mut Vec<u8>) -> ReadOutcome {
        if !self.input.bytes().is_empty() {
            return ReadOutcome::Received;
        }
        self.input.borrow_storage(storage);
        let outcome = self.read_head();
        self.input.return_storage(storage);
        outcome
    }

    /// Makes the close a reset. Only a reset tells the client that a body which ends with the connection
    /// is incomplete.
    pub(crate) fn reset_on_close(&self) {
        if let Err(error) = socket2::SockRef::from(&*self.socket).set_linger(Some(Duration::ZERO)) {
            log::debug!("{}: cannot reset on close: {error}", self.peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::buffer::READ_BUFFER_BYTES;
    use crate::server::tests::{admission, connection};
    use std::io::Write;
    use std::time::Instant;

    /// Reads what has arrived and checks that the thread has its storage back.
    fn read_available(client: &mut Client) -> ReadOutcome {
        let mut storage = Vec::new();
        let outcome = client.read_available(&mut storage);
        assert_eq!(storage.len(), READ_BUFFER_BYTES, "{outcome:?}");
        outcome
    }

    fn read_until(client: &mut Client, expected: ReadOutcome) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while read_available(client) != expected {
            assert!(Instant::now() < deadline, "{expected:?} never comes");
        }
    }

    #[test]
    fn a_connection_that_waits_keeps_received_bytes_and_no_storage() {
        let admission = admission();
        let (mut connection, mut far) = connection(&admission);
        let client = &mut connection.client;
        assert_eq!(read_available(client), ReadOutcome::Nothing);
        assert_eq!(client.input.bytes(), b"");

        far.write_all(b"GET /").unwrap();
        read_until(client, ReadOutcome::Received);
        assert_eq!(client.input.bytes(), b"GET /");
    }

    #[test]
    fn a_closed_client_is_distinguished_from_a_silent_one() {
        let admission = admission();
        let (mut connection, far) = connection(&admission);
        assert_eq!(read_available(&mut connection.client), ReadOutcome::Nothing);
        drop(far);
        read_until(&mut connection.client, ReadOutcome::End);
    }
}
