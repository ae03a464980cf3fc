//! Which 502 tell the SDKs not to send a request again: those after which the upstream may have worked on
//! it (contract sections 4 and 7).

use std::net::TcpListener;
use std::time::Duration;

use crate::support::{
    ClosedPort, MIB, OK, ProxyProcess, RawClient, RawUpstream, Response, post, post_head,
};

/// Asserts that the SDKs are told not to send the request again.
fn assert_forbids_retry(response: &Response, request: &str) {
    response.assert_error_to(request, 502, "upstream_broke");
    let told = response.header("x-should-retry");
    assert_eq!(told, Some("false"), "{request}: {}", response.text());
}

/// Asserts that the SDKs may send the request again.
fn assert_allows_retry(response: &Response, request: &str) {
    response.assert_error_to(request, 502, "upstream_unreachable");
    let told = response.header("x-should-retry");
    assert_eq!(told, None, "{request}: {}", response.text());
}

#[test]
fn a_502_after_the_upstream_has_got_the_request_forbids_a_retry() {
    let long_head = format!("HTTP/1.1 200 OK\r\nX-Long: {}\r\n\r\n", "x".repeat(66_000));
    let many_lines = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-A: 1\r\n".repeat(257));
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "garbage\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\n",
        &long_head,
        &many_lines,
    ] {
        let upstream = RawUpstream::once(answer);
        let proxy = ProxyProcess::to(&upstream.url()).start();
        let beginning = &answer[..answer.len().min(40)];
        for path in ["/v1/chat/completions", "/v1/messages"] {
            assert_forbids_retry(&post(proxy.address(), path, b"{}"), beginning);
        }
        assert_eq!(upstream.requests().len(), 2, "{beginning}");
    }
}

#[test]
fn a_502_of_a_reused_connection_forbids_a_retry() {
    // At once, so that the connection had not been idle for a second; and late.
    for closes_after in [0, 600] {
        let upstream = RawUpstream::start(move |connection| {
            while connection.read_request().is_some() {
                if connection.has_served() {
                    std::thread::sleep(Duration::from_millis(closes_after)); // the upstream's pace
                    return;
                }
                connection.send(OK);
            }
        });
        let proxy = ProxyProcess::to(&upstream.url()).start();
        let mut client = RawClient::connect(proxy.address());
        assert_eq!(client.request("POST", "/v1/x", &[], b"{}").status, 200);
        let response = client.request("POST", "/v1/x", &[], b"{}");
        assert_forbids_retry(&response, &format!("closed after {closes_after} ms"));
    }
}

#[test]
fn a_502_without_a_connection_allows_a_retry() {
    let closed = ClosedPort::hold();
    let no_tls = RawUpstream::start(|connection| {
        connection.wait_for_byte();
        connection.send("HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    for target in [
        closed.url(),
        "https://upstream.invalid/flow-llm-proxy".to_owned(),
        format!("https://{}/flow-llm-proxy", no_tls.address()),
    ] {
        let proxy = ProxyProcess::to(&target).start();
        assert_allows_retry(&post(proxy.address(), "/v1/messages", b"{}"), &target);
    }
    for scheme in ["http", "socks5"] {
        let proxy = ProxyProcess::to("http://192.0.2.1/flow-llm-proxy")
            .arg("--allow-http-target")
            .env("ALL_PROXY", &format!("{scheme}://{closed}"))
            .start();
        assert_allows_retry(&post(proxy.address(), "/v1/messages", b"{}"), scheme);
    }
}

#[test]
fn a_connection_that_is_reset_before_the_request_was_sent_allows_a_retry() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let proxy = ProxyProcess::to(&url).start();
    let mut client = RawClient::connect(proxy.address());
    // The proxy connects, and sends the head with the first piece of a body that is streamed.
    client.send(post_head(40 * MIB));
    let (upstream, _) = listener.accept().expect("the proxy connects");
    socket2::SockRef::from(&upstream)
        .set_linger(Some(Duration::ZERO))
        .expect("a connected socket");
    drop(upstream);
    client.try_send(vec![b'x'; 40 * MIB]);
    assert_allows_retry(&client.read_response(), "a reset connection");
}

#[test]
fn an_upload_that_breaks_in_the_middle_forbids_a_retry() {
    let upstream = RawUpstream::start(|connection| {
        connection.read_request_head();
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send(post_head(40 * MIB));
    client.try_send(vec![b'x'; 40 * MIB]);
    assert_forbids_retry(&client.read_response(), "an upload");
}
