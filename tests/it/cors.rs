//! What pages of allowed origins may read (contract section 9: CORS).

use crate::support::{
    Answer, FakeFlow, ProxyProcess, RawClient, RawUpstream, Response, SOON, start_proxy, wait_until,
};

const ALLOWED: &str = "https://app.example:8443";
const EXPOSED: &str = "x-request-id, request-id, x-flow-proxy-error, retry-after, x-should-retry";

fn proxy_to(upstream: &FakeFlow) -> ProxyProcess {
    ProxyProcess::to(&upstream.url())
        .option("--allow-origin", ALLOWED)
        .start()
}

/// Sends a request of a page, with further header lines and a body.
fn ask(proxy: &ProxyProcess, start: &str, origin: &str, lines: &str) -> Response {
    let mut client = RawClient::connect(proxy.address());
    client.send(format!(
        "{start} HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n{lines}\r\n"
    ));
    client.read_response_to(start.split(' ').next().unwrap_or_default())
}

/// Asserts that the page of `origin` may read the response and `exposed` of its header fields.
fn assert_readable(response: &Response, origin: &str, exposed: &str) {
    let what = format!("{} {:?}", response.status, response.headers);
    assert_eq!(
        response.values("access-control-allow-origin"),
        [origin],
        "{what}"
    );
    assert!(response.values("vary").contains(&"Origin"), "{what}");
    let values = response.values("access-control-expose-headers");
    assert_eq!(values, [exposed], "{what}");
    assert_eq!(response.values("access-control-allow-credentials").len(), 0);
}

fn assert_not_readable(response: &Response) {
    let names = response.headers.iter().map(|(name, _)| name.to_lowercase());
    let cors: Vec<_> = names
        .filter(|name| name.starts_with("access-control"))
        .collect();
    assert!(cors.is_empty(), "{} {cors:?}", response.status);
}

#[test]
fn an_allowed_origin_reads_answers_and_the_header_fields_of_llm_apis() {
    let upstream = FakeFlow::answering(|_| {
        Answer::ok()
            .header("Vary", "Accept-Encoding")
            .header("Access-Control-Allow-Origin", "*")
            .header("Access-Control-Allow-Credentials", "true")
            .header("X-LiteLLM-Model-Id", "m")
            .header("x-ratelimit-remaining-requests", "9")
            .header("x-internal", "1")
    });
    let proxy = proxy_to(&upstream);
    let exposed = format!("{EXPOSED}, X-LiteLLM-Model-Id, x-ratelimit-remaining-requests");
    for origin in [
        ALLOWED,
        "http://localhost:3000",
        "http://127.0.0.1:1",
        "http://[::1]:5173",
        "vscode-webview://1a2b3c",
        "app://obsidian.md",
        "file://",
    ] {
        let response = ask(&proxy, "POST /v1/x", origin, "Content-Length: 0\r\n");
        assert_eq!(response.status, 200);
        assert_readable(&response, origin, &exposed);
        assert_eq!(response.values("vary"), ["Accept-Encoding", "Origin"]);
    }
}

#[test]
fn without_origin_and_for_other_origins_nothing_is_said() {
    let upstream = FakeFlow::start();
    let proxy = proxy_to(&upstream);
    let mut client = RawClient::connect(proxy.address());
    let response = client.request("GET", "/v1/models", &[], b"");
    assert_not_readable(&response);
    assert_eq!(response.header("vary"), None);
    for origin in ["https://app.example", "null", "https://evil.example"] {
        for start in ["GET /v1/models", "OPTIONS /v1/models", "CONNECT a:1"] {
            let asked = "Access-Control-Request-Method: POST\r\n";
            assert_not_readable(&ask(&proxy, start, origin, asked));
        }
    }
    let twice = format!("Origin: {ALLOWED}\r\n");
    assert_eq!(ask(&proxy, "GET /v1/x", ALLOWED, &twice).status, 403);
}

#[test]
fn a_preflight_is_answered_without_a_turn() {
    let upstream = FakeFlow::start();
    let proxy = proxy_to(&upstream);
    let response = ask(
        &proxy,
        "OPTIONS /v1/chat/completions",
        ALLOWED,
        "Access-Control-Request-Method: POST\r\n\
         Access-Control-Request-Headers: authorization,content-type,x-stainless-os\r\n",
    );
    assert_eq!((response.status, response.body.len()), (204, 0));
    assert_eq!(response.header("content-length"), None);
    let mut fields: Vec<(&str, &str)> = response
        .headers
        .iter()
        .filter(|(name, _)| name != "x-request-id")
        .map(|(name, value)| (&**name, &**value))
        .collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            (
                "access-control-allow-headers",
                "authorization,content-type,x-stainless-os"
            ),
            ("access-control-allow-methods", "POST"),
            ("access-control-allow-origin", ALLOWED),
            ("access-control-max-age", "600"),
            ("vary", "Origin"),
        ]
    );
    assert_eq!(upstream.requests().len(), 0);
    let line = proxy.wait_for_access_line(1);
    assert_eq!((line.status, line.field("config")), (204, "-"));
    assert_eq!(line.number("attempts"), 0);
}

