//! Parts of a request that reach the upstream: path, method, headers (contract section 4).

use crate::support::{
    EMPTY_OK, FakeFlow, ProxyProcess, RawClient, RawUpstream, expected_token, get, post,
    start_proxy, verified_client_id,
};

fn assert_arrives_as(request_target: &str, upstream_target: &str) {
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    assert_eq!(
        get(proxy.address(), request_target).status,
        200,
        "{request_target}"
    );
    assert_eq!(upstream.request().target, upstream_target);
}

#[test]
fn the_tests_own_token_is_the_one_that_another_implementation_makes() {
    // Made with Python's hmac, hashlib and base64.
    let vector = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.\
        eyJjbGllbnRJZCI6ImNsaWVudC0xIiwiY2xpZW50U2VjcmV0IjoiZmFrZS1zZWNyZXQtMS1ub3QtcmVhbCIsInRl\
        bmFudCI6InRlbmFudC0xIn0.jo8IMkb2fP7Bpzs2ugqqkSIx890y784jyoatL5Gnbrc";
    assert_eq!(
        expected_token("client-1", "fake-secret-1-not-real", "tenant-1"),
        vector
    );
    assert_eq!(
        verified_client_id(&format!("Bearer {vector}")).as_deref(),
        Some("client-1")
    );
    assert_eq!(verified_client_id(&format!("Bearer {vector}x")), None);
}

#[test]
fn a_path_and_its_query_follow_the_targets_path() {
    assert_arrives_as("/v1/models?x=1", "/flow-llm-proxy/v1/models?x=1");
}

#[test]
fn the_root_follows_the_targets_path() {
    assert_arrives_as("/", "/flow-llm-proxy/");
}

#[test]
fn the_targets_path_is_not_given_twice() {
    assert_arrives_as(
        "/flow-llm-proxy/v1/models?x=1",
        "/flow-llm-proxy/v1/models?x=1",
    );
}

#[test]
fn the_targets_path_alone_is_not_given_twice() {
    assert_arrives_as("/flow-llm-proxy", "/flow-llm-proxy");
}

#[test]
fn the_targets_path_with_a_query_is_not_given_twice() {
    assert_arrives_as("/flow-llm-proxy?x=1", "/flow-llm-proxy?x=1");
}

#[test]
fn a_path_that_only_begins_with_the_same_letters_is_joined() {
    assert_arrives_as(
        "/flow-llm-proxy-2/v1",
        "/flow-llm-proxy/flow-llm-proxy-2/v1",
    );
}

#[test]
fn percent_encoding_and_double_slashes_arrive_unchanged() {
    assert_arrives_as(
        "/v1//a%20b%2Fc%7e/?q=%7B%22a%22%7D&q=../x&&z",
        "/flow-llm-proxy/v1//a%20b%2Fc%7e/?q=%7B%22a%22%7D&q=../x&&z",
    );
}

#[test]
fn an_empty_query_arrives_unchanged() {
    assert_arrives_as("/v1/models?", "/flow-llm-proxy/v1/models?");
}

#[test]
fn characters_that_curl_leaves_raw_arrive_unchanged() {
    assert_arrives_as(
        "/v1/x|{y}?a=[1|2]^{}\\'",
        "/flow-llm-proxy/v1/x|{y}?a=[1|2]^{}\\'",
    );
}

#[test]
fn quotes_angle_brackets_and_backticks_are_percent_encoded() {
    assert_arrives_as(
        r#"/v1/"x"?filter={"a":<`1`>}|\^"#,
        r"/flow-llm-proxy/v1/%22x%22?filter={%22a%22:%3C%601%60%3E}|\^",
    );
}

#[test]
fn a_target_without_a_path_adds_none() {
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = ProxyProcess::to(&format!("http://{}", upstream.address())).start();
    assert_eq!(get(proxy.address(), "/v1/models?x=1").status, 200);
    assert_eq!(upstream.request().target, "/v1/models?x=1");
}

