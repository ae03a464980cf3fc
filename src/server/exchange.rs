//! One request and its answer, as a [`Handler`](super::Handler) sees them.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode, Version};

use super::admission::Admission;
use super::connection::WritePolicy;
use super::connection::client::Client;
use super::limits::{BODY_GRACE, MIN_BODY_RATE};
use crate::http1::body::{ChunkDecoder, Decoded, RequestFraming};
use crate::http1::encode::{BodyCoding, OutputBuffer, ResponseLength};
use crate::http1::error::HttpError;
use crate::http1::headers::HeaderBlock;
use crate::http1::request::{Persistence, RequestHead};
use crate::net::socket;
use crate::net::wait::{self, WaitError};

/// An answer of more than so many bytes is work for a thread of its own …
const LONG_ANSWER: u64 = 64 * 1024;
/// … and so is a request body that has taken so many reads, of 16 KiB at most: what is in them can be
/// far less, where its chunks are small.
const LONG_BODY_READS: u32 = 4;

/// Why the client's side of an exchange ended early.
#[derive(Debug)]
pub enum ClientError {
    /// The client closed the connection.
    Closed,
    /// It did not read its answer for the client timeout.
    TimedOut,
    /// Its request body cannot be taken: too slow, too large or malformed.
    Rejected(HttpError),
}

/// How far the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    NotStarted,
    Body(BodyCoding),
    Finished,
}

/// What becomes of the connection after the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The next request may follow.
    KeepAlive,
    /// The answer is out, or what there is of it: its framing says that there should be more. The
    /// connection ends; the client may still be sending.
    Close,
    /// The connection ends at once: there is no answer, the client does not take it, or only a reset
    /// can tell that it is not whole, since its body would have ended with the connection.
    Abandoned { by_reset: bool },
}

/// One request and its answer.
///
/// The handler reads the body, starts the answer, writes pieces, flushes when it would wait, and
/// finishes. An answer that was started and not finished is broken off visibly.
pub struct Exchange<'a> {
    pub head: &'a mut RequestHead,
    client: &'a mut Client,
    out: &'a mut OutputBuffer,
    admission: &'a Admission,
    write_policy: WritePolicy,
    body: &'a mut RequestBody,
    answer: Answer,
    persistence: &'a mut Persistence,
    body_bytes_out: u64,
    /// The client takes nothing any more, or has left.
    is_client_lost: bool,
}

/// A request, and how far its body has been read: what lasts while it waits for somebody else.
pub(super) struct PendingRequest {
    head: RequestHead,
    body: RequestBody,
    persistence: Persistence,
}

/// The request body as far as it was read.
struct RequestBody {
    state: BodyState,
    /// The client waits for a 100 before it sends the body.
    owes_continue: bool,
    /// Decoded bytes so far.
    bytes: u64,
    /// Reads so far.
    reads: u32,
    /// Time spent waiting for the client: it is not to blame for the time that the upstream takes.
    waited: Duration,
}

enum BodyState {
    Left(u64),
    Chunked(ChunkDecoder),
    Done,
}

impl PendingRequest {
    pub(super) fn new(head: RequestHead) -> PendingRequest {
        let state = match head.framing {
            RequestFraming::None | RequestFraming::Length(0) => BodyState::Done,
            RequestFraming::Length(length) => BodyState::Left(length),
            RequestFraming::Chunked => BodyState::Chunked(ChunkDecoder::default()),
        };
        let owes_continue = head.expects_continue && !matches!(state, BodyState::Done);
        PendingRequest {
            body: RequestBody {
                state,
                owes_continue,
                bytes: 0,
                reads: 0,
                waited: Duration::ZERO,
            },
            persistence: head.persistence,
            head,
        }
    }

    /// Its fields, when it is over.
    pub(super) fn into_fields(self) -> HeaderBlock {
        self.head.fields
    }

