//! What is said to a proxy on the way to the upstream, and what becomes of the request where that answers
//! badly, slowly or not at all (contract sections 2, 4 and 7).

use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{
    KIB_PER_MIB, OK, ProxyBuilder, ProxyProcess, RawClient, RawUpstream, Response, SOON,
    UpstreamConnection, get,
};

/// A target that only a proxy can reach: an address for documentation (RFC 5737).
const TARGET: &str = "http://192.0.2.1:8080/flow-llm-proxy";
const ESTABLISHED: &str = "HTTP/1.1 200 Connection established\r\n\r\n";
/// A password in the URL of a proxy, and user and password as they are sent.
const PASSWORD: &str = "fake-password";
const BASIC: &str = "bWU6ZmFrZS1wYXNzd29yZA==";
/// SOCKS (RFC 1928): the greeting is answered with "no authentication", the request with success.
const SOCKS_NO_AUTHENTICATION: [u8; 2] = [5, 0];
const SOCKS_CONNECTED: [u8; 10] = [5, 0, 0, 1, 0, 0, 0, 0, 0, 0];

/// Prepares a proxy whose target is reached through another one at `address`.
fn through(scheme: &str, userinfo: &str, address: SocketAddr) -> ProxyBuilder {
    ProxyProcess::to(TARGET)
        .arg("--allow-http-target")
        .env("ALL_PROXY", &format!("{scheme}://{userinfo}{address}"))
}

/// Serves requests on a tunnel, whose upstream is here too.
fn serve(connection: &mut UpstreamConnection) {
    while connection.read_request().is_some() {
        connection.send(OK);
    }
}

/// Sends a request through a proxy that does what `script` says; returns the response.
fn request_through(
    scheme: &str,
    script: impl Fn(&mut UpstreamConnection) + Send + Sync + 'static,
) -> Response {
    let middle = RawUpstream::start(script);
    let proxy = through(scheme, "", middle.address()).start();
    get(proxy.address(), "/v1/models")
}

fn assert_unreachable(response: &Response, answer: &[u8]) {
    let name = String::from_utf8_lossy(&answer[..answer.len().min(40)]);
    response.assert_error_to(&name, 502, "upstream_unreachable");
}

#[test]
fn user_and_password_of_the_proxys_url_are_sent_decoded() {
    for (userinfo, expected) in [
        ("", None),
        ("me:fake@", Some("Basic bWU6ZmFrZQ==")),
        ("me@", Some("Basic bWU6")),
        (
            "me%40corp:f%C3%A4ke%3a%2F%25@",
            Some("Basic bWVAY29ycDpmw6RrZTovJQ=="),
        ),
    ] {
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        let middle = RawUpstream::start(move |connection| {
            let head = connection.read_request_head().expect("a CONNECT");
            seen.lock().expect("no panic under this lock").push(head);
            connection.send(ESTABLISHED);
            serve(connection);
        });
        let proxy = through("http", userinfo, middle.address()).start();
        assert_eq!(get(proxy.address(), "/v1/models").status, 200);
        let heads = heads.lock().expect("no panic under this lock");
        let [connect] = heads.as_slice() else {
            panic!("one tunnel: {heads:?}");
        };
        let line = (connect.method.as_str(), connect.target.as_str());
        assert_eq!(line, ("CONNECT", "192.0.2.1:8080"));
        assert_eq!(connect.header("host"), Some("192.0.2.1:8080"));
        let sent = connect.header("proxy-authorization");
        assert_eq!(sent, expected, "{userinfo}");
        assert_eq!(connect.header("authorization"), None, "no token in clear");
        let inner = &middle.requests()[0];
        assert_eq!(inner.header("proxy-authorization"), None);
    }
}

#[test]
fn a_proxy_that_rejects_its_user_is_a_502_that_says_what_to_do_and_not_the_password() {
    let http = |connection: &mut UpstreamConnection| {
        connection.read_request_head();
        connection.send(
            "HTTP/1.1 407 Proxy Authentication Required\r\n\
             Proxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 2\r\n\r\nno",
        );
    };
    let socks = |connection: &mut UpstreamConnection| {
        connection.read_bytes(4);
        connection.send([5, 2]);
        connection.read_bytes(1 + 1 + 2 + 1 + PASSWORD.len());
        connection.send([1, 1]);
    };
    for (scheme, middle, told) in [
        ("http", RawUpstream::start(http), "407"),
        ("socks5", RawUpstream::start(socks), "password"),
    ] {
        let userinfo = format!("me:{PASSWORD}@");
        let proxy = through(scheme, &userinfo, middle.address())
            .option("--log-level", "DEBUG")
            .start();
        let response = get(proxy.address(), "/v1/models");
        assert_unreachable(&response, scheme.as_bytes());
        let text = response.text();
        assert!(text.contains(told) && text.contains("PROXY"), "{text}");
        proxy.wait_for_access_line(1);
        for secret in [PASSWORD, BASIC] {
            assert!(!text.contains(secret), "{text}");
            assert!(!proxy.log().contains(secret), "in the log");
        }
    }
}