#[test]
fn a_target_that_ends_in_a_slash_is_joined_with_one_slash() {
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = ProxyProcess::to(&format!("{}/", upstream.url())).start();
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    assert_eq!(
        get(proxy.address(), "/flow-llm-proxy/v1/models").status,
        200
    );
    assert_eq!(upstream.targets(), ["/flow-llm-proxy/v1/models"; 2]);
}

#[test]
fn dot_segments_in_any_spelling_are_rejected() {
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let targets = [
        "/../admin",
        "/v1/../../admin",
        "/v1/..",
        "/v1/.",
        "/./v1",
        "/v1/../models?x=1",
        "/%2e%2e/admin",
        "/%2E%2e/admin",
        "/.%2e/admin",
        "/%2e./admin",
        "/v1/%2e/models",
        "/v1/..%2fadmin",
        "/v1%2f..%2Fadmin",
        "/v1/%2e%2e%2fadmin",
        "/..%5cadmin",
        "/v1%5C..%5Cadmin",
        "/..\\admin",
        "/v1\\..\\admin",
        "/flow-llm-proxy/../admin",
        "/flow-llm-proxy/%2e%2E/admin",
    ];
    for target in targets {
        get(proxy.address(), target).assert_error_to(target, 400, "bad_request");
    }
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
}

#[test]
fn dots_that_are_no_segment_are_served() {
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let targets = [
        "/.well-known/x",
        "/v1/...",
        "/v1/a..b",
        "/v1/gpt-4.1",
        "/v1/..a",
        "/v1/%252e%252e/x",
    ];
    for target in targets {
        assert_eq!(get(proxy.address(), target).status, 200, "{target}");
    }
    assert_eq!(upstream.requests().len(), targets.len());
}

#[test]
fn every_method_is_forwarded_with_and_without_a_body() {
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let methods = [
        "GET",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
        "OPTIONS",
        "HEAD",
        "PROPFIND",
        "QUERY",
        "X-Custom!",
        "get",
    ];
    let mut client = RawClient::connect(proxy.address());
    for method in methods {
        for body in ["", "a body"] {
            let response = client.request(method, "/v1/x", &[], body.as_bytes());
            assert_eq!(response.status, 200, "{method} {body:?}");
            let seen = upstream.requests().pop().expect("a request");
            assert_eq!(
                (seen.method.as_str(), seen.body),
                (method, body.as_bytes().to_vec())
            );
        }
    }
    assert_eq!(upstream.requests().len(), 2 * methods.len());
}

#[test]
fn nothing_is_added_to_a_request_but_its_id() {
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    let mut names = upstream.request().header_names();
    names.sort();
    assert_eq!(names, ["authorization", "host", "x-request-id"]);
}

#[test]
fn a_body_adds_its_framing_only() {
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    assert_eq!(post(proxy.address(), "/v1/x", b"{}").status, 200);
    let request = upstream.request();
    let mut names = request.header_names();
    names.sort();
    assert_eq!(
        names,
        ["authorization", "content-length", "host", "x-request-id"]
    );
    assert_eq!(request.header("content-length"), Some("2"));
}

#[test]
fn an_empty_post_keeps_its_content_length_of_zero() {
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    assert_eq!(
        client
            .request("POST", "/v1/x", &[("Content-Length", "0")], b"")
            .status,
        200
    );
    assert_eq!(upstream.request().header("content-length"), Some("0"));
}

#[test]
fn request_headers_keep_their_order() {
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let sent: Vec<(String, String)> = (0..40)
        .map(|n| (format!("X-H{}", n * 7 % 40), format!("value {n}")))
        .collect();
    let sent: Vec<(&str, &str)> = sent.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    RawClient::connect(proxy.address()).request("GET", "/v1/x", &sent, b"");
    let request = upstream.request();
    let arrived: Vec<(String, &str)> = request
        .headers
        .iter()
        .filter(|(name, _)| name.to_ascii_lowercase().starts_with("x-h"))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
        .collect();
    let sent: Vec<(String, &str)> = sent
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), *value))
        .collect();
    assert_eq!(arrived, sent);
}

