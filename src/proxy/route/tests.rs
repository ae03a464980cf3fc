use super::*;

fn target() -> Target {
    Target::parse("https://flow.example/flow-llm-proxy").unwrap()
}

fn route(request_target: &str) -> Result<Route, HttpError> {
    Route::of(&Method::GET, request_target.as_bytes(), &target())
}

fn upstream_path(request_target: &str) -> String {
    let route = route(request_target).unwrap();
    let path = route.upstream_path(request_target.as_bytes(), &target());
    String::from_utf8(path.of(request_target.as_bytes()).to_vec()).unwrap()
}

#[test]
fn the_base_path_is_put_before_the_path_once() {
    for (asked, expected) in [
        ("/v1/models?x=1", "/flow-llm-proxy/v1/models?x=1"),
        ("/flow-llm-proxy/v1/models", "/flow-llm-proxy/v1/models"),
        ("/flow-llm-proxy", "/flow-llm-proxy"),
        ("/flow-llm-proxy?x", "/flow-llm-proxy?x"),
        ("/flow-llm-proxyx", "/flow-llm-proxy/flow-llm-proxyx"),
        ("/", "/flow-llm-proxy/"),
        ("/a%20b//c;d?e=/../f", "/flow-llm-proxy/a%20b//c;d?e=/../f"),
        (
            "/v1?f={\"a\":<`1`>}",
            "/flow-llm-proxy/v1?f={%22a%22:%3C%601%60%3E}",
        ),
        ("/flow-llm-proxy/\"", "/flow-llm-proxy/%22"),
        ("/v1?f={a}", "/flow-llm-proxy/v1?f={a}"),
        (
            "http://flow.example/v1/models?x",
            "/flow-llm-proxy/v1/models?x",
        ),
        (
            "HTTP://FLOW.example:80/flow-llm-proxy/v1",
            "/flow-llm-proxy/v1",
        ),
        ("https://flow.example:443", "/flow-llm-proxy/"),
        ("http://flow.example?x=1", "/flow-llm-proxy/?x=1"),
    ] {
        assert_eq!(upstream_path(asked), expected, "{asked}");
    }
}

#[test]
fn a_target_without_a_path_forwards_paths_as_they_are() {
    let target = Target::parse("https://flow.example").unwrap();
    let route = Route::of(&Method::GET, b"/v1?x", &target).unwrap();
    assert_eq!(
        route.upstream_path(b"/v1?x", &target),
        TargetSlice::In(0..5)
    );
}

#[test]
fn dot_segments_are_rejected_however_they_are_written() {
    for path in [
        "/..",
        "/.",
        "/a/../b",
        "/a/./b",
        "/a/..",
        "/%2e%2E/b",
        "/.%2e/b",
        "/a%2f..%2fb",
        "/a/..%5cb",
        "/a\\..\\b",
        "/..;x/b",
        "/flow-llm-proxy/../admin",
        "/a/%2e",
        "http://flow.example/../x",
    ] {
        assert_eq!(route(path).unwrap_err().code, "bad_request", "{path}");
    }
    for path in [
        "/...",
        "/a..b",
        "/.well-known",
        "/a.",
        "/%2e%2e%2e",
        "/a?b=../c",
        "/%",
        "/%2",
    ] {
        assert!(route(path).is_ok(), "{path}");
    }
}

#[test]
fn the_path_that_is_shown_has_neither_query_nor_authority() {
    for (asked, shown) in [
        ("/v1/models?key=secret", "/v1/models"),
        ("/a://b/c", "/a://b/c"),
        ("http://user:secret@evil/v1/messages?x=/y", "/v1/messages"),
        ("ftp://user:secret@evil", "/"),
        ("http://evil?secret=/x", "/"),
        ("evil.example:443", "evil.example:443"),
        ("user:secret@evil:443", "evil:443"),
        ("*", "*"),
        ("?x", "-"),
        ("/x#secret", "/x"),
    ] {
        let piece = path_of(asked.as_bytes());
        let bytes = piece.of(asked.as_bytes());
        assert_eq!(bytes, shown.as_bytes(), "{asked}");
    }
}

#[test]
fn other_hosts_and_other_forms_are_rejected() {
    for (asked, code) in [
        ("http://evil.example/v1", "forbidden"),
        ("http://flow.example.evil.example/v1", "forbidden"),
        ("http://flow.example:8443/v1", "forbidden"),
        ("http://user@flow.example/v1", "forbidden"),
        ("http:///v1", "forbidden"),
        ("ftp://flow.example/v1", "bad_request"),
        ("*", "bad_request"),
        ("v1/models", "bad_request"),
        ("/v1#x", "bad_request"),
    ] {
        assert_eq!(route(asked).unwrap_err().code, code, "{asked}");
    }
    let connect = Route::of(&Method::CONNECT, b"flow.example:443", &target());
    assert_eq!(connect.unwrap_err().code, "method_not_allowed");
}
