//! The proxy as a forward proxy: absolute-form requests and CONNECT (contract section 4).

use crate::support::{EMPTY_OK, ProxyProcess, RawClient, RawUpstream, get};

#[test]
fn absolute_form_to_the_targets_host_is_served() {
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let host = upstream.address();
    for target in [
        format!("http://{host}/flow-llm-proxy/v1/models?x=1"),
        format!("http://{host}/v1/models?x=1"),
        format!("HTTP://{host}/flow-llm-proxy/v1/models?x=1"),
    ] {
        let mut client = RawClient::connect(proxy.address());
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.read_response().status, 200, "{target}");
    }
    for request in upstream.requests() {
        assert_eq!(request.target, "/flow-llm-proxy/v1/models?x=1");
        assert_eq!(request.header("host"), Some(host.to_string().as_str()));
        assert_eq!(request.client_id(), "client-1");
    }
}

#[test]
fn absolute_form_stands_in_for_the_check_of_host() {
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    let host = upstream.address();
    client.send(format!(
        "GET http://{host}/v1/models HTTP/1.1\r\nHost: example.com\r\n\r\n"
    ));
    assert_eq!(client.read_response().status, 200);
    assert_eq!(
        upstream.request().header("host"),
        Some(host.to_string().as_str())
    );
}

#[test]
fn absolute_form_to_another_host_is_forbidden() {
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let own_host = upstream.address();
    for target in [
        "http://example.com/flow-llm-proxy/v1/models".to_owned(),
        "https://example.com/v1/models".to_owned(),
        format!("http://{own_host}@example.com/v1/models"),
        format!("http://{own_host}.example.com/v1/models"),
    ] {
        let mut client = RawClient::connect(proxy.address());
        client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let response = client.read_response();
        response.assert_error_to(&target, 403, "forbidden");
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn an_error_for_an_absolute_form_is_that_of_its_path_and_shows_no_authority() {
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    let target = "http://user:not-for-the-log@example.com/v1/messages?x";
    client.send(format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    ));
    let response = client.read_response();
    assert_eq!(response.status, 403);
    let body = response.json();
    assert_eq!(body["type"], "error", "as Anthropic says it: {body}");
    let line = proxy.wait_for_log("\"POST /v1/messages\" 403");
    assert!(!proxy.log().contains("not-for-the-log"), "{line}");
}

#[test]
fn dot_segments_in_absolute_form_are_rejected() {
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let host = upstream.address();
    for path in ["/flow-llm-proxy/../admin", "/%2e%2e/admin", "/..%5cadmin"] {
        let mut client = RawClient::connect(proxy.address());
        client.send(format!(
            "GET http://{host}{path} HTTP/1.1\r\nHost: {host}\r\n\r\n"
        ));
        client
            .read_response()
            .assert_error_to(path, 400, "bad_request");
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn connect_is_rejected_and_told_what_to_do_instead() {
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send("CONNECT flow.ciandt.com:443 HTTP/1.1\r\nHost: flow.ciandt.com:443\r\n\r\n");
    let response = client.read_response();
    response.assert_error(405, "method_not_allowed");
    let message = response.json()["error"]["message"]
        .as_str()
        .expect("a message")
        .to_owned();
    assert!(
        message.contains("base URL") || message.contains("http://"),
        "how to use the proxy instead: {message}"
    );
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
}
