//! The client's side: an HTTP/1.1 server on blocking threads. It knows nothing of Flow.
//!
//! A connection that has something to read comes from the `acceptor` into one of the `lanes`, where a
//! worker of the `pool` takes it up: `connection` reads request heads and calls the [`Handler`] with an
//! [`Exchange`]. It stays there while requests follow each other; then it is parked with the acceptor
//! again. Parsers ([`crate::http1`]) do no I/O. Every limit stands here.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, Method};

mod accept;
mod admission;
mod client;
mod connection;
mod contexts;
mod event_loops;
mod exchange;
mod leadership;
mod reject;
mod workers;

pub use exchange::{ClientError, Exchange};

use crate::http1::error::{Reason, Refusal};
use accept::Acceptor;
use admission::Admission;
use workers::Workers;

/// A request head must be complete this long after its first byte.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection without a request is closed after this long; nginx's keepalive_timeout.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// A request that has waited this long for a worker is refused with 503.
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a plain read of a request body blocks. A stall is noticed so much later than it is one.
const BODY_WAIT: Duration = Duration::from_millis(10);
/// How long a closed connection may go on sending, so that it can read its last answer.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// How many bytes it may send meanwhile.
const MAX_DRAIN: usize = 8 << 20;
/// Buffers and upstream connections that no request has needed for this long are given up.
const CONTEXT_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 1024;

/// Fields as [`Exchange::start`] takes them.
pub fn field_lines(fields: &[(HeaderName, HeaderValue)]) -> impl Iterator<Item = &[u8]> {
    fields.iter().flat_map(|(name, value)| {
        let line: [&[u8]; 4] = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
        line
    })
}

/// The limits that the operator sets.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Requests in flight at once.
    pub workers: usize,
    /// Connections open at once, idle ones included.
    pub max_connections: usize,
    /// The longest stall of a client in the middle of a request body or an answer.
    pub client_timeout: Duration,
    /// The largest request body in bytes; `None`: no limit.
    pub max_body: Option<u64>,
}

/// Answers requests. Shared by all workers.
pub trait Handler: Send + Sync + 'static {
    /// What each request in flight has for itself: buffers, an upstream connection.
    type Context: Send;

    /// Makes a [`Handler::Kit`]: for one more request in flight than there were before.
    fn context(&self) -> Self::Context;

    /// Answers one request. Where [`Exchange::may_wait`] says so it may return before it would have
    /// to wait for somebody else's bytes.
    fn handle(&self, context: &mut Self::Context, exchange: &mut Exchange<'_>) -> Progress;

    /// Goes on where [`Handler::handle`] has returned: bytes have come, or it is to wait itself.
    /// A handler whose requests never wait needs none.
    fn resume(&self, context: &mut Self::Context, exchange: &mut Exchange<'_>) -> Progress {
        self.handle(context, exchange)
    }

    /// The kit's connection to the upstream, if it has one: a waiting request waits for its bytes.
    fn awaited<'k>(&'k self, context: &'k Self::Context) -> Option<&'k Weak<TcpStream>>;

    /// Whether the request that begins with these bytes is answered without waiting for anybody. Such
    /// a request needs no worker: whoever asks whether the server is well must not wait for others.
    fn is_quick(&self, request: &[u8]) -> bool {
        let _ = request;
        false
    }

    /// The answer to a request that the server cannot take. The request line may be missing or
    /// malformed: it is what arrived, for the log and to tell the client's dialect.
    fn reject(&self, rejected: &RejectedRequest<'_>) -> OwnResponse;
}

/// How far a handler has come with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Done,
    /// It waits for somebody else, with nothing of its answer started. What the handler knows of it
    /// is in its kit.
    AwaitingUpstream,
}

/// A request that the server cannot take.
#[derive(Debug)]
pub struct RejectedRequest<'a> {
    /// The client's address, as it stands in the log.
    pub peer: Arc<str>,
    /// `-` where it could not be read.
    pub method: Method,
    /// `-` where it could not be read.
    pub target: Box<[u8]>,
    /// Its request id, as the client sent it: any bytes.
    pub id: Option<Box<[u8]>>,
    /// When it came, or its first bytes.
    pub since: Instant,
    pub refusal: &'a Refusal,
}

/// The answer to a [`Refused`] request, without status line and connection fields.
#[derive(Debug)]
pub struct OwnResponse {
    pub fields: Vec<(HeaderName, HeaderValue)>,
    pub body: Vec<u8>,
}

/// A bound listener, not yet serving.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

/// A serving server.
pub struct Running {
    admission: Arc<Admission>,
    cut_off: Box<dyn Fn() + Send + Sync>,
    address: SocketAddr,
}

impl Server {
    /// Binds `address`; port 0 takes any free one.
    ///
    /// # Errors
    /// What the system says: in use, no permission, no such address.
    pub fn bind(address: SocketAddr) -> io::Result<Server> {
        use socket2::{Domain, Protocol, Socket, Type};
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from(socket);
        let address = listener.local_addr()?;
        Ok(Server { listener, address })
    }

    /// The address that was bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts the threads and serves until [`Running::stop`].
    ///
    /// # Errors
    /// The system does not allow so many threads.
    pub fn start<H: Handler>(self, handler: Arc<H>, limits: Limits) -> io::Result<Running> {
        self.start_with(limits, |admission| Workers::new(admission, handler))
    }

    fn start_with<H: Handler>(
        self,
        limits: Limits,
        workers: impl FnOnce(Arc<Admission>) -> Workers<H>,
    ) -> io::Result<Running> {
        let (waker, wakes) = UnixStream::pair()?;
        waker.set_nonblocking(true)?;
        wakes.set_nonblocking(true)?;
        let admission = Arc::new(Admission::new(limits, waker));
        let workers = Arc::new(workers(Arc::clone(&admission)));
        workers.start()?;
        let acceptor = Acceptor::new(self.listener, wakes, Arc::clone(&workers));
        thread::Builder::new()
            .name("accept".into())
            .spawn(move || acceptor.run())?;
        Ok(Running {
            admission,
            cut_off: Box::new(move || workers.cut_off()),
            address: self.address,
        })
    }
}

impl Running {
    /// The address that was bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting and closes idle connections; requests in flight go on.
    pub fn stop(&self) {
        self.admission.stop();
    }

    /// Waits until no request is in flight. False: `timeout` was not enough.
    pub fn wait_until_idle(&self, timeout: Duration) -> bool {
        self.admission.wait_until_idle(timeout)
    }

    /// Cuts off all requests in flight.
    pub fn abort(&self) {
        self.admission.set_aborting();
        (self.cut_off)();
    }
}

/// The refusal of a head that was not complete in [`HEAD_TIMEOUT`].
fn head_timeout() -> Refusal {
    let limit_s = HEAD_TIMEOUT.as_secs();
    let message = format!("the request head was not complete after {limit_s} s");
    Refusal::new(Reason::RequestTimeout, message)
}

#[cfg(test)]
mod tests;