#[test]
fn repeated_request_headers_stay_repeated_and_in_order() {
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let sent = [
        ("X-Tag", "one"),
        ("Accept", "a/b"),
        ("x-tag", "two, three"),
        ("Accept", "c/d"),
        ("X-TAG", ""),
        ("X-Tag", "one"),
    ];
    RawClient::connect(proxy.address()).request("GET", "/v1/x", &sent, b"");
    let request = upstream.request();
    assert_eq!(request.values("x-tag"), ["one", "two, three", "", "one"]);
    assert_eq!(request.values("accept"), ["a/b", "c/d"]);
}

#[test]
fn end_to_end_headers_arrive_unchanged() {
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let sent = [
        ("User-Agent", "OpenAI/Python 1.0"),
        ("Accept", "*/*"),
        ("Accept-Encoding", "gzip, br"),
        ("Content-Type", "application/json"),
        ("anthropic-version", "2023-06-01"),
        ("Via", "1.1 front"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Quoted", "a \"b\"; c=\\d\te"),
    ];
    RawClient::connect(proxy.address()).request("POST", "/v1/x", &sent, b"{}");
    let request = upstream.request();
    for (name, value) in sent {
        assert_eq!(request.header(name), Some(value));
    }
}

#[test]
fn bytes_above_127_in_a_value_arrive_unchanged() {
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send(b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\nX-Name: caf\xe9 \xc3\xa9\r\n\r\n");
    assert_eq!(client.read_response().status, 200);
    assert_eq!(
        upstream.request().header("x-name"),
        Some("caf\u{e9} \u{c3}\u{a9}")
    );
}

#[test]
fn hop_by_hop_request_headers_stay_behind() {
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let sent = [
        ("Connection", "keep-alive, X-Named"),
        ("Connection", "x-also-named"),
        ("X-Named", "1"),
        ("X-Also-Named", "2"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authenticate", "Basic"),
        ("Proxy-Authorization", "Basic Zm9v"),
        ("TE", "trailers"),
        ("Trailer", "X-Sum"),
        ("Upgrade", "h2c"),
        ("X-Stays", "3"),
    ];
    let mut client = RawClient::connect(proxy.address());
    assert_eq!(client.request("GET", "/v1/x", &sent, b"").status, 200);
    let mut names = upstream.request().header_names();
    names.sort();
    assert_eq!(names, ["authorization", "host", "x-request-id", "x-stays"]);
}

#[test]
fn authorization_is_replaced_by_the_configurations_token() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let sent = [("Authorization", "Bearer sk-dummy")];
    let response = RawClient::connect(proxy.address()).request("GET", "/v1/models", &sent, b"");
    assert_eq!(response.status, 200);
    let token = expected_token("client-1", "fake-secret-1-not-real", "tenant-1");
    assert_eq!(
        upstream.request().values("authorization"),
        [format!("Bearer {token}")]
    );
}

#[test]
fn the_clients_own_credentials_stay_behind() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let credentials = [
        ("x-api-key", "sk-ant-dummy"),
        ("API-Key", "dummy"),
        ("X-Goog-Api-Key", "dummy"),
        ("x-litellm-api-key", "rubbish"),
        ("Ocp-Apim-Subscription-Key", "dummy"),
        ("Cookie", "session=dummy"),
        ("Cookie", "token=dummy"),
        ("Proxy-Authorization", "Basic dummy"),
    ];
    let mut sent = credentials.to_vec();
    sent.push(("X-Api-Key-Id", "stays"));
    let response = RawClient::connect(proxy.address()).request("GET", "/v1/models", &sent, b"");
    assert_eq!(response.status, 200);
    let request = upstream.request();
    for (name, _) in credentials {
        assert_eq!(request.header(name), None, "{name}");
    }
    assert_eq!(request.header("x-api-key-id"), Some("stays"));
}

