//! One client connection: read a head, handle it, keep the connection or close it, for a reason.

use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use self::client::{Client, ReadOutcome};
use crate::http1::encode::OutputBuffer;
use crate::http1::error::HttpError;
use crate::http1::headers::HeaderBlock;
use crate::http1::request::{self, RequestHead};
use crate::net::buffer::ReadBuffer;
use crate::net::socket::{self, ReadTimeout};
use crate::net::wait;
use crate::server::admission::{Admission, OpenGuard};
use crate::server::exchange::{Exchange, Outcome, PendingRequest};
use crate::server::handler::{Handler, Progress};
use crate::server::limits::{HEAD_TIMEOUT, MAX_DRAINED_BYTES, head_timeout_error};
use crate::server::reject::reject;

pub(super) mod client;

/// So many requests of one connection are served while others in the lane wait; then it gets a thread.
const MAX_IN_A_ROW: u64 = 16;

/// A client's connection between and during its requests.
pub(crate) struct Connection {
    pub(crate) client: Client,
    /// The request that is being answered, or waits for somebody else.
    pub(crate) request: Option<PendingRequest>,
    /// How much of `input` has been searched for the end of the head.
    searched: usize,
    /// When the first byte of the head that is being read arrived.
    pub(crate) head_since: Option<Instant>,
    /// Requests answered so far.
    answered: u64,
    _open: OpenGuard,
}

/// What the worker does with the connection next.
pub(crate) enum ConnectionFate {
    /// It waits for its next request, which may come soon.
    Idle(Box<Connection>),
    /// It waits for more of a head, without a worker.
    Park(Box<Connection>),
    /// It has a request, but others waited for longer.
    Requeue(Box<Connection>),
    /// It is closed once the client has read the last answer.
    Drain(Box<Connection>),
    Closed(Box<Connection>, CloseReason),
}

/// How long a connection is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WritePolicy {
    MayWait,
    NeverWait,
}

/// Why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseReason {
    ClientClosed,
    LastAnswerSent,
    Abandoned,
    Failed,
    IdleTooLong,
    GaveWay,
    Stopping,
    Drained,
}

/// The buffers of a thread, for whichever request it works on.
#[derive(Default)]
pub(crate) struct Buffers {
    out: OutputBuffer,
    spare: Vec<u8>,
    /// Of requests that are over; some, since others are begun before one is over.
    fields: Vec<HeaderBlock>,
}

/// So many fields of requests that are over are kept.
const MAX_SPARE_FIELDS: usize = 16;

/// What came of serving a connection.
pub(crate) enum Served<H: Handler> {
    Done(ConnectionFate, Box<H::Context>),
    /// Its request waits for somebody else. To be served once more, with the same kit.
    Waiting(Box<Connection>, Box<H::Context>),
    /// The handler has panicked; all is gone.
    Panicked,
}

enum NextHead {
    /// It is [`Connection::request`] now.
    Here,
    NotYet,
    Closed,
    Rejected(HttpError),
}

