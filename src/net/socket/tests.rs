use super::*;
use crate::net::wait::{Leadership, NoLeadership, peer_closed};
use std::cell::Cell;
use std::io::Write;
use std::net::{Shutdown, TcpListener};

/// Two connected sockets; reads of the near one do not block.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    near.set_nonblocking(true).unwrap();
    (near, far)
}

/// Never reached unless a test fails.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A context that watches `client`.
fn watching(client: &TcpStream) -> CallContext<'_> {
    CallContext::new(&NoLeadership, client)
}

#[test]
fn a_read_returns_what_arrives() {
    let (near, mut far) = pair();
    far.write_all(b"hello").unwrap();
    let mut buffer = [0; 16];
    let length = read(
        &near,
        &mut buffer,
        ReadTimeout::default(),
        TIMEOUT,
        CallContext::UNWATCHED,
    )
    .unwrap();
    assert_eq!(&buffer[..length], b"hello");
}

#[test]
fn a_read_gives_up_after_its_timeout() {
    let (near, _far) = pair();
    let (started, timeout) = (Instant::now(), Duration::from_millis(30));
    let result = read(
        &near,
        &mut [0; 4],
        ReadTimeout::default(),
        timeout,
        CallContext::UNWATCHED,
    );
    assert!(matches!(result, Err(WaitError::TimedOut)));
    assert!(started.elapsed() >= timeout);
}

#[test]
fn a_read_that_blocks_first_keeps_its_timeout_and_watches_the_client() {
    let (near, mut far) = pair();
    near.set_nonblocking(false).unwrap();
    let read_timeout = ReadTimeout::set(&near, Duration::from_millis(20)).unwrap();
    let (started, timeout) = (Instant::now(), Duration::from_millis(60));
    let result = read(
        &near,
        &mut [0; 4],
        read_timeout,
        timeout,
        CallContext::UNWATCHED,
    );
    assert!(matches!(result, Err(WaitError::TimedOut)));
    assert!(started.elapsed() >= timeout);
    let (client, client_far) = pair();
    drop(client_far);
    let result = read(&near, &mut [0; 4], read_timeout, TIMEOUT, watching(&client));
    assert!(matches!(result, Err(WaitError::ClientClosed)));
    far.write_all(b"late").unwrap();
    let length = read(
        &near,
        &mut [0; 4],
        read_timeout,
        TIMEOUT,
        CallContext::UNWATCHED,
    )
    .unwrap();
    assert_eq!(length, 4);
}

#[test]
fn a_wait_ends_when_the_watched_client_disconnects() {
    let (near, _far) = pair();
    let (client, client_far) = pair();
    drop(client_far);
    let result = read(
        &near,
        &mut [0; 4],
        ReadTimeout::default(),
        TIMEOUT,
        watching(&client),
    );
    assert!(matches!(result, Err(WaitError::ClientClosed)));
}

#[test]
fn bytes_from_the_watched_client_do_not_end_the_wait() {
    let (near, mut far) = pair();
    let (client, mut client_far) = pair();
    client_far.write_all(b"a pipelined request").unwrap();
    far.write_all(b"response").unwrap();
    let mut buffer = [0; 16];
    let length = read(
        &near,
        &mut buffer,
        ReadTimeout::default(),
        TIMEOUT,
        watching(&client),
    )
    .unwrap();
    assert_eq!(length, 8);
}

#[test]
fn a_peer_that_shuts_down_its_sending_side_counts_as_closed() {
    let (near, far) = pair();
    assert!(!peer_closed(&near));
    far.shutdown(Shutdown::Write).unwrap();
    let deadline = Instant::now() + TIMEOUT;
    while !peer_closed(&near) {
        assert!(Instant::now() < deadline, "the close was never seen");
        std::thread::yield_now();
    }
}

#[test]
fn a_write_gives_up_on_a_peer_that_reads_nothing() {
    let (near, _far) = pair();
    let flood = vec![0; 64 << 20];
    let result = write_all(
        &near,
        &flood,
        Duration::from_millis(30),
        CallContext::UNWATCHED,
    );
    assert!(matches!(result, Err(WaitError::TimedOut)));
}

/// Counts how often it is handed over.
#[derive(Default)]
struct CountedLeadership {
    leads: Cell<bool>,
    handed_over: Cell<u32>,
}

impl Leadership for CountedLeadership {
    fn is_leading(&self) -> bool {
        self.leads.get()
    }

    fn hand_over(&self) {
        if self.leads.replace(false) {
            self.handed_over.set(self.handed_over.get() + 1);
        }
    }
}

#[test]
fn leadership_is_handed_over_before_a_wait_and_kept_where_bytes_have_arrived() {
    let leadership = CountedLeadership::default();
    leadership.leads.set(true);
    let (near, mut far) = pair();
    let call = CallContext::new(&leadership, &near).unwatched();
    far.write_all(b"hello").unwrap();
    wait(&near, PollFlags::IN, Instant::now(), call).unwrap();
    let length = read(&near, &mut [0; 16], ReadTimeout::default(), TIMEOUT, call).unwrap();
    assert_eq!((length, call.is_leading()), (5, true));
    let result = read(
        &near,
        &mut [0; 16],
        ReadTimeout::default(),
        Duration::from_millis(1),
        call,
    );
    assert!(matches!(result, Err(WaitError::TimedOut)));
    assert_eq!(
        (leadership.handed_over.get(), call.is_leading()),
        (1, false)
    );
}
