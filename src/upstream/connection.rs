//! Exchanges with the upstream: one request and its response at a time, on a connection that is kept for
//! the next exchange. Called by the worker that serves the request.

use std::net::TcpStream;
use std::sync::{Arc, Weak};
use std::time::Instant;

use http::Method;

pub mod open;

use self::open::{BodyRead, OpenConnection};
use super::connector::Upstream;
use super::error::UpstreamError;
use super::request::{Request, RequestBody};
use super::stream::Wait;
use crate::http1::headers::HeaderBlock;
use crate::http1::response::ResponseHead;
use crate::net::clock::since_boot;
use crate::net::wait::CallContext;

/// The upstream connection of a request context, open or closed. One exchange at a time.
pub struct UpstreamConnection {
    upstream: Arc<Upstream>,
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
            socket: Weak::new(),
            open: None,
            spare_fields: HeaderBlock::default(),
        }
    }

    /// Sends a request. [`UpstreamConnection::receive`] comes next.
    ///
    /// An idle connection is reused, but not for a streamed body, which could not be sent again if the
    /// connection turned out to be closed. True: that happened, and the request was sent once more.
    ///
    /// # Errors
    /// An [`UpstreamError`]. Errors of a streamed body's reader are known only to the reader.
    pub fn send<'f>(
        &mut self,
        mut request: Request<'_, impl Iterator<Item = &'f [u8]> + Clone>,
        call: CallContext<'_>,
    ) -> Result<bool, UpstreamError> {
        let mut is_resent = false;
        let is_streamed = matches!(request.body, RequestBody::Streamed { .. });
        let timeout = self.upstream.timeout;
        let idle = self.open.as_mut().filter(|_| !is_streamed);
        if let Some(connection) = idle
            && connection.is_still_usable()
        {
            connection.is_reused = true;
            match connection.send(&mut request, timeout, call) {
                Ok(()) => return Ok(false),
                Err(error) if connection.may_send_again(request.method, &error) => {
                    log::debug!("an idle upstream connection was closed: {error:?}");
                    is_resent = true;
                }
                Err(error) => return Err(self.close(error)),
            }
        }
        self.open = None;
        self.connect(call)?
            .send(&mut request, timeout, call)
            .map_err(|error| self.close(error))?;
        Ok(is_resent)
    }

    /// Not inlined: its stack frames are large, and a page of a worker's stack that has once been touched
    /// stays in memory.
    #[inline(never)]
    fn connect(&mut self, call: CallContext<'_>) -> Result<&mut OpenConnection, UpstreamError> {
        let mut stream = self.upstream.connect(call)?;
        self.socket = Arc::downgrade(stream.tcp().socket());
        Ok(self.open.insert(OpenConnection::new(stream)))
    }

    /// Waits for the head of the response to the request that was sent with `method`.
    ///
    /// Returns `None` if the request went out on an idle connection that was closed before a byte of the
    /// response came, and the upstream cannot have worked on it, or may do so twice. The caller sends the
    /// request again, and the client notices nothing.
    ///
    /// # Errors
    /// An [`UpstreamError`].
    pub fn receive(
        &mut self,
        method: &Method,
        call: CallContext<'_>,
    ) -> Result<Option<ResponseHead>, UpstreamError> {
        let timeout = self.upstream.timeout;
        let Some(connection) = &mut self.open else {
            return Err(UpstreamError::Broke("nothing was sent".into()));
        };
        match connection.read_head(method, timeout, &mut self.spare_fields, call) {
            Ok(response) => Ok(Some(response)),
            Err(error) if connection.may_send_again(method, &error) => {
                log::debug!("an idle upstream connection was closed: {error:?}");
                self.open = None;
                Ok(None)
            }
            Err(error) => Err(self.close(error)),
        }
    }

    /// Whether the response has come before the whole request was sent, and the rest of it was dropped.
    pub fn has_dropped_output(&mut self) -> bool {
        let open = self.open.as_mut();
        open.is_some_and(|open| open.stream.tcp().drops_output())
    }

    /// Returns the socket of the newest connection, on which the response arrives.
    pub fn socket(&self) -> &Weak<TcpStream> {
        &self.socket
    }

    /// Reads a piece of the response body into `buffer`. Waits for it unless the client disconnects.
    ///
    /// # Errors
    /// An [`UpstreamError`]. The body has not been read completely.
    pub fn read(
        &mut self,
        buffer: &mut [u8],
        call: CallContext<'_>,
    ) -> Result<BodyRead, UpstreamError> {
        self.read_body(buffer, Wait::For(self.upstream.timeout), call)
    }

    /// Reads a piece of the response body that has arrived already, without waiting.
    ///
    /// # Errors
    /// As [`UpstreamConnection::read`].
    pub fn try_read(
        &mut self,
        buffer: &mut [u8],
        call: CallContext<'_>,
    ) -> Result<BodyRead, UpstreamError> {
        self.read_body(buffer, Wait::Never, call)
    }

    /// As [`UpstreamConnection::read`], but waits until `deadline` at most: [`BodyRead::NotYet`] then.
    ///
    /// # Errors
    /// As [`UpstreamConnection::read`].
    pub fn read_until(
        &mut self,
        buffer: &mut [u8],
        deadline: Instant,
        call: CallContext<'_>,
    ) -> Result<BodyRead, UpstreamError> {
        match self.read_body(buffer, Wait::Until(deadline), call) {
            Err(UpstreamError::TimedOut) => Ok(BodyRead::NotYet),
            read => read,
        }
    }

    fn read_body(
        &mut self,
        buffer: &mut [u8],
        wait: Wait,
        call: CallContext<'_>,
    ) -> Result<BodyRead, UpstreamError> {
        match &mut self.open {
            Some(connection) => connection.read_body(buffer, wait, call),
            None => Ok(BodyRead::End),
        }
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

    /// Closes the connection because of `error`, which says more once it is known what was sent.
    #[cold]
    fn close(&mut self, error: UpstreamError) -> UpstreamError {
        let has_sent = self.open.take().is_some_and(|open| open.has_sent);
        match error {
            UpstreamError::Broke(_) if !has_sent => UpstreamError::Unreachable(
                "it closed the connection before the request was sent".into(),
            ),
            error => error,
        }
    }
}

#[cfg(test)]
mod tests;
