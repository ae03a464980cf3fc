//! A client that goes away ends its upstream request within 1 s, is logged with 499, and is
//! never held against a configuration (contract section 4).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::support::{
    FakeFlow, MIB, OK, ProxyProcess, RawClient, RawUpstream, SOON, SSE_HEAD, get, post_head,
    start_request, wait_until,
};

/// How soon the upstream must see that the client has gone.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What a scripted upstream reports to the test.
enum Seen {
    /// The request has arrived.
    Request,
    /// The proxy has closed the connection.
    Close(Instant),
}

/// Starts an upstream that answers with `response`, and reports each request and each close.
fn start_reporting(response: &'static str) -> (RawUpstream, Receiver<Seen>) {
    let (seen, reports) = channel();
    let upstream = RawUpstream::start(move |connection| {
        while connection.read_request().is_some() {
            let _ = seen.send(Seen::Request);
            connection.send(response);
        }
        let _ = seen.send(Seen::Close(Instant::now()));
    });
    (upstream, reports)
}

fn wait_for_request(reports: &Receiver<Seen>) {
    match reports.recv_timeout(SOON).expect("the request arrives") {
        Seen::Request => {}
        Seen::Close(_) => panic!("closed before its request"),
    }
}

fn assert_at_once(seen_at: Instant, gone: Instant) {
    let took = seen_at.saturating_duration_since(gone);
    assert!(took < AT_ONCE, "the upstream saw it after {took:?}");
}

/// Asserts that the upstream sees the close within 1 s of `gone`.
fn assert_closed_at_once(reports: &Receiver<Seen>, gone: Instant) {
    match reports
        .recv_timeout(SOON)
        .expect("the upstream sees the close")
    {
        Seen::Close(at) => assert_at_once(at, gone),
        Seen::Request => panic!("the request is sent again"),
    }
}

fn assert_logged_as_gone(proxy: &ProxyProcess) {
    let line = proxy.wait_for_access_line(1);
    assert_eq!((line.status, line.field("end")), (499, "client_gone"));
    assert_eq!(line.level, "WARNING");
    assert!(!proxy.log().contains("marked as failed"));
    assert!(!proxy.log().contains("Authentication failed"));
    assert_eq!(get(proxy.address(), "/-/ready").status, 200);
}

/// Lets `talk` send a request, whose upstream sends `response`, and asserts that it ends when the
/// client leaves.
fn assert_leaving_ends_the_request(response: &'static str, talk: impl FnOnce(&mut RawClient)) {
    let (upstream, reports) = start_reporting(response);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    talk(&mut client);
    wait_for_request(&reports);
    drop(client);
    assert_closed_at_once(&reports, Instant::now());
    assert_logged_as_gone(&proxy);
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn a_client_that_leaves_before_the_head_ends_its_upstream_request() {
    assert_leaving_ends_the_request("", |client| {
        client.send_request("POST", "/v1/chat/completions", &[], b"{}");
    });
}

#[test]
fn a_client_that_leaves_a_silent_stream_ends_its_upstream_request() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                  Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
    assert_leaving_ends_the_request(answer, |client| {
        client.send_request("POST", "/v1/chat/completions", &[], b"{}");
        client.read_head();
        client.read_body_until("the first event", |body| body == b"data: 1\n\n");
    });
}

#[test]
fn a_client_that_leaves_a_silent_answer_with_a_length_ends_its_upstream_request() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
    assert_leaving_ends_the_request(answer, |client| {
        client.send_request("GET", "/v1/x", &[], b"");
        client.read_head();
    });
}

#[test]
fn a_client_that_leaves_an_answer_without_a_length_ends_its_upstream_request() {
    assert_leaving_ends_the_request("HTTP/1.1 200 OK\r\n\r\nhalf", |client| {
        client.send_request("GET", "/v1/x", &[], b"");
        client.read_head();
    });
}

