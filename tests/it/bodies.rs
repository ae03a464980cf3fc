//! Request bodies on their way to the upstream, and the client's side of HTTP/1.1: Expect,
//! pipelining, keep-alive (contract section 4).

use crate::support::{
    Answer, CHUNKED_POST_HEAD, EMPTY_OK, FakeFlow, Framing, HELD_BODY_LIMIT_BYTES, MIB,
    ProxyProcess, RawClient, RawUpstream, SOON, SeenRequest, chunked, expecting_post_head, get,
    patterned_bytes, post, post_head, wait_until,
};

/// Sends `request` and one more on the same connection; returns what the upstream saw of the first.
fn send_and_go_on(request: &[u8]) -> SeenRequest {
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send(request);
    assert_eq!(client.read_response().status, 200);
    assert_eq!(
        client.request("GET", "/v1/next", &[], b"").status,
        200,
        "keeps the connection"
    );
    upstream.requests().swap_remove(0)
}

fn send_chunked(body: &[u8], chunk_bytes: usize) -> SeenRequest {
    send_and_go_on(&[CHUNKED_POST_HEAD.as_bytes(), &chunked(body, chunk_bytes)].concat())
}

fn send_with_length(body: &[u8]) -> SeenRequest {
    let request = send_and_go_on(&[post_head(body.len()).as_bytes(), body].concat());
    let length = body.len().to_string();
    assert_eq!(request.header("content-length"), Some(length.as_str()));
    request
}

#[test]
fn a_small_chunked_body_arrives_whole() {
    assert_eq!(send_chunked(b"0123456789", 3).body, b"0123456789");
}

#[test]
fn an_empty_chunked_body_arrives_empty() {
    assert_eq!(send_chunked(b"", 1).body, b"");
}

#[test]
fn a_chunked_body_in_single_bytes_arrives_whole() {
    let body = patterned_bytes(5_000);
    assert!(send_chunked(&body, 1).body == body);
}

#[test]
fn chunk_extensions_and_trailers_are_read_and_dropped() {
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send(CHUNKED_POST_HEAD);
    client.send("5;name=value\r\nhello\r\n0;last\r\nX-Sum: 1\r\n\r\n");
    assert_eq!(client.read_response().status, 200);
    let request = upstream.request();
    assert_eq!(request.body, b"hello");
    assert_eq!(request.header("x-sum"), None);
}

#[test]
fn a_body_of_the_held_limit_arrives_whole() {
    let body = patterned_bytes(HELD_BODY_LIMIT_BYTES);
    assert!(send_with_length(&body).body == body);
}

#[test]
fn a_body_one_byte_over_the_held_limit_arrives_whole() {
    let body = patterned_bytes(HELD_BODY_LIMIT_BYTES + 1);
    assert!(send_with_length(&body).body == body);
}

#[test]
fn a_chunked_body_over_the_held_limit_arrives_whole() {
    let body = patterned_bytes(33 * MIB + 17);
    assert!(send_chunked(&body, 99_999).body == body);
}

#[test]
fn a_body_of_20_mib_arrives_whole() {
    let body = patterned_bytes(20 * MIB);
    assert!(send_with_length(&body).body == body);
}

#[test]
fn a_chunked_body_of_20_mib_arrives_whole() {
    let body = patterned_bytes(20 * MIB);
    assert!(send_chunked(&body, 100_000).body == body);
}

