//! When a request that met the end of an idle upstream connection is sent once more, and when that could
//! make the upstream do its work twice (contract section 4).

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::support::{OK, ProxyProcess, RawClient, RawUpstream, SOON, get};

/// An upstream whose first connection ends `closes_after` its second request was read.
fn closing_upstream(closes_after: Duration) -> RawUpstream {
    RawUpstream::start(move |connection| {
        let is_first = connection.number == 1;
        while connection.read_request().is_some() {
            if is_first && connection.has_served() {
                std::thread::sleep(closes_after); // the upstream's own pace
                return;
            }
            connection.send(OK);
        }
    })
}

/// Sends a request, waits for `idle`, and sends another one on the same connections. Returns its status
/// and how often the upstream saw it.
fn send_after(idle: Duration, closes_after: Duration, method: &str) -> (u16, usize) {
    let upstream = closing_upstream(closes_after);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    assert_eq!(client.request("GET", "/v1/first", &[], b"").status, 200);
    std::thread::sleep(idle); // what is measured
    let asked = Instant::now();
    let response = client.request(method, "/v1/second", &[], b"{}");
    let limit = closes_after + Duration::from_secs(5);
    assert!(asked.elapsed() < limit, "{:?}", asked.elapsed());
    let line = proxy.wait_for_access_line(2);
    let copies = upstream.requests().len() - 1;
    assert_eq!(line.number("attempts"), 1);
    let resent = if copies == 2 { "1" } else { "" };
    assert_eq!(line.field("resent"), resent);
    (response.status, copies)
}

#[test]
fn a_post_is_sent_once_more_only_where_the_upstream_cannot_have_worked_on_it() {
    let milliseconds = Duration::from_millis;
    std::thread::scope(|scope| {
        for idle in [50, 1300] {
            for closes_after in [0, 100, 600, 3000] {
                scope.spawn(move || {
                    let got = send_after(milliseconds(idle), milliseconds(closes_after), "POST");
                    let is_resent = idle >= 1000 && closes_after <= 100;
                    let expected = if is_resent { (200, 2) } else { (502, 1) };
                    assert_eq!(
                        got, expected,
                        "idle {idle} ms, closed after {closes_after} ms"
                    );
                });
            }
        }
    });
}

/// A slow name server, proxy or handshake says nothing of how long the end of a connection travels.
#[test]
fn a_tunnel_that_takes_long_to_open_lets_no_post_be_sent_twice() {
    let tunnel = RawUpstream::start(|connection| {
        connection.read_request_head();
        std::thread::sleep(Duration::from_secs(1)); // the proxy's own pace
        connection.send("HTTP/1.1 200 OK\r\n\r\n");
        connection.read_request();
        connection.send(OK);
        connection.read_request();
        std::thread::sleep(Duration::from_millis(600)); // as if it worked on the request
    });
    let proxy = ProxyProcess::to("http://192.0.2.1")
        .arg("--allow-http-target")
        .env("HTTP_PROXY", &tunnel.url())
        .start();
    let mut client = RawClient::connect(proxy.address());
    assert_eq!(client.request("GET", "/v1/first", &[], b"").status, 200);
    std::thread::sleep(Duration::from_millis(1300)); // idle, so that the end may be that of the idle time
    assert_eq!(client.request("POST", "/v1/x", &[], b"{}").status, 502);
    assert_eq!(tunnel.requests().len(), 2);
}

#[test]
fn an_idempotent_request_is_sent_once_more_however_late_the_end_comes() {
    std::thread::scope(|scope| {
        for (method, closes_after) in [("GET", 0), ("GET", 600), ("PUT", 600), ("DELETE", 0)] {
            scope.spawn(move || {
                let closes_after = Duration::from_millis(closes_after);
                let got = send_after(Duration::from_millis(50), closes_after, method);
                assert_eq!(got, (200, 2), "{method} {closes_after:?}");
            });
        }
    });
}

#[test]
fn a_connection_that_was_closed_while_idle_costs_the_client_nothing() {
    let (closed, was_closed) = channel();
    let upstream = RawUpstream::start(move |connection| {
        if connection.read_request().is_some() {
            connection.send(OK);
            connection.close();
            let _ = closed.send(());
        }
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    for n in 1..=5 {
        let response = client.request("POST", "/v1/x", &[], b"{}");
        assert_eq!((response.status, upstream.requests().len()), (200, n));
        was_closed.recv_timeout(SOON).expect("the upstream closes");
        // The end of the connection arrives before the next request.
        get(proxy.address(), "/-/health");
    }
}
