//! Which names the proxy has: Host against DNS rebinding (contract section 9).

use crate::support::{FakeFlow, ProxyProcess, RawClient, Response, SOON, get};

/// Sends a GET with these header lines, each ended by CRLF.
fn request_with(proxy: &ProxyProcess, head_lines: &str) -> Response {
    let mut client = RawClient::connect(proxy.address());
    client.send(format!("GET /v1/models HTTP/1.1\r\n{head_lines}\r\n"));
    client.read_response()
}

fn assert_host_is_served(proxy: &ProxyProcess, host: &str) {
    let response = request_with(proxy, &format!("Host: {host}\r\n"));
    assert_eq!(response.status, 200, "{host}");
}

fn assert_forbidden(response: &Response, what: &str) {
    response.assert_error_to(what, 403, "forbidden");
    assert!(response.json()["error"]["message"].is_string());
}

#[test]
fn local_hosts_are_served() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let hosts = [
        "localhost",
        "localhost:8899",
        "LocalHost:8899",
        "flow.localhost",
        "a.b.localhost:80",
        "127.0.0.1",
        "127.0.0.1:8899",
        "127.1.2.3",
        "[::1]",
        "[::1]:8899",
        "10.0.0.5",
        "10.255.255.255:8899",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.20:8899",
        "[fd12:3456::1]:8899",
    ];
    for host in hosts {
        assert_host_is_served(&proxy, host);
    }
    assert_eq!(upstream.requests().len(), hosts.len());
}

#[test]
fn the_machines_own_name_is_served() {
    let Ok(name) = std::fs::read_to_string("/proc/sys/kernel/hostname") else {
        return;
    };
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    for host in [
        name.trim().to_owned(),
        format!("{}:8899", name.trim().to_uppercase()),
    ] {
        assert_host_is_served(&proxy, &host);
    }
}

#[test]
fn other_hosts_are_forbidden() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let hosts = [
        "example.com",
        "example.com:8899",
        "flow.ciandt.com",
        "localhost.example.com",
        "notlocalhost",
        "127.0.0.1.example.com",
        "8.8.8.8",
        "172.32.0.1",
        "172.15.0.1",
        "11.0.0.1",
        "192.169.0.1",
        "169.254.169.254.example.com",
        "[2001:db8::1]",
        "[2606:4700::1111]:8899",
        "[::ffff:127.0.0.1]:8899",
        "[::ffff:7f00:1]",
        "0x7f.example",
    ];
    for host in hosts {
        assert_forbidden(&request_with(&proxy, &format!("Host: {host}\r\n")), host);
    }
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
}

#[test]
fn an_empty_host_is_not_served() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let response = request_with(&proxy, "Host:\r\n");
    assert!(matches!(response.status, 400 | 403), "{}", response.status);
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn a_forbidden_request_keeps_its_connection_in_step_or_closes_it() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send(
        "POST /v1/x HTTP/1.1\r\nHost: example.com\r\nContent-Length: 46\r\n\r\n\
         GET /v1/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n\
         GET /v1/next HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(client.read_response().status, 403);
    client.read_raw_to_close(SOON);
    let targets = upstream.targets();
    assert!(
        !targets.iter().any(|target| target.contains("smuggled")),
        "{targets:?}"
    );
}

#[test]
fn rejections_have_an_access_line_without_a_configuration() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    request_with(&proxy, "Host: example.com\r\n");
    let line = proxy.wait_for_access_line(1);
    assert_eq!((line.status, line.level.as_str()), (403, "WARNING"));
    assert_eq!((line.field("config"), line.number("attempts")), ("-", 0));
}

#[test]
fn the_names_by_which_containers_call_their_host_are_served() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    for host in [
        "host.docker.internal",
        "host.docker.internal:8899",
        "Gateway.Docker.Internal:8899",
        "host.containers.internal",
        "host.lima.internal:1",
    ] {
        assert_host_is_served(&proxy, host);
    }
    for host in [
        "docker.internal",
        "x.host.docker.internal",
        "host.docker.internal.example",
    ] {
        assert_forbidden(&request_with(&proxy, &format!("Host: {host}\r\n")), host);
    }
}

#[test]
fn a_host_that_is_allowed_is_served_on_any_port() {
    let upstream = FakeFlow::start();
    let builder = ProxyProcess::to(&upstream.url())
        .option("--allow-host", "llm.example,Proxy.Example")
        .option("--allow-host", "third.example");
    let proxy = builder.start();
    for host in [
        "llm.example",
        "LLM.example:8899",
        "proxy.example:1",
        "third.example",
    ] {
        assert_host_is_served(&proxy, host);
    }
    for host in ["a.llm.example", "llm.example.org", "llm", "example"] {
        assert_forbidden(&request_with(&proxy, &format!("Host: {host}\r\n")), host);
    }
}

#[test]
fn a_host_list_that_is_none_stops_the_start() {
    for value in [
        "*.example",
        "a b",
        "http://llm.example",
        "llm.example:8899",
        "a,,b",
    ] {
        let finished = ProxyProcess::to("http://127.0.0.1:9/x")
            .option("--allow-host", value)
            .run_to_end(SOON);
        assert_eq!(finished.code, Some(2), "{value}: {finished:?}");
        assert!(finished.stderr.contains("--allow-host"), "{finished:?}");
    }
}

#[test]
fn a_rejection_names_what_was_seen_and_the_way_in() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let response = request_with(&proxy, "Host: llm.example:8899\r\n");
    let told = response.text();
    assert!(told.contains("'llm.example:8899'"), "{told}");
    assert!(told.contains("--allow-host llm.example"), "{told}");
    let line = proxy.wait_for_access_line(1);
    assert_eq!((line.status, line.field("error")), (403, "forbidden"));
}

#[test]
fn a_rejected_value_that_may_be_a_secret_is_not_quoted() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    for lines in [
        "Host: eyJhush.example\r\n",
        "Host: localhost\r\nOrigin: https://eyJhush.example\r\n",
        "Host: localhost\r\nSec-Fetch-Site: {hush}\r\n",
    ] {
        let response = request_with(&proxy, lines);
        assert_forbidden(&response, lines);
        let text = response.text().to_ascii_lowercase();
        assert!(!text.contains("hush"), "{text}");
    }
    assert!(!proxy.log().to_ascii_lowercase().contains("hush"));
}
