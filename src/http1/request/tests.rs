use super::*;

fn parse_head(bytes: &[u8]) -> Result<Option<(usize, RequestHead)>, HttpError> {
    super::parse_head(bytes, 0, &mut Vec::new())
}

/// The code of the error for `head`.
fn rejected(head: &[u8]) -> &'static str {
    match parse_head(head) {
        Err(error) => error.code,
        other => panic!("not rejected: {other:?}"),
    }
}

fn parsed(head: &[u8]) -> RequestHead {
    let (end, parsed) = parse_head(head).unwrap().expect("a complete head");
    assert_eq!(end, head.len());
    parsed
}

const GET: &[u8] = b"GET /v1/models?x=1 HTTP/1.1\r\nHost: localhost\r\nX-A: 1\r\nx-a: 2\r\n\r\n";

#[test]
fn a_head_is_parsed() {
    let head = parsed(GET);
    assert_eq!(head.method, Method::GET);
    assert_eq!(*head.target, *b"/v1/models?x=1");
    assert_eq!(head.version, Version::HTTP_11);
    let lines = [("Host", "localhost"), ("X-A", "1"), ("x-a", "2")];
    assert_eq!(head.fields, HeaderBlock::of(&lines));
    assert_eq!(head.body_length, BodyLength::None);
    assert_eq!(head.persistence, Persistence::KeepAlive);
}

#[test]
fn every_prefix_of_a_head_is_incomplete() {
    for length in 0..GET.len() {
        assert!(
            parse_head(&GET[..length]).unwrap().is_none(),
            "{length} bytes"
        );
        for from in 0..length {
            assert!(find_end(&GET[..length], from).unwrap().is_none());
        }
    }
    for from in 0..GET.len() {
        assert_eq!(find_end(GET, from).unwrap(), Some(GET.len()), "from {from}");
    }
}

#[test]
fn bytes_after_the_head_are_ignored() {
    let mut bytes = GET.to_vec();
    bytes.extend_from_slice(b"GET / HT\n\r");
    assert_eq!(parse_head(&bytes).unwrap().unwrap().0, GET.len());
}

#[test]
fn bare_line_ends_are_rejected_before_the_head_is_complete() {
    assert_eq!(rejected(b"GET / HTTP/1.1\n"), "bad_request");
    assert_eq!(rejected(b"GET / HTTP/1.1\r\nHost: a\nX: b"), "bad_request");
    assert_eq!(rejected(b"GET / HTTP/1.1\r\nHost: a\rb"), "bad_request");
}

#[test]
fn ambiguous_framing_is_rejected() {
    for (fields, code) in [
        (
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "bad_request",
        ),
        ("Content-Length: 1\r\nContent-Length: 1", "bad_request"),
        ("Content-Length: 1, 1", "bad_request"),
        ("Content-Length: +1", "bad_request"),
        ("Content-Length: 0x1", "bad_request"),
        ("Content-Length: ", "bad_request"),
        ("Content-Length: 99999999999999999999", "bad_request"),
        ("Transfer-Encoding: gzip", "not_implemented"),
        ("Transfer-Encoding: gzip, chunked", "not_implemented"),
        ("Transfer-Encoding: chunked, chunked", "not_implemented"),
        ("Transfer-Encoding: identity", "not_implemented"),
        ("Transfer-Encoding: xchunked", "not_implemented"),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "bad_request",
        ),
    ] {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        assert_eq!(rejected(head.as_bytes()), code, "{fields}");
    }
    assert_eq!(
        rejected(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        "bad_request"
    );
}

#[test]
fn malformed_header_lines_are_rejected() {
    for line in [
        "X : 1",
        ": 1",
        "X\x01: 1",
        "X: \x01",
        "X: a\0b",
        "no colon",
        "X: 1\r\n folded",
        "X\u{e9}: 1",
        "\tX: 1",
        "(X): 1",
        "X: \x7f",
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n");
        assert_eq!(rejected(head.as_bytes()), "bad_request", "{line:?}");
    }
}

#[test]
fn request_lines_are_strict() {
    for line in [
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET /",
        "GET / http/1.1",
        "G@T / HTTP/1.1",
        "GET /a\tb HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET / HTTP/1.10",
        "",
    ] {
        let head = format!("{line}\r\nHost: a\r\n\r\n");
        assert_eq!(rejected(head.as_bytes()), "bad_request", "{line:?}");
    }
    assert_eq!(
        rejected(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        "version_not_supported"
    );
    assert_eq!(rejected(b"PRI * HTTP/2.0\r\n\r\n"), "version_not_supported");
    assert_eq!(
        parsed(b"BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n")
            .method
            .as_str(),
        "BREW"
    );
}

#[test]
fn a_tls_client_is_told_that_this_is_plain_http() {
    let error = parse_head(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n").unwrap_err();
    assert!(error.message.contains("http://"), "{}", error.message);
}

#[test]
fn http_1_1_requires_exactly_one_valid_host() {
    assert_eq!(rejected(b"GET / HTTP/1.1\r\n\r\n"), "bad_request");
    assert_eq!(
        rejected(b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        "bad_request"
    );
    assert_eq!(
        rejected(b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"),
        "bad_request"
    );
    assert_eq!(
        rejected(b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        "bad_request"
    );
    assert_eq!(
        parsed(b"GET / HTTP/1.0\r\n\r\n").persistence,
        Persistence::Close
    );
    parsed(b"GET / HTTP/1.1\r\nHost: [::1]:8899\r\n\r\n");
}

#[test]
fn limits_apply_before_the_head_is_complete() {
    let long_line = [b"GET /".as_slice(), &[b'a'; MAX_REQUEST_LINE]].concat();
    assert_eq!(rejected(&long_line), "uri_too_long");
    let mut long_head = b"GET / HTTP/1.1\r\nX: ".to_vec();
    long_head.resize(MAX_HEAD + 1, b'a');
    assert_eq!(rejected(&long_head), "headers_too_large");
    let many = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "X: 1\r\n".repeat(MAX_HEADER_LINES)
    );
    assert_eq!(rejected(many.as_bytes()), "headers_too_large");
    let enough = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "X: 1\r\n".repeat(MAX_HEADER_LINES - 1)
    );
    assert_eq!(parsed(enough.as_bytes()).fields.count(), MAX_HEADER_LINES);
}

#[test]
fn expectations_and_connection_options_are_recognized() {
    let head = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
    assert!(parsed(head("Expect: 100-Continue").as_bytes()).expects_continue);
    assert_eq!(
        rejected(head("Expect: a-miracle").as_bytes()),
        "expectation_failed"
    );
    let close = parsed(head("Connection: x, Close").as_bytes());
    assert_eq!(close.persistence, Persistence::Close);
    let kept = parsed(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(kept.persistence, Persistence::KeepAlive);
}
