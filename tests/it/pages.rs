//! The proxy's own pages, the `health` command and the demo (contract sections 2 and 10).

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{
    Answer, ClosedPort, Ended, FakeFlow, Finished, ProxyProcess, RawClient, RawUpstream, SOON, get,
    post, start_proxy, wait_until,
};

/// Sends a request with this Host and Origin; returns its status.
fn status_of(proxy: &ProxyProcess, path: &str, host: &str, origin: &str) -> u16 {
    let mut client = RawClient::connect(proxy.address());
    client.send(format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n\r\n"
    ));
    client.read_response().status
}

#[test]
fn health_says_ok() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let response = get(proxy.address(), "/-/health");
    assert_eq!(
        (response.status, &response.json()["status"]),
        (200, &"ok".into())
    );
    assert!(
        response
            .header("content-type")
            .is_some_and(|t| t.starts_with("application/json"))
    );
    assert_eq!(get(proxy.address(), "/-/health?verbose=1").status, 200);
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn ready_is_200_with_an_available_credential() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    assert_eq!(get(proxy.address(), "/-/ready").status, 200);
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn ready_tells_how_it_is_and_takes_no_instance_out_of_service() {
    let rejecting = Arc::new(AtomicBool::new(false));
    let rejects = Arc::clone(&rejecting);
    let upstream = FakeFlow::answering(move |_| match rejects.load(Ordering::SeqCst) {
        true => Answer::unauthorized(),
        false => Answer::ok(),
    });
    let proxy = start_proxy(&upstream, 2);
    let state = || {
        let ready = get(proxy.address(), "/-/ready");
        assert_eq!(ready.status, 200);
        let state = ready.json();
        (state["status"].clone(), state["secrets_file_valid"].clone())
    };
    assert_eq!(state(), ("ready".into(), true.into()));
    rejecting.store(true, Ordering::SeqCst);
    for _ in 0..4 {
        assert_eq!(get(proxy.address(), "/v1/models").status, 401);
    }
    assert_eq!(state(), ("degraded".into(), true.into()));
    rejecting.store(false, Ordering::SeqCst);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    assert_eq!(state(), ("ready".into(), true.into()));
    std::fs::write(proxy.file("secrets.json"), "[").expect("our own file is writable");
    wait_until("the file to be looked at", SOON, || state().1 == false);
    assert_eq!(state().0, "ready", "the old configurations serve");
}

#[test]
fn health_and_ready_are_open_to_all() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    for path in ["/-/health", "/-/ready"] {
        assert_eq!(
            status_of(&proxy, path, "probe.example.com", "https://example.com"),
            200
        );
    }
}

#[test]
fn health_answers_head_without_a_body() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    assert_eq!(client.request("HEAD", "/-/health", &[], b"").status, 200);
    assert_eq!(
        client.request("GET", "/-/health", &[], b"").status,
        200,
        "still in step"
    );
}

#[test]
fn an_unknown_page_is_not_found_and_never_forwarded() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    for path in ["/-", "/-/x", "/-/health/x", "/-/v1/models", "/-/healthy"] {
        let response = get(proxy.address(), path);
        response.assert_error_to(path, 404, "not_found");
        assert!(response.json()["error"]["message"].is_string());
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn a_page_request_with_a_body_leaves_the_connection_in_step() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    assert_eq!(
        client.request("GET", "/-/health", &[], b"a body").status,
        200
    );
    assert_eq!(client.request("GET", "/v1/models", &[], b"").status, 200);
    assert_eq!(upstream.request().body, b"");
}

#[test]
fn pages_have_an_access_line_without_a_configuration() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--log-level", "DEBUG")
        .start();
    let mut lines = Vec::new();
    for page in ["health", "ready", "unknown"] {
        get(proxy.address(), &format!("/-/{page}"));
        lines.push(proxy.wait_for_access_line(lines.len() + 1));
    }
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line.level.as_str(), line.request.as_str(), line.status))
        .collect();
    let expected = [
        ("DEBUG", "GET /-/health", 200),
        ("DEBUG", "GET /-/ready", 200),
        ("WARNING", "GET /-/unknown", 404),
    ];
    assert_eq!(told, expected);
    for line in &lines {
        assert_eq!((line.field("config"), line.number("attempts")), ("-", 0));
    }
    assert_eq!(lines[2].field("error"), "not_found");
}

fn run_health(port: u16) -> Finished {
    ProxyProcess::bare()
        .command("health")
        .port(port)
        .run_to_end(SOON)
}

fn assert_fails_with_one_line(finished: &Finished) {
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let lines = finished.stderr.trim_end().lines().count();
    assert_eq!(lines, 1, "{finished:?}");
}

#[test]
fn the_health_command_succeeds_beside_a_running_proxy() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let port = proxy.address().port();
    let finished = run_health(port);
    assert_eq!(finished.code, Some(0), "{finished:?}");
}

