//! One client connection: its socket, the head that is being read, and why it is closed.
//!
//! What is done with a connection is decided elsewhere: a worker serves it ([`crate::server::serve`]),
//! an event loop or the accept thread keeps it while it waits. It belongs to one thread at a time.

use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use self::client::{Client, ReadOutcome};
use self::request_body::PendingRequest;
use crate::http1::error::HttpError;
use crate::http1::headers::HeaderBlock;
use crate::http1::request::{self, RequestHead};
use crate::net::buffer::ReadBuffer;
use crate::net::socket::{self, ReadTimeout};
use crate::server::limits::{HEAD_TIMEOUT, MAX_DRAINED_BYTES};

pub(super) mod client;
pub(super) mod request_body;

/// A client's connection, between and during its requests.
pub(crate) struct Connection {
    pub(crate) client: Client,
    /// The request that is being served, or that waits for the upstream.
    pub(crate) request: Option<PendingRequest>,
    /// How many bytes of the input have been searched for the end of the head.
    searched: usize,
    /// The empty line that may stand before a request line was there.
    empty_line_passed: bool,
    /// When the first byte of the head that is being read arrived.
    pub(crate) head_since: Option<Instant>,
    pub(crate) served_requests: u64,
    _open: OpenGuard,
}

/// Counts a connection as open until it is dropped.
pub(crate) struct OpenGuard(Arc<AtomicUsize>);

/// What has to be done with a connection that has been served.
pub(crate) enum ConnectionFate {
    /// Wait for its next request, which may come soon.
    Idle(Box<Connection>),
    /// Wait for the rest of a head, without a worker.
    AwaitHead(Box<Connection>),
    /// Let its next request wait for a permit, behind the connections that already wait.
    Requeue(Box<Connection>),
    /// Close it once the client has read the last response.
    Drain(Box<Connection>),
    Close(Box<Connection>, CloseReason),
}

/// Why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseReason {
    ClientClosed,
    Drained,
    DrainTimeout,
    Abandoned,
    SocketFailed,
    IdleTimeout,
    Shed,
    Stopping,
}

/// What came of reading a head.
pub(crate) enum NextHead {
    /// It is whole and has become [`Connection::request`].
    Complete,
    /// The rest of it has not arrived.
    NotYet,
    Closed,
    Rejected(HttpError),
}

impl OpenGuard {
    /// Adds one to `open` until the guard is dropped.
    pub(crate) fn new(open: &Arc<AtomicUsize>) -> OpenGuard {
        open.fetch_add(1, Ordering::Relaxed);
        OpenGuard(Arc::clone(open))
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
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
            empty_line_passed: false,
            head_since: None,
            served_requests: 0,
            _open: open,
        })
    }

    /// Reads the next request's head, without waiting. `spare` holds header blocks to use again.
    pub(crate) fn next_head(&mut self, spare: &mut Vec<HeaderBlock>) -> NextHead {
        loop {
            match self.take_head(spare) {
                Ok(Some(head)) => {
                    self.request = Some(PendingRequest::new(head));
                    return NextHead::Complete;
                }
                Ok(None) if self.is_between_requests() => self.head_since = None,
                // The first bytes may have come together with the last request.
                Ok(None) => self.head_since = self.head_since.or_else(|| Some(Instant::now())),
                Err(error) => return NextHead::Rejected(error),
            }
            let is_late = |since: Instant| since.elapsed() >= HEAD_TIMEOUT;
            if self.head_since.is_some_and(is_late) {
                return NextHead::Rejected(head_timeout_error());
            }
            if !self.client.may_have_input {
                return NextHead::NotYet;
            }
            if self.client.read_head() == ReadOutcome::End {
                return NextHead::Closed;
            }
        }
    }

    /// Takes the next request's head out of the input, if it is whole.
    fn take_head(
        &mut self,
        spare: &mut Vec<HeaderBlock>,
    ) -> Result<Option<RequestHead>, HttpError> {
        if self.searched == 0 {
            // RFC 9112 section 2.2: one empty line before the request line is ignored. More of them would
            // keep a connection open that never sends a request.
            match self.client.input.bytes() {
                [b'\r', b'\n', ..] if self.empty_line_passed => {
                    return Err(HttpError::bad_request(
                        "more than one empty line before the request line",
                    ));
                }
                [b'\r', b'\n', ..] => {
                    self.client.input.consume(2);
                    self.empty_line_passed = true;
                }
                [b'\r'] => return Ok(None),
                _ => {}
            }
        }
        let bytes = self.client.input.bytes();
        let Some((end, head)) = request::parse_head(bytes, self.searched, spare)? else {
            self.searched = bytes.len();
            return Ok(None);
        };
        self.client.input.consume(end);
        self.searched = 0;
        self.empty_line_passed = false;
        self.head_since = None;
        Ok(Some(head))
    }

    /// No byte of the next request has arrived.
    fn is_between_requests(&self) -> bool {
        self.client.input.bytes().is_empty() && !self.empty_line_passed
    }

    /// Frees the memory of a connection that serves no further request.
    pub(crate) fn drop_request(&mut self) {
        self.client.input = ReadBuffer::default();
        self.request = None;
    }

    /// Reads and drops what the client still sends, and adds its length to `drained`. `None`: more may
    /// come. Otherwise the reason to close the connection.
    pub(crate) fn drain(&self, drained: &mut usize) -> Option<CloseReason> {
        let mut scratch = [0; 4096];
        loop {
            match socket::try_read(&self.client.socket, &mut scratch) {
                Ok(Some(0)) => return Some(CloseReason::Drained),
                Ok(Some(length)) => *drained += length,
                Ok(None) => return None,
                Err(_) => return Some(CloseReason::SocketFailed),
            }
            if *drained > MAX_DRAINED_BYTES {
                return Some(CloseReason::Drained);
            }
        }
    }

    pub(crate) fn log_close(&self, reason: CloseReason) {
        log::debug!(
            "{}: closed after {} requests: {reason}",
            self.client.peer,
            self.served_requests
        );
    }
}

/// The error for a head that was not complete after [`HEAD_TIMEOUT`].
pub(crate) fn head_timeout_error() -> HttpError {
    let limit_s = HEAD_TIMEOUT.as_secs();
    HttpError::request_timeout(format!(
        "the request head was not complete after {limit_s} s"
    ))
}

impl fmt::Display for CloseReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            CloseReason::ClientClosed => "the client closed it",
            CloseReason::Drained => "the last response was sent and the client's data drained",
            CloseReason::DrainTimeout => "the last response was sent and the drain timeout passed",
            CloseReason::Abandoned => "the response is missing or incomplete",
            CloseReason::SocketFailed => "the socket failed",
            CloseReason::IdleTimeout => "idle for too long",
            CloseReason::Shed => "closed in favour of another connection",
            CloseReason::Stopping => "the proxy is stopping",
        })
    }
}
