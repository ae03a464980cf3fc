//! A request whose head has been read, and the reading of its body.
//!
//! Holds the limits on bodies: size, stalls and average speed. Called by the worker thread that serves
//! the connection.

use std::time::{Duration, Instant};

use super::client::{Client, ClientError};
use crate::http1::body::{BodyDecoder, BodyLength};
use crate::http1::error::HttpError;
use crate::http1::headers::HeaderBlock;
use crate::http1::request::{Persistence, RequestHead};
use crate::net::wait::{CallContext, WaitError};
use crate::server::limits::{BODY_GRACE, Limits, MIN_BODY_RATE};

/// Reads of one body that a thread makes while it leads an event loop, of 16 KiB each at most. A body
/// of more is long work, even where small chunks leave little data in it.
const MAX_READS_AS_LEADER: u32 = 4;

/// A request in progress: its head, and how far its body has been read. It stays with the connection
/// while the request waits for the upstream.
pub(crate) struct PendingRequest {
    pub(crate) head: RequestHead,
    pub(crate) body: RequestBody,
    pub(crate) persistence: Persistence,
}

/// A request body, as far as it has been read.
pub(crate) struct RequestBody {
    decoder: BodyDecoder,
    /// The client waits for a 100 (Continue) before it sends the body.
    owes_continue: bool,
    /// Decoded bytes so far.
    bytes: u64,
    /// Reads so far.
    reads: u32,
    /// Time spent waiting for the client. The time that the upstream takes does not count.
    waited: Duration,
}

impl PendingRequest {
    pub(crate) fn new(head: RequestHead) -> PendingRequest {
        let decoder = BodyDecoder::of_request(head.body_length);
        let owes_continue = head.expects_continue && !matches!(decoder, BodyDecoder::Ended);
        PendingRequest {
            body: RequestBody {
                decoder,
                owes_continue,
                bytes: 0,
                reads: 0,
                waited: Duration::ZERO,
            },
            persistence: head.persistence,
            head,
        }
    }

    /// Returns the headers of a finished request, so that their memory can be used again.
    pub(crate) fn into_headers(self) -> HeaderBlock {
        self.head.fields
    }
}

impl RequestBody {
    /// Decoded bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.decoder, BodyDecoder::Ended)
    }

    /// Whether a 100 (Continue) has to be sent now. True only once.
    pub(crate) fn take_owed_continue(&mut self) -> bool {
        std::mem::take(&mut self.owes_continue)
    }

    /// Reads a piece of the body into `buffer`, which is not empty; 0 is the end of the body.
    ///
    /// # Errors
    /// [`ClientError::Rejected`] if the body stalls, is too slow, too large or malformed,
    /// [`ClientError::Closed`] if the client closes the connection.
    pub(crate) fn read(
        &mut self,
        client: &mut Client,
        limits: &Limits,
        buffer: &mut [u8],
        call: CallContext<'_>,
    ) -> Result<usize, ClientError> {
        let length = self.read_piece(client, limits, buffer, call)?;
        self.bytes += length as u64;
        match limits.max_body {
            Some(limit) if self.bytes > limit => Err(too_large(limit)),
            _ => Ok(length),
        }
    }

    /// Skips a body that has arrived as a whole, so that an unread body need not end the connection.
    pub(crate) fn skip_buffered(&mut self, client: &mut Client) {
        let buffered = client.input.bytes().len();
        if let BodyDecoder::Remaining(remaining) = self.decoder
            && usize::try_from(remaining).is_ok_and(|remaining| remaining <= buffered)
        {
            client.input.consume(remaining as usize);
            self.decoder = BodyDecoder::Ended;
        }
    }

    /// Decodes what has arrived until `buffer` is full. Waits only while it has no data at all.
    fn read_piece(
        &mut self,
        client: &mut Client,
        limits: &Limits,
        buffer: &mut [u8],
        call: CallContext<'_>,
    ) -> Result<usize, ClientError> {
        loop {
            let decoded = self.decoder.decode(client.input.bytes(), buffer);
            let malformed = |reason| ClientError::Rejected(HttpError::bad_request(reason));
            let (used, filled) = decoded.map_err(malformed)?;
            client.input.consume(used);
            if filled > 0 || self.is_done() {
                return Ok(filled);
            }
            let direct = self.decoder.unframed(buffer.len());
            if direct > 0 {
                let length = self.receive(client, limits, Some(&mut buffer[..direct]), call)?;
                self.decoder.advance(length);
                return Ok(length);
            }
            self.receive(client, limits, None, call)?;
        }
    }

    /// Receives bytes of the body, into `direct` or else into the connection's buffer. Waits if none
    /// have arrived.
    fn receive(
        &mut self,
        client: &mut Client,
        limits: &Limits,
        direct: Option<&mut [u8]>,
        call: CallContext<'_>,
    ) -> Result<usize, ClientError> {
        self.reads = self.reads.saturating_add(1);
        if self.reads > MAX_READS_AS_LEADER {
            call.before_blocking();
        }
        let timeout = limits.client_timeout;
        let started = Instant::now();
        let result = client.read_body(direct, timeout, call);
        self.waited += started.elapsed();
        match result {
            Ok(0) => Err(ClientError::Closed),
            Ok(length) if self.is_too_slow(length) => Err(too_slow(
                "the request body comes slower than 500 bytes a second".into(),
            )),
            Ok(length) => Ok(length),
            Err(WaitError::TimedOut) => Err(too_slow(format!(
                "no byte of the request body came for {} s",
                timeout.as_secs_f32()
            ))),
            Err(WaitError::ClientClosed | WaitError::Io(_)) => Err(ClientError::Closed),
        }
    }

    /// Whether the body, including the `length` bytes just received, is below [`MIN_BODY_RATE`].
    fn is_too_slow(&self, length: usize) -> bool {
        let expected = self.waited.as_secs().saturating_mul(MIN_BODY_RATE);
        self.waited > BODY_GRACE && self.bytes + (length as u64) < expected
    }
}

/// Checks the declared length of a body against [`Limits::max_body`].
///
/// # Errors
/// [`ClientError::Rejected`] if it is too large.
pub(crate) fn check_declared_length(
    length: BodyLength,
    limits: &Limits,
) -> Result<(), ClientError> {
    match (length, limits.max_body) {
        (BodyLength::Known(length), Some(limit)) if length > limit => Err(too_large(limit)),
        _ => Ok(()),
    }
}

fn too_large(limit: u64) -> ClientError {
    ClientError::Rejected(HttpError::body_too_large(format!(
        "the request body is over {limit} bytes; start the proxy with a larger --max-body"
    )))
}

fn too_slow(message: String) -> ClientError {
    ClientError::Rejected(HttpError::request_timeout(message))
}
