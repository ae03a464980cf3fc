//! One request and its response, as a [`Handler`](super::handler::Handler) sees them.
//!
//! Owns the response: its head, its framing and what has been sent of it. The body of the request is
//! read in [`request_body`]. Called by the thread that serves the connection.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode, Version};
use socket2::SockRef;

use super::admission::{Admission, ServerLoad};
use super::connection::client::{Client, ClientError};
use super::connection::request_body::{self, PendingRequest, RequestBody};
use crate::http1::body::BodyLength;
use crate::http1::encode::{BodyCoding, OutputBuffer};
use crate::http1::request::{Persistence, RequestHead};
use crate::net::socket;
use crate::net::wait::{CallContext, WaitError};

/// Bytes of a response body that a thread sends while it leads an event loop. More is long work.
const MAX_BODY_BYTES_AS_LEADER: u64 = 64 * 1024;

/// Bytes that the send buffer of a new connection takes in any case.
const MIN_SEND_BUFFER: usize = 16 * 1024;

/// One request and its response.
///
/// The handler reads the body, starts the response, writes pieces, flushes before it waits, and
/// finishes. A response that was started and not finished is cut short so that the client notices.
pub struct Exchange<'a> {
    pub head: &'a mut RequestHead,
    client: &'a mut Client,
    output: &'a mut OutputBuffer,
    admission: &'a Admission,
    write_policy: WritePolicy,
    call: CallContext<'a>,
    body: &'a mut RequestBody,
    response: ResponseState,
    persistence: &'a mut Persistence,
    body_bytes_out: u64,
    /// The client has disconnected, or takes no more bytes.
    is_client_lost: bool,
}

/// Whether the thread may wait for the client to take a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WritePolicy {
    MayWait,
    NeverWait,
}

/// How far the response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ResponseState {
    NotStarted,
    Body(BodyCoding),
    Finished,
}