#[test]
fn trace_would_show_the_token_and_is_rejected() {
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    for method in ["TRACE", "TRACK", "trace", "Track", "connect"] {
        let mut client = RawClient::connect(proxy.address());
        let response = client.request(method, "/v1/x", &[], b"");
        response.assert_error_to(method, 405, "method_not_allowed");
        assert!(
            response
                .header("allow")
                .is_some_and(|list| !list.contains("TRAC"))
        );
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn a_websocket_is_told_to_use_http() {
    let upstream = FakeFlow::start();
    let proxy = start_proxy(&upstream, 2);
    let mut client = RawClient::connect(proxy.address());
    for sent in [
        [("Connection", "Upgrade"), ("Upgrade", "websocket")],
        [
            ("Connection", "keep-alive, upgrade"),
            ("Upgrade", "WebSocket"),
        ],
        [("Connection", "Upgrade"), ("Upgrade", "h2c, websocket")],
    ] {
        let response = client.request("GET", "/v1/responses", &sent, b"");
        response.assert_error(426, "upgrade_not_supported");
        assert_eq!(response.header("upgrade"), Some("HTTP/1.1"));
        assert_eq!(response.values("connection"), ["Upgrade"]);
    }
    let other = [
        ("Connection", "Upgrade, HTTP2-Settings"),
        ("Upgrade", "h2c"),
    ];
    assert_eq!(client.request("GET", "/v1/x", &other, b"").status, 200);
    let post = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    assert_eq!(client.request("POST", "/v1/x", &post, b"{}").status, 200);
    assert_eq!(
        upstream.client_ids(),
        ["client-1", "client-2"],
        "no turn taken"
    );
}

#[test]
fn head_of_the_root_is_answered_here() {
    let upstream = FakeFlow::start();
    let proxy = start_proxy(&upstream, 2);
    let mut client = RawClient::connect(proxy.address());
    for target in ["/", "/?x=1"] {
        let response = client.request("HEAD", target, &[], b"");
        assert_eq!((response.status, response.error_code()), (200, ""));
        assert!(response.header("x-request-id").is_some());
    }
    assert_eq!(client.request("HEAD", "/v1/models", &[], b"").status, 200);
    assert_eq!(client.request("GET", "/", &[], b"").status, 200);
    assert_eq!(
        upstream.client_ids(),
        ["client-1", "client-2"],
        "no turn taken"
    );
    let line = proxy.wait_for_access_line(1);
    assert_eq!(
        (line.request.as_str(), line.status, line.level.as_str()),
        ("HEAD /", 200, "INFO")
    );
    assert_eq!((line.field("config"), line.number("attempts")), ("-", 0));
}

#[test]
fn several_authorizations_are_replaced_by_one() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let sent = [
        ("Authorization", "Bearer a"),
        ("authorization", "Basic b"),
        ("X-Stays", "1"),
    ];
    let response = RawClient::connect(proxy.address()).request("GET", "/v1/models", &sent, b"");
    assert_eq!(response.status, 200);
    assert_eq!(upstream.request().values("authorization").len(), 1);
    assert_eq!(upstream.request().client_id(), "client-1");
}

#[test]
fn authorization_named_by_connection_is_still_signed() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let sent = [("Connection", "Authorization, Host, x-request-id")];
    let response = RawClient::connect(proxy.address()).request("GET", "/v1/models", &sent, b"");
    assert_eq!(response.status, 200);
    assert_eq!(upstream.request().client_id(), "client-1");
    assert_eq!(
        upstream.request().header("host"),
        Some(upstream.address().to_string().as_str())
    );
}

#[test]
fn host_is_the_targets() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send("GET /v1/models HTTP/1.1\r\nHost: localhost:8899\r\n\r\n");
    assert_eq!(client.read_response().status, 200);
    assert_eq!(
        upstream.request().header("host"),
        Some(upstream.address().to_string().as_str())
    );
}
