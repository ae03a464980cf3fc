//! Strict framing (contract section 8): each attack is rejected with its code, its connection is
//! closed, nothing of it reaches the upstream, and the next request is served.

use std::time::{Duration, Instant};

use crate::support::{
    FakeFlow, ProxyProcess, RawClient, SMUGGLED, SOON, assert_bad_request, assert_rejected_with,
    get,
};

/// Writes a POST with these header lines (each ended by CRLF), this body and a smuggled request.
fn post_with(header_lines: &str, body: &str) -> String {
    format!("POST /v1/x HTTP/1.1\r\nHost: localhost\r\n{header_lines}\r\n{body}{SMUGGLED}")
}

/// Writes a GET with this piece of head between Host and the empty line.
fn get_with(header_bytes: &[u8]) -> Vec<u8> {
    let head = b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\n";
    [&head[..], header_bytes, b"\r\n", SMUGGLED.as_bytes()].concat()
}

/// Writes a POST in chunked coding with this coded body.
fn post_chunks(coded: &str) -> String {
    post_with("Transfer-Encoding: chunked\r\n", coded)
}

#[test]
fn transfer_encoding_together_with_content_length_is_rejected() {
    assert_bad_request(post_with(
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n",
    ));
}

#[test]
fn content_length_after_transfer_encoding_is_rejected() {
    assert_bad_request(post_with(
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "0\r\n\r\n",
    ));
}

#[test]
fn a_transfer_coding_other_than_chunked_is_not_implemented() {
    for coding in ["gzip", "identity", "gzip, chunked", "xchunked", "deflate"] {
        assert_rejected_with(
            post_with(&format!("Transfer-Encoding: {coding}\r\n"), "0\r\n\r\n"),
            &[(501, "not_implemented")],
        );
    }
}

#[test]
fn a_chunked_that_is_not_exactly_chunked_is_rejected() {
    let either = [(400, "bad_request"), (501, "not_implemented")];
    for coding in [
        "chunked, chunked",
        "chunked, gzip",
        "chunked,",
        ", chunked",
        "\"chunked\"",
        "chunked;q=1",
        "",
    ] {
        let attack = post_with(&format!("Transfer-Encoding: {coding}\r\n"), "0\r\n\r\n");
        assert_rejected_with(attack, &either);
    }
}

#[test]
fn a_chunked_with_a_control_character_is_rejected() {
    assert_bad_request(post_with("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"));
}

#[test]
fn two_transfer_encodings_are_rejected() {
    assert_rejected_with(
        post_with(
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "0\r\n\r\n",
        ),
        &[(400, "bad_request"), (501, "not_implemented")],
    );
    assert_rejected_with(
        post_with(
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "0\r\n\r\n",
        ),
        &[(400, "bad_request"), (501, "not_implemented")],
    );
}

#[test]
fn transfer_encoding_in_http_1_0_is_rejected() {
    assert_bad_request(format!(
        "POST /v1/x HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"
    ));
}

#[test]
fn two_content_lengths_are_rejected() {
    assert_bad_request(post_with(
        "Content-Length: 4\r\nContent-Length: 0\r\n",
        "body",
    ));
}

#[test]
fn two_equal_content_lengths_are_rejected() {
    assert_bad_request(post_with(
        "Content-Length: 4\r\nContent-Length: 4\r\n",
        "body",
    ));
}

#[test]
fn a_content_length_that_is_not_only_digits_is_rejected() {
    for length in [
        "+4", "-4", "4, 4", "4 4", "0x4", "4;", "4.0", "", "four", "\"4\"", "４",
    ] {
        assert_bad_request(post_with(&format!("Content-Length: {length}\r\n"), "body"));
    }
}

#[test]
fn a_content_length_beyond_all_numbers_is_rejected() {
    for length in [
        "18446744073709551620",
        "99999999999999999999999999999999999999",
    ] {
        assert_rejected_with(
            post_with(&format!("Content-Length: {length}\r\n"), "body"),
            &[(400, "bad_request"), (413, "body_too_large")],
        );
    }
}

#[test]
fn a_bare_lf_as_line_end_is_rejected() {
    assert_bad_request(format!("GET /v1/x HTTP/1.1\nHost: localhost\n\n{SMUGGLED}"));
    assert_bad_request(format!(
        "GET /v1/x HTTP/1.1\nHost: localhost\r\n\r\n{SMUGGLED}"
    ));
    assert_bad_request(get_with(b"X-A: 1\nX-B: 2\r\n"));
    assert_bad_request(format!(
        "GET /v1/x HTTP/1.1\r\nHost: localhost\r\n\n{SMUGGLED}"
    ));
    assert_bad_request(format!(
        "GET /v1/x HTTP/1.1\r\nHost: localhost\n\r\n{SMUGGLED}"
    ));
}

