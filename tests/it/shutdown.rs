//! How the process ends (contract section 11), and how it fails to start.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::support::{
    Ended, FakeFlow, OK, ProxyProcess, RawClient, RawUpstream, SOON, expecting_post_head, get,
    start_stream, wait_until,
};

/// Ends well before `--shutdown-timeout` and every other default.
const PROMPTLY: Duration = Duration::from_secs(3);

/// Waits until new connections are refused: the proxy has begun to stop.
fn wait_until_stopping(proxy: &ProxyProcess) {
    wait_until("connections to be refused", SOON, || {
        TcpStream::connect(proxy.address()).is_err()
    });
}

#[test]
fn sigterm_and_sigint_end_an_idle_proxy_with_0() {
    for signal in ["TERM", "INT"] {
        let upstream = FakeFlow::start();
        let mut proxy = ProxyProcess::to(&upstream.url()).start();
        assert_eq!(get(proxy.address(), "/v1/models").status, 200);
        let lines = proxy.log().lines().count();
        proxy.signal(signal);
        assert_eq!(proxy.wait_for_exit(PROMPTLY).code(), Some(0), "SIG{signal}");
        wait_until("the stop to be logged", SOON, || {
            proxy.log().lines().count() > lines
        });
    }
}

#[test]
fn idle_connections_are_closed_at_once() {
    let upstream = FakeFlow::start();
    let mut proxy = ProxyProcess::to(&upstream.url()).start();
    let mut served = RawClient::connect(proxy.address());
    assert_eq!(served.request("GET", "/v1/models", &[], b"").status, 200);
    let mut silent = RawClient::connect(proxy.address());
    assert_eq!(
        get(proxy.address(), "/-/health").status,
        200,
        "both are accepted by now"
    );
    proxy.signal("TERM");
    assert!(served.closes_within(PROMPTLY));
    assert!(silent.closes_within(PROMPTLY));
    assert_eq!(proxy.wait_for_exit(PROMPTLY).code(), Some(0));
}

#[test]
fn a_stream_in_flight_is_finished() {
    let (_upstream, commands, mut proxy, mut client) = start_stream(&[]);
    proxy.signal("TERM");
    wait_until_stopping(&proxy);
    commands.send("3\r\ntwo\r\n");
    client.read_body_until("the next piece", |body| body == b"onetwo");
    assert!(!proxy.has_exited());
    commands.send("0\r\n\r\n");
    assert_eq!(client.read_body_to_end().2, Ended::Complete);
    client.assert_closed();
    assert_eq!(proxy.wait_for_exit(PROMPTLY).code(), Some(0));
    assert_eq!(proxy.access_lines()[0].field("end"), "ok");
}

#[test]
fn a_request_whose_upstream_is_still_silent_is_finished_and_its_connection_closed() {
    let (upstream, commands) = RawUpstream::on_command();
    let mut proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send_request("POST", "/v1/x", &[], b"{}");
    wait_until("the request", SOON, || upstream.requests().len() == 1);
    proxy.signal("TERM");
    wait_until_stopping(&proxy);
    commands.send(OK);
    let response = client.read_response();
    response.assert_text(200, "ok");
    response.assert_announces_close();
    client.assert_closed();
    assert_eq!(proxy.wait_for_exit(PROMPTLY).code(), Some(0));
}

#[test]
fn a_request_body_in_flight_is_finished() {
    let upstream = FakeFlow::start();
    let mut proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send(expecting_post_head(10));
    assert_eq!(client.read_head().status, 100, "a worker has the head");
    client.send("hello");
    proxy.signal("TERM");
    wait_until_stopping(&proxy);
    client.send("world");
    assert_eq!(client.read_response().status, 200);
    assert_eq!(upstream.request().body, b"helloworld");
    assert_eq!(proxy.wait_for_exit(PROMPTLY).code(), Some(0));
}

#[test]
fn the_shutdown_timeout_cuts_streams() {
    let (_upstream, commands, mut proxy, mut client) = start_stream(&[("--shutdown-timeout", "1")]);
    proxy.signal("TERM");
    let asked = Instant::now();
    let (_, body, ended) = client.read_body_to_end();
    assert!(body.starts_with(b"one"));
    assert_eq!(ended, Ended::WithoutLastChunk);
    assert!(
        asked.elapsed() >= Duration::from_millis(900),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(proxy.wait_for_exit(PROMPTLY).code(), Some(0));
    commands.wait_for_close(SOON);
    let line = proxy.wait_for_access_line(1);
    assert_eq!((line.status, line.field("end")), (200, "shutdown"));
}

#[test]
fn the_shutdown_timeout_cuts_requests_before_their_head_too() {
    let (upstream, _commands) = RawUpstream::on_command();
    let mut proxy = ProxyProcess::to(&upstream.url())
        .option("--shutdown-timeout", "1")
        .start();
    let mut client = RawClient::connect(proxy.address());
    client.send_request("POST", "/v1/x", &[], b"{}");
    wait_until("the request", SOON, || upstream.requests().len() == 1);
    proxy.signal("TERM");
    client.read_raw_to_close(SOON);
    assert_eq!(proxy.wait_for_exit(PROMPTLY).code(), Some(0));
    assert_eq!(proxy.wait_for_access_line(1).field("end"), "shutdown");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (_upstream, _commands, mut proxy, mut client) = start_stream(&[]);
    proxy.signal("TERM");
    wait_until_stopping(&proxy);
    assert!(!proxy.has_exited());
    proxy.signal("TERM");
    proxy.wait_for_exit(Duration::from_secs(1));
    assert_eq!(client.read_body_to_end().2, Ended::WithoutLastChunk);
}

#[test]
fn sighup_does_not_end_it() {
    let upstream = FakeFlow::start();
    let mut proxy = ProxyProcess::to(&upstream.url()).start();
    let lines = proxy.log().lines().count();
    proxy.signal("HUP");
    wait_until("the signal to be logged", SOON, || {
        proxy.log().lines().count() > lines
    });
    assert!(!proxy.has_exited());
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
}

#[test]
fn the_port_can_be_taken_again_right_after_the_end() {
    let upstream = FakeFlow::start();
    let mut proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    assert_eq!(client.request("GET", "/v1/models", &[], b"").status, 200);
    let port = proxy.address().port();
    proxy.signal("TERM");
    proxy.wait_for_exit(PROMPTLY);
    let proxy = ProxyProcess::to(&upstream.url()).port(port).start();
    assert_eq!(proxy.address().port(), port);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
}

#[test]
fn a_port_in_use_ends_the_start_with_1() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
    let port = holder
        .local_addr()
        .expect("a bound listener has an address")
        .port();
    let finished = ProxyProcess::to("http://127.0.0.1:9/x")
        .port(port)
        .run_to_end(SOON);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(
        finished.stderr.contains(&port.to_string()),
        "names the port: {}",
        finished.stderr
    );
    assert!(!finished.stderr.contains("Listening on"));
}

#[test]
fn the_listening_line_tells_the_address_that_was_bound() {
    let proxy = ProxyProcess::to("http://127.0.0.1:9/x").start();
    let line = format!(" - INFO - Listening on http://{}", proxy.address());
    assert!(proxy.wait_for_log("Listening on").ends_with(&line));
    assert_ne!(proxy.address().port(), 0);
}