#[test]
fn a_preflight_gets_what_it_asks_for_and_nothing_else() {
    let upstream = FakeFlow::start();
    let proxy = proxy_to(&upstream);
    let preflight = |lines: &str| ask(&proxy, "OPTIONS /v1/x", ALLOWED, lines);
    let response = preflight(
        "Access-Control-Request-Method: DELETE\r\nAccess-Control-Request-Private-Network: true\r\n",
    );
    let value = |name| response.header(name);
    assert_eq!(value("access-control-allow-methods"), Some("DELETE"));
    assert_eq!(value("access-control-allow-headers"), None);
    assert_eq!(value("access-control-allow-private-network"), Some("true"));
    let response = preflight(
        "Access-Control-Request-Method: P\u{e9}ST\r\nAccess-Control-Request-Headers: a\tb\r\n",
    );
    assert_eq!(
        (
            response.status,
            response.values("access-control-allow-methods").len()
        ),
        (204, 0)
    );
    assert_eq!(response.header("access-control-allow-headers"), None);
    assert_eq!(upstream.requests().len(), 0);
    // Any other OPTIONS is a request as others.
    assert_eq!(preflight("").status, 200);
    let asked = "Access-Control-Request-Method: POST\r\n";
    assert_eq!(ask(&proxy, "GET /v1/x", ALLOWED, asked).status, 200);
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn a_preflight_of_another_origin_is_forbidden() {
    let upstream = FakeFlow::start();
    let proxy = proxy_to(&upstream);
    let asked = "Access-Control-Request-Method: POST\r\n";
    for origin in ["https://example.com", "null", "http://192.168.1.20:3000"] {
        let response = ask(&proxy, "OPTIONS /v1/models", origin, asked);
        response.assert_error_to(origin, 403, "forbidden");
        assert_not_readable(&response);
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn the_proxys_own_pages_are_readable_to_no_other_origin() {
    let upstream = FakeFlow::start();
    let proxy = proxy_to(&upstream);
    let asked = "Access-Control-Request-Method: GET\r\n";
    for (start, status) in [
        ("GET /-/health", 200),
        ("GET /-/ready", 200),
        ("GET /-/nothing", 404),
        ("GET /-", 404),
        ("OPTIONS /-/health", 405),
        ("OPTIONS /-/", 405),
    ] {
        let response = ask(&proxy, start, ALLOWED, asked);
        assert_eq!(response.status, status, "{start}");
        assert_not_readable(&response);
    }
}

#[test]
fn errors_of_the_proxy_are_readable_also_those_before_the_head_is_understood() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--allow-origin", ALLOWED)
        .option("--max-body", "10")
        .start();
    let long = format!("X-Long: {}\r\n", "x".repeat(70_000));
    for (start, lines, status) in [
        ("GET /v1/../x", "", 400),
        ("GET http://other.example/", "", 403),
        ("GET /v1/x", "Service-Worker: script\r\n", 403),
        ("TRACE /v1/x", "", 405),
        ("CONNECT a:1", "", 405),
        ("POST /v1/x", "Content-Length: 11\r\n", 413),
        ("POST /v1/x", "Content-Length: x\r\n", 400),
        ("POST /v1/x", "Transfer-Encoding: gzip\r\n", 501),
        (
            "GET /v1/x",
            "Upgrade: websocket\r\nConnection: Upgrade\r\n",
            426,
        ),
        ("GET /v1/x", "Expect: x\r\n", 417),
        ("GET /v1/x", &long, 431),
        ("HEAD /", "", 200),
    ] {
        let response = ask(&proxy, start, ALLOWED, lines);
        assert_eq!(response.status, status, "{start} {lines:.20}");
        assert_readable(&response, ALLOWED, EXPOSED);
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn errors_about_the_upstream_are_readable_also_for_a_body_that_is_not_held() {
    let proxy = ProxyProcess::to("http://127.0.0.1:9/x")
        .option("--allow-origin", ALLOWED)
        .start();
    let response = ask(&proxy, "GET /v1/models", ALLOWED, "");
    response.assert_error(502, "upstream_unreachable");
    assert_readable(&response, ALLOWED, EXPOSED);

    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--allow-origin", ALLOWED)
        .option("--max-body", "40M")
        .start();
    let mut client = RawClient::connect(proxy.address());
    let origin = [("Origin", ALLOWED), ("Sec-Fetch-Mode", "navigate")];
    let response = client.request("POST", "/v1/x", &origin, &vec![b'x'; 33 << 20]);
    assert_eq!(response.status, 200);
    assert_readable(&response, ALLOWED, EXPOSED);
    assert_eq!(response.header("content-security-policy"), Some("sandbox"));
}

#[test]
fn an_answer_that_was_kept_is_readable() {
    let limited = Answer::limited(Some("7")).header("x-ratelimit-limit-requests", "1");
    let upstream = FakeFlow::answering_by_client(&[
        ("client-1", limited),
        ("client-2", Answer::unauthorized()),
    ]);
    let proxy = start_proxy(&upstream, 2);
    let response = ask(
        &proxy,
        "POST /v1/x",
        "http://localhost:1",
        "Content-Length: 0\r\n",
    );
    assert_eq!(response.status, 429);
    let exposed = format!("{EXPOSED}, x-ratelimit-limit-requests");
    assert_readable(&response, "http://localhost:1", &exposed);
}

#[test]
fn a_request_that_finds_no_worker_learns_so() {
    let upstream = RawUpstream::start(|connection| {
        connection.read_request();
        connection.wait_for_close(SOON);
    });
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--workers", "1")
        .start();
    let mut slow = RawClient::connect(proxy.address());
    slow.send("GET /v1/slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
    wait_until("the slow request", SOON, || upstream.requests().len() == 1);
    let response = ask(&proxy, "GET /v1/x", "http://localhost:3000", "");
    response.assert_error(503, "overloaded");
    assert_readable(&response, "http://localhost:3000", EXPOSED);
}
