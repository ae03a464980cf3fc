//! The proxy's own errors: statuses, codes and both dialects (contract section 7).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{
    Answer, ClosedPort, FakeFlow, MIB, ProxyProcess, RawClient, RawUpstream, Response, SOON,
    available, get, post, post_head, wait_until,
};

/// Asserts an error in OpenAI's dialect outside `/v1/messages` and in Anthropic's below it.
fn assert_error_in_both_dialects(target_url: &str, status: u16, code: &str) {
    let proxy = ProxyProcess::to(target_url).start();
    let openai = post(proxy.address(), "/v1/chat/completions", b"{}");
    openai.assert_error(status, code);
    assert_openai_error(&openai, code);
    for path in [
        "/v1/messages",
        "/v1/messages?beta=true",
        "/v1/messages/count_tokens",
    ] {
        let anthropic = post(proxy.address(), path, b"{}");
        anthropic.assert_error_to(path, status, code);
        let body = anthropic.json();
        assert_eq!(body["type"], "error", "{path}");
        assert!(body["error"]["type"].is_string(), "{body}");
        assert_has_message(&body);
    }
    let other = post(proxy.address(), "/v1/messages_other", b"{}");
    assert!(
        other.json().get("type").is_none(),
        "only under /v1/messages: {}",
        other.text()
    );

    let line = proxy.wait_for_access_line(1);
    assert_eq!((line.status, line.level.as_str()), (status, "ERROR"));
    assert_eq!(available(&proxy), 1, "never held against a credential");
}

fn assert_has_message(body: &serde_json::Value) {
    let message = body["error"]["message"].as_str();
    assert!(message.is_some_and(|message| !message.is_empty()), "{body}");
}

fn assert_openai_error(response: &Response, code: &str) {
    assert_eq!(response.header("content-type"), Some("application/json"));
    let body = response.json();
    let error = body["error"].as_object().expect("an error object");
    assert_eq!(
        body.as_object().map(|object| object.len()),
        Some(1),
        "{body}"
    );
    assert_has_message(&body);
    assert!(
        error["type"].is_string() && error["param"].is_null(),
        "{body}"
    );
    assert!(error.contains_key("param"), "{body}");
    assert_eq!(error["code"], code);
}

/// Sends a body of `length` bytes, which may not all be read, and reads the response.
fn upload(proxy: &ProxyProcess, length: usize) -> Response {
    let mut client = RawClient::connect(proxy.address());
    client.send(post_head(length));
    client.try_send(vec![b'x'; length]);
    client.read_response()
}

#[test]
fn an_upstream_that_refuses_connections_is_unreachable() {
    let closed = ClosedPort::hold();
    assert_error_in_both_dialects(&closed.url(), 502, "upstream_unreachable");
}

#[test]
fn an_upstream_whose_name_does_not_resolve_is_unreachable() {
    let target = "https://upstream.invalid/flow-llm-proxy";
    assert_error_in_both_dialects(target, 502, "upstream_unreachable");
}