#[test]
fn the_health_command_uses_no_proxy_and_follows_no_redirect() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let elsewhere = RawUpstream::always(
        b"HTTP/1.1 302 Found\r\nLocation: /-/ready\r\nContent-Length: 0\r\n\r\n".to_vec(),
    );
    let health_at = |port| {
        let mut command = ProxyProcess::bare().command("health").port(port);
        for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
            command = command.env(variable, &elsewhere.url());
        }
        command.run_to_end(SOON)
    };
    let healthy = health_at(proxy.address().port());
    assert_eq!(healthy.code, Some(0), "{healthy:?}");
    assert_eq!(elsewhere.requests().len(), 0, "the proxy is not asked");
    let redirected = health_at(elsewhere.address().port());
    assert_eq!(redirected.code, Some(1), "{redirected:?}");
    assert!(redirected.stderr.contains("302"), "{redirected:?}");
    assert_eq!(elsewhere.requests().len(), 1);
}

#[test]
fn the_health_command_fails_with_one_line_where_nothing_listens() {
    let closed = ClosedPort::hold();
    let finished = run_health(closed.port());
    assert_fails_with_one_line(&finished);
}

#[test]
fn the_health_command_fails_on_an_answer_that_is_not_200() {
    let other = FakeFlow::answering(|_| Answer::ok()); // answers 401 to what is not signed
    let port = other.address().port();
    let finished = run_health(port);
    assert_fails_with_one_line(&finished);
}

#[test]
fn the_health_command_waits_3_s_at_most() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
    let port = silent
        .local_addr()
        .expect("a bound listener has an address")
        .port();
    let asked = Instant::now();
    let finished = run_health(port);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(
        asked.elapsed() < Duration::from_secs(6),
        "{:?}",
        asked.elapsed()
    );
}

#[test]
fn the_demo_needs_no_file_and_prints_what_to_try() {
    let proxy = ProxyProcess::bare().command("demo").start();
    wait_until("the curl commands", SOON, || {
        let text = proxy.stdout() + &proxy.log();
        text.matches("curl ").count() >= 3
    });
    let text = proxy.stdout() + &proxy.log();
    assert!(
        text.contains(&proxy.address().to_string()),
        "they work when pasted: {text}"
    );
}

#[test]
fn the_demo_lists_models_and_shows_a_failover() {
    let proxy = ProxyProcess::bare().command("demo").start();
    for _ in 0..6 {
        let response = get(proxy.address(), "/v1/models");
        assert_eq!(response.status, 200);
        assert!(
            response.json()["data"]
                .as_array()
                .is_some_and(|models| !models.is_empty())
        );
    }
    proxy.wait_for_log("marked as failed. Remaining: 2/3");
    proxy.wait_for_log("Failover successful");
}

#[test]
fn the_demo_completes_chats_whole_and_as_a_stream() {
    let proxy = ProxyProcess::bare().command("demo").start();
    let whole = post(
        proxy.address(),
        "/v1/chat/completions",
        br#"{"model":"demo","messages":[{"role":"user","content":"hi"}]}"#,
    );
    assert_eq!(whole.status, 200);
    assert!(whole.json()["choices"][0]["message"]["content"].is_string());
    let stream = post(
        proxy.address(),
        "/v1/chat/completions",
        br#"{"model":"demo","stream":true,"messages":[{"role":"user","content":"hi"}]}"#,
    );
    assert_eq!((stream.status, stream.ended), (200, Ended::Complete));
    assert_eq!(
        stream
            .header("content-type")
            .map(|t| t.starts_with("text/event-stream")),
        Some(true)
    );
    assert!(
        stream.text().matches("data: {").count() > 1,
        "{}",
        stream.text()
    );
    assert!(
        stream.text().ends_with("data: [DONE]\n\n"),
        "{}",
        stream.text()
    );
}

#[test]
fn the_demo_answers_messages_in_anthropics_form() {
    let proxy = ProxyProcess::bare().command("demo").start();
    let whole = post(
        proxy.address(),
        "/v1/messages",
        br#"{"model":"demo","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#,
    );
    assert_eq!(
        (whole.status, &whole.json()["type"]),
        (200, &"message".into())
    );
    let stream = post(
        proxy.address(),
        "/v1/messages",
        br#"{"model":"demo","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#,
    );
    assert_eq!((stream.status, stream.ended), (200, Ended::Complete));
    let text = stream.text();
    for event in [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "message_stop",
    ] {
        assert!(
            text.contains(&format!("event: {event}\n")),
            "{event} in {text}"
        );
    }
}

#[test]
fn the_demo_stops_on_sigterm() {
    let mut proxy = ProxyProcess::bare().command("demo").start();
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    proxy.signal("TERM");
    assert_eq!(proxy.wait_for_exit(Duration::from_secs(5)).code(), Some(0));
}
