//! The server by itself, with a handler that answers at once.

use super::connection::Connection;
use super::*;
use crate::socket::Patience;
use http::StatusCode;
use std::io::{Read, Write};
use std::time::Instant;

/// Answers every request with `hello`. Its kits are numbers; new ones are 0.
#[derive(Default)]
pub(super) struct Greeter {
    /// The connection to the upstream of all kits.
    pub(super) upstream: Weak<TcpStream>,
}

impl Handler for Greeter {
    type Kit = usize;

    fn kit(&self) -> usize {
        0
    }

    fn handle(&self, _: &mut usize, exchange: &mut Exchange<'_>) -> Progress {
        let fields = [(
            HeaderName::from_static("content-length"),
            HeaderValue::from(5),
        )];
        exchange.start(
            StatusCode::OK,
            field_lines(&fields),
            AnswerFraming::Length(5),
        );
        exchange.write(b"hello");
        exchange.finish().unwrap();
        Progress::Over
    }

    fn awaited<'k>(&'k self, _: &'k usize) -> Option<&'k Weak<TcpStream>> {
        Some(&self.upstream)
    }

    fn refuse(&self, _: &Refused<'_>) -> RefusalAnswer {
        RefusalAnswer {
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

pub(super) fn shared() -> Shared {
    shared_with(limits())
}

pub(super) fn shared_with(limits: Limits) -> Shared {
    Shared::new(limits, UnixStream::pair().unwrap().0)
}

/// A connection and the client at its other end.
pub(super) fn connection(shared: &Shared) -> (Box<Connection>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, peer) = listener.accept().unwrap();
    let connection = Connection::new(socket, peer, Patience::default(), shared.open_guard());
    (connection, client)
}

fn assert_greeted(client: &mut TcpStream) {
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
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
        .start_with(limits(), |shared| {
            Pool::with_lanes(0, shared, Arc::new(Greeter::default()))
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
