//! One client connection: read a head, handle it, keep the connection or close it, for a reason.

use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;

use super::exchange::{Exchange, Held, Outcome};
use super::head::{self, RequestHead};
use super::input::Input;
use super::refusal::{Reason, Refusal};
use super::response::Out;
use super::shared::{OpenGuard, Shared};
use super::{HEAD_TIMEOUT, Handler, Refused};
use crate::socket::{self, Patience, Stall, Wait};

/// So many requests of one connection are served while others in the lane wait; then it gets a thread.
const MAX_IN_A_ROW: u64 = 16;

/// A client's connection between and during its requests.
pub(crate) struct Connection {
    pub(super) socket: Arc<TcpStream>,
    /// The client's address, as it stands in the log.
    pub(super) peer: Arc<str>,
    pub(super) input: Input,
    /// A read for the next head might find bytes. Reads of a body do not change it.
    pub(super) has_input: bool,
    patience: Patience,
    /// How much of `input` has been searched for the end of the head.
    searched: usize,
    /// When the first byte of the head that is being read arrived.
    pub(super) head_since: Option<Instant>,
    /// Requests answered so far.
    answered: u64,
    _open: OpenGuard,
}

/// What the worker does with the connection next.
pub(crate) enum After {
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
pub(crate) enum Stay {
    WhileRequestsCome,
    OneRequest,
}

/// Why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseReason {
    ClientClosed,
    LastAnswerSent,
    AnswerBroken,
    Failed,
    IdleTooLong,
    GaveWay,
    Stopping,
    Drained,
}

/// The buffers of a thread, for whichever request it works on.
#[derive(Default)]
pub(crate) struct Buffers {
    out: Out,
    spare: Vec<u8>,
}

/// What came of serving a connection.
pub(crate) enum Served<H: Handler> {
    Done(After, Box<H::Kit>),
    /// Its request waits for somebody else.
    Waiting(Box<Suspended<H>>),
    /// The handler has panicked; all is gone.
    Panicked,
}

/// A connection whose request waits for somebody else, with all that the request needs.
pub(crate) struct Suspended<H: Handler> {
    pub(super) connection: Box<Connection>,
    pub(super) kit: Box<H::Kit>,
    held: Held,
    waiting: H::Waiting,
}

/// What a client has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrived {
    Something,
    Nothing,
    End,
}

enum NextHead {
    Head(RequestHead),
    NotYet,
    Closed,
    Refused(Refusal),
}

/// Serves the requests of `connection` that are here.
pub(crate) fn serve<H: Handler>(
    mut connection: Box<Connection>,
    kit: Box<H::Kit>,
    stay: Stay,
    buffers: &mut Buffers,
    (handler, shared): (&H, &Shared),
) -> Served<H> {
    // Whoever gives it here has seen it, as a rule.
    connection.has_input = true;
    run(connection, kit, None, stay, buffers, (handler, shared))
}

/// Goes on with a request that waited, and serves those that are here then.
pub(crate) fn resume<H: Handler>(
    suspended: Suspended<H>,
    buffers: &mut Buffers,
    context: (&H, &Shared),
) -> Served<H> {
    let Suspended {
        connection,
        kit,
        held,
        waiting,
    } = suspended;
    let waited = Some((held, waiting));
    run(
        connection,
        kit,
        waited,
        Stay::WhileRequestsCome,
        buffers,
        context,
    )
}

/// This is the main loop of a connection.
fn run<H: Handler>(
    mut connection: Box<Connection>,
    mut kit: Box<H::Kit>,
    mut waited: Option<(Held, H::Waiting)>,
    stay: Stay,
    buffers: &mut Buffers,
    (handler, shared): (&H, &Shared),
) -> Served<H> {
    connection.input.lend(&mut buffers.spare);
    for served in 1.. {
        let (held, waiting) = match waited.take() {
            Some((held, waiting)) => (held, Some(waiting)),
            None => match connection.next_head() {
                NextHead::Head(head) if !shared.is_stopping() => (Held::new(head), None),
                other => {
                    let after = without_request(connection, other, buffers, handler);
                    return Served::Done(after, kit);
                }
            },
        };
        buffers.out.clear();
        let mut exchange = Exchange::new(held, &mut connection, &mut buffers.out, shared, stay);
        let waits = match waiting {
            None => handler.handle(&mut kit, &mut exchange),
            Some(waiting) => handler.resume(&mut kit, &mut exchange, waiting),
        };
        if let Some(waiting) = waits {
            let held = exchange.hold();
            connection.input.give_back(&mut buffers.spare);
            return Served::Waiting(Box::new(Suspended {
                connection,
                kit,
                held,
                waiting,
            }));
        }
        match exchange.outcome() {
            Outcome::KeepAlive => {}
            Outcome::Close => return Served::Done(After::Drain(connection), kit),
            Outcome::Broken { by_reset } => {
                if by_reset {
                    connection.reset_on_close();
                }
                let after = After::Closed(connection, CloseReason::AnswerBroken);
                return Served::Done(after, kit);
            }
        }
        connection.answered += 1;
        // Others wait: whoever has just been served stands in line again, even if its next request
        // is here already.
        if stay == Stay::OneRequest || shared.is_pressed() {
            let after = connection.give_way(buffers, After::Requeue);
            return Served::Done(after, kit);
        }
        if served % MAX_IN_A_ROW == 0 {
            socket::give_up_turn();
        }
    }
    unreachable!("nobody counts so far")
}