#[test]
fn a_proxy_that_does_not_connect_is_a_502_with_its_status() {
    for status in ["403 Forbidden", "502 Bad Gateway", "504 Gateway Timeout"] {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 3\r\n\r\nwhy");
        let response = request_through("http", move |connection| {
            connection.read_request_head();
            connection.send(&answer);
        });
        assert_unreachable(&response, status.as_bytes());
        assert!(
            response.text().contains(&status[..3]),
            "{}",
            response.text()
        );
    }
}

#[test]
fn a_proxy_that_closes_or_answers_garbage_is_a_502() {
    let http: [&[u8]; 6] = [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    ];
    for answer in http {
        let response = request_through("http", move |connection| {
            connection.read_request_head();
            connection.send(answer);
        });
        assert_unreachable(&response, answer);
    }
    let socks: [&[u8]; 5] = [
        b"",
        &[4, 0],
        &[5, 255],
        &[5],
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ];
    for answer in socks {
        let response = request_through("socks5", move |connection| {
            connection.read_bytes(3);
            connection.send(answer);
        });
        assert_unreachable(&response, answer);
    }
    for reply in 1..=9 {
        let response = request_through("socks5", move |connection| {
            connection.read_bytes(3);
            connection.send(SOCKS_NO_AUTHENTICATION);
            connection.read_bytes(10);
            connection.send([5, reply, 0, 1, 0, 0, 0, 0, 0, 0]);
        });
        assert_unreachable(&response, &[reply]);
    }
}

#[test]
fn an_endless_head_of_a_proxy_is_a_502_and_fills_no_memory() {
    for piece in ["X-Filler: 0123456789\r\n", "0123456789"] {
        let is_attack = Mutex::new(false);
        let middle = RawUpstream::start(move |connection| {
            connection.read_request_head();
            let is_first = !std::mem::replace(&mut *is_attack.lock().expect("no panic"), true);
            if is_first {
                connection.send(ESTABLISHED);
                if connection.read_request().is_some() {
                    connection
                        .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                }
                return;
            }
            connection.send("HTTP/1.1 200 OK\r\nX-Long: ");
            for _ in 0..10_000 {
                if !connection.send(piece.repeat(100)) {
                    break;
                }
            }
            connection.wait_for_close(SOON);
        });
        let proxy = through("http", "", middle.address()).start();
        assert_eq!(get(proxy.address(), "/v1/models").status, 200);
        let before = proxy.rss_kib();
        proxy.reset_peak_rss();
        let response = get(proxy.address(), "/v1/models");
        assert_unreachable(&response, piece.as_bytes());
        let grown = proxy.peak_rss_kib().saturating_sub(before);
        assert!(grown < 4 * KIB_PER_MIB, "{piece:?}: {grown} KiB");
    }
}

#[test]
fn an_answer_of_a_proxy_in_single_bytes_opens_the_tunnel() {
    let send_slowly = |connection: &mut UpstreamConnection, bytes: &[u8]| {
        for byte in bytes {
            connection.send([*byte]);
            std::thread::sleep(Duration::from_millis(1)); // so that each arrives alone
        }
    };
    let response = request_through("http", move |connection| {
        connection.read_request_head();
        send_slowly(connection, ESTABLISHED.as_bytes());
        serve(connection);
    });
    response.assert_text(200, "ok");
    let response = request_through("socks5", move |connection| {
        connection.read_bytes(3);
        send_slowly(connection, &SOCKS_NO_AUTHENTICATION);
        connection.read_bytes(10);
        send_slowly(connection, &SOCKS_CONNECTED);
        serve(connection);
    });
    response.assert_text(200, "ok");
}

