//! Sizes and times that a client must keep to (contract sections 7 and 8).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Answer, Commands, Ended, FakeFlow, MIB, ProxyProcess, RawClient, RawUpstream, SOON, SetOnDrop,
    assert_error_and_close, get, send_and_read, start_request, wait_until,
};

/// Writes the request line of a GET, `length` bytes long, CRLF not counted.
fn request_line_of(length: usize) -> String {
    let (start, end) = ("GET /", " HTTP/1.1");
    format!(
        "{start}{}{end}",
        "x".repeat(length - start.len() - end.len())
    )
}

/// Writes a GET with these header lines, each ended by CRLF.
fn get_with(header_lines: &str) -> String {
    format!("GET /v1/x HTTP/1.1\r\nHost: localhost\r\n{header_lines}\r\n")
}

/// Starts a proxy whose only worker is busy: its client has read the head, and the upstream sends
/// the body's second byte on command.
fn start_busy() -> (RawUpstream, Commands, ProxyProcess, RawClient) {
    let (upstream, commands, proxy, mut streaming) = start_request(&[("--workers", "1")]);
    commands.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no");
    streaming.read_head();
    (upstream, commands, proxy, streaming)
}

/// Lets the response of [`start_busy`] end.
fn finish(commands: &Commands, streaming: &mut RawClient) {
    commands.send("k");
    assert_eq!(streaming.read_body_to_end().1, b"ok");
}

#[test]
fn a_request_line_of_16_kib_is_served() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let line = request_line_of(16 * 1024 - 2);
    let (_, response) = send_and_read(&proxy, format!("{line}\r\nHost: localhost\r\n\r\n"));
    assert_eq!(response.status, 200);
}

#[test]
fn a_longer_request_line_is_too_long() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    for length in [16 * 1024 + 1, 40_000, 200_000] {
        let line = request_line_of(length);
        assert_error_and_close(
            &proxy,
            format!("{line}\r\nHost: localhost\r\n\r\n"),
            414,
            "uri_too_long",
        );
    }
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
}

#[test]
fn a_request_line_without_an_end_is_too_long() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    assert_error_and_close(
        &proxy,
        "GET /".to_owned() + &"x".repeat(17 * 1024),
        414,
        "uri_too_long",
    );
}

#[test]
fn a_head_just_under_64_kib_is_served() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let head = get_with(&format!("X-Long: {}\r\n", "x".repeat(60 * 1024)));
    assert_eq!(send_and_read(&proxy, head).1.status, 200);
    let request = upstream.request();
    assert_eq!(request.header("x-long").map(str::len), Some(60 * 1024));
}

#[test]
fn a_larger_head_is_too_large() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let one_long = format!("X-Long: {}\r\n", "x".repeat(64 * 1024));
    let many_long = format!("X-Long: {}\r\n", "x".repeat(1000)).repeat(70);
    for lines in [one_long, many_long] {
        let head = get_with(&lines);
        assert_error_and_close(&proxy, head, 431, "headers_too_large");
    }
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
}

#[test]
fn an_endless_head_is_too_large_and_fills_no_memory() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let before = proxy.rss_kib();
    let mut client = RawClient::connect(proxy.address());
    client.try_send("GET /v1/x HTTP/1.1\r\nHost: localhost\r\nX-Long: ");
    for _ in 0..160 {
        if !client.try_send([b'x'; 64 * 1024]) {
            break;
        }
    }
    let answer = client.read_raw_to_close(SOON);
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
        "{answer}"
    );
    assert!(proxy.rss_kib().saturating_sub(before) < 4 * 1024);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
}