/// Ends the serving of a connection that has no request to be handled.
#[inline(never)]
fn without_request<H: Handler>(
    connection: Box<Connection>,
    next: NextHead,
    buffers: &mut Buffers,
    handler: &H,
) -> After {
    match next {
        NextHead::NotYet => connection.give_way(buffers, After::Park),
        NextHead::Closed => After::Closed(connection, CloseReason::ClientClosed),
        NextHead::Refused(refusal) => refuse(connection, handler, None, refusal),
        NextHead::Head(head) => {
            let refusal = Refusal::new(Reason::ShuttingDown, "the proxy is stopping");
            refuse(connection, handler, Some(&head), refusal)
        }
    }
}

/// Answers with a refusal, without waiting for anybody, and lets the connection drain. Without a
/// `head` the request line is at the start of what was received.
#[inline(never)]
pub(crate) fn refuse<H: Handler>(
    connection: Box<Connection>,
    handler: &H,
    head: Option<&RequestHead>,
    refusal: Refusal,
) -> After {
    let (method, target) = match head {
        Some(head) => (head.method.clone(), head.target.clone()),
        None => request_line_so_far(connection.input.bytes()),
    };
    let answer = handler.refuse(&Refused {
        peer: Arc::clone(&connection.peer),
        method,
        target,
        refusal: &refusal,
    });
    let mut out = Out::default();
    let status = http::StatusCode::from_u16(refusal.reason.status())
        .unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    out.append_head(
        status,
        super::field_lines(&answer.fields),
        super::response::WireFraming::Plain,
        (http::Version::HTTP_11, head::Persistence::Close),
    );
    out.append_piece(&answer.body, super::response::WireFraming::Plain);
    // The socket's buffer is empty or the client does not read: a short answer fits or is lost.
    match socket::write_now(&connection.socket, out.pending()) {
        Ok(_) => After::Drain(connection),
        Err(_) => After::Closed(connection, CloseReason::Failed),
    }
}

/// The method and target of a request that was not understood, for its log line; `-` where they
/// cannot be told.
fn request_line_so_far(bytes: &[u8]) -> (Method, Box<[u8]>) {
    let line = bytes.split(|&byte| byte == b'\r' || byte == b'\n').next();
    let mut words = line.unwrap_or_default().splitn(3, |&byte| byte == b' ');
    let is_method = |word: &&[u8]| word.iter().all(u8::is_ascii_uppercase);
    let method = words.next().filter(is_method).unwrap_or_default();
    let target = words
        .next()
        .filter(|word| word.iter().all(u8::is_ascii_graphic));
    match (Method::from_bytes(method), target) {
        (Ok(method), Some(target)) => (method, target.into()),
        _ => {
            let unknown = Method::from_bytes(b"-").unwrap_or_default();
            (unknown, Box::new(*b"-"))
        }
    }
}

impl Connection {
    pub(super) fn new(
        socket: TcpStream,
        peer: SocketAddr,
        patience: Patience,
        open: OpenGuard,
    ) -> Box<Self> {
        Box::new(Connection {
            socket: Arc::new(socket),
            peer: peer.to_string().into(),
            input: Input::default(),
            has_input: true,
            patience,
            searched: 0,
            head_since: None,
            answered: 0,
            _open: open,
        })
    }

    /// The next request's head, if it is here.
    fn next_head(&mut self) -> NextHead {
        loop {
            match self.take_head() {
                Ok(Some(head)) => return NextHead::Head(head),
                // What came behind the last request may be the beginning of the next one.
                Ok(None) if self.input.bytes().is_empty() => self.head_since = None,
                Ok(None) => self.head_since = self.head_since.or_else(|| Some(Instant::now())),
                Err(refusal) => return NextHead::Refused(refusal),
            }
            let is_late = |since: Instant| since.elapsed() >= HEAD_TIMEOUT;
            if self.head_since.is_some_and(is_late) {
                return NextHead::Refused(super::head_timeout());
            }
            if !self.has_input {
                return NextHead::NotYet;
            }
            let space = self.input.space();
            let room = space.len();
            match socket::read_now(&self.socket, space) {
                Ok(Some(0)) | Err(_) => return NextHead::Closed,
                Ok(Some(length)) => {
                    self.input.filled(length);
                    // A read that did not fill its buffer has emptied the socket.
                    self.has_input = length == room;
                }
                Ok(None) => self.has_input = false,
            }
        }
    }

