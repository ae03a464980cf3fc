//! A connection that is open: what is sent and received on it, and whether it may be used again.

use std::io::{IoSlice, Read};
use std::time::Duration;

use http::Method;
use zeroize::Zeroize;

use crate::http1::body::BodyDecoder;
use crate::http1::headers::HeaderBlock;
use crate::http1::response::{self, Parsed, ResponseHead};
use crate::net::buffer::ReadBuffer;
use crate::net::clock::since_boot;
use crate::net::wait::{CallContext, WaitError};
use crate::upstream::error::UpstreamError;
use crate::upstream::request::{Request, RequestBody};
use crate::upstream::stream::{Stream, Wait};

/// The longest time for which an idle connection is kept. Most load balancers close theirs after 60 s.
pub(in crate::upstream) const MAX_IDLE_TIME: Duration = Duration::from_secs(50);
/// The age from which a connection takes no new request, so that a changed address is followed.
pub(in crate::upstream) const MAX_AGE: Duration = Duration::from_secs(5 * 60);
/// How long a connection must have been idle for its end to be taken for that of its idle time...
const MIN_IDLE_TIME: Duration = Duration::from_secs(1);
/// ... and how soon after the request it must come: the upstream cannot have worked on the request.
const EARLY_END: Duration = Duration::from_millis(250);
/// On a slow way the end arrives later: twice the time that connecting took, of which this much counts.
const MAX_CONNECTED_IN: Duration = Duration::from_secs(1);
/// The longest head of a response, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// How long an upstream may take nothing of a request before it is looked whether it has responded already.
const STALL_BEFORE_LOOK: Duration = Duration::from_millis(250);
/// The largest piece of a streamed body, in bytes.
const STREAMED_PIECE: usize = 64 * 1024;

/// An open connection, in the middle of an exchange or idle.
pub(in crate::upstream) struct OpenConnection {
    pub(in crate::upstream) stream: Stream,
    /// Received, and not yet decoded.
    input: ReadBuffer,
    /// Memory for the heads of requests, empty and wiped.
    head: Vec<u8>,
    /// The part of the last response's body that has not been read.
    pub(in crate::upstream) body: BodyDecoder,
    /// Whether another request may follow after that body.
    pub(in crate::upstream) persists: bool,
    /// Whether receiving has failed. What comes then is no orderly end.
    has_failed: bool,
    /// Whether a part of the current request was sent, so that the upstream may work on it.
    pub(in crate::upstream) has_sent: bool,
    /// Whether a byte of the response to the current request has arrived.
    pub(in crate::upstream) has_begun_response: bool,
    /// Whether the current request is not the first one on the connection.
    pub(in crate::upstream) is_reused: bool,
    // Points in time are counted from the start of the machine.
    pub(in crate::upstream) opened: Duration,
    pub(in crate::upstream) last_used: Duration,
    /// How long the connection had been idle before the current request, and when that was sent.
    idle_for: Duration,
    sent_at: Duration,
}

/// The result of reading from a response body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyRead {
    /// This number of bytes was read. Not 0.
    Data(usize),
    /// Nothing has arrived. Only reads that do not wait, or not for long, return this.
    NotYet,
    /// The body has been read completely.
    End,
}

impl OpenConnection {
    pub(in crate::upstream) fn new(stream: Stream) -> OpenConnection {
        let now = since_boot();
        OpenConnection {
            stream,
            input: ReadBuffer::default(),
            head: Vec::new(),
            body: BodyDecoder::Ended,
            persists: true,
            has_failed: false,
            has_sent: false,
            has_begun_response: false,
            is_reused: false,
            opened: now,
            last_used: now,
            idle_for: Duration::ZERO,
            sent_at: now,
        }
    }

    /// Whether the connection is idle, open and not too old. The next request is sent now, if it is.
    pub(in crate::upstream) fn is_still_usable(&mut self) -> bool {
        self.sent_at = since_boot();
        self.idle_for = self.sent_at.saturating_sub(self.last_used);
        self.stream.tcp().begin_exchange();
        self.is_recent(self.sent_at) && self.is_reusable() && self.stream.is_idle_and_open()
    }

    /// Whether it is neither old nor was idle for long, `now` since the machine was started.
    pub(in crate::upstream) fn is_recent(&self, now: Duration) -> bool {
        now.saturating_sub(self.last_used) < MAX_IDLE_TIME
            && now.saturating_sub(self.opened) < MAX_AGE
    }

