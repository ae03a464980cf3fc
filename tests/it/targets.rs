//! Which targets are accepted (contract section 2).

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use crate::support::{FakeFlow, ProxyBuilder, ProxyProcess, SOON, get, wait_for};

fn check(target: &str) -> ProxyBuilder {
    ProxyProcess::to(target).command("check")
}

fn assert_bad_target(builder: ProxyBuilder, start: &str) {
    let check = builder.run_to_end(SOON);
    assert_eq!(
        (check.code, check.stdout.as_str()),
        (Some(2), ""),
        "{check:?}"
    );
    let lines: Vec<&str> = check.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{check:?}");
    assert!(
        lines[0].starts_with(&format!("flow-proxy: {start}")),
        "{check:?}"
    );
}

#[test]
fn http_targets_are_rejected_unless_they_are_loopback() {
    let start = "--target-url: 'http://example.com' would send the token in clear text";
    assert_bad_target(check("http://example.com"), start);
    let loopback = check("http://127.0.0.1:9/x").run_to_end(SOON);
    assert_eq!(loopback.code, Some(0), "{loopback:?}");
}

#[test]
fn http_targets_may_be_allowed_and_a_warning_says_what_that_means() {
    let allowed = [
        ProxyProcess::to("http://192.0.2.1").arg("--allow-http-target"),
        ProxyProcess::to("http://192.0.2.1").arg("--allow-http-target=true"),
        ProxyProcess::to("http://192.0.2.1").option("--allow-http-target", "true"),
        ProxyProcess::to("http://192.0.2.1").env("FLOW_PROXY_ALLOW_HTTP_TARGET", "true"),
    ];
    for builder in allowed {
        let proxy = builder.start();
        let line = proxy.wait_for_log("clientSecret travels in clear text");
        assert!(line.contains(" - WARNING - "), "{line}");
    }
    let check = check("http://192.0.2.1").arg("--allow-http-target");
    let check = check.run_to_end(SOON);
    assert_eq!(check.code, Some(0), "{check:?}");
    assert!(check.stderr.contains("travels in clear text"), "{check:?}");
}

#[test]
fn no_warning_comes_where_nothing_travels_in_clear_text() {
    for target in ["https://192.0.2.1", "http://localhost:9"] {
        let check = check(target).arg("--allow-http-target").run_to_end(SOON);
        assert_eq!(check.code, Some(0), "{check:?}");
        assert!(!check.stderr.contains("clear text"), "{check:?}");
    }
}

#[test]
fn not_allowing_http_targets_is_said_by_false() {
    let builder = check("http://192.0.2.1")
        .env("FLOW_PROXY_ALLOW_HTTP_TARGET", "true")
        .arg("--allow-http-target=false");
    assert_bad_target(
        builder,
        "--target-url: 'http://192.0.2.1' would send the token",
    );
    let builder = check("http://192.0.2.1").env("FLOW_PROXY_ALLOW_HTTP_TARGET", "1");
    let check = builder.run_to_end(SOON);
    let line = "FLOW_PROXY_ALLOW_HTTP_TARGET: '1' is neither true nor false";
    assert!(check.stderr.contains(line), "{check:?}");
}

#[test]
fn a_target_that_is_the_proxy_itself_is_rejected() {
    for url in [
        "http://127.0.0.1:4321",
        "http://localhost:4321/flow-llm-proxy",
        "https://[::1]:4321/x",
        "http://127.0.0.2:4321",
    ] {
        let start = format!("--target-url: '{url}' is this proxy itself");
        assert_bad_target(check(url).port(4321), &start);
        let everywhere = check(url).port(4321).option("--host", "0.0.0.0");
        assert_bad_target(everywhere, &start);
        let other_port = check(url).port(4322).run_to_end(SOON);
        assert_eq!(other_port.code, Some(0), "{other_port:?}");
        let any_port = check(url).port(0).run_to_end(SOON);
        assert_eq!(any_port.code, Some(0), "{any_port:?}");
    }
    let itself = check("https://192.0.2.1:4321").option("--host", "192.0.2.1");
    assert_bad_target(
        itself.port(4321),
        "--target-url: 'https://192.0.2.1:4321' is this",
    );
    let other = check("https://192.0.2.1:4321").port(4321).run_to_end(SOON);
    assert_eq!(other.code, Some(0), "{other:?}");
}

#[test]
fn a_target_that_is_the_proxy_itself_is_rejected_by_the_variables_too() {
    let builder = ProxyProcess::bare()
        .without_port()
        .env("FLOW_PROXY_PORT", "4321")
        .env("FLOW_PROXY_TARGET_URL", "http://127.0.0.1:4321");
    assert_bad_target(
        builder,
        "FLOW_PROXY_TARGET_URL: 'http://127.0.0.1:4321' is this",
    );
}

/// All addresses of this machine are the proxy's where it listens on all of them.
#[test]
fn an_interface_of_this_machine_is_the_proxy_itself_where_it_listens_everywhere() {
    // Nothing is sent: the system only chooses the address to send from.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a free port");
    let Some(own) = socket
        .connect("192.0.2.1:9")
        .and_then(|()| socket.local_addr())
        .ok()
        .filter(|address| !address.ip().is_loopback())
    else {
        eprintln!("skipped: this machine has no address besides loopback");
        return;
    };
    let url = format!("https://{}:4321", own.ip());
    let builder = check(&url).port(4321).option("--host", "0.0.0.0");
    assert_bad_target(
        builder,
        &format!("--target-url: '{url}' is this proxy itself"),
    );
    let on_loopback = check(&url).port(4321).run_to_end(SOON);
    assert_eq!(on_loopback.code, Some(0), "{on_loopback:?}");
}

#[test]
fn names_of_loopback_are_not_looked_up() {
    let upstream = FakeFlow::start();
    let port = upstream.address().port();
    // No name server knows this one.
    for host in ["localhost", "a.b.localhost", "A.LocalHost"] {
        let target = format!("http://{host}:{port}/x");
        let proxy = ProxyProcess::to(&target).start();
        assert_eq!(get(proxy.address(), "/v1/models").status, 200, "{host}");
        let online = check(&target).arg("--online").run_to_end(SOON);
        let resolves = format!(
            "{}: resolves to 127.0.0.1, ::1 in ",
            host.to_ascii_lowercase()
        );
        assert!(online.stdout.contains(&resolves), "{online:?}");
    }
}

#[test]
fn a_name_of_loopback_means_ipv6_too() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        eprintln!("skipped: no IPv6 here");
        return;
    };
    let port = listener.local_addr().expect("it is bound").port();
    let proxy = ProxyProcess::to(&format!("http://a.localhost:{port}/x")).start();
    let asked = thread::spawn(move || get(proxy.address(), "/v1/models").status);
    listener.set_nonblocking(true).expect("a listener of ours");
    let accept = || listener.accept().ok();
    let (mut connection, _) = wait_for("the proxy to connect", SOON, accept);
    connection.set_nonblocking(false).expect("a socket of ours");
    connection.set_read_timeout(Some(SOON)).expect("not 0");
    let mut head = [0; 4096];
    assert!(connection.read(&mut head).is_ok_and(|length| length > 0));
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    connection.write_all(response).expect("it is open");
    assert_eq!(asked.join().expect("no panic"), 200);
}