    /// Takes the next request's head from the bytes that are here, if it is whole.
    fn take_head(&mut self) -> Result<Option<RequestHead>, Refusal> {
        if self.searched == 0 {
            // RFC 9112 section 2.2: an empty line before the request line is ignored; one.
            match self.input.bytes() {
                [b'\r', b'\n', ..] => self.input.consume(2),
                [b'\r'] => return Ok(None),
                _ => {}
            }
        }
        let bytes = self.input.bytes();
        let Some(end) = head::find_end(bytes, self.searched)? else {
            self.searched = bytes.len();
            return Ok(None);
        };
        let head = head::parse_whole(&bytes[..end])?;
        self.input.consume(end);
        self.searched = 0;
        self.head_since = None;
        Ok(Some(head))
    }

    /// Reads a piece of a body, into `direct` or else into the connection's buffer. A body is on
    /// its way, so its next piece is looked for before it is waited for.
    pub(super) fn read_body(
        &mut self,
        direct: Option<&mut [u8]>,
        longest: Duration,
    ) -> Result<usize, Stall> {
        let Connection {
            socket,
            input,
            patience,
            ..
        } = self;
        let is_direct = direct.is_some();
        let space = direct.unwrap_or_else(|| input.space());
        let length = match socket::read_now(socket, space).map_err(Stall::Io)? {
            Some(length) => length,
            None => {
                socket::give_up_turn();
                let how = Wait {
                    longest,
                    watched: socket::NOBODY,
                };
                socket::read(socket, space, *patience, how)?
            }
        };
        if !is_direct {
            input.filled(length);
        }
        Ok(length)
    }

    /// Takes in what has arrived, without waiting.
    pub(super) fn read_now(&mut self) {
        // Nothing, an end or an error: what is here already must do.
        if let Ok(Some(length)) = socket::read_now(&self.socket, self.input.space()) {
            self.input.filled(length);
        }
    }

    /// Takes in what has arrived, and only that: a connection that waits keeps no buffer.
    pub(super) fn take_in(&mut self, buffers: &mut Buffers) -> Arrived {
        if !self.input.bytes().is_empty() {
            return Arrived::Something;
        }
        self.input.lend(&mut buffers.spare);
        let arrived = match socket::read_now(&self.socket, self.input.space()) {
            Ok(Some(0)) | Err(_) => Arrived::End,
            Ok(Some(length)) => {
                self.input.filled(length);
                Arrived::Something
            }
            Ok(None) => {
                self.has_input = false;
                Arrived::Nothing
            }
        };
        self.input.give_back(&mut buffers.spare);
        arrived
    }

    /// Whether a whole head is here that `handler` answers without waiting for anybody. Only a
    /// request that begins like one is taken in.
    pub(super) fn is_quick<H: Handler>(&mut self, handler: &H) -> bool {
        if self.input.bytes().is_empty() {
            let mut start = [0; 16];
            let length = socket::peek_now(&self.socket, &mut start);
            if !handler.is_quick(&start[..length]) {
                return false;
            }
            self.read_now();
        }
        let bytes = self.input.bytes();
        handler.is_quick(bytes) && matches!(head::find_end(bytes, 0), Ok(Some(_)))
    }

    /// Lets the client see a reset: the only way to tell it that a body which ends with the
    /// connection is not whole.
    fn reset_on_close(&self) {
        if let Err(error) = socket2::SockRef::from(&*self.socket).set_linger(Some(Duration::ZERO)) {
            log::debug!("{}: no reset on close: {error}", self.peer);
        }
    }

    /// Gives the thread's buffer back. It is idle, or, where something is here already, what
    /// `otherwise` says.
    fn give_way(
        mut self: Box<Self>,
        buffers: &mut Buffers,
        otherwise: fn(Box<Connection>) -> After,
    ) -> After {
        let is_idle = self.input.bytes().is_empty();
        self.input.give_back(&mut buffers.spare);
        if is_idle {
            After::Idle(self)
        } else {
            otherwise(self)
        }
    }

    /// Reads and drops what the client still sends. `None`: more may come; else how it ended.
    pub(super) fn drain(&self, drained: &mut usize) -> Option<CloseReason> {
        let mut scratch = [0; 4096];
        loop {
            match socket::read_now(&self.socket, &mut scratch) {
                Ok(Some(0)) => return Some(CloseReason::Drained),
                Ok(Some(length)) => *drained += length,
                Ok(None) => return None,
                Err(_) => return Some(CloseReason::Failed),
            }
            if *drained > super::MAX_DRAIN {
                return Some(CloseReason::Drained);
            }
        }
    }

    pub(super) fn log_close(&self, reason: CloseReason) {
        log::debug!(
            "{}: closed, {reason} after {} requests",
            self.peer,
            self.answered
        );
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            CloseReason::ClientClosed => "the client closed",
            CloseReason::LastAnswerSent => "the last answer was sent",
            CloseReason::AnswerBroken => "the answer broke off",
            CloseReason::Failed => "the socket failed",
            CloseReason::IdleTooLong => "idle too long",
            CloseReason::GaveWay => "gave way to another connection",
            CloseReason::Stopping => "the proxy stops",
            CloseReason::Drained => "refused and drained",
        })
    }
}

#[cfg(test)]
mod tests;