/// Goes on with the request of `connection` that waited, if there is one, and serves those that are
/// here. This is the main loop of a connection.
pub(crate) fn serve<H: Handler>(
    mut connection: Box<Connection>,
    mut context: Box<H::Context>,
    write_policy: WritePolicy,
    buffers: &mut Buffers,
    (handler, admission): (&H, &Admission),
) -> Served<H> {
    connection.client.input.borrow_storage(&mut buffers.spare);
    // Whoever gives it here without a request has seen one, as a rule.
    connection.client.has_input |= connection.request.is_none();
    for served in 1.. {
        let has_waited = connection.request.is_some();
        if !has_waited {
            match connection.next_head(&mut buffers.fields) {
                NextHead::Here if !admission.is_stopping() => {}
                other => {
                    let fate = without_request(connection, other, buffers, handler);
                    return Served::Done(fate, context);
                }
            }
        }
        let exchange = connection.exchange(&mut buffers.out, admission, write_policy);
        let (progress, outcome) = handle(handler, &mut context, exchange, has_waited);
        if progress == Progress::AwaitingUpstream {
            connection.client.input.return_storage(&mut buffers.spare);
            return Served::Waiting(connection, context);
        }
        if let Some(pending) = connection.request.take()
            && buffers.fields.len() < MAX_SPARE_FIELDS
        {
            buffers.fields.push(pending.into_fields().reusable());
        }
        match outcome {
            Outcome::KeepAlive => {}
            Outcome::Close => return Served::Done(ConnectionFate::Drain(connection), context),
            Outcome::Abandoned { by_reset } => {
                if by_reset {
                    connection.client.reset_on_close();
                }
                let fate = ConnectionFate::Closed(connection, CloseReason::Abandoned);
                return Served::Done(fate, context);
            }
        }
        connection.answered += 1;
        // Others wait: whoever has just been served stands in line again, even if its next request
        // is here already.
        if write_policy == WritePolicy::NeverWait || admission.is_pressed() {
            let fate = connection.give_way(buffers, ConnectionFate::Requeue);
            return Served::Done(fate, context);
        }
        if served % MAX_IN_A_ROW == 0 {
            wait::before_blocking();
        }
    }
    unreachable!("nobody counts so far")
}

fn handle<H: Handler>(
    handler: &H,
    context: &mut H::Context,
    mut exchange: Exchange<'_>,
    has_waited: bool,
) -> (Progress, Outcome) {
    let progress = if has_waited {
        handler.resume(context, &mut exchange)
    } else {
        handler.handle(context, &mut exchange)
    };
    (progress, exchange.outcome())
}

/// Ends the serving of a connection that has no request to be handled.
#[inline(never)]
fn without_request<H: Handler>(
    connection: Box<Connection>,
    next: NextHead,
    buffers: &mut Buffers,
    handler: &H,
) -> ConnectionFate {
    match next {
        NextHead::NotYet => connection.give_way(buffers, ConnectionFate::Park),
        NextHead::Closed => ConnectionFate::Closed(connection, CloseReason::ClientClosed),
        NextHead::Rejected(error) => reject_now(connection, handler, error),
        NextHead::Here => {
            let error = HttpError::shutting_down("the proxy is stopping");
            reject_now(connection, handler, error)
        }
    }
}

fn reject_now<H: Handler>(
    connection: Box<Connection>,
    handler: &H,
    error: HttpError,
) -> ConnectionFate {
    let since = connection.head_since.unwrap_or_else(Instant::now);
    reject(connection, handler, error, since)
}

impl Connection {
    pub(crate) fn new(
        socket: TcpStream,
        peer: SocketAddr,
        read_timeout: ReadTimeout,
        open: OpenGuard,
    ) -> Box<Self> {
        Box::new(Connection {
            client: Client::new(socket, peer, read_timeout),
            request: None,
            searched: 0,
            head_since: None,
            answered: 0,
            _open: open,
        })
    }

