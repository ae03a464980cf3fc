//! Responses on their way to the client, and the upstream connections (contract section 4).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{
    Answer, CHUNKED_HEAD, Ended, FakeFlow, Framing, MIB, OK, ProxyProcess, RawClient, RawUpstream,
    Response, chunked, get, patterned_bytes, post_head,
};

/// Sends a request to an upstream that always answers with `response`; returns what arrives.
fn request_through(method: &str, response: impl Into<Vec<u8>>) -> Response {
    let upstream = RawUpstream::always(response);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    let response = client.request(method, "/v1/x", &[], b"");
    let next = client.request("HEAD", "/v1/next", &[], b"");
    assert_eq!(
        next.status, response.status,
        "the connection is still in step"
    );
    response
}

#[test]
fn every_status_is_passed_on() {
    let statuses = [
        200, 201, 202, 206, 300, 400, 402, 404, 409, 418, 422, 451, 500, 503, 529, 599,
    ];
    let upstream = FakeFlow::answering_the_status_asked_for("body");
    let proxy = ProxyProcess::to(&upstream.url()).start();
    for status in statuses {
        let response = get(proxy.address(), &format!("/v1/{status}"));
        response.assert_text(status, "body");
        assert_eq!(response.error_code(), "", "not an error of the proxy's own");
    }
    assert_eq!(
        upstream.requests().len(),
        statuses.len(),
        "none is repeated"
    );
}

#[test]
fn redirects_are_passed_on_and_never_followed() {
    for status in [301, 302, 303, 307, 308] {
        let upstream = FakeFlow::answering(move |_| {
            Answer::new(status, "moved").header("Location", "/flow-llm-proxy/v1/elsewhere")
        });
        let proxy = ProxyProcess::to(&upstream.url()).start();
        let response = get(proxy.address(), "/v1/x");
        response.assert_text(status, "moved");
        assert_eq!(
            response.header("location"),
            Some("/flow-llm-proxy/v1/elsewhere")
        );
        assert_eq!(upstream.requests().len(), 1);
    }
}

#[test]
fn answer_headers_arrive_unchanged_and_only_the_id_is_added() {
    let response = request_through(
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVary: a\r\nX-One: 1\r\n\
         Vary: b\r\nServer: them\r\nVia: 1.1 x\r\nx-litellm-key-spend: 0.1\r\n\
         Connection: X-Named\r\nX-Named: gone\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Authenticate: Basic\r\nX-Empty:\r\n\r\nok",
    );
    let mut names: Vec<String> = response
        .headers
        .iter()
        .map(|(name, _)| name.to_ascii_lowercase())
        .collect();
    names.retain(|name| name != "connection" && name != "x-request-id");
    names.dedup();
    assert_eq!(response.values("vary"), ["a", "b"]);
    assert_eq!(response.header("server"), Some("them"));
    assert_eq!(response.header("via"), Some("1.1 x"));
    assert_eq!(response.header("x-empty"), Some(""));
    assert_eq!(response.header("x-litellm-key-spend"), Some("0.1"));
    names.sort();
    names.dedup();
    let expected = [
        "content-length",
        "server",
        "vary",
        "via",
        "x-empty",
        "x-litellm-key-spend",
        "x-one",
    ];
    assert_eq!(names, expected);
}

#[test]
fn what_is_about_the_upstreams_origin_stays_behind() {
    let response = request_through(
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nSet-Cookie2: c=3\r\n\
         Clear-Site-Data: \"*\"\r\nService-Worker-Allowed: /\r\nAlt-Svc: h3=\":443\"\r\n\
         Access-Control-Allow-Origin: *\r\naccess-control-allow-credentials: true\r\n\
         Access-Control-Expose-Headers: *\r\nACCESS-CONTROL-ALLOW-METHODS: *\r\n\
         Access-Control-Allow-Private-Network: true\r\nAccess: 1\r\nX-Last: 1\r\n\r\nok",
    );
    let names: Vec<&str> = response.headers.iter().map(|(name, _)| &**name).collect();
    let expected = ["Content-Length", "Access", "X-Last", "x-request-id"];
    assert_eq!(names, expected);
}

#[test]
fn bytes_above_127_in_an_answers_header_arrive_unchanged() {
    let response = request_through(
        "GET",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Name: caf\xe9\r\n\r\n".to_vec(),
    );
    assert_eq!(response.header("x-name"), Some("caf\u{e9}"));
}

#[test]
fn content_length_is_kept() {
    let response = request_through("GET", OK);
    assert_eq!(
        (response.framing, response.text().as_str()),
        (Framing::Length(2), "ok")
    );
}