    /// Sends `request`. `timeout` is the longest time in which the upstream takes nothing of it.
    ///
    /// # Errors
    /// The upstream stalls, the client disconnects, or a streamed body's reader fails.
    pub(in crate::upstream) fn send<'f>(
        &mut self,
        request: &mut Request<'_, impl Iterator<Item = &'f [u8]> + Clone>,
        timeout: Duration,
        call: CallContext<'_>,
    ) -> Result<(), UpstreamError> {
        self.has_sent = false;
        self.has_begun_response = false;
        // No other request may follow until the response has been read completely.
        self.persists = false;
        self.stream.tcp().begin_exchange();
        let mut head = std::mem::take(&mut self.head);
        request.encode_head(&mut head);
        let sent = match &mut request.body {
            RequestBody::None => self.write_all(&mut [IoSlice::new(&head)], timeout, call),
            RequestBody::Buffered(body) => {
                let mut pieces = [IoSlice::new(&head), IoSlice::new(body)];
                self.write_all(&mut pieces, timeout, call)
            }
            RequestBody::Streamed { reader, length } => {
                let is_chunked = length.is_none();
                self.stream_body(&head, *reader, is_chunked, timeout, call)
            }
        };
        // The memory may outlive the credential whose token it holds.
        head.as_mut_slice().zeroize();
        head.clear();
        self.head = head;
        sent
    }

    /// Sends `head` and the body from `reader`, each piece as soon as it is read.
    fn stream_body(
        &mut self,
        head: &[u8],
        reader: &mut dyn Read,
        is_chunked: bool,
        timeout: Duration,
        call: CallContext<'_>,
    ) -> Result<(), UpstreamError> {
        let mut buffer = vec![0; STREAMED_PIECE];
        // The first piece goes out with the head.
        let mut head = IoSlice::new(head);
        loop {
            let length = reader
                .read(&mut buffer)
                .map_err(|error| UpstreamError::Broke(error.to_string()))?;
            let data = IoSlice::new(&buffer[..length]);
            // RFC 9112 section 7.1: a chunk's size and data, each with a CRLF; the last one is empty.
            let size = format!("{length:x}\r\n");
            let mut chunk = [
                head,
                IoSlice::new(size.as_bytes()),
                data,
                IoSlice::new(b"\r\n"),
            ];
            if is_chunked {
                self.write_all(&mut chunk, timeout, call)?;
            } else {
                self.write_all(&mut [head, data], timeout, call)?;
            }
            if length == 0 || self.stream.tcp().drops_output() {
                return Ok(());
            }
            head = IoSlice::new(b"");
        }
    }

    /// Writes all of `pieces`. A response that comes while the upstream takes nothing ends the request:
    /// what is left of it is dropped.
    fn write_all(
        &mut self,
        mut pieces: &mut [IoSlice<'_>],
        timeout: Duration,
        call: CallContext<'_>,
    ) -> Result<(), UpstreamError> {
        let mut stalled = Duration::ZERO;
        loop {
            let step = STALL_BEFORE_LOOK.min(timeout - stalled);
            let taken = self.stream.tcp().taken();
            match self.stream.write(pieces, Wait::For(step), call)? {
                Some(_) if pieces.is_empty() => return Ok(()),
                Some(length) => {
                    IoSlice::advance_slices(&mut pieces, length);
                    self.has_sent |= !self.stream.tcp().drops_output();
                    stalled = Duration::ZERO;
                }
                None if self.has_responded(call)? => {
                    self.stream.tcp().drop_output();
                    return Ok(());
                }
                // TLS has more to send than the upstream took in this time.
                None if self.stream.tcp().taken() != taken => stalled = Duration::ZERO,
                None => {
                    stalled += step;
                    if stalled >= timeout {
                        return Err(UpstreamError::TimedOut);
                    }
                }
            }
        }
    }

    /// Whether the head of the final response has arrived, or the stream has ended or is malformed.
    fn has_responded(&mut self, call: CallContext<'_>) -> Result<bool, UpstreamError> {
        loop {
            match response::parse(
                self.input.bytes(),
                &Method::GET,
                &mut HeaderBlock::default(),
            ) {
                Ok(Parsed::NotYet) => {}
                Ok(Parsed::Interim(length)) => {
                    self.input.consume(length);
                    continue;
                }
                Ok(Parsed::Final(..)) | Err(_) => return Ok(true),
            }
            match self.receive(Wait::For(Duration::ZERO), call) {
                Ok(Some(0)) | Err(UpstreamError::Broke(_)) => return Ok(true),
                Ok(Some(_)) => {}
                Ok(None) | Err(UpstreamError::TimedOut) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Receives more input. `Some(0)`: the stream has ended; `None`: nothing has arrived.
    fn receive(
        &mut self,
        wait: Wait,
        call: CallContext<'_>,
    ) -> Result<Option<usize>, UpstreamError> {
        if self.input.bytes().len() >= MAX_HEAD {
            let message = "the head of the response is over 64 KiB";
            return Err(UpstreamError::Broke(message.into()));
        }
        let received = self.stream.read(self.input.space(), wait, call);
        self.has_failed |= matches!(received, Err(WaitError::Io(_)));
        let received = received?;
        self.input.filled(received.unwrap_or_default());
        self.has_begun_response |= received.is_some_and(|length| length > 0);
        Ok(received)
    }

    /// Whether a request that ended in `error` may be sent once more: the connection had failed, had been
    /// idle and not a byte of the response came; and, unless the method is idempotent (RFC 9110 section
    /// 9.2.2), the upstream cannot have worked on it already.
    pub(in crate::upstream) fn may_send_again(
        &mut self,
        method: &Method,
        error: &UpstreamError,
    ) -> bool {
        let has_failed = matches!(error, UpstreamError::Broke(_));
        let connected_in = self.stream.tcp().connected_in().min(MAX_CONNECTED_IN);
        let early_end = EARLY_END.max(2 * connected_in);
        let is_unread = || {
            self.idle_for >= MIN_IDLE_TIME && since_boot().saturating_sub(self.sent_at) <= early_end
        };
        let is_unheard = self.is_reused && !self.has_begun_response;
        has_failed && is_unheard && (method.is_idempotent() || is_unread())
    }

    /// Whether the last response has been read completely, and no bytes after it have arrived.
    pub(in crate::upstream) fn is_reusable(&self) -> bool {
        let is_idle = self.persists && matches!(self.body, BodyDecoder::Ended);
        is_idle && self.input.bytes().is_empty()
    }

    /// Reads until the head of the final response is complete. Drops interim responses.
    ///
    /// # Errors
    /// There is no valid head, the upstream is silent for `timeout`, or the client disconnects.
    pub(in crate::upstream) fn read_head(
        &mut self,
        method: &Method,
        timeout: Duration,
        spare: &mut HeaderBlock,
        call: CallContext<'_>,
    ) -> Result<ResponseHead, UpstreamError> {
        loop {
            if !self.input.bytes().is_empty() {
                let parsed = response::parse(self.input.bytes(), method, spare);
                match parsed.map_err(UpstreamError::not_http)? {
                    Parsed::NotYet => {}
                    // RFC 9110 section 15.2: any number of interim responses. `Tcp` limits it.
                    Parsed::Interim(length) => {
                        self.input.consume(length);
                        continue;
                    }
                    Parsed::Final(length, response) => {
                        self.input.consume(length);
                        self.body = BodyDecoder::of_response(response.body_length);
                        let is_request_sent = !self.stream.tcp().drops_output();
                        self.persists = response.persists && is_request_sent;
                        self.stream.tcp().end_head();
                        return Ok(response);
                    }
                }
            }
            if self.receive(Wait::For(timeout), call)? == Some(0) {
                return Err(UpstreamError::closed_early());
            }
        }
    }

    /// Decodes a piece of the body into `buffer`, and receives more input if necessary.
    ///
    /// # Errors
    /// The body is not valid or breaks off, the time passes, or the client disconnects.
    pub(in crate::upstream) fn read_body(
        &mut self,
        buffer: &mut [u8],
        wait: Wait,
        call: CallContext<'_>,
    ) -> Result<BodyRead, UpstreamError> {
        loop {
            if matches!(self.body, BodyDecoder::Ended) {
                return Ok(BodyRead::End);
            }
            let decoded = self.body.decode(self.input.bytes(), buffer);
            let (used, filled) = decoded.map_err(UpstreamError::not_http)?;
            self.input.consume(used);
            if filled > 0 {
                return Ok(BodyRead::Data(filled));
            }
            if used > 0 {
                continue;
            }
            match self.receive(wait, call)? {
                None => return Ok(BodyRead::NotYet),
                Some(0) if matches!(self.body, BodyDecoder::UntilClose) && !self.has_failed => {
                    self.body = BodyDecoder::Ended;
                }
                Some(0) => return Err(UpstreamError::closed_early()),
                Some(_) => {}
            }
        }
    }
}
