//! Exchanges with the upstream: one request and its response at a time, on a connection that is kept for
//! the next exchange.
//!
//! Connections are ureq transports (see `connector`). The messages are written and read here, in the
//! transports' buffers, because ureq's own calls took two thirds of a request's instructions
//! (measured). Called by the worker that serves the request.

use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use http::Method;
use ureq::unversioned::transport::{NextTimeout, Transport};

use super::call_state::{CallState, ReadMode, StopReason};
use super::connector::{CONNECT_TIMEOUT, Upstream};
use super::error::{ExchangeError, UpstreamError};
use super::request::{Request, RequestBody, RequestWriter};
use crate::http1::headers::HeaderBlock;
use crate::http1::response::{self, BodyDecoder, Parsed, ResponseHead};

/// The longest time for which an idle connection is kept. Most load balancers close theirs after 60 s.
const MAX_IDLE_TIME: Duration = Duration::from_secs(50);

/// The upstream connection of a request context, open or closed. One exchange at a time.
pub struct UpstreamConnection {
    upstream: Arc<Upstream>,
    call: Arc<CallState>,
    /// The client of `call`, readable without its lock.
    client: Weak<TcpStream>,
    /// The socket of the newest connection.
    socket: Weak<TcpStream>,
    open: Option<OpenConnection>,
    /// Memory for the header lines of the next response.
    spare_fields: HeaderBlock,
}

/// An open connection, in the middle of an exchange or idle.
struct OpenConnection {
    transport: Box<dyn Transport>,
    /// The part of the last response's body that has not been read.
    body: BodyDecoder,
    /// Whether another request may follow after that body.
    persists: bool,
    /// Whether a byte of the response to the current request has arrived.
    has_begun_response: bool,
    /// Whether the current request is not the first one on the connection.
    is_reused: bool,
    last_used: Instant,
}

/// The result of reading from a response body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyRead {
    /// This number of bytes was read. Not 0.
    Data(usize),
    /// Nothing has arrived. Only [`UpstreamConnection::try_read`] returns this.
    NotYet,
    /// The body has been read completely.
    End,
}

/// Returns a timeout that applies to each read and write of the socket by itself.
fn per_operation(timeout: Duration) -> NextTimeout {
    NextTimeout {
        per_read: Some(timeout.into()),
        per_write: Some(timeout.into()),
        ..NextTimeout::default()
    }
}

impl UpstreamConnection {
    /// Returns a closed connection. [`UpstreamConnection::send`] opens it.
    pub fn new(upstream: &Arc<Upstream>) -> UpstreamConnection {
        UpstreamConnection {
            upstream: Arc::clone(upstream),
            call: Arc::new(CallState::default()),
            client: Weak::new(),
            socket: Weak::new(),
            open: None,
            spare_fields: HeaderBlock::default(),
        }
    }

