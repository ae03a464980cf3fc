//! A connection that is open: what is sent and received on it, and whether it may be used again.

use std::io;
use std::time::Duration;

use http::Method;
use ureq::unversioned::transport::{NextTimeout, Transport};

use crate::http1::body::BodyDecoder;
use crate::http1::headers::HeaderBlock;
use crate::http1::response::{self, Parsed, ResponseHead};
use crate::net::clock::since_boot;
use crate::upstream::error::ExchangeError;
use crate::upstream::request::{Request, RequestWriter};

/// The longest time for which an idle connection is kept. Most load balancers close theirs after 60 s.
pub(in crate::upstream) const MAX_IDLE_TIME: Duration = Duration::from_secs(50);
/// The age from which a connection takes no new request, so that a changed address is followed.
pub(in crate::upstream) const MAX_AGE: Duration = Duration::from_secs(5 * 60);
/// How long a connection must have been idle for its end to be taken for that of its idle time...
const MIN_IDLE_TIME: Duration = Duration::from_secs(1);
/// ... and how soon after the request it must come: the upstream cannot have worked on the request.
const EARLY_END: Duration = Duration::from_millis(250);

/// An open connection, in the middle of an exchange or idle.
pub(in crate::upstream) struct OpenConnection {
    pub(in crate::upstream) transport: Box<dyn Transport>,
    /// The part of the last response's body that has not been read.
    pub(in crate::upstream) body: BodyDecoder,
    /// Whether another request may follow after that body.
    pub(in crate::upstream) persists: bool,
    /// Whether a byte of the response to the current request has arrived.
    pub(in crate::upstream) has_begun_response: bool,
    /// Whether the current request is not the first one on the connection.
    pub(in crate::upstream) is_reused: bool,
    // Points in time are counted from the start of the machine.
    pub(in crate::upstream) opened: Duration,
    pub(in crate::upstream) last_used: Duration,
    /// How long connecting took.
    pub(in crate::upstream) connected_in: Duration,
    /// How long the connection had been idle before the current request, and when that was sent.
    pub(in crate::upstream) idle_for: Duration,
    pub(in crate::upstream) sent_at: Duration,
}

/// The result of reading from a response body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyRead {
    /// This number of bytes was read. Not 0.
    Data(usize),
    /// Nothing has arrived. Only [`super::UpstreamConnection::try_read`] returns this.
    NotYet,
    /// The body has been read completely.
    End,
}

/// Returns a timeout that applies to each read and write of the socket by itself.
pub(in crate::upstream) fn per_operation(timeout: Duration) -> NextTimeout {
    NextTimeout {
        per_read: Some(timeout.into()),
        per_write: Some(timeout.into()),
        ..NextTimeout::default()
    }
}

impl OpenConnection {
    /// Whether the connection is idle, open and not too old. The next request is sent now, if it is.
    pub(in crate::upstream) fn is_still_usable(&mut self) -> bool {
        self.sent_at = since_boot();
        self.idle_for = self.sent_at.saturating_sub(self.last_used);
        self.is_recent(self.sent_at) && self.is_reusable() && self.transport.is_open()
    }

    /// Whether it is neither old nor was idle for long, `now` since the machine was started.
    pub(in crate::upstream) fn is_recent(&self, now: Duration) -> bool {
        now.saturating_sub(self.last_used) < MAX_IDLE_TIME
            && now.saturating_sub(self.opened) < MAX_AGE
    }

    pub(in crate::upstream) fn send<'f>(
        &mut self,
        request: &mut Request<'_, impl Iterator<Item = &'f [u8]> + Clone>,
        timeout: NextTimeout,
    ) -> Result<(), ExchangeError> {
        self.has_begun_response = false;
        // No other request may follow until the response has been read completely.
        self.persists = false;
        Ok(RequestWriter::new(&mut *self.transport, timeout).send(request)?)
    }

    /// Whether a request on a connection that has failed may be sent once more: the connection had been
    /// idle and not a byte of the response came; and, unless the method is idempotent (RFC 9110 section
    /// 9.2.2), the upstream cannot have worked on it already.
    pub(in crate::upstream) fn may_send_again(&self, method: &Method) -> bool {
        let early_end = EARLY_END.max(2 * self.connected_in);
        let is_unread = || {
            self.idle_for >= MIN_IDLE_TIME && since_boot().saturating_sub(self.sent_at) <= early_end
        };
        self.is_reused && !self.has_begun_response && (method.is_idempotent() || is_unread())
    }

    /// Whether the last response has been read completely, and no bytes after it have arrived.
    pub(in crate::upstream) fn is_reusable(&mut self) -> bool {
        let is_idle = self.persists && matches!(self.body, BodyDecoder::Ended);
        is_idle && self.transport.buffers().input().is_empty()
    }

    /// Reads until the head of the final response is complete. Drops interim responses.
    pub(in crate::upstream) fn read_head(
        &mut self,
        method: &Method,
        timeout: NextTimeout,
        spare: &mut HeaderBlock,
    ) -> Result<ResponseHead, ExchangeError> {
        loop {
            let buffers = self.transport.buffers();
            if !buffers.input().is_empty() {
                let parsed = response::parse(buffers.input(), method, spare);
                match parsed.map_err(ExchangeError::NotHttp)? {
                    Parsed::NotYet => {}
                    // RFC 9110 section 15.2: any number of interim responses. `CallState` limits it.
                    Parsed::Interim(length) => {
                        buffers.input_consume(length);
                        continue;
                    }
                    Parsed::Final(length, response) => {
                        buffers.input_consume(length);
                        self.body = BodyDecoder::of_response(response.body_length);
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
    pub(in crate::upstream) fn read_body(
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
