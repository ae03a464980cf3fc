//! Exchanges with the upstream, one after another on a connection that is kept for the next one.
//!
//! TCP, TLS and proxies on the way are ureq's connectors and transports, some of them ours (`stream`,
//! `tls`, `socks`); the messages are written and read here, in their buffers. ureq's own calls took two
//! thirds of a request's instructions (measured). Called by the worker that serves the request.

use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use http::Method;
use ureq::unversioned::transport::{NextTimeout, Transport};

use super::connector::{CONNECT_TIMEOUT, Upstream};
use super::error::{ExchangeError, UpstreamError};
use super::request::{Output, Request, RequestBody};
use super::stream::{CallState, ReadMode, StopReason};
use crate::http1::headers::HeaderBlock;
use crate::http1::response::{self, BodyDecoder, Parsed, ResponseHead};

/// How long an idle connection is kept. Most load balancers close theirs after 60 s.
const MAX_IDLE_AGE: Duration = Duration::from_secs(50);

/// The upstream connection of a request context: open or not, used by one request at a time.
pub struct UpstreamConnection {
    upstream: Arc<Upstream>,
    call: Arc<CallState>,
    /// What `call` knows too, behind a lock.
    client: Weak<TcpStream>,
    /// The socket of the connection that was made last.
    socket: Weak<TcpStream>,
    connection: Option<Connection>,
    /// Storage for the header fields of the next response.
    fields: HeaderBlock,
}

/// An open connection, in the middle of a response or idle.
struct Connection {
    transport: Box<dyn Transport>,
    /// The part of the last response's body that has not been read.
    body: BodyDecoder,
    /// Whether it can carry another request after that body.
    persists: bool,
    /// Whether a byte of the response to the current request has arrived.
    has_begun_response: bool,
    /// Whether it carried another request before this one.
    is_reused: bool,
    last_used: Instant,
}

/// What a read of a response's body brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyRead {
    Data(usize),
    /// Nothing has arrived; only from a read that does not wait.
    NotYet,
    End,
}

/// The timeout of an exchange: of each read and write of the socket, however many a TLS record takes.
fn each_time(longest: Duration) -> NextTimeout {
    NextTimeout {
        per_read: Some(longest.into()),
        per_write: Some(longest.into()),
        ..NextTimeout::default()
    }
}

impl UpstreamConnection {
    pub fn new(upstream: &Arc<Upstream>) -> UpstreamConnection {
        UpstreamConnection {
            upstream: Arc::clone(upstream),
            call: Arc::new(CallState::default()),
            client: Weak::new(),
            socket: Weak::new(),
            connection: None,
            fields: HeaderBlock::default(),
        }
    }