    /// Sends a request. Stops if `client` disconnects. [`UpstreamConnection::receive`] comes next.
    ///
    /// An idle connection is reused, but not for a streamed body, which could not be sent again if the
    /// connection turned out to be closed.
    ///
    /// # Errors
    /// An [`UpstreamError`]. Errors of a streamed body's reader are known only to the reader.
    pub fn send<'f>(
        &mut self,
        mut request: Request<'_, impl Iterator<Item = &'f [u8]> + Clone>,
        client: Option<&Arc<TcpStream>>,
    ) -> Result<(), UpstreamError> {
        let is_streamed = matches!(request.body, RequestBody::Streamed { .. });
        let timeout = per_operation(self.upstream.timeout);
        self.begin_call(client);
        let idle = self.open.as_mut().filter(|_| !is_streamed);
        if let Some(connection) = idle
            && connection.is_still_usable()
        {
            connection.is_reused = true;
            match connection.send(&mut request, timeout) {
                Ok(()) => return Ok(()),
                Err(error) if self.call.stop_reason() == StopReason::None => {
                    log::debug!("an idle upstream connection was closed: {error}");
                    self.call.begin();
                }
                Err(error) => return Err(self.close(error)),
            }
        }
        self.open = None;
        let connected = self.connect().map(|open| self.open.insert(open));
        let result = connected.and_then(|connection| connection.send(&mut request, timeout));
        result.map_err(|error| self.close(error))
    }

    /// Begins a call for `client`.
    fn begin_call(&mut self, client: Option<&Arc<TcpStream>>) {
        // Usually the client of the last call: a request context stays with its connection.
        if self.client.as_ptr() != client.map_or(Weak::new().as_ptr(), Arc::as_ptr) {
            self.client = client.map_or_else(Weak::new, Arc::downgrade);
            self.call.set_client(Weak::clone(&self.client));
        }
        self.call.begin();
    }

    /// Waits for the head of the response to the request that was sent with `method`.
    ///
    /// Returns `None` if the request went out on an idle connection that was closed before a byte of the
    /// response came. The caller sends the request again, and the client notices nothing.
    ///
    /// # Errors
    /// An [`UpstreamError`].
    pub fn receive(&mut self, method: &Method) -> Result<Option<ResponseHead>, UpstreamError> {
        let timeout = per_operation(self.upstream.timeout);
        let Some(connection) = &mut self.open else {
            return Err(UpstreamError::Broke("nothing was sent".into()));
        };
        match connection.read_head(method, timeout, &mut self.spare_fields) {
            Ok(response) => {
                self.call.set_head_received();
                Ok(Some(response))
            }
            Err(error)
                if connection.was_idle_and_silent()
                    && self.call.stop_reason() == StopReason::None =>
            {
                log::debug!("an idle upstream connection was closed: {error}");
                self.open = None;
                Ok(None)
            }
            Err(error) => Err(self.close(error)),
        }
    }

    /// Returns the socket of the newest connection, on which the response arrives.
    pub fn socket(&self) -> &Weak<TcpStream> {
        &self.socket
    }

    fn connect(&mut self) -> Result<OpenConnection, ExchangeError> {
        let transport = self
            .upstream
            .connect(&self.call)
            .map_err(ExchangeError::Connecting)?;
        self.socket = self.call.upstream();
        Ok(OpenConnection {
            transport,
            body: BodyDecoder::Ended,
            persists: true,
            has_begun_response: false,
            is_reused: false,
            last_used: Instant::now(),
        })
    }

    /// Reads a piece of the response body into `buffer`. Waits for it unless the client disconnects.
    ///
    /// # Errors
    /// An [`UpstreamError`]. The body has not been read completely.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<BodyRead, UpstreamError> {
        self.call.set_read_mode(ReadMode::Blocking);
        self.read_decoded(buffer)
    }

    /// Reads a piece of the response body that has arrived already, without waiting.
    ///
    /// # Errors
    /// As [`UpstreamConnection::read`].
    pub fn try_read(&mut self, buffer: &mut [u8]) -> Result<BodyRead, UpstreamError> {
        self.call.set_read_mode(ReadMode::NonBlocking);
        self.read_decoded(buffer)
    }

    /// As [`UpstreamConnection::read`], but waits for `limit` at most: [`BodyRead::NotYet`] then.
    ///
    /// # Errors
    /// As [`UpstreamConnection::read`].
    pub fn read_within(
        &mut self,
        buffer: &mut [u8],
        limit: Duration,
    ) -> Result<BodyRead, UpstreamError> {
        self.call.set_read_mode(ReadMode::Blocking);
        let Some(connection) = &mut self.open else {
            return Ok(BodyRead::End);
        };
        let result = connection.read_body(buffer, per_operation(limit));
        if result.is_err() && self.call.stop_reason() == StopReason::TimedOut {
            self.call.clear_stop_reason();
            return Ok(BodyRead::NotYet);
        }
        result.map_err(|error| self.upstream_error(error))
    }

    fn read_decoded(&mut self, buffer: &mut [u8]) -> Result<BodyRead, UpstreamError> {
        let Some(connection) = &mut self.open else {
            return Ok(BodyRead::End);
        };
        let result = connection.read_body(buffer, per_operation(self.upstream.timeout));
        result.map_err(|error| self.upstream_error(error))
    }

    /// Keeps the memory of `fields` for the header lines of the next response.
    pub fn reuse_fields(&mut self, fields: HeaderBlock) {
        self.spare_fields = fields.reusable();
    }

    /// Ends the exchange, and closes a connection that cannot be used again. Also called after requests
    /// that needed no upstream: they do not make an idle connection younger.
    pub fn end_exchange(&mut self) {
        let Some(connection) = &mut self.open else {
            return;
        };
        let was_used = std::mem::take(&mut connection.has_begun_response);
        if was_used {
            connection.last_used = Instant::now();
        }
        if !connection.is_reusable() || !(was_used || connection.is_recent()) {
            self.open = None;
        }
    }

    /// Closes the connection because of `error`.
    #[cold]
    fn close(&mut self, error: ExchangeError) -> UpstreamError {
        self.open = None;
        self.upstream_error(error)
    }

    /// Classifies `error`, together with the reason why the call stopped.
    #[cold]
    fn upstream_error(&self, error: ExchangeError) -> UpstreamError {
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

impl OpenConnection {
    /// Whether the connection is idle, open and not too old.
    fn is_still_usable(&mut self) -> bool {
        self.is_recent() && self.is_reusable() && self.transport.is_open()
    }

    fn is_recent(&self) -> bool {
        self.last_used.elapsed() < MAX_IDLE_TIME
    }

    fn send<'f>(
        &mut self,
        request: &mut Request<'_, impl Iterator<Item = &'f [u8]> + Clone>,
        timeout: NextTimeout,
    ) -> Result<(), ExchangeError> {
        self.has_begun_response = false;
        // No other request may follow until the response has been read completely.
        self.persists = false;
        Ok(RequestWriter::new(&mut *self.transport, timeout).send(request)?)
    }

    /// Whether the upstream may have closed the idle connection before the request arrived.
    fn was_idle_and_silent(&self) -> bool {
        self.is_reused && !self.has_begun_response
    }

    /// Whether the last response has been read completely, and no bytes after it have arrived.
    fn is_reusable(&mut self) -> bool {
        let is_idle = self.persists && matches!(self.body, BodyDecoder::Ended);
        is_idle && self.transport.buffers().input().is_empty()
    }

    /// Reads until the head of the final response is complete. Drops interim responses.
    fn read_head(
        &mut self,
        method: &Method,
        timeout: NextTimeout,
        spare: &mut HeaderBlock,
    ) -> Result<ResponseHead, ExchangeError> {
        loop {
            let buffers = self.transport.buffers();
            if !buffers.input().is_empty() {
                let parsed = response::parse(buffers.input(), method, spare);
                match parsed.map_err(|reason| ExchangeError::NotHttp(reason.into()))? {
                    Parsed::NotYet => {}
                    // RFC 9110 section 15.2: any number of interim responses. `CallState` limits it.
                    Parsed::Interim(length) => {
                        buffers.input_consume(length);
                        continue;
                    }
                    Parsed::Final(length, response) => {
                        buffers.input_consume(length);
                        self.body = BodyDecoder::new(response.framing);
                        self.persists = response.persists;
                        return Ok(response);
                    }
                }
            }
            if !self.transport.await_input(timeout)? {
                return Err(ExchangeError::ClosedEarly);
            }
            self.has_begun_response = true;
        }
    }

    /// Decodes a piece of the body into `buffer`, and receives more input if necessary.
    fn read_body(
        &mut self,
        buffer: &mut [u8],
        timeout: NextTimeout,
    ) -> Result<BodyRead, ExchangeError> {
        loop {
            if matches!(self.body, BodyDecoder::Ended) {
                return Ok(BodyRead::End);
            }
            let buffers = self.transport.buffers();
            let decoded = self.body.decode(buffers.input(), buffer);
            let (used, filled) = decoded.map_err(ExchangeError::NotHttp)?;
            buffers.input_consume(used);
            if filled > 0 {
                return Ok(BodyRead::Data(filled));
            }
            if used > 0 {
                continue;
            }
            match self.transport.await_input(timeout) {
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
