use super::*;
use crate::config::target::Target;
use crate::net::socket::peek;
use crate::upstream::proxy_env::ProxySettings;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Sender, channel};
use std::thread;

/// Chunks of one byte with a kilobyte of extension: almost only framing.
const CHUNKS: usize = 180;

fn answer() -> String {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("1;{}\r\nx\r\n", "e".repeat(1000));
    head.to_owned() + &chunk.repeat(CHUNKS)
}

/// An upstream that reads a request and sends the answer when it is told to.
fn on_command() -> (Target, Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (go, told) = channel();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        assert!(socket.read(&mut request).unwrap() > 0);
        told.recv().unwrap();
        socket.write_all(answer().as_bytes()).unwrap();
        // Open until the test is over.
        let _ = told.recv();
    });
    (Target::parse(&url).unwrap(), go)
}

const SILENCE: Duration = Duration::from_secs(5);

/// A way to `target`, to which a GET was sent.
fn asked(target: &Target) -> UpstreamConnection {
    let factory = Upstream::new(target, SILENCE, None, &ProxySettings::Direct).unwrap();
    let mut upstream = UpstreamConnection::new(&factory);
    let request = Request {
        method: &Method::GET,
        target: b"/",
        fields: std::iter::empty(),
        body: RequestBody::None,
    };
    upstream.send(request, None).unwrap();
    upstream
}

#[test]
fn what_has_come_is_passed_on_after_some_reads_however_much_is_still_there() {
    let (target, go) = on_command();
    let mut upstream = asked(&target);
    let socket = upstream.socket().upgrade().unwrap();
    let roomy = socket2::SockRef::from(&*socket).set_recv_buffer_size(1 << 20);
    roomy.unwrap();
    go.send(()).unwrap();
    let deadline = Instant::now() + SILENCE;
    let mut look = vec![0; 1 << 20];
    while peek(&socket, &mut look) < answer().len() {
        assert!(Instant::now() < deadline, "not all of it came");
        thread::yield_now();
    }

    assert!(upstream.receive(&Method::GET).unwrap().is_some());
    let mut room = [0; 16 * 1024];
    let mut taken = 0;
    while let BodyRead::Data(length) = upstream.try_read(&mut room).unwrap() {
        taken += length;
    }
    assert!(taken > 0 && taken < CHUNKS, "{taken} at once");
    while taken < CHUNKS {
        match upstream.read(&mut room).unwrap() {
            BodyRead::Data(length) => taken += length,
            other => panic!("{other:?} after {taken}"),
        }
    }
}

/// One exchange with an upstream that answers at once, then whatever `between` does to the connection,
/// then the end of an exchange that needed no upstream. Returns for how long the connection that is
/// left has been idle.
fn idle_after_own_answer(between: impl FnOnce(&mut Connection)) -> Option<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let target = Target::parse(&url).unwrap();
    let mut upstream = asked(&target);
    let (mut socket, _) = listener.accept().unwrap();
    let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
    socket.write_all(answer).unwrap();
    assert!(upstream.receive(&Method::GET).unwrap().is_some());
    upstream.end_exchange();
    between(upstream.connection.as_mut().unwrap());
    upstream.end_exchange();
    let connection = upstream.connection.as_ref();
    connection.map(|connection| connection.last_used.elapsed())
}

#[test]
fn an_answer_of_our_own_makes_no_idle_connection_younger_and_drops_an_old_one() {
    let fresh = idle_after_own_answer(|_| {});
    assert!(fresh.is_some_and(|idle| idle < MAX_IDLE_AGE / 2));
    let half = idle_after_own_answer(|connection| connection.last_used -= MAX_IDLE_AGE / 2);
    assert!(half.is_some_and(|idle| idle >= MAX_IDLE_AGE / 2));
    let old = idle_after_own_answer(|connection| connection.last_used -= MAX_IDLE_AGE);
    assert_eq!(old, None);
}
