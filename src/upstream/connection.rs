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
use crate::net::clock::since_boot;

/// The longest time for which an idle connection is kept. Most load balancers close theirs after 60 s.
const MAX_IDLE_TIME: Duration = Duration::from_secs(50);
/// The age from which a connection takes no new request, so that a changed address is followed.
const MAX_AGE: Duration = Duration::from_secs(5 * 60);
/// How long a connection must have been idle for its end to be taken for that of its idle time...
const MIN_IDLE_TIME: Duration = Duration::from_secs(1);
/// ... and how soon after the request it must come: the upstream cannot have worked on the request.
const EARLY_END: Duration = Duration::from_millis(250);

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
    /// Both since the machine was started.
    opened: Duration,
    last_used: Duration,
    /// How long connecting took.
    connected_in: Duration,
    /// How long the connection had been idle before the current request, and when that was sent.
    idle_for: Duration,
    sent_at: Instant,
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
    /// connection turned out to be closed. True: that happened, and the request was sent once more.
    ///
    /// # Errors
    /// An [`UpstreamError`]. Errors of a streamed body's reader are known only to the reader.
    pub fn send<'f>(
        &mut self,
        mut request: Request<'_, impl Iterator<Item = &'f [u8]> + Clone>,
        client: Option<&Arc<TcpStream>>,
    ) -> Result<bool, UpstreamError> {
        let mut is_resent = false;
        let is_streamed = matches!(request.body, RequestBody::Streamed { .. });
        let timeout = per_operation(self.upstream.timeout);
        self.begin_call(client);
        let idle = self.open.as_mut().filter(|_| !is_streamed);
        if let Some(connection) = idle
            && connection.is_still_usable()
        {
            connection.is_reused = true;
            match connection.send(&mut request, timeout) {
                Ok(()) => return Ok(false),
                Err(error)
                    if connection.may_send_again(request.method)
                        && self.call.stop_reason() == StopReason::None =>
                {
                    log::debug!("an idle upstream connection was closed: {error}");
                    self.call.begin();
                    is_resent = true;
                }
                Err(error) => return Err(self.close(error)),
            }
        }
        self.open = None;
        let connected = self.connect().map(|open| self.open.insert(open));
        let result = connected.and_then(|connection| connection.send(&mut request, timeout));
        result.map_err(|error| self.close(error))?;
        Ok(is_resent)
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
    /// response came, and the upstream cannot have worked on it, or may do so twice. The caller sends the
    /// request again, and the client notices nothing.
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
                if connection.may_send_again(method)
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
        let started = Instant::now();
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
            opened: since_boot(),
            last_used: since_boot(),
            connected_in: started.elapsed(),
            idle_for: Duration::ZERO,
            sent_at: started,
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
            connection.last_used = since_boot();
        }
        if !connection.is_reusable() || !(was_used || connection.is_recent(since_boot())) {
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
        self.is_recent(since_boot()) && self.is_reusable() && self.transport.is_open()
    }

    /// Whether it is neither old nor was idle for long, `now` since the machine was started.
    fn is_recent(&self, now: Duration) -> bool {
        now.saturating_sub(self.last_used) < MAX_IDLE_TIME
            && now.saturating_sub(self.opened) < MAX_AGE
    }

    fn send<'f>(
        &mut self,
        request: &mut Request<'_, impl Iterator<Item = &'f [u8]> + Clone>,
        timeout: NextTimeout,
    ) -> Result<(), ExchangeError> {
        self.has_begun_response = false;
        self.sent_at = Instant::now();
        self.idle_for = since_boot().saturating_sub(self.last_used);
        // No other request may follow until the response has been read completely.
        self.persists = false;
        Ok(RequestWriter::new(&mut *self.transport, timeout).send(request)?)
    }

    /// Whether a request on a connection that has failed may be sent once more: the connection had been
    /// idle and not a byte of the response came; and, unless the method is idempotent (RFC 9110 section
    /// 9.2.2), the upstream cannot have worked on it already.
    fn may_send_again(&self, method: &Method) -> bool {
        let early_end = EARLY_END.max(2 * self.connected_in);
        let is_unread = || self.idle_for >= MIN_IDLE_TIME && self.sent_at.elapsed() <= early_end;
        self.is_reused && !self.has_begun_response && (method.is_idempotent() || is_unread())
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