#[test]
fn a_streamed_body_goes_up_before_it_is_complete() {
    let upstream = RawUpstream::start(|connection| {
        let Some(head) = connection.read_request_head() else {
            return;
        };
        assert_eq!(head.header("content-length"), Some("37748736"));
        if connection.wait_for_byte() {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly");
            connection.wait_for_close(SOON);
        }
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send(post_head(36 * MIB));
    client.send(vec![b'x'; 35 * MIB]);
    wait_until("the upload to begin", SOON, || upstream.connections() == 1);
    client.send(vec![b'x'; MIB]);
    let response = client.read_response();
    response.assert_text(200, "early");
}

#[test]
fn memory_stays_bounded_while_a_large_body_streams() {
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let before = proxy.rss_kib();
    assert_eq!(
        post(proxy.address(), "/v1/x", &vec![b'x'; 60 * MIB]).status,
        200
    );
    let grown = proxy.rss_kib().saturating_sub(before);
    assert!(
        grown < 16 * 1024,
        "RSS grew by {grown} KiB over a body of 60 MiB"
    );
}

#[test]
fn expect_100_continue_is_answered_before_the_body_is_read() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send(expecting_post_head(5));
    assert_eq!(client.read_head().status, 100);
    client.send("hello");
    assert_eq!(client.read_response().status, 200);
    let request = upstream.request();
    assert_eq!(request.body, b"hello");
    assert_eq!(request.header("expect"), None);
}

#[test]
fn expect_is_answered_in_any_case_and_for_streamed_bodies() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send(expecting_post_head(3 * MIB).replace("100-c", "100-C"));
    assert_eq!(client.read_head().status, 100);
    client.send(vec![b'x'; 3 * MIB]);
    assert_eq!(client.read_response().status, 200);
    assert_eq!(upstream.request().body.len(), 3 * MIB);
}

#[test]
fn a_body_that_is_not_awaited_is_served_with_expect_too() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send(expecting_post_head(5) + "hello");
    let mut head = client.read_head();
    if head.status == 100 {
        head = client.read_head();
    }
    assert_eq!(head.status, 200);
    assert_eq!(upstream.request().body, b"hello");
}

#[test]
fn an_unknown_expectation_fails() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    let response = client.request("GET", "/v1/x", &[("Expect", "a-miracle")], b"");
    response.assert_error(417, "expectation_failed");
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = FakeFlow::answering(|request| Answer::new(200, request.target.as_str()));
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    let requests: String = (0..50)
        .map(|n| format!("GET /v1/{n} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
        .collect();
    client.send(requests);
    for n in 0..50 {
        let response = client.read_response();
        assert_eq!(response.text(), format!("/flow-llm-proxy/v1/{n}"));
    }
}

#[test]
fn pipelined_requests_with_bodies_are_told_apart() {
    let upstream = FakeFlow::answering(|request| {
        Answer::new(
            200,
            [request.target.as_bytes(), b" ", &request.body[..]].concat(),
        )
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send(
        "POST /1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody\
         POST /2 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nGET\r\n0\r\n\r\n\
         HEAD /3 HTTP/1.1\r\nHost: localhost\r\n\r\n\
         GET /4 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    );
    assert_eq!(client.read_response().text(), "/flow-llm-proxy/1 body");
    assert_eq!(client.read_response().text(), "/flow-llm-proxy/2 GET");
    assert_eq!(client.read_response_to("HEAD").framing, Framing::None);
    assert_eq!(client.read_response().text(), "/flow-llm-proxy/4 ");
}

#[test]
fn a_request_that_comes_byte_by_byte_is_served() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    let request = format!("{CHUNKED_POST_HEAD}5\r\nhello\r\n0\r\n\r\n");
    for byte in request.bytes() {
        client.send([byte]);
    }
    assert_eq!(client.read_response().status, 200);
    assert_eq!(upstream.request().body, b"hello");
}

#[test]
fn a_client_that_asks_for_close_gets_it() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    let response = client.request("GET", "/v1/models", &[("Connection", "close")], b"");
    assert_eq!(response.status, 200);
    response.assert_announces_close();
    client.assert_closed();
}

#[test]
fn an_http_1_0_request_closes_unless_it_asks_to_keep() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send("GET /v1/models HTTP/1.0\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.read_response().text(), r#"{"ok":true}"#);
    client.assert_closed();
}

#[test]
fn an_http_1_0_request_reaches_the_upstream_as_http_1_1() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send("POST /v1/x HTTP/1.0\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.read_response().status, 200);
    assert_eq!(upstream.request().version, "HTTP/1.1");
    assert_eq!(upstream.request().body, b"hello");
}