#[test]
fn an_upstream_that_speaks_no_tls_is_unreachable() {
    let upstream = RawUpstream::start(|connection| {
        connection.wait_for_byte();
        connection.send("HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let target = format!("https://{}/flow-llm-proxy", upstream.address());
    assert_error_in_both_dialects(&target, 502, "upstream_unreachable");
}

#[test]
fn an_upstream_that_closes_before_a_head_broke() {
    for beginning in [
        "",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
    ] {
        let upstream = RawUpstream::once(beginning);
        assert_error_in_both_dialects(&upstream.url(), 502, "upstream_broke");
    }
}

#[test]
fn an_upstream_whose_head_is_unreadable_broke() {
    let heads: [&[u8]; 6] = [
        b"garbage\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header line\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    ];
    for head in heads {
        let upstream = RawUpstream::once(head);
        let proxy = ProxyProcess::to(&upstream.url()).start();
        let response = get(proxy.address(), "/v1/models");
        response.assert_error_to(&String::from_utf8_lossy(head), 502, "upstream_broke");
    }
}

// RFC 9112 section 6.3: a proxy that receives an invalid Content-Length must discard the response
// and send 502.
#[test]
fn an_upstream_whose_content_length_is_invalid_broke() {
    for length in ["abc", "-1", "+2", "2, 3", "2\r\nContent-Length: 3"] {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nok");
        let upstream = RawUpstream::once(answer);
        let proxy = ProxyProcess::to(&upstream.url()).start();
        let response = get(proxy.address(), "/v1/models");
        response.assert_error_to(length, 502, "upstream_broke");
    }
}

#[test]
fn an_upstream_with_an_endless_head_broke_without_filling_memory() {
    let upstream = RawUpstream::start(|connection| {
        connection.read_request();
        connection.send("HTTP/1.1 200 OK\r\n");
        for n in 0..50_000 {
            if !connection.send(format!("X-{n}: {}\r\n", "x".repeat(1000))) {
                return;
            }
        }
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let before = proxy.rss_kib();
    let response = get(proxy.address(), "/v1/models");
    response.assert_error(502, "upstream_broke");
    assert!(proxy.rss_kib().saturating_sub(before) < 8 * 1024);
}

#[test]
fn an_answer_with_both_framings_is_never_passed_on_with_both() {
    let upstream = RawUpstream::once(
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\nok\r\n0\r\n\r\n",
    );
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let response = get(proxy.address(), "/v1/models"); // the client rejects both framings
    match response.status {
        200 => assert_eq!(response.text(), "ok"),
        status => assert_eq!((status, response.error_code()), (502, "upstream_broke")),
    }
}

#[test]
fn an_error_before_the_body_was_read_leaves_the_connection_in_step() {
    let closed = ClosedPort::hold();
    let proxy = ProxyProcess::to(&closed.url()).start();
    let mut client = RawClient::connect(proxy.address());
    let body = b"GET /v1/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for _ in 0..3 {
        assert_eq!(client.request("POST", "/v1/x", &[], body).status, 502);
    }
    proxy.wait_for_access_line(3);
    assert_eq!(proxy.access_lines().len(), 3);
    assert!(!proxy.log().contains("smuggled"));
}

#[test]
fn a_large_upload_to_an_unreachable_upstream_gets_its_error() {
    let closed = ClosedPort::hold();
    let proxy = ProxyProcess::to(&closed.url()).start();
    let response = upload(&proxy, 8 * MIB);
    response.assert_error(502, "upstream_unreachable");
}

#[test]
fn an_upstream_that_answers_an_upload_early_is_heard() {
    let upstream = RawUpstream::start(|connection| {
        connection.read_request_head();
        connection
            .send("HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbig!");
        connection.wait_for_close(SOON);
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let response = upload(&proxy, 8 * MIB);
    response.assert_text(413, "big!");
}

#[test]
fn an_early_answer_is_heard_when_the_upstream_reads_no_more_and_keeps_the_connection() {
    let is_over = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&is_over);
    let upstream = RawUpstream::start(move |connection| {
        connection.read_request_head();
        connection.send("HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nbig!");
        wait_until("the answer", SOON, || ended.load(Ordering::SeqCst));
    });
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--upstream-timeout", "1")
        .start();
    let response = upload(&proxy, 16 * MIB);
    is_over.store(true, Ordering::SeqCst);
    response.assert_text(413, "big!");
}

#[test]
fn the_upstreams_own_errors_are_not_marked_as_ours() {
    let upstream =
        FakeFlow::answering(|_| Answer::new(400, r#"{"error":{"message":"bad model"}}"#));
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let response = get(proxy.address(), "/v1/models");
    assert_eq!(
        (response.status, response.header("x-flow-proxy-error")),
        (400, None)
    );
    assert_eq!(response.text(), r#"{"error":{"message":"bad model"}}"#);
}

#[test]
fn an_error_answer_to_head_has_no_body() {
    let closed = ClosedPort::hold();
    let proxy = ProxyProcess::to(&closed.url()).start();
    let mut client = RawClient::connect(proxy.address());
    for _ in 0..2 {
        let response = client.request("HEAD", "/v1/models", &[], b"");
        response.assert_error(502, "upstream_unreachable");
    }
}
