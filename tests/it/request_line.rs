//! Malformed request lines (contract section 8): each is rejected with its code, its connection
//! is closed, and the next request is served.

use crate::support::{
    FakeFlow, ProxyProcess, RawClient, SMUGGLED, assert_bad_request, assert_rejected_with,
};

#[test]
fn a_version_other_than_http_1_is_not_supported() {
    for version in ["HTTP/2.0", "HTTP/0.9", "HTTP/3.0"] {
        assert_rejected_with(
            format!("GET /v1/x {version}\r\nHost: localhost\r\n\r\n"),
            &[(505, "version_not_supported")],
        );
    }
}

#[test]
fn the_preface_of_http_2_is_rejected() {
    assert_rejected_with(
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[(505, "version_not_supported"), (400, "bad_request")],
    );
}

#[test]
fn what_is_no_version_is_rejected() {
    let either = [(400, "bad_request"), (505, "version_not_supported")];
    for version in [
        "HTTP/2",
        "http/1.1",
        "HTTP/1,1",
        "HTTP/11",
        "HTTP/1.1x",
        "FTP/1.1",
        "HTTP/ 1.1",
    ] {
        assert_rejected_with(
            format!("GET /v1/x {version}\r\nHost: localhost\r\n\r\n"),
            &either,
        );
    }
}

#[test]
fn a_malformed_request_line_is_rejected() {
    let lines: [&[u8]; 12] = [
        b"GET",
        b"GET /v1/x",
        b"GET  /v1/x HTTP/1.1",
        b"GET /v1/x  HTTP/1.1",
        b"GET /v1/x HTTP/1.1 ",
        b" GET /v1/x HTTP/1.1",
        b"GET\t/v1/x\tHTTP/1.1",
        b"GET /v1 x HTTP/1.1",
        b"G@T /v1/x HTTP/1.1",
        b"G\x00T /v1/x HTTP/1.1",
        b"GET /v1/\x00 HTTP/1.1",
        b"GET /v1/\x7f HTTP/1.1",
    ];
    for line in lines {
        assert_bad_request([line, b"\r\nHost: localhost\r\n\r\n", SMUGGLED.as_bytes()].concat());
    }
}

#[test]
fn a_target_in_no_known_form_is_rejected() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    for target in [
        "v1/x",
        "localhost:80",
        "?x=1",
        "http://",
        "http:/v1/x",
        "http:///v1/x",
    ] {
        let mut client = RawClient::connect(proxy.address());
        client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let status = client.read_response().status;
        assert!(matches!(status, 400 | 403), "{target}: {status}");
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn another_protocol_altogether_is_rejected() {
    assert_bad_request(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\r\n\r\n");
    assert_bad_request(b"SSH-2.0-OpenSSH_9.6\r\n\r\n");
}