// RFC 9110 section 9.3.6: Content-Length and Transfer-Encoding of a 2xx to CONNECT are ignored.
#[test]
fn fields_of_a_proxys_answer_do_not_disturb_the_tunnel() {
    for fields in [
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\nProxy-Agent: x\r\n",
    ] {
        for version in ["1.1", "1.0"] {
            let response = request_through("http", move |connection| {
                connection.read_request_head();
                connection.send(format!("HTTP/{version} 200 OK\r\n{fields}\r\n"));
                serve(connection);
            });
            response.assert_text(200, "ok");
        }
    }
}

#[test]
fn bytes_behind_a_proxys_answer_are_rejected_or_belong_to_the_upstream() {
    let early = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly";
    for (scheme, head) in [
        ("http", ESTABLISHED.as_bytes()),
        ("socks5", &SOCKS_CONNECTED),
    ] {
        let response = request_through(scheme, move |connection| {
            if scheme == "http" {
                connection.read_request_head();
            } else {
                connection.read_bytes(3);
                connection.send(SOCKS_NO_AUTHENTICATION);
                connection.read_bytes(10);
            }
            connection.send([head, early.as_bytes()].concat());
            connection.wait_for_close(SOON);
        });
        match response.status {
            200 => assert_eq!(response.text(), "early", "{scheme}"),
            status => assert_eq!(status, 502, "{scheme}: {}", response.text()),
        }
    }
}

/// What is read from a client before a proxy falls silent.
fn greet(scheme: &str, connection: &mut UpstreamConnection) {
    if scheme == "http" {
        connection.read_request_head();
    } else {
        connection.read_bytes(3);
    }
}

#[test]
fn a_client_that_leaves_a_silent_proxy_ends_its_connection() {
    for scheme in ["http", "socks5"] {
        let (seen, reports) = channel();
        let middle = RawUpstream::start(move |connection| {
            greet(scheme, connection);
            let _ = seen.send(Instant::now());
            connection.wait_for_close(SOON);
            let _ = seen.send(Instant::now());
        });
        let proxy = through(scheme, "", middle.address()).start();
        let mut client = RawClient::connect(proxy.address());
        client.send_request("POST", "/v1/x", &[], b"{}");
        reports.recv_timeout(SOON).expect("the proxy is asked");
        let gone = Instant::now();
        drop(client);
        let closed = reports.recv_timeout(SOON).expect("the connection ends");
        let took = closed.saturating_duration_since(gone);
        assert!(took < Duration::from_secs(1), "{scheme}: {took:?}");
        let line = proxy.wait_for_access_line(1);
        assert_eq!((line.status, line.field("end")), (499, "client_gone"));
    }
}

#[test]
fn a_silent_proxy_is_given_up_after_10_s() {
    std::thread::scope(|scope| {
        for scheme in ["http", "socks5", "https"] {
            scope.spawn(move || {
                let asked = Instant::now();
                let response = request_through(scheme, move |connection| {
                    greet(scheme, connection);
                    connection.wait_for_close(2 * SOON);
                });
                assert_unreachable(&response, scheme.as_bytes());
                assert!(response.text().contains("10 s"), "{}", response.text());
                let took = asked.elapsed();
                let expected = Duration::from_secs(9)..Duration::from_secs(13);
                assert!(expected.contains(&took), "{scheme}: {took:?}");
            });
        }
    });
}

#[test]
fn a_socks_proxy_gets_user_and_password_decoded_and_the_targets_name() {
    let middle = RawUpstream::start(|connection| {
        let methods = connection.read_bytes(4);
        assert_eq!(methods.as_deref(), Some(&[5, 2, 0, 2][..]));
        connection.send([5, 2]);
        let sent = connection.read_bytes(1 + 1 + 7 + 1 + 5);
        let expected = "\u{1}\u{7}me@corp\u{5}f\u{e4}:/";
        assert_eq!(sent.as_deref(), Some(expected.as_bytes()));
        connection.send([1, 0]);
        let sent = connection.read_bytes(5 + 12 + 2);
        let expected = b"\x05\x01\x00\x03\x0cflow.example\x00\x50";
        assert_eq!(sent.as_deref(), Some(&expected[..]));
        connection.send(SOCKS_CONNECTED);
        serve(connection);
    });
    let url = format!("socks5h://me%40corp:f%C3%A4%3A%2F@{}", middle.address());
    let proxy = ProxyProcess::to("http://flow.example/flow-llm-proxy")
        .arg("--allow-http-target")
        .env("ALL_PROXY", &url)
        .start();
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    assert_eq!(middle.requests()[0].header("host"), Some("flow.example"));
}
