//! The server alone, with a handler that responds at once. Also set-up for the tests of its parts.

use super::connection::Connection;
use super::*;
use crate::http1::body::BodyLength;
use crate::http1::encode::field_lines;
use crate::net::socket::ReadTimeout;
use http::{HeaderName, HeaderValue, StatusCode};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Weak;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

/// The context of a request that waits for the upstream.
const WAITING: usize = 2;

/// Responds `hello` to every request. Its contexts are numbers; new ones are 0.
#[derive(Default)]
pub(super) struct Greeter {
    /// The upstream connection of all contexts.
    pub(super) upstream: Weak<TcpStream>,
    /// Whether requests for `/last` wait for the upstream if they may.
    pub(super) waits: bool,
    /// How many times it panics when it is asked for the upstream connection of a request that waits:
    /// outside of [`Handler::handle`].
    pub(super) panics: AtomicUsize,
}

impl Greeter {
    fn greet(exchange: &mut Exchange<'_>) -> Progress {
        let headers = [(
            HeaderName::from_static("content-length"),
            HeaderValue::from(5),
        )];
        exchange.start(StatusCode::OK, field_lines(&headers), BodyLength::Known(5));
        exchange.write(b"hello");
        exchange.finish().unwrap();
        Progress::Done
    }
}

impl Handler for Greeter {
    type Context = usize;

    fn new_context(&self) -> usize {
        0
    }

    fn handle(&self, context: &mut usize, exchange: &mut Exchange<'_>) -> Progress {
        let is_last = *exchange.head.target == *b"/last";
        if is_last && self.waits && exchange.may_wait() {
            *context = WAITING;
            return Progress::AwaitingUpstream;
        }
        *context = 0;
        Greeter::greet(exchange)
    }

    fn upstream_socket<'c>(&'c self, context: &'c usize) -> Option<&'c Weak<TcpStream>> {
        let step = |left: usize| left.checked_sub(1);
        let panics = *context == WAITING && self.panics.fetch_update(SeqCst, SeqCst, step).is_ok();
        assert!(!panics, "the test wants a panic here");
        Some(&self.upstream)
    }

    fn reject(&self, _: &RejectedRequest<'_>) -> OwnResponse {
        OwnResponse {
            fields: vec![],
            body: vec![],
        }
    }
}

pub(super) fn limits() -> Limits {
    Limits {
        workers: 2,
        max_connections: 100,
        client_timeout: Duration::from_secs(1),
        max_body: None,
    }
}

pub(super) fn admission() -> Admission {
    admission_with(limits())
}

pub(super) fn admission_with(limits: Limits) -> Admission {
    Admission::new(limits, UnixStream::pair().unwrap().0)
}

/// A connection and the client at its far end.
pub(super) fn connection(admission: &Admission) -> (Box<Connection>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, peer) = listener.accept().unwrap();
    let connection = Connection::new(socket, peer, ReadTimeout::default(), admission.open_guard());
    (connection, client)
}

fn bind() -> Server {
    Server::bind("127.0.0.1:0".parse().unwrap()).unwrap()
}

fn assert_greeted(client: &mut TcpStream) {
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut response = Vec::new();
    let mut piece = [0; 256];
    while !response.ends_with(b"hello") {
        let length = client.read(&mut piece).expect("a response");
        assert!(length > 0, "closed");
        response.extend_from_slice(&piece[..length]);
    }
    assert!(response.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

/// Systems other than Linux have no event loops, and a system can be out of descriptors.
#[test]
fn a_server_without_event_loops_serves_and_idle_clients_keep_no_thread() {
    let running = bind()
        .start_with(limits(), |admission| {
            Workers::with_event_loops(0, admission, Arc::new(Greeter::default()))
        })
        .unwrap();
    let connect = |_| TcpStream::connect(running.address()).unwrap();
    let mut clients: Vec<_> = (0..6).map(connect).collect();
    for _ in 0..3 {
        clients.iter_mut().for_each(assert_greeted);
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut times_idle = 0;
    while times_idle < 20 {
        assert!(Instant::now() < deadline, "requests stay in flight");
        times_idle = if running.wait_until_idle(Duration::ZERO) {
            times_idle + 1
        } else {
            0
        };
        thread::sleep(Duration::from_millis(1));
    }
    clients.iter_mut().for_each(assert_greeted);
}

#[test]
fn a_panic_outside_the_handler_gives_its_permit_back() {
    let (upstream, _peer) = connection(&admission());
    let greeter = Arc::new(Greeter {
        upstream: Arc::downgrade(&upstream.client.socket),
        waits: true,
        panics: AtomicUsize::new(0),
    });
    let workers = |admission| Workers::with_event_loops(1, admission, Arc::clone(&greeter));
    let running = bind().start_with(limits(), workers).unwrap();
    for _ in 0..3 * limits().workers {
        let mut client = TcpStream::connect(running.address()).unwrap();
        // Makes a spare context, without which no event loop is used: a panic drops its context.
        assert_greeted(&mut client);
        greeter.panics.store(1, SeqCst);
        let last = b"GET /last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        client.write_all(last).unwrap();
        let mut response = Vec::new();
        // A reset is as good as an end.
        let _ = client.read_to_end(&mut response);
        assert_eq!(response, b"");
        assert_eq!(greeter.panics.load(SeqCst), 0, "it has panicked");
    }
    assert_greeted(&mut TcpStream::connect(running.address()).unwrap());
    running.stop();
    assert!(running.wait_until_idle(Duration::from_secs(5)));
}