    /// The request that is here, and its answer.
    fn exchange<'c>(
        &'c mut self,
        out: &'c mut OutputBuffer,
        admission: &'c Admission,
        write_policy: WritePolicy,
    ) -> Exchange<'c> {
        let Some(pending) = &mut self.request else {
            unreachable!("whoever calls this has seen to it that there is one");
        };
        out.clear();
        Exchange::new(pending, &mut self.client, out, admission, write_policy)
    }

    /// Reads until the next request's head is whole, as far as it is here.
    fn next_head(&mut self, spare: &mut Vec<HeaderBlock>) -> NextHead {
        loop {
            match self.take_head(spare) {
                Ok(Some(head)) => {
                    self.request = Some(PendingRequest::new(head));
                    return NextHead::Here;
                }
                // What came behind the last request may be the beginning of the next one.
                Ok(None) if self.client.input.bytes().is_empty() => self.head_since = None,
                Ok(None) => self.head_since = self.head_since.or_else(|| Some(Instant::now())),
                Err(error) => return NextHead::Rejected(error),
            }
            let is_late = |since: Instant| since.elapsed() >= HEAD_TIMEOUT;
            if self.head_since.is_some_and(is_late) {
                return NextHead::Rejected(head_timeout_error());
            }
            if !self.client.has_input {
                return NextHead::NotYet;
            }
            if self.client.read_head() == ReadOutcome::End {
                return NextHead::Closed;
            }
        }
    }

    /// Takes the next request's head from the bytes that are here, if it is whole.
    fn take_head(
        &mut self,
        spare: &mut Vec<HeaderBlock>,
    ) -> Result<Option<RequestHead>, HttpError> {
        if self.searched == 0 {
            // RFC 9112 section 2.2: an empty line before the request line is ignored; one.
            match self.client.input.bytes() {
                [b'\r', b'\n', ..] => self.client.input.consume(2),
                [b'\r'] => return Ok(None),
                _ => {}
            }
        }
        let bytes = self.client.input.bytes();
        let Some(end) = request::find_end(bytes, self.searched)? else {
            self.searched = bytes.len();
            return Ok(None);
        };
        let head = request::parse_whole(&bytes[..end], spare.pop().unwrap_or_default())?;
        self.client.input.consume(end);
        self.searched = 0;
        self.head_since = None;
        Ok(Some(head))
    }

    /// Takes in what has arrived, and only that: a connection that waits keeps no buffer.
    pub(crate) fn take_in(&mut self, buffers: &mut Buffers) -> ReadOutcome {
        self.client.take_in(&mut buffers.spare)
    }

    /// Whether a whole head has arrived that `handler` handles without a permit. Only a request that
    /// begins like one is read.
    pub(crate) fn needs_permit<H: Handler>(&mut self, handler: &H) -> bool {
        let client = &mut self.client;
        if client.input.bytes().is_empty() {
            let mut start = [0; 16];
            let length = socket::peek(&client.socket, &mut start);
            if handler.needs_permit(&start[..length]) {
                return true;
            }
            // Whatever it finds: a head that is not whole needs a permit.
            client.read_head();
        }
        let bytes = client.input.bytes();
        handler.needs_permit(bytes) || !matches!(request::find_end(bytes, 0), Ok(Some(_)))
    }

    /// Gives the thread's buffer back. It is idle, or, where something is here already, what
    /// `otherwise` says.
    fn give_way(
        mut self: Box<Self>,
        buffers: &mut Buffers,
        otherwise: fn(Box<Connection>) -> ConnectionFate,
    ) -> ConnectionFate {
        let input = &mut self.client.input;
        let is_idle = input.bytes().is_empty();
        input.return_storage(&mut buffers.spare);
        if is_idle {
            ConnectionFate::Idle(self)
        } else {
            otherwise(self)
        }
    }

    /// No request of this connection is looked at any more: its memory is given up.
    pub(crate) fn forget_request(&mut self) {
        self.client.input = ReadBuffer::default();
        self.request = None;
    }

    /// Reads and drops what the client still sends. `None`: more may come; else how it ended.
    pub(crate) fn drain(&self, drained: &mut usize) -> Option<CloseReason> {
        let mut scratch = [0; 4096];
        loop {
            match socket::try_read(&self.client.socket, &mut scratch) {
                Ok(Some(0)) => return Some(CloseReason::Drained),
                Ok(Some(length)) => *drained += length,
                Ok(None) => return None,
                Err(_) => return Some(CloseReason::Failed),
            }
            if *drained > MAX_DRAINED_BYTES {
                return Some(CloseReason::Drained);
            }
        }
    }

    pub(crate) fn log_close(&self, reason: CloseReason) {
        log::debug!(
            "{}: closed, {reason} after {} requests",
            self.client.peer,
            self.answered
        );
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            CloseReason::ClientClosed => "the client closed",
            CloseReason::LastAnswerSent => "the last answer was sent a while ago",
            CloseReason::Abandoned => "there is no answer, or no more of it",
            CloseReason::Failed => "the socket failed",
            CloseReason::IdleTooLong => "idle too long",
            CloseReason::GaveWay => "gave way to another connection",
            CloseReason::Stopping => "the proxy stops",
            CloseReason::Drained => "the last answer was sent, and what came after it read",
        })
    }
}

#[cfg(test)]
mod tests;
