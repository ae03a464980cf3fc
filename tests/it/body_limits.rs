//! Sizes and times that a request body must keep to (contract sections 7 and 8).

use std::time::{Duration, Instant};

use crate::support::{
    CHUNKED_POST_HEAD, EMPTY_OK, FakeFlow, MIB, POST_START, ProxyProcess, RawClient, RawUpstream,
    Upstream, assert_error_and_close, chunked, expecting_post_head, get, post_head, send_and_read,
};

/// Starts a proxy that accepts bodies of `max_body` at most.
fn start_with_limit(upstream: &Upstream, max_body: &str) -> ProxyProcess {
    ProxyProcess::to(&upstream.url())
        .option("--max-body", max_body)
        .start()
}

/// Writes a POST with a chunked body.
fn chunked_post(body_bytes: usize, chunk_bytes: usize) -> Vec<u8> {
    let body = chunked(&vec![b'x'; body_bytes], chunk_bytes);
    [CHUNKED_POST_HEAD.as_bytes(), &body].concat()
}

#[test]
fn a_declared_length_over_the_limit_is_rejected_before_the_body() {
    let upstream = FakeFlow::start();
    let proxy = start_with_limit(&upstream, "1K");
    let (_, served) = send_and_read(&proxy, post_head(1024) + &"x".repeat(1024));
    assert_eq!(served.status, 200);
    assert_error_and_close(&proxy, post_head(1025), 413, "body_too_large");
    assert_eq!(upstream.requests().len(), 1);
}

/// A body of that length is not held, but read while it is sent on.
#[test]
fn a_large_declared_length_over_the_limit_is_rejected_before_anything_is_sent_on() {
    let upstream = FakeFlow::start();
    let proxy = start_with_limit(&upstream, "1K");
    assert_error_and_close(&proxy, post_head(3_000_000), 413, "body_too_large");
    let line = proxy.wait_for_access_line(1);
    assert_eq!((line.field("config"), line.field("attempts")), ("-", "0"));
    assert!(!proxy.log().contains("Using configuration"));
    drop(upstream);
    let (_, response) = send_and_read(&proxy, post_head(3_000_000));
    response.assert_error(413, "body_too_large");
}

#[test]
fn a_body_over_the_limit_that_was_expected_is_rejected_without_100() {
    let upstream = FakeFlow::start();
    let proxy = start_with_limit(&upstream, "1K");
    let (_, response) = send_and_read(&proxy, expecting_post_head(2000));
    response.assert_error(413, "body_too_large");
}

#[test]
fn a_chunked_body_over_the_limit_is_rejected() {
    let upstream = FakeFlow::start();
    let proxy = start_with_limit(&upstream, "1K");
    assert_eq!(send_and_read(&proxy, chunked_post(1024, 100)).1.status, 200);
    let rejected = chunked_post(1025, 100);
    assert_error_and_close(&proxy, rejected, 413, "body_too_large");
    assert_eq!(upstream.requests().len(), 1);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
}

#[test]
fn a_streamed_chunked_body_over_the_limit_never_becomes_a_whole_request() {
    let upstream = FakeFlow::start();
    let proxy = start_with_limit(&upstream, "36M");
    let rejected = chunked_post(37 * MIB, 100_000);
    assert_error_and_close(&proxy, rejected, 413, "body_too_large");
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
}

#[test]
fn the_default_limit_of_a_body_is_100_mib() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let (_, response) = send_and_read(&proxy, post_head(100 * MIB + 1));
    response.assert_error(413, "body_too_large");
}

#[test]
fn nothing_is_allocated_from_a_declared_length() {
    // Not tiny_http, which allocates what is declared and aborts.
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = start_with_limit(&upstream, "0");
    let before = proxy.rss_kib();
    let mut waiting = Vec::new();
    for framing in [
        "Content-Length: 999999999999999\r\n\r\nbegin",
        "Content-Length: 9223372036854775807\r\n\r\nbegin",
        "Transfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\nbegin",
    ] {
        let mut client = RawClient::connect(proxy.address());
        client.send(format!("{POST_START}{framing}"));
        waiting.push(client);
    }
    for _ in 0..20 {
        assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    }
    assert!(proxy.rss_kib().saturating_sub(before) < 8 * 1024);
    drop(waiting);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
}

#[test]
fn a_body_that_stalls_times_out() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--client-timeout", "1")
        .start();
    for begun in [4, 34 * MIB] {
        let mut client = RawClient::connect(proxy.address());
        client.send(post_head(60 * MIB));
        client.send(vec![b'x'; begun]);
        let started = Instant::now();
        let response = client.read_response();
        let took = started.elapsed();
        response.assert_error(408, "request_timeout");
        client.assert_closed();
        assert!(
            took > Duration::from_millis(800) && took < Duration::from_secs(5),
            "{took:?}"
        );
    }
    let line = proxy.wait_for_access_line(2);
    assert_eq!((line.status, line.field("end")), (408, "client_timeout"));
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
}

#[test]
fn a_body_that_comes_too_slowly_times_out() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send(post_head(99_999));
    let started = Instant::now();
    // 200 bytes a second: never a stall, but under 500 bytes a second.
    while started.elapsed() < Duration::from_secs(30) && client.try_send([b'x'; 20]) {
        if client.has_response_within(Duration::from_millis(100)) {
            break;
        }
    }
    let took = started.elapsed();
    client.read_response().assert_error(408, "request_timeout");
    assert!(
        took > Duration::from_secs(19) && took < Duration::from_secs(26),
        "{took:?}"
    );
    assert_eq!(upstream.requests().len(), 0);
}