/// What becomes of the connection after the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The next request may follow.
    KeepAlive,
    /// The connection ends after what has been sent. If that is not the whole response, its framing
    /// shows it. The client may still be sending.
    Close,
    /// The connection ends at once: there is no response, or the client does not take it. `by_reset`:
    /// the body would have ended with the connection, so only a reset shows that it is incomplete.
    Abandoned { by_reset: bool },
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        pending: &'a mut PendingRequest,
        client: &'a mut Client,
        output: &'a mut OutputBuffer,
        admission: &'a Admission,
        write_policy: WritePolicy,
        call: CallContext<'a>,
    ) -> Self {
        Exchange {
            head: &mut pending.head,
            client,
            output,
            admission,
            write_policy,
            call,
            body: &mut pending.body,
            response: ResponseState::NotStarted,
            persistence: &mut pending.persistence,
            body_bytes_out: 0,
            is_client_lost: false,
        }
    }

    /// Whether the handler may return while it waits for the upstream. If not, it waits itself.
    pub fn may_wait(&self) -> bool {
        self.write_policy == WritePolicy::MayWait
            && self.response == ResponseState::NotStarted
            && self.call.is_leading()
    }

    /// The client's address, as the log shows it.
    pub fn peer(&self) -> &Arc<str> {
        &self.client.peer
    }

    /// The context for everything that may wait: it watches the client.
    pub fn call(&self) -> CallContext<'a> {
        self.call
    }

    /// Lets the connection end after this exchange.
    pub fn close_after_response(&mut self) {
        *self.persistence = Persistence::Close;
    }

    /// How busy the server is with other requests.
    pub fn server_load(&self) -> ServerLoad {
        let load = self.admission.load();
        // Only with a permit may this one wait.
        let own = usize::from(self.write_policy == WritePolicy::MayWait);
        ServerLoad {
            in_flight: load.in_flight.saturating_sub(own),
            ..load
        }
    }

    /// Whether the server stops. Requests in flight go on during the grace period.
    pub fn is_stopping(&self) -> bool {
        self.admission.is_stopping()
    }

    /// Whether the grace period is over, so that requests in flight are being aborted.
    pub fn is_aborting(&self) -> bool {
        self.admission.is_aborting()
    }

    /// Decoded bytes of the request body that have been read.
    pub fn body_bytes_in(&self) -> u64 {
        self.body.bytes()
    }

    /// Bytes of the response body that have been written, framing not counted.
    pub fn body_bytes_out(&self) -> u64 {
        self.body_bytes_out
    }

    /// Records that the client has disconnected (noticed while waiting for the upstream).
    pub fn mark_client_gone(&mut self) {
        self.is_client_lost = true;
    }

    /// Whether the response has been started.
    pub fn is_started(&self) -> bool {
        self.response != ResponseState::NotStarted
    }

    /// Reads a piece of the request body; 0 is its end.
    ///
    /// # Errors
    /// [`ClientError::Rejected`] if the body stalls, is too slow, too large or malformed,
    /// [`ClientError::Closed`] if the client disconnects in the middle of it.
    pub fn read_body(&mut self, buffer: &mut [u8]) -> Result<usize, ClientError> {
        let result = self.read_piece(buffer);
        self.close_on_error(result)
    }

    /// Checks the declared length of the request body. Call this before any work for a request whose
    /// body is read later.
    ///
    /// # Errors
    /// [`ClientError::Rejected`] if it is too large.
    pub fn admit_body(&mut self) -> Result<(), ClientError> {
        let result = self.check_declared_length();
        self.close_on_error(result)
    }

    /// After an error the end of the request is not known, so that no other can follow.
    fn close_on_error<T>(&mut self, result: Result<T, ClientError>) -> Result<T, ClientError> {
        if result.is_err() {
            *self.persistence = Persistence::Close;
        }
        result
    }

    fn read_piece(&mut self, buffer: &mut [u8]) -> Result<usize, ClientError> {
        if self.body.is_done() {
            return Ok(0);
        }
        self.check_declared_length()?;
        // RFC 9110 section 10.1.1: no 100 (Continue) is needed once a part of the body has arrived.
        if self.body.take_owed_continue() && self.client.input.bytes().is_empty() {
            self.output.append_continue();
            self.flush()?;
        }
        let limits = &self.admission.limits;
        self.body.read(self.client, limits, buffer, self.call)
    }

    fn check_declared_length(&self) -> Result<(), ClientError> {
        request_body::check_declared_length(self.head.body_length, &self.admission.limits)
    }

    /// Starts the response. Nothing is sent before [`Exchange::flush`] or [`Exchange::finish`].
    ///
    /// `header_lines` are pieces of whole header lines, each line with its CRLF. Connection and
    /// Transfer-Encoding must not be among them: they are set here. A body of unknown length, `Chunked` or
    /// `UntilClose`, is sent as the client's version understands it.
    pub fn start<'f>(
        &mut self,
        status: StatusCode,
        header_lines: impl Iterator<Item = &'f [u8]>,
        length: BodyLength,
    ) {
        let coding = match length {
            BodyLength::None | BodyLength::Known(_) => BodyCoding::Plain,
            BodyLength::Chunked | BodyLength::UntilClose => match self.head.version {
                _ if self.head.method == Method::HEAD => BodyCoding::Plain,
                Version::HTTP_11 => BodyCoding::Chunked,
                _ => BodyCoding::UntilClose,
            },
        };
        self.body.skip_buffered(self.client);
        let is_unread = !self.body.is_done();
        if is_unread || self.admission.is_stopping() || coding == BodyCoding::UntilClose {
            *self.persistence = Persistence::Close;
        }
        let connection = (self.head.version, *self.persistence);
        self.output
            .append_head(status, header_lines, coding, connection);
        self.response = ResponseState::Body(coding);
    }

    /// Returns the space for the next piece of the body. Flushes first if there is none.
    ///
    /// # Errors
    /// As [`Exchange::flush`].
    pub fn space(&mut self) -> Result<&mut [u8], ClientError> {
        if self.output.space().is_none() {
            self.flush()?;
        }
        // A buffer that was just flushed has space.
        Ok(self.output.space().unwrap_or_default())
    }

    /// Appends the first `length` bytes of [`Exchange::space`] to the response body.
    pub fn commit(&mut self, length: usize) {
        if let ResponseState::Body(coding) = self.response
            && length > 0
        {
            self.output.commit(length, coding);
            self.body_bytes_out += length as u64;
        }
    }

    /// Appends a copy of `bytes` to the response body.
    pub fn write(&mut self, bytes: &[u8]) {
        if let ResponseState::Body(coding) = self.response
            && !bytes.is_empty()
        {
            self.output.append_piece(bytes, coding);
            self.body_bytes_out += bytes.len() as u64;
        }
    }

    /// Sends everything that has been appended.
    ///
    /// # Errors
    /// The client has disconnected, or has read nothing for the client timeout.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        let stall = match self.write_policy {
            WritePolicy::MayWait => self.admission.limits.client_timeout,
            WritePolicy::NeverWait => Duration::ZERO,
        };
        let pending = self.output.pending();
        if self.write_policy == WritePolicy::NeverWait && pending.len() > MIN_SEND_BUFFER {
            // What does not fit is lost. As large as the system allows, else as large as it is.
            let socket = SockRef::from(&*self.client.socket);
            let _ = socket.set_send_buffer_size(2 * pending.len());
        }
        let call = self.call.unwatched();
        let result = socket::write_all(&self.client.socket, pending, stall, call);
        if self.body_bytes_out > MAX_BODY_BYTES_AS_LEADER {
            self.call.before_blocking();
        }
        self.output.clear();
        self.is_client_lost |= result.is_err();
        result.map_err(|error| match error {
            WaitError::TimedOut => ClientError::TimedOut,
            WaitError::ClientClosed | WaitError::Io(_) => ClientError::Closed,
        })
    }

    /// Ends the response and sends the rest of it.
    ///
    /// # Errors
    /// As [`Exchange::flush`].
    pub fn finish(&mut self) -> Result<(), ClientError> {
        if self.response == ResponseState::Body(BodyCoding::Chunked) {
            self.output.append_last_chunk();
        }
        self.flush()?;
        self.response = ResponseState::Finished;
        Ok(())
    }

    pub(super) fn outcome(&self) -> Outcome {
        match (self.response, *self.persistence) {
            (ResponseState::Finished, Persistence::KeepAlive) => Outcome::KeepAlive,
            (ResponseState::Finished, Persistence::Close) => Outcome::Close,
            (ResponseState::Body(BodyCoding::UntilClose), _) => {
                Outcome::Abandoned { by_reset: true }
            }
            (ResponseState::Body(_), _) if !self.is_client_lost => Outcome::Close,
            _ => Outcome::Abandoned { by_reset: false },
        }
    }
}