#[test]
fn headers_are_128_at_most() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let head = |count: usize| {
        let lines: String = (1..count).map(|n| format!("X-{n}: {n}\r\n")).collect();
        get_with(&lines)
    };
    assert_eq!(send_and_read(&proxy, head(128)).1.status, 200);
    assert_error_and_close(&proxy, head(129), 431, "headers_too_large");
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn options_of_the_connection_are_64_at_most() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let head = |options: &str| get_with(&format!("Connection: {options}\r\n"));
    let (mut client, served) = send_and_read(&proxy, head(&"x,".repeat(64)));
    assert_eq!(served.status, 200);
    client.send(head(&", ,\t,".repeat(1000)));
    assert_eq!(client.read_response().status, 200, "empty ones are none");
    let two_lines = format!("{}\r\nConnection: y", "x,".repeat(64));
    for options in ["x,".repeat(65), two_lines] {
        assert_error_and_close(&proxy, head(&options), 431, "headers_too_large");
    }
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn a_request_that_is_not_understood_keeps_its_id() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let head = "POST /v1/x HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: theirs-2\r\n\
                Content-Length: 1\r\nContent-Length: 1\r\n\r\n";
    let (_, response) = send_and_read(&proxy, head);
    response.assert_error(400, "bad_request");
    assert_eq!(response.header("x-request-id"), Some("theirs-2"));
    assert_eq!(proxy.wait_for_access_line(1).field("id"), "theirs-2");
    let mut client = RawClient::connect(proxy.address());
    client.send(head.replace("POST", "HEAD"));
    assert_eq!(client.read_response_to("HEAD").status, 400);
    client.assert_closed();
    assert_eq!(proxy.wait_for_access_line(2).field("out"), "0");
    // A rejection is short: a very long id is not in it.
    for (length, is_kept) in [(1024, true), (1025, false)] {
        let id = "i".repeat(length);
        let (_, response) = send_and_read(&proxy, head.replace("theirs-2", &id));
        let is_theirs = response.header("x-request-id") == Some(&*id);
        assert_eq!((response.status, is_theirs), (400, is_kept), "{length}");
    }
}

#[test]
fn a_head_that_is_not_complete_in_10_s_times_out() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    let started = Instant::now();
    client.send("GET /v1/x HTTP/1.1\r\nHost: localhost\r\n");
    // A byte now and then does not buy more time.
    while started.elapsed() < Duration::from_secs(8) {
        client.send("X");
        std::thread::sleep(Duration::from_secs(1));
    }
    let response = client.read_response();
    let took = started.elapsed();
    response.assert_error(408, "request_timeout");
    client.assert_closed();
    assert!(
        took > Duration::from_secs(9) && took < Duration::from_secs(13),
        "{took:?}"
    );
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn an_answer_that_the_client_does_not_read_is_given_up() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let upstream = RawUpstream::start(move |connection| {
        connection.read_request();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        while connection.send(vec![b'x'; 64 * 1024]) {
            counter.fetch_add(64 * 1024, Ordering::SeqCst);
        }
    });
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--client-timeout", "1")
        .start();
    let before = proxy.rss_kib();
    let mut client = RawClient::connect(proxy.address());
    let asked = Instant::now();
    client.send_request("GET", "/v1/x", &[], b"");
    let line = proxy.wait_for_access_line(1);
    assert_eq!((line.status, line.field("end")), (200, "client_timeout"));
    let took = asked.elapsed();
    let expected = Duration::from_millis(900)..Duration::from_secs(5);
    assert!(expected.contains(&took), "given up after {took:?}");
    assert!(proxy.rss_kib().saturating_sub(before) < 8 * 1024);
    assert!(sent.load(Ordering::SeqCst) < 100 * MIB);
    assert_eq!(get(proxy.address(), "/-/health").status, 200);
}

#[test]
fn a_client_that_reads_slowly_but_steadily_is_not_given_up() {
    let upstream = FakeFlow::answering(|_| Answer::new(200, vec![b'x'; 12 * MIB]));
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--client-timeout", "1")
        .start();
    let mut client = RawClient::connect(proxy.address());
    client.send_request("GET", "/v1/x", &[], b"");
    client.read_head();
    let started = Instant::now();
    let mut wanted = 0;
    while started.elapsed() < Duration::from_secs(3) {
        wanted += 64 * 1024;
        client.read_body_until("the next piece", |body| body.len() >= wanted);
        std::thread::sleep(Duration::from_millis(20)); // the client's own pace
    }
    let (_, body, ended) = client.read_body_to_end();
    assert_eq!((body.len(), ended), (12 * MIB, Ended::Complete));
}