#[test]
fn an_answer_without_length_is_chunked_for_http_1_1() {
    let answer = [CHUNKED_HEAD.as_bytes(), &chunked(b"hello world", 4)].concat();
    let response = request_through("GET", answer);
    assert_eq!(response.framing, Framing::Chunked);
    response.assert_ended("hello world", Ended::Complete);
}

#[test]
fn an_answer_that_ends_with_the_connection_is_chunked_for_http_1_1() {
    let upstream = RawUpstream::once("HTTP/1.1 200 OK\r\n\r\nhello world");
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    for _ in 0..2 {
        let response = client.request("GET", "/v1/x", &[], b"");
        assert_eq!(response.framing, Framing::Chunked);
        response.assert_ended("hello world", Ended::Complete);
    }
}

#[test]
fn an_http_1_0_upstream_is_served_from() {
    let upstream = RawUpstream::once("HTTP/1.0 200 OK\r\nX-Old: 1\r\n\r\nhello world");
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let response = get(proxy.address(), "/v1/x");
    response.assert_ended("hello world", Ended::Complete);
    assert_eq!(response.version, "HTTP/1.1");
}

#[test]
fn an_http_1_0_client_gets_a_body_that_ends_with_the_connection() {
    let upstream = FakeFlow::answering(|_| Answer::new(200, "hello world").chunked());
    let proxy = ProxyProcess::to(&upstream.url()).start();
    for keep_alive in ["", "Connection: keep-alive\r\n"] {
        let mut client = RawClient::connect(proxy.address());
        client.send(format!(
            "GET /v1/x HTTP/1.0\r\nHost: localhost\r\n{keep_alive}\r\n"
        ));
        let response = client.read_response();
        assert_eq!(response.framing, Framing::UntilClose);
        assert_eq!(response.text(), "hello world");
    }
}