#[test]
fn a_bare_cr_in_the_head_is_rejected() {
    assert_bad_request(get_with(b"X-A: 1\rX-B: 2\r\n"));
    assert_bad_request(get_with(b"X-A: 1\r\r\n"));
    assert_bad_request(format!(
        "GET /v1/x\r HTTP/1.1\r\nHost: localhost\r\n\r\n{SMUGGLED}"
    ));
}

#[test]
fn a_folded_line_is_rejected() {
    assert_bad_request(get_with(b"X-A: 1\r\n 2\r\n"));
    assert_bad_request(get_with(b"X-A: 1\r\n\t2\r\n"));
    assert_bad_request(get_with(b"X-A:\r\n 1\r\n"));
    assert_bad_request(b"GET /v1/x HTTP/1.1\r\n Host: localhost\r\nHost: localhost\r\n\r\n");
}

#[test]
fn a_space_before_the_colon_is_rejected() {
    assert_bad_request(get_with(b"X-A : 1\r\n"));
    assert_bad_request(get_with(b"X-A\t: 1\r\n"));
    assert_bad_request(post_with("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"));
    assert_bad_request(post_with("Content-Length : 4\r\n", "body"));
}

#[test]
fn an_empty_or_invalid_header_name_is_rejected() {
    let lines: [&[u8]; 10] = [
        b": 1\r\n",
        b"X A: 1\r\n",
        b"X@A: 1\r\n",
        b"X\x00A: 1\r\n",
        b"X-\xe9: 1\r\n",
        b"X(A): 1\r\n",
        b"\"X\": 1\r\n",
        b"X\x7f: 1\r\n",
        b"no colon\r\n",
        b"X[1]: 1\r\n",
    ];
    for line in lines {
        assert_bad_request(get_with(line));
    }
}

#[test]
fn a_control_character_in_a_value_is_rejected() {
    for control in (0..32)
        .chain([127])
        .filter(|byte| !matches!(byte, b'\t' | b'\r' | b'\n'))
    {
        // A few stand for all: each costs a process.
        if matches!(control, 0 | 1 | 8 | 11 | 12 | 27 | 31 | 127) {
            assert_bad_request(get_with(&[b"X-A: a", &[control][..], b"b\r\n"].concat()));
        }
    }
}

#[test]
fn a_tab_in_a_value_is_no_attack() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send("GET /v1/x HTTP/1.1\r\nHost:\tlocalhost \r\nX-A: a\tb\r\n\r\n");
    assert_eq!(client.read_response().status, 200);
    assert_eq!(upstream.request().header("x-a"), Some("a\tb"));
}

#[test]
fn http_1_1_without_a_host_is_rejected() {
    assert_bad_request(format!("GET /v1/x HTTP/1.1\r\nX-A: 1\r\n\r\n{SMUGGLED}"));
}

#[test]
fn two_hosts_are_rejected() {
    assert_bad_request(get_with(b"Host: localhost\r\n"));
    assert_bad_request(get_with(b"Host: example.com\r\n"));
}

#[test]
fn an_invalid_host_is_rejected() {
    for host in [
        "local host",
        "localhost/x",
        "a@localhost",
        "localhost:port",
        "[::1",
    ] {
        assert_rejected_with(
            format!("GET /v1/x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
            &[(400, "bad_request"), (403, "forbidden")],
        );
    }
}

#[test]
fn an_invalid_chunk_size_is_rejected() {
    for size in [
        "",
        "g",
        "0x5",
        "-5",
        "+5",
        "5 5",
        " 5",
        "00000000000000005",
        "fffffffffffffffff",
        "5\t",
        "５",
    ] {
        assert_bad_request(post_chunks(&format!("{size}\r\nhello\r\n0\r\n\r\n")));
    }
}

#[test]
fn a_chunk_size_without_a_number_before_its_extension_is_rejected() {
    assert_bad_request(post_chunks(";a=b\r\nhello\r\n0\r\n\r\n"));
}

#[test]
fn a_chunk_size_of_16_digits_is_read_and_allocates_nothing() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send(post_chunks("0000000000000005\r\nhello\r\n0\r\n\r\n"));
    assert_eq!(client.read_response().status, 200);
    assert_eq!(upstream.requests()[0].body, b"hello");
    let before = proxy.rss_kib();
    let mut client = RawClient::connect(proxy.address());
    client.send(post_chunks("ffffffffffffffff\r\nhello"));
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    drop(client);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    assert!(proxy.rss_kib().saturating_sub(before) < 4 * 1024);
}