#[test]
fn idle_connections_keep_no_worker_from_those_that_ask() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--workers", "2")
        .start();
    let mut idle = Vec::new();
    for _ in 0..20 {
        let asked = Instant::now();
        let mut client = RawClient::connect(proxy.address());
        assert_eq!(client.request("GET", "/v1/models", &[], b"").status, 200);
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
        idle.push(client);
    }
    // Those that gave way are closed; those that did not are still served.
    let newest = idle.last_mut().expect("twenty of them");
    assert_eq!(newest.request("GET", "/v1/models", &[], b"").status, 200);
}

#[test]
fn a_request_that_waited_5_s_for_a_worker_is_told_that_we_are_overloaded() {
    let (_upstream, commands, proxy, mut streaming) = start_busy();
    let asked = Instant::now();
    let mut client = RawClient::connect(proxy.address());
    let response = client.request("GET", "/v1/models", &[("X-Request-Id", "theirs-1")], b"");
    let took = asked.elapsed();
    response.assert_error(503, "overloaded");
    assert_eq!(response.header("x-request-id"), Some("theirs-1"));
    let line = proxy.wait_for_access_line(1);
    assert_eq!(line.field("id"), "theirs-1");
    let duration_ms: u64 = line.field("duration_ms").parse().expect("a number");
    assert!(duration_ms > 4000, "with the time in line: {duration_ms}");
    assert_eq!(response.header("retry-after"), Some("1"));
    assert!(
        took > Duration::from_secs(4) && took < Duration::from_secs(8),
        "{took:?}"
    );
    // What is being answered never gives way.
    finish(&commands, &mut streaming);
}

#[test]
fn a_connection_that_waits_is_served_when_a_worker_is_free() {
    let (upstream, commands) = RawUpstream::on_command();
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--workers", "1")
        .start();
    let mut streaming = RawClient::connect(proxy.address());
    streaming.send_request("GET", "/v1/x", &[("Connection", "close")], b"");
    commands.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no");
    streaming.read_head();
    let mut waiting = RawClient::connect(proxy.address());
    // Only what reads a page is answered without a worker.
    waiting.send_request("PUT", "/-/health", &[], b"");
    assert!(!waiting.has_response_within(Duration::from_millis(300)));
    commands.send("k");
    assert_eq!(waiting.read_response().status, 405);
}

#[test]
fn a_health_request_waits_for_no_worker() {
    let (_upstream, commands, proxy, mut streaming) = start_busy();
    let started = Instant::now();
    for _ in 0..3 {
        assert_eq!(get(proxy.address(), "/-/health").status, 200);
        assert_eq!(get(proxy.address(), "/-/ready").status, 200);
    }
    assert!(started.elapsed() < Duration::from_secs(2));
    finish(&commands, &mut streaming);
}

#[test]
fn repeated_health_requests_go_on_when_the_last_worker_is_taken() {
    let (upstream, commands) = RawUpstream::on_command();
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--workers", "1")
        .start();
    let (asked, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut client = RawClient::connect(proxy.address());
            while !is_over.load(Ordering::SeqCst) {
                let started = Instant::now();
                assert_eq!(client.request("GET", "/-/health", &[], b"").status, 200);
                assert!(started.elapsed() < Duration::from_secs(2));
                asked.fetch_add(1, Ordering::SeqCst);
            }
        });
        let over = SetOnDrop(&is_over);
        wait_until("it asks", SOON, || asked.load(Ordering::SeqCst) > 10);
        let mut streaming = RawClient::connect(proxy.address());
        streaming.send_request("GET", "/v1/x", &[], b"");
        commands.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no");
        streaming.read_head();
        let before = asked.load(Ordering::SeqCst);
        wait_until("it still asks", SOON, || {
            asking.is_finished() || asked.load(Ordering::SeqCst) > before + 20
        });
        drop(over);
        finish(&commands, &mut streaming);
        asking.join().expect("each answer came in time");
    });
}

#[test]
fn hundreds_of_connections_without_a_request_keep_no_client_out() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--workers", "8")
        .start();
    let silent: Vec<RawClient> = (0..300)
        .map(|_| RawClient::connect(proxy.address()))
        .collect();
    let asked = Instant::now();
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    assert!(
        asked.elapsed() < Duration::from_secs(3),
        "{:?}",
        asked.elapsed()
    );
    drop(silent);
}