    /// Sends a request, for as long as `client` waits. [`Upstream::receive`] is to follow.
    ///
    /// An idle connection is used where there is one, but not for a streamed body: that could not be
    /// sent once more if the connection turned out to be closed.
    ///
    /// # Errors
    /// A [`Failure`]; what happened to a streamed body its reader knows.
    pub fn send<'f>(
        &mut self,
        mut request: Request<'_, impl Iterator<Item = &'f [u8]> + Clone>,
        client: Option<&Arc<TcpStream>>,
    ) -> Result<(), UpstreamError> {
        let is_streamed = matches!(request.body, RequestBody::Streamed { .. });
        let silence = each_time(self.upstream.silence);
        self.begin_call(client);
        let idle = self.connection.as_mut().filter(|_| !is_streamed);
        if let Some(connection) = idle
            && connection.is_still_usable()
        {
            connection.is_reused = true;
            match connection.send(&mut request, silence) {
                Ok(()) => return Ok(()),
                Err(error) if self.call.stop_reason() == StopReason::None => {
                    log::debug!("an idle upstream connection was closed: {error}");
                    self.call.begin();
                }
                Err(error) => return Err(self.failed(error)),
            }
        }
        self.connection = None;
        let made = self.connect().map(|made| self.connection.insert(made));
        let result = made.and_then(|connection| connection.send(&mut request, silence));
        result.map_err(|error| self.failed(error))
    }

    /// A call for `client` begins.
    fn begin_call(&mut self, client: Option<&Arc<TcpStream>>) {
        // As a rule it is the last call's client: a kit stays with its connection.
        if self.client.as_ptr() != client.map_or(Weak::new().as_ptr(), Arc::as_ptr) {
            self.client = client.map_or_else(Weak::new, Arc::downgrade);
            self.call.set_client(Weak::clone(&self.client));
        }
        self.call.begin();
    }

    /// Waits for the head of the answer to the request that was sent. `None`: the idle connection
    /// that it went on turned out to be closed before a byte of an answer came, so it is to be sent
    /// once more; that costs the client nothing.
    ///
    /// # Errors
    /// A [`Failure`].
    pub fn receive(&mut self, method: &Method) -> Result<Option<ResponseHead>, UpstreamError> {
        let silence = each_time(self.upstream.silence);
        let Some(connection) = &mut self.connection else {
            return Err(UpstreamError::Broke("nothing was sent".into()));
        };
        match connection.read_head(method, silence, &mut self.fields) {
            Ok(answer) => {
                self.call.head_is_whole();
                Ok(Some(answer))
            }
            Err(error)
                if connection.was_idle_and_silent()
                    && self.call.stop_reason() == StopReason::None =>
            {
                log::debug!("an idle upstream connection was closed: {error}");
                self.connection = None;
                Ok(None)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// The socket on which an answer comes.
    pub fn socket(&self) -> &Weak<TcpStream> {
        &self.socket
    }

    fn connect(&mut self) -> Result<Connection, ExchangeError> {
        let made = self.upstream.connect(&self.call);
        let transport = made.map_err(ExchangeError::Connecting)?;
        self.socket = self.call.upstream();
        Ok(Connection {
            transport,
            body: BodyDecoder::Ended,
            persists: true,
            has_begun_response: false,
            is_reused: false,
            last_used: Instant::now(),
        })
    }

    /// Reads a piece of the answer's body, waiting for one as long as the client does.
    ///
    /// # Errors
    /// A [`Failure`]: what was read so far is not the whole body.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<BodyRead, UpstreamError> {
        self.call.set_mode(ReadMode::Wait);
        self.read_decoded(buffer)
    }

    /// As [`Upstream::read`], of what is there already.
    ///
    /// # Errors
    /// As [`Upstream::read`].
    pub fn try_read(&mut self, buffer: &mut [u8]) -> Result<BodyRead, UpstreamError> {
        self.call.set_mode(ReadMode::Look);
        self.read_decoded(buffer)
    }

    fn read_decoded(&mut self, buffer: &mut [u8]) -> Result<BodyRead, UpstreamError> {
        let Some(connection) = &mut self.connection else {
            return Ok(BodyRead::End);
        };
        let result = connection.read_body(buffer, each_time(self.upstream.silence));
        result.map_err(|error| self.failure(error))
    }

    /// Takes back the header fields of a response, whose memory the next response uses.
    pub fn reuse_fields(&mut self, fields: HeaderBlock) {
        self.fields = fields.reusable();
    }

    /// Ends the exchange. Closes a connection that cannot be used again.
    pub fn end_exchange(&mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let was_used = std::mem::take(&mut connection.has_begun_response);
        if was_used {
            connection.last_used = Instant::now();
        }
        if !connection.is_reusable() || !(was_used || connection.is_young()) {
            self.connection = None;
        }
    }

    /// The exchange has failed; its connection is closed.
    #[cold]
    fn failed(&mut self, error: ExchangeError) -> UpstreamError {
        self.connection = None;
        self.failure(error)
    }

    #[cold]
    fn failure(&self, error: ExchangeError) -> UpstreamError {
        use rustix::io::Errno;
        let is_connecting = matches!(error, ExchangeError::Connecting(_));
        if let ExchangeError::Connecting(ureq::Error::Io(error)) = &error
            && [Errno::MFILE, Errno::NFILE]
                .iter()
                .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
        {
            return UpstreamError::NoDescriptors;
        }
        match self.call.stop_reason() {
            StopReason::ClientClosed => UpstreamError::ClientClosed,
            StopReason::TimedOut if is_connecting => {
                let seconds = CONNECT_TIMEOUT.as_secs();
                UpstreamError::Unreachable(format!("no connection within {seconds} s"))
            }
            StopReason::TimedOut => UpstreamError::TimedOut,
            StopReason::None if is_connecting => UpstreamError::Unreachable(error.to_string()),
            StopReason::None => UpstreamError::Broke(error.to_string()),
        }
    }
}

impl Connection {
    /// Whether it was idle and still is.
    fn is_still_usable(&mut self) -> bool {
        self.is_young() && self.is_reusable() && self.transport.is_open()
    }

    fn is_young(&self) -> bool {
        self.last_used.elapsed() < MAX_IDLE_AGE
    }

    fn send<'f>(
        &mut self,
        request: &mut Request<'_, impl Iterator<Item = &'f [u8]> + Clone>,
        silence: NextTimeout,
    ) -> Result<(), ExchangeError> {
        self.has_begun_response = false;
        // Until its answer has been taken whole, no other request may use it.
        self.persists = false;
        Ok(Output::new(&mut *self.transport, silence).send(request)?)
    }

    /// Whether it can have been closed before the request came to it.
    fn was_idle_and_silent(&self) -> bool {
        self.is_reused && !self.has_begun_response
    }

    /// Whether the last answer was taken whole, with nothing behind it.
    fn is_reusable(&mut self) -> bool {
        let is_between = self.persists && matches!(self.body, BodyDecoder::Ended);
        is_between && self.transport.buffers().input().is_empty()
    }

    /// Reads until the head of the final answer is whole.
    fn read_head(
        &mut self,
        method: &Method,
        silence: NextTimeout,
        spare: &mut HeaderBlock,
    ) -> Result<ResponseHead, ExchangeError> {
        loop {
            let buffers = self.transport.buffers();
            if !buffers.input().is_empty() {
                let parsed = response::parse(buffers.input(), method, spare);
                match parsed.map_err(|what| ExchangeError::NotHttp(what.into()))? {
                    Parsed::NotYet => {}
                    // RFC 9110 section 15.2: as many as it likes.
                    Parsed::Interim(length) => {
                        buffers.input_consume(length);
                        continue;
                    }
                    Parsed::Final(length, answer) => {
                        buffers.input_consume(length);
                        self.body = BodyDecoder::new(answer.framing);
                        self.persists = answer.persists;
                        return Ok(answer);
                    }
                }
            }
            if !self.transport.await_input(silence)? {
                return Err(ExchangeError::ClosedEarly);
            }
            self.has_begun_response = true;
        }
    }

    /// Takes a piece of the body from what has arrived, or from what arrives next.
    fn read_body(
        &mut self,
        buffer: &mut [u8],
        silence: NextTimeout,
    ) -> Result<BodyRead, ExchangeError> {
        loop {
            if matches!(self.body, BodyDecoder::Ended) {
                return Ok(BodyRead::End);
            }
            let buffers = self.transport.buffers();
            let taken = self.body.decode(buffers.input(), buffer);
            let (used, filled) = taken.map_err(ExchangeError::NotHttp)?;
            buffers.input_consume(used);
            if filled > 0 {
                return Ok(BodyRead::Data(filled));
            }
            if used > 0 {
                continue;
            }
            match self.transport.await_input(silence) {
                Ok(true) => {}
                Ok(false) if matches!(self.body, BodyDecoder::UntilClose) => {
                    self.body = BodyDecoder::Ended
                }
                Ok(false) => return Err(ExchangeError::ClosedEarly),
                Err(ureq::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(BodyRead::NotYet);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