#[test]
fn an_http_1_0_client_gets_the_content_length_that_there_is() {
    let upstream = RawUpstream::always(OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send("GET /v1/x HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let response = client.read_response();
    assert_eq!(
        (response.framing, response.text().as_str()),
        (Framing::Length(2), "ok")
    );
}

#[test]
fn a_head_answer_keeps_its_content_length_and_has_no_body() {
    let response = request_through("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n");
    assert_eq!(response.header("content-length"), Some("1234"));
}

#[test]
fn a_head_answer_that_would_be_chunked_has_no_body() {
    let response = request_through("HEAD", CHUNKED_HEAD);
    assert_eq!(response.status, 200);
}

#[test]
fn a_204_has_no_body_and_no_framing() {
    let response = request_through("GET", "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n");
    assert_eq!(response.status, 204);
    assert_eq!(response.header("transfer-encoding"), None);
    assert_eq!(response.header("content-length"), None);
    assert_eq!(response.header("x-a"), Some("b"));
}

#[test]
fn a_304_has_no_body() {
    let response = request_through("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n");
    assert_eq!(
        (response.status, response.header("etag")),
        (304, Some("\"x\""))
    );
    assert_eq!(response.header("transfer-encoding"), None);
}

#[test]
fn a_304_with_the_length_of_what_it_stands_for_has_no_body() {
    let response = request_through(
        "GET",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\n\r\n",
    );
    assert_eq!(response.status, 304);
}

#[test]
fn compressed_bodies_stay_compressed() {
    for coding in ["gzip", "br", "zstd", "deflate"] {
        let body = [&b"\x1f\x8b\x08\x00"[..], &patterned_bytes(500)].concat();
        let expected = body.clone();
        let upstream = FakeFlow::answering(move |_| {
            Answer::new(200, body.clone()).header("Content-Encoding", coding)
        });
        let proxy = ProxyProcess::to(&upstream.url()).start();
        let sent = [("Accept-Encoding", coding)];
        let response = RawClient::connect(proxy.address()).request("GET", "/v1/x", &sent, b"");
        assert_eq!(response.header("content-encoding"), Some(coding));
        assert_eq!(
            response.header("content-length"),
            Some(expected.len().to_string().as_str())
        );
        assert!(response.body == expected);
    }
}

#[test]
fn a_large_answer_arrives_byte_for_byte() {
    let body = Arc::new(patterned_bytes(20 * MIB));
    let served = Arc::clone(&body);
    let upstream = FakeFlow::answering(move |request| {
        let answer = Answer::new(200, served.to_vec());
        if request.target.ends_with("chunked") {
            answer.chunked()
        } else {
            answer
        }
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let with_length = get(proxy.address(), "/v1/length");
    assert_eq!(with_length.framing, Framing::Length(20 * MIB));
    assert!(with_length.body == *body);
    let in_chunks = get(proxy.address(), "/v1/chunked");
    assert_eq!(
        (in_chunks.framing, in_chunks.ended),
        (Framing::Chunked, Ended::Complete)
    );
    assert!(in_chunks.body == *body);
}

#[test]
fn interim_answers_are_not_taken_for_the_answer() {
    for interim in [
        "100 Continue\r\n\r\n",
        "103 Early Hints\r\nLink: </x>\r\n\r\n",
    ] {
        let upstream = RawUpstream::always(format!("HTTP/1.1 {interim}{OK}"));
        let proxy = ProxyProcess::to(&upstream.url()).start();
        let mut client = RawClient::connect(proxy.address());
        for _ in 0..2 {
            client.send_request("GET", "/v1/x", &[], b"");
            let mut head = client.read_head();
            while head.status < 200 {
                head = client.read_head();
            }
            assert_eq!(head.status, 200, "{interim:?}");
            assert_eq!(client.read_body_to_end().1, b"ok");
        }
    }
}

#[test]
fn upstream_trailers_do_not_disturb_the_end_of_the_body() {
    let response = request_through(
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
         5;x=y\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
    );
    response.assert_ended("hello", Ended::Complete);
}

#[test]
fn upstream_connections_are_kept_alive() {
    let upstream = RawUpstream::always(OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    for n in 0..20 {
        let body = if n % 2 == 0 { "" } else { "a body" };
        assert_eq!(
            client.request("POST", "/v1/x", &[], body.as_bytes()).status,
            200
        );
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn an_upstream_that_closes_after_every_answer_costs_the_client_nothing() {
    let upstream = RawUpstream::once(OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    for n in 0..50 {
        let response = client.request("PUT", &format!("/v1/{n}"), &[], b"body");
        response.assert_text(200, "ok");
    }
    let expected: Vec<String> = (0..50).map(|n| format!("/flow-llm-proxy/v1/{n}")).collect();
    assert_eq!(
        upstream.targets(),
        expected,
        "each request arrives exactly once"
    );
}

/// Starts an upstream that closes each connection when the first byte of a second request arrives:
/// the race that no look at an idle connection can exclude.
fn start_closing_on_reuse(cut_off: &Arc<AtomicUsize>) -> RawUpstream {
    let cut_off = Arc::clone(cut_off);
    RawUpstream::start(move |connection| {
        if connection.read_request().is_none() || !connection.send(OK) {
            return;
        }
        if connection.wait_for_byte() {
            cut_off.fetch_add(1, Ordering::SeqCst);
        }
    })
}

#[test]
fn a_request_that_meets_a_closing_connection_is_sent_once_more_on_a_new_one() {
    for (method, body) in [("GET", ""), ("PUT", "a body"), ("DELETE", "")] {
        let cut_off = Arc::new(AtomicUsize::new(0));
        let upstream = start_closing_on_reuse(&cut_off);
        let proxy = ProxyProcess::to(&upstream.url()).start();
        let mut client = RawClient::connect(proxy.address());
        for n in 0..3 {
            let response = client.request(method, &format!("/v1/{n}"), &[], body.as_bytes());
            assert_eq!(
                (response.status, response.text().as_str()),
                (200, "ok"),
                "{method} {n}"
            );
        }
        assert!(
            cut_off.load(Ordering::SeqCst) >= 2,
            "the connection was reused"
        );
        let expected = [
            "/flow-llm-proxy/v1/0",
            "/flow-llm-proxy/v1/1",
            "/flow-llm-proxy/v1/2",
        ];
        assert_eq!(upstream.targets(), expected, "{method}");
        let mut requests = upstream.requests().into_iter();
        assert!(requests.all(|request| request.body == body.as_bytes()));
    }
}

#[test]
fn a_streamed_body_is_not_sent_twice_when_the_connection_closes() {
    let cut_off = Arc::new(AtomicUsize::new(0));
    let upstream = start_closing_on_reuse(&cut_off);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    assert_eq!(client.request("GET", "/v1/first", &[], b"").status, 200);
    client.send(post_head(33 * MIB).replace("/x", "/big"));
    client.try_send(vec![b'x'; 33 * MIB]);
    let response = client.read_response();
    let targets = upstream.targets();
    let whole = targets.iter().filter(|t| t.ends_with("/big")).count();
    match cut_off.load(Ordering::SeqCst) {
        // The body went up on a new connection from the start.
        0 => assert_eq!((response.status, whole), (200, 1)),
        // It met the closing connection, and its bytes are gone.
        _ => {
            response.assert_error(502, "upstream_broke");
            assert_eq!(whole, 0);
        }
    }
}

#[test]
fn a_new_connection_that_closes_is_not_tried_again() {
    let upstream = RawUpstream::start(|connection| {
        connection.read_request();
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let response = get(proxy.address(), "/v1/x");
    response.assert_error(502, "upstream_broke");
    assert_eq!((upstream.connections(), upstream.requests().len()), (1, 1));
}

#[test]
fn a_request_is_sent_once_more_and_not_more_often() {
    let upstream = RawUpstream::start(|connection| {
        if connection.number == 1 {
            connection.read_request();
            connection.send(OK);
            connection.wait_for_byte();
        } else {
            connection.read_request();
        }
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    assert_eq!(client.request("GET", "/v1/first", &[], b"").status, 200);
    let response = client.request("GET", "/v1/second", &[], b"");
    response.assert_error(502, "upstream_broke");
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn an_answer_that_has_begun_is_not_asked_for_again() {
    let upstream = RawUpstream::start(|connection| {
        if connection.read_request().is_some() && connection.send(OK) {
            connection.read_request();
            connection.send("HTTP/1.1 200");
        }
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    assert_eq!(client.request("GET", "/v1/first", &[], b"").status, 200);
    let response = client.request("GET", "/v1/second", &[], b"");
    response.assert_error(502, "upstream_broke");
    assert_eq!(upstream.requests().len(), 2);
}

/// Sends a GET for `/v1/x` to an upstream that answers with this Location; returns what arrives.
fn location_after(location: &dyn Fn(&str) -> String) -> Option<String> {
    let upstream = RawUpstream::start(|connection| {
        while let Some(request) = connection.read_request() {
            let location = request.header("x-answer-with").expect("the Location");
            connection.send(format!(
                "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
            ));
        }
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let sent = location(&upstream.address().to_string());
    let header = [("X-Answer-With", sent.as_str())];
    let response = RawClient::connect(proxy.address()).request("GET", "/v1/x", &header, b"");
    response.header("location").map(str::to_owned)
}

#[test]
fn a_location_at_the_target_leads_through_the_proxy() {
    for (location, expected) in [
        (
            "http://HOST/flow-llm-proxy/v1/y?z=1",
            "/flow-llm-proxy/v1/y?z=1",
        ),
        ("https://HOST/flow-llm-proxy/v1/y", "/flow-llm-proxy/v1/y"),
        ("HTTP://HOST/flow-llm-proxy", "/flow-llm-proxy"),
        ("/flow-llm-proxy/v1/y", "/flow-llm-proxy/v1/y"),
        (
            "http://HOST/flow-llm-proxy-2/y",
            "http://HOST/flow-llm-proxy-2/y",
        ),
        ("http://HOST/elsewhere", "http://HOST/elsewhere"),
        ("http://HOST", "http://HOST"),
        ("http://HOST//example.com/", "http://HOST//example.com/"),
        (
            "http://u@HOST/flow-llm-proxy/y",
            "http://u@HOST/flow-llm-proxy/y",
        ),
        (
            "http://other.example/flow-llm-proxy/y",
            "http://other.example/flow-llm-proxy/y",
        ),
        ("//HOST/flow-llm-proxy/y", "//HOST/flow-llm-proxy/y"),
        ("relative", "relative"),
    ] {
        let (shown, asked) = (location, |host: &str| location.replace("HOST", host));
        let got = location_after(&asked).expect("a Location");
        let port = got.split_once("127.0.0.1:").map(|(_, rest)| {
            let end = rest.find('/').unwrap_or(rest.len());
            format!("127.0.0.1:{}", &rest[..end])
        });
        let expected = expected.replace("HOST", &port.unwrap_or_default());
        assert_eq!(got, expected, "{shown}");
    }
}

#[test]
fn a_location_that_would_lead_elsewhere_as_a_path_stays_whole() {
    // Browsers take `\` for `/`, and pass over TAB.
    for path in [
        "//example.com/x",
        "/\\example.com/x",
        "/\t/example.com/x",
        "/\t\\example.com",
    ] {
        let upstream = RawUpstream::start(move |connection| {
            while connection.read_request().is_some() {
                let host = connection.local_address();
                connection.send(format!(
                    "HTTP/1.1 302 Found\r\nLocation: http://{host}{path}\r\n\
                     Content-Length: 0\r\n\r\n"
                ));
            }
        });
        let proxy = ProxyProcess::to(&format!("http://{}", upstream.address())).start();
        let location = get(proxy.address(), "/v1/x");
        let location = location.header("location").expect("a Location");
        assert!(location.starts_with("http://127.0.0.1:"), "{location:?}");
    }
}

#[test]
fn an_upstreams_own_flow_proxy_error_is_told_from_ours() {
    let upstream =
        FakeFlow::answering(|_| Answer::new(502, "x").header("x-flow-proxy-error", "theirs"));
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let response = get(proxy.address(), "/v1/x");
    assert_eq!(response.header("x-flow-proxy-error"), None);
    assert_eq!(
        response.header("x-flow-proxy-upstream-error"),
        Some("theirs")
    );
}