#[test]
fn a_bare_lf_in_the_chunked_coding_is_rejected() {
    assert_bad_request(post_chunks("5\nhello\r\n0\r\n\r\n"));
    assert_bad_request(post_chunks("5\r\nhello\n0\r\n\r\n"));
    assert_bad_request(post_chunks("5;a\nb\r\nhello\r\n0\r\n\r\n"));
    assert_bad_request(post_chunks("5\r\nhello\r\n0\n\n"));
}

#[test]
fn a_bare_cr_in_a_chunk_line_is_rejected() {
    assert_bad_request(post_chunks("5\rX\r\nhello\r\n0\r\n\r\n"));
    assert_bad_request(post_chunks("5;a\rb\r\nhello\r\n0\r\n\r\n"));
}

#[test]
fn a_chunk_that_is_longer_or_shorter_than_it_says_is_rejected() {
    assert_bad_request(post_chunks("4\r\nhello\r\n0\r\n\r\n"));
    assert_bad_request(post_chunks("6\r\nhello\r\n0\r\n\r\n"));
}

#[test]
fn a_malformed_trailer_is_rejected() {
    assert_bad_request(post_chunks("5\r\nhello\r\n0\r\nX-A : 1\r\n\r\n"));
    assert_bad_request(post_chunks("5\r\nhello\r\n0\r\nno colon\r\n\r\n"));
}

#[test]
fn a_malformed_chunk_in_a_streamed_body_never_becomes_a_whole_request() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    let big = "x".repeat(3 * 1024 * 1024);
    client.try_send(post_chunks(&format!("{:x}\r\n{big}\r\nzz\r\n", big.len())));
    let response = client.read_response();
    response.assert_error(400, "bad_request");
    client.assert_closed();
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
}

#[test]
fn a_request_is_served_before_the_attack_that_is_pipelined_behind_it() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    let attack = post_with("Content-Length: 4\r\nContent-Length: 0\r\n", "body");
    client.send(format!(
        "GET /v1/good HTTP/1.1\r\nHost: localhost\r\n\r\n{attack}"
    ));
    assert_eq!(client.read_response().status, 200);
    assert_eq!(client.read_response().error_code(), "bad_request");
    client.assert_closed();
    assert_eq!(upstream.request().target, "/flow-llm-proxy/v1/good");
}

#[test]
fn the_rejection_arrives_although_more_of_the_body_is_on_its_way() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send(post_with("Content-Length: 1\r\nContent-Length: 2\r\n", ""));
    // Closing a socket with unread bytes resets it, which would take the response away.
    client.try_send("x".repeat(200_000));
    let response = client.read_response();
    response.assert_error(400, "bad_request");
}

#[test]
fn a_body_that_ends_early_never_reaches_the_upstream() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    for request in [
        post_with("Content-Length: 900\r\n", ""),
        post_chunks("ff\r\nhello"),
    ] {
        let mut client = RawClient::connect(proxy.address());
        client.send(request);
        client.shut_down_sending();
        client.read_raw_to_close(SOON);
    }
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
}

#[test]
fn a_connection_that_sends_nothing_is_no_error() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    for _ in 0..20 {
        drop(RawClient::connect(proxy.address()));
    }
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    proxy.wait_for_access_line(1);
    assert_eq!(
        proxy.access_lines().len(),
        1,
        "no access line without a request"
    );
    assert!(!proxy.log().contains(" - ERROR - "));
    let mut silent = RawClient::connect(proxy.address());
    assert!(
        !silent.closes_within(Duration::from_millis(300)),
        "it may wait for its request"
    );
}

#[test]
fn one_empty_line_before_a_request_is_passed_over() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    let request = "\r\nGET /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for _ in 0..2 {
        client.send(request);
        assert_eq!(client.read_response().status, 200);
    }
    for byte in request.bytes() {
        client.send([byte]);
    }
    assert_eq!(client.read_response().status, 200);
    client.send(format!("{request}{request}"));
    for _ in 0..2 {
        assert_eq!(client.read_response().status, 200);
    }
}

#[test]
fn a_second_empty_line_before_a_request_is_rejected_however_it_arrives() {
    assert_bad_request(format!("\r\n\r\n{SMUGGLED}"));
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send("\r\n");
    // That the first one has been read, an answer on another connection makes likely, and no more.
    assert_eq!(get(proxy.address(), "/v1/x").status, 200);
    client.send("\r\n");
    client.read_response().assert_error(400, "bad_request");
    client.assert_closed();
}

#[test]
fn an_empty_line_begins_a_head_and_its_time() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send("\r\n");
    let begun = Instant::now();
    let response = client.read_response();
    let took = begun.elapsed();
    response.assert_error(408, "request_timeout");
    assert!(
        took > Duration::from_secs(9) && took < Duration::from_secs(14),
        "{took:?}"
    );
}