/// Leaves a stream with an event every `pace` and asserts that the upstream sees it.
fn leave_a_flowing_stream(pace: Duration, leave: impl FnOnce(&mut Option<RawClient>)) {
    let (closed, reports) = channel();
    let upstream = RawUpstream::start(move |connection| {
        connection.read_request();
        connection.send(SSE_HEAD);
        while connection.send("9\r\ndata: 1\n\n\r\n") {
            std::thread::sleep(pace); // the upstream's own pace
        }
        let _ = closed.send(Instant::now());
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send_request("POST", "/v1/chat/completions", &[], b"{}");
    client.read_head();
    client.read_body_until("some events", |body| body.len() > 30);
    let mut client = Some(client);
    let gone = Instant::now();
    leave(&mut client);
    let seen_at = reports.recv_timeout(SOON).expect("the upstream sees it");
    assert_at_once(seen_at, gone);
    assert_logged_as_gone(&proxy);
}

#[test]
fn a_client_that_leaves_a_flowing_stream_ends_its_upstream_request() {
    leave_a_flowing_stream(Duration::from_millis(20), |client| *client = None);
}

#[test]
fn a_client_that_shuts_down_its_sending_side_in_a_flowing_stream_is_taken_for_gone() {
    for pace in [Duration::from_millis(1), Duration::from_millis(60)] {
        leave_a_flowing_stream(pace, |client| {
            let client = client.as_mut().expect("it is still there");
            client.shut_down_sending();
        });
    }
}

#[test]
fn a_client_that_leaves_while_its_body_goes_up_ends_its_upstream_request() {
    let (closed, reports) = channel();
    let upstream = RawUpstream::start(move |connection| {
        connection.read_request_head();
        if connection.wait_for_close(Duration::from_secs(60)) {
            let _ = closed.send(Instant::now());
        }
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send(post_head(50 * MIB));
    client.send(vec![b'x'; 3 * MIB]);
    wait_until("the upload to begin", SOON, || upstream.connections() == 1);
    let gone = Instant::now();
    drop(client);
    let seen_at = reports.recv_timeout(SOON).expect("the upstream sees it");
    assert_at_once(seen_at, gone);
    assert_logged_as_gone(&proxy);
    assert_eq!(upstream.requests().len(), 0, "never a whole request");
}

// A close would wait behind the bytes that the full sockets hold, so only a reset can be seen.
#[test]
fn a_client_that_resets_while_the_upstream_does_not_read_its_body_is_seen() {
    let upstream = RawUpstream::start(|connection| {
        connection.read_request_head();
        std::thread::sleep(Duration::from_secs(60)); // reads nothing more; ends with the test
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send(post_head(90 * MIB));
    let piece = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    while client.try_send_within(&piece, Duration::from_millis(500)) {
        sent += piece.len();
        assert!(sent < 80 * MIB, "the upload never stalls");
    }
    client.reset();
    let gone = Instant::now();
    let line = proxy.wait_for_access_line(1);
    assert!(
        gone.elapsed() < AT_ONCE,
        "logged after {:?}",
        gone.elapsed()
    );
    assert_eq!((line.status, line.field("end")), (499, "client_gone"));
}

#[test]
fn a_client_that_leaves_in_a_small_body_never_reaches_the_upstream() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send(post_head(100) + "half");
    drop(client);
    let line = proxy.wait_for_access_line(1);
    assert_eq!((line.status, line.field("end")), (499, "client_gone"));
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn a_client_that_shuts_down_its_sending_side_is_taken_for_gone() {
    let (upstream, reports) = start_reporting("");
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send_request("GET", "/v1/x", &[], b"");
    wait_for_request(&reports);
    client.shut_down_sending();
    assert_closed_at_once(&reports, Instant::now());
    assert_logged_as_gone(&proxy);
    assert_eq!(client.read_raw_to_close(SOON), b"", "nothing is answered");
}

#[test]
fn a_client_that_waits_with_a_pipelined_request_has_not_left() {
    let (upstream, commands) = RawUpstream::on_command();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send(
        "GET /v1/1 HTTP/1.1\r\nHost: localhost\r\n\r\n\
         GET /-/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    );
    wait_until("the first request", SOON, || upstream.requests().len() == 1);
    // Longer than it may take to see that a client has gone.
    std::thread::sleep(AT_ONCE + Duration::from_millis(500));
    commands.send(OK);
    assert_eq!(client.read_response().text(), "ok");
    assert_eq!(client.read_response().status, 200);
}

#[test]
fn a_client_that_leaves_behind_a_pipelined_request_is_gone_all_the_same() {
    assert_leaving_ends_the_request("", |client| {
        client.send(
            "GET /v1/1 HTTP/1.1\r\nHost: localhost\r\n\r\n\
             GET /v1/2 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        );
    });
}

#[test]
fn a_patient_client_is_not_taken_for_gone() {
    let (upstream, commands, _proxy, mut client) = start_request(&[]);
    wait_until("the request", SOON, || upstream.requests().len() == 1);
    std::thread::sleep(Duration::from_secs(3)); // the upstream thinks
    commands.send(OK);
    assert_eq!(client.read_response().text(), "ok");
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn a_cancelled_worker_serves_the_next_request_with_a_new_connection() {
    let first = AtomicUsize::new(0);
    let upstream = RawUpstream::start(move |connection| {
        while connection.read_request().is_some() {
            if first.fetch_add(1, Ordering::SeqCst) == 0 {
                connection.wait_for_close(Duration::from_secs(60));
                return;
            }
            connection.send(OK);
        }
    });
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--workers", "1")
        .start();
    let mut client = RawClient::connect(proxy.address());
    client.send_request("GET", "/v1/1", &[], b"");
    wait_until("the first request", SOON, || upstream.requests().len() == 1);
    drop(client);
    proxy.wait_for_access_line(1);
    for _ in 0..5 {
        assert_eq!(get(proxy.address(), "/v1/2").text(), "ok");
    }
}

#[test]
fn clients_that_leave_leave_nothing_behind() {
    let upstream = RawUpstream::start(|connection| {
        connection.read_request();
        connection.send(SSE_HEAD);
        connection.wait_for_close(Duration::from_secs(60));
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    assert_eq!(get(proxy.address(), "/-/health").status, 200);
    let threads = proxy.thread_count();
    for round in 0..5 {
        let clients: Vec<RawClient> = (0..20)
            .map(|_| {
                let mut client = RawClient::connect(proxy.address());
                client.send_request("GET", "/v1/x", &[], b"");
                client.read_head();
                client
            })
            .collect();
        drop(clients);
        wait_until("all to be logged", SOON, || {
            proxy.access_lines().len() >= (round + 1) * 20
        });
    }
    wait_until("the sockets to be closed", SOON, || {
        proxy.client_count() == 0 && proxy.upstream_count(upstream.address()) == 0
    });
    assert_eq!(proxy.thread_count(), threads);
    let lines = proxy.access_lines();
    let gone = lines
        .iter()
        .filter(|line| line.field("end") == "client_gone")
        .count();
    assert_eq!((lines.len(), gone), (100, 100));
}
