//! The server by itself, with a handler that answers at once.

use super::connection::Connection;
use super::*;
use crate::http1::encode::{ResponseLength, field_lines};
use crate::net::socket::ReadTimeout;
use http::{HeaderName, HeaderValue, StatusCode};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Weak;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

/// Answers every request with `hello`. Its kits are numbers; new ones are 0.
#[derive(Default)]
pub(super) struct Greeter {
    /// The connection to the upstream of all kits.
    pub(super) upstream: Weak<TcpStream>,
    /// Requests for `/last` wait for the upstream where they may.
    pub(super) waits: bool,
    /// When it is asked for the upstream of a kit with this number, which is not while it handles a
    /// request, it panics …
    pub(super) panics_at: usize,
    /// … so many times.
    pub(super) panics: AtomicUsize,
}

impl Greeter {
    fn greet(exchange: &mut Exchange<'_>) -> Progress {
        let fields = [(
            HeaderName::from_static("content-length"),
            HeaderValue::from(5),
        )];
        exchange.start(
            StatusCode::OK,
            field_lines(&fields),
            ResponseLength::Length(5),
        );
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
        let panics =
            *context == self.panics_at && self.panics.fetch_update(SeqCst, SeqCst, step).is_ok();
        assert!(!panics, "as a test wants it");
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

/// A connection and the client at its other end.
pub(super) fn connection(admission: &Admission) -> (Box<Connection>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, peer) = listener.accept().unwrap();
    let connection = Connection::new(socket, peer, ReadTimeout::default(), admission.open_guard());
    (connection, client)
}

fn assert_greeted(client: &mut TcpStream) {
    assert_greeted_after(client, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
}

fn assert_greeted_after(client: &mut TcpStream, request: &str) {
    client.write_all(request.as_bytes()).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 256];
    while !answer.ends_with(b"hello") {
        let length = client.read(&mut piece).expect("an answer");
        assert!(length > 0, "closed");
        answer.extend_from_slice(&piece[..length]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

/// Other systems than Linux have none, and a system can be out of descriptors.
#[test]
fn a_server_without_lanes_serves_as_well_and_idle_clients_keep_no_thread() {
    let address = "127.0.0.1:0".parse().unwrap();
    let server = Server::bind(address).unwrap();
    let running = server
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
    let mut quiet = 0;
    while quiet < 20 {
        assert!(Instant::now() < deadline, "requests stay in flight");
        quiet = if running.wait_until_idle(Duration::ZERO) {
            quiet + 1
        } else {
            0
        };
        thread::sleep(Duration::from_millis(1));
    }
    clients.iter_mut().for_each(assert_greeted);
}

/// What a request for `/last` makes of its kit while it waits.
const WAITING: usize = 2;

/// Lets more requests than may be in flight meet a panic while they are put aside to wait; then one is
/// served.
fn assert_panics_cost_no_place() {
    let panics = 3 * limits().workers;
    let (upstream, _peer) = connection(&admission());
    let greeter = Arc::new(Greeter {
        upstream: Arc::downgrade(&upstream.client.socket),
        waits: true,
        panics_at: WAITING,
        panics: AtomicUsize::new(0),
    });
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let start = |admission| Workers::with_event_loops(1, admission, Arc::clone(&greeter));
    let running = server.start_with(limits(), start).unwrap();
    for _ in 0..panics {
        let mut client = TcpStream::connect(running.address()).unwrap();
        // A panic takes the kit with it, and without a spare one no event loop is used.
        assert_greeted(&mut client);
        greeter.panics.store(1, SeqCst);
        let last = b"GET /last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        client.write_all(last).unwrap();
        let mut answer = Vec::new();
        // A reset is as good as an end.
        let _ = client.read_to_end(&mut answer);
        assert_eq!(answer, b"");
        assert_eq!(greeter.panics.load(SeqCst), 0, "it panicked");
    }
    assert_greeted(&mut TcpStream::connect(running.address()).unwrap());
    running.stop();
    assert!(running.wait_until_idle(Duration::from_secs(5)));
}

#[test]
fn a_panic_outside_the_handler_costs_no_place_among_the_requests_in_flight() {
    assert_panics_cost_no_place();
}