    pub(super) fn head(&self) -> &RequestHead {
        &self.head
    }
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        pending: &'a mut PendingRequest,
        client: &'a mut Client,
        out: &'a mut OutputBuffer,
        admission: &'a Admission,
        write_policy: WritePolicy,
    ) -> Self {
        Exchange {
            head: &mut pending.head,
            client,
            out,
            admission,
            write_policy,
            body: &mut pending.body,
            answer: Answer::NotStarted,
            persistence: &mut pending.persistence,
            body_bytes_out: 0,
            is_client_lost: false,
        }
    }

    /// Whether the handler may return while it waits for somebody else. If not, it waits itself.
    pub fn may_wait(&self) -> bool {
        self.write_policy == WritePolicy::MayWait
            && self.answer == Answer::NotStarted
            && wait::is_leading()
    }

    /// The client's address, as it stands in the log.
    pub fn peer(&self) -> &Arc<str> {
        &self.client.peer
    }

    /// The client's socket, to be watched while waiting for somebody else.
    pub fn client(&self) -> &Arc<TcpStream> {
        &self.client.socket
    }

    /// Whether the server stops: requests in flight go on for a while.
    pub fn is_stopping(&self) -> bool {
        self.admission.is_stopping()
    }

    /// Whether requests in flight are being cut off because the time for stopping is over.
    pub fn is_aborting(&self) -> bool {
        self.admission.is_aborting()
    }

    /// Decoded bytes of the request body that were read.
    pub fn body_bytes_in(&self) -> u64 {
        self.body.bytes
    }

    /// Bytes of the answer's body that were written, framing not counted.
    pub fn body_bytes_out(&self) -> u64 {
        self.body_bytes_out
    }

    /// The client has left, as far as somebody else knows.
    pub fn mark_client_gone(&mut self) {
        self.is_client_lost = true;
    }

    /// Whether anything of an answer has been given out.
    pub fn is_started(&self) -> bool {
        self.answer != Answer::NotStarted
    }

    /// Reads a piece of the request body; 0 is its end.
    ///
    /// # Errors
    /// [`ClientFault::Refused`] where the body stalls, is too slow, too large, or its chunks are
    /// malformed; [`ClientFault::Gone`] where the client leaves in the middle of it.
    pub fn read_body(&mut self, buffer: &mut [u8]) -> Result<usize, ClientError> {
        let result = self.read_piece(buffer);
        if result.is_err() {
            *self.persistence = Persistence::Close;
        }
        result
    }

    /// Whether the request body, as far as its length is declared, may be read: to be asked before
    /// anything is done for a request whose body is read later.
    ///
    /// # Errors
    /// [`ClientFault::Refused`] where it is too large.
    pub fn admit_body(&mut self) -> Result<(), ClientError> {
        let result = self.check_declared_length();
        if result.is_err() {
            *self.persistence = Persistence::Close;
        }
        result
    }

    fn read_piece(&mut self, buffer: &mut [u8]) -> Result<usize, ClientError> {
        if matches!(self.body.state, BodyState::Done) {
            return Ok(0);
        }
        self.check_declared_length()?;
        if self.body.owes_continue {
            self.body.owes_continue = false;
            // RFC 9110 section 10.1.1: not needed where the body is already coming.
            if self.client.input.bytes().is_empty() {
                self.out.append_continue();
                self.flush()?;
            }
        }
        let length = match self.body.state {
            BodyState::Left(left) => self.read_sized(left, buffer)?,
            BodyState::Chunked(_) => self.read_chunked(buffer)?,
            BodyState::Done => 0,
        };
        self.body.bytes += length as u64;
        if self
            .admission
            .limits
            .max_body
            .is_some_and(|limit| self.body.bytes > limit)
        {
            return Err(self.too_large());
        }
        Ok(length)
    }

    fn check_declared_length(&self) -> Result<(), ClientError> {
        match (self.head.framing, self.admission.limits.max_body) {
            (RequestFraming::Length(length), Some(limit)) if length > limit => {
                Err(self.too_large())
            }
            _ => Ok(()),
        }
    }

    fn too_large(&self) -> ClientError {
        let limit = self.admission.limits.max_body.unwrap_or_default();
        ClientError::Rejected(HttpError::body_too_large(format!(
            "the request body is over {limit} bytes; start the proxy with a larger --max-body"
        )))
    }

    fn read_sized(&mut self, left: u64, buffer: &mut [u8]) -> Result<usize, ClientError> {
        let most = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let mut length = self.client.input.take_into(&mut buffer[..most]);
        if length == 0 {
            length = self.wait_for_body(Some(&mut buffer[..most]))?;
        }
        self.body.state = match left - length as u64 {
            0 => BodyState::Done,
            left => BodyState::Left(left),
        };
        Ok(length)
    }

    /// Decodes what is here until `buffer` is full, and waits only while there is no data at all.
    fn read_chunked(&mut self, buffer: &mut [u8]) -> Result<usize, ClientError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let BodyState::Chunked(decoder) = &mut self.body.state else {
                break;
            };
            let input = &mut self.client.input;
            // Never more than fits: the decoder counts what it has handed out as taken.
            let most = input.bytes().len().min(buffer.len() - filled);
            if most == 0 {
                if filled > 0 {
                    break;
                }
                self.wait_for_body(None)?;
                continue;
            }
            let bytes = &input.bytes()[..most];
            match decoder.decode(bytes).map_err(ClientError::Rejected)? {
                Decoded::Data { start, end } => {
                    buffer[filled..filled + end - start].copy_from_slice(&bytes[start..end]);
                    filled += end - start;
                    input.consume(end);
                }
                Decoded::End { end } => {
                    input.consume(end);
                    self.body.state = BodyState::Done;
                }
                Decoded::More => input.consume(most),
            }
        }
        Ok(filled)
    }

    /// Waits for bytes of the body, into `direct` or else into the connection's buffer.
    fn wait_for_body(&mut self, direct: Option<&mut [u8]>) -> Result<usize, ClientError> {
        self.body.reads = self.body.reads.saturating_add(1);
        if self.body.reads > LONG_BODY_READS {
            wait::before_blocking();
        }
        let timeout = self.admission.limits.client_timeout;
        let started = Instant::now();
        let slow = |what: String| Err(ClientError::Rejected(HttpError::request_timeout(what)));
        let result = self.client.read_body(direct, timeout);
        self.body.waited += started.elapsed();
        match result {
            Ok(0) => Err(ClientError::Closed),
            Ok(length) => {
                let expected = self.body.waited.as_secs().saturating_mul(MIN_BODY_RATE);
                if self.body.waited > BODY_GRACE && self.body.bytes + (length as u64) < expected {
                    return slow("the request body comes slower than 500 bytes a second".into());
                }
                Ok(length)
            }
            Err(WaitError::TimedOut) => slow(format!(
                "no byte of the request body came for {} s",
                timeout.as_secs_f32()
            )),
            Err(WaitError::ClientClosed | WaitError::Io(_)) => Err(ClientError::Closed),
        }
    }

    /// Starts the answer. Nothing goes out before [`Exchange::flush`] or [`Exchange::finish`].
    ///
    /// `fields` are pieces of whole field lines, as [`Fields::text`] and [`field_lines`] give them.
    /// Connection and Transfer-Encoding must not be among them: they are set here.
    ///
    /// [`field_lines`]: super::field_lines
    pub fn start<'f>(
        &mut self,
        status: StatusCode,
        fields: impl Iterator<Item = &'f [u8]>,
        framing: ResponseLength,
    ) {
        let wire = match framing {
            ResponseLength::None | ResponseLength::Length(_) => BodyCoding::Plain,
            ResponseLength::Unknown if self.head.method == Method::HEAD => BodyCoding::Plain,
            ResponseLength::Unknown if self.head.version == Version::HTTP_11 => BodyCoding::Chunked,
            ResponseLength::Unknown => BodyCoding::UntilClose,
        };
        self.skip_buffered_body();
        let unread = !matches!(self.body.state, BodyState::Done);
        if unread || self.admission.is_stopping() || wire == BodyCoding::UntilClose {
            *self.persistence = Persistence::Close;
        }
        self.out
            .append_head(status, fields, wire, (self.head.version, *self.persistence));
        self.answer = Answer::Body(wire);
    }

    /// A body that the handler did not read and that is all here anyway need not end the connection.
    fn skip_buffered_body(&mut self) {
        let buffered = self.client.input.bytes().len();
        if let BodyState::Left(left) = self.body.state
            && usize::try_from(left).is_ok_and(|left| left <= buffered)
        {
            self.client.input.consume(left as usize);
            self.body.state = BodyState::Done;
        }
    }

    /// Where the next piece of the body is to be written; flushes first if there is no room.
    ///
    /// # Errors
    /// The client does not take what is flushed.
    pub fn space(&mut self) -> Result<&mut [u8], ClientError> {
        if self.out.space().is_none() {
            self.flush()?;
        }
        // A buffer that was just flushed has room.
        Ok(self.out.space().unwrap_or_default())
    }

    /// Takes over `length` bytes that were written to [`Exchange::space`].
    pub fn commit(&mut self, length: usize) {
        if let Answer::Body(framing) = self.answer
            && length > 0
        {
            self.out.commit(length, framing);
            self.body_bytes_out += length as u64;
        }
    }

    /// A piece of the body that lies elsewhere.
    pub fn write(&mut self, bytes: &[u8]) {
        if let Answer::Body(framing) = self.answer
            && !bytes.is_empty()
        {
            self.out.append_piece(bytes, framing);
            self.body_bytes_out += bytes.len() as u64;
        }
    }

    /// Sends all that has gathered.
    ///
    /// # Errors
    /// The client left, or read nothing for the client timeout.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        let pending = self.out.pending();
        let stall = match self.write_policy {
            WritePolicy::MayWait => self.admission.limits.client_timeout,
            // The thread that does this waits for nobody.
            WritePolicy::NeverWait => Duration::ZERO,
        };
        let result = socket::write_all(&self.client.socket, pending, stall, wait::UNWATCHED);
        if self.body_bytes_out > LONG_ANSWER {
            wait::before_blocking();
        }
        self.out.clear();
        self.is_client_lost |= result.is_err();
        match result {
            Ok(()) => Ok(()),
            Err(WaitError::TimedOut) => Err(ClientError::TimedOut),
            Err(WaitError::ClientClosed | WaitError::Io(_)) => Err(ClientError::Closed),
        }
    }

    /// Ends the answer and sends all of it.
    ///
    /// # Errors
    /// As [`Exchange::flush`].
    pub fn finish(&mut self) -> Result<(), ClientError> {
        if self.answer == Answer::Body(BodyCoding::Chunked) {
            self.out.append_last_chunk();
        }
        self.flush()?;
        self.answer = Answer::Finished;
        Ok(())
    }

    pub(super) fn outcome(&self) -> Outcome {
        match (self.answer, *self.persistence) {
            (Answer::Finished, Persistence::KeepAlive) => Outcome::KeepAlive,
            (Answer::Finished, Persistence::Close) => Outcome::Close,
            (Answer::Body(BodyCoding::UntilClose), _) => Outcome::Abandoned { by_reset: true },
            (Answer::Body(_), _) if !self.is_client_lost => Outcome::Close,
            _ => Outcome::Abandoned { by_reset: false },
        }
    }
}
