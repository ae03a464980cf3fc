//! Exchanges with the upstream: one request and its response at a time, on a connection that is kept for
//! the next exchange.
//!
//! Connections are ureq transports (see `connector`). The messages are written and read here, in the
//! transports' buffers, because ureq's own calls took two thirds of a request's instructions
//! (measured). Called by the worker that serves the request.

use std::net::TcpStream;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use http::Method;

pub mod open;

use self::open::{BodyRead, OpenConnection, per_operation};
use super::call_state::{CallState, ReadMode, StopReason};
use super::connector::{CONNECT_TIMEOUT, Upstream};
use super::error::{ExchangeError, UpstreamError};
use super::request::{Request, RequestBody};
use crate::http1::headers::HeaderBlock;
use crate::http1::response::{BodyDecoder, ResponseHead};
use crate::net::clock::since_boot;

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
            self.call.begin_request();
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
        self.call.begin_request();
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
        let now = since_boot();
        Ok(OpenConnection {
            transport,
            body: BodyDecoder::Ended,
            persists: true,
            has_begun_response: false,
            is_reused: false,
            opened: now,
            last_used: now,
            connected_in: started.elapsed(),
            idle_for: Duration::ZERO,
            sent_at: now,
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
            StopReason::None if !self.call.has_sent() => {
                let why = "it closed the connection before the request was sent";
                UpstreamError::Unreachable(why.into())
            }
            StopReason::None => UpstreamError::Broke(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
