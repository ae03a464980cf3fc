//! A proxy between this one and the upstream, named by the environment or by `.env`: HTTP CONNECT and
//! SOCKS 5.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{
    ClosedPort, FakeFlow, ProxyBuilder, ProxyProcess, RawClient, RawUpstream, SOON, get, wait_until,
};

/// An address for documentation (RFC 5737), at which the middle proxy finds the upstream: a loopback
/// target is never reached through a proxy.
const ELSEWHERE: &str = "192.0.2.1";

/// How a client asks the middle proxy for a connection.
#[derive(Clone, Copy)]
enum Protocol {
    Connect,
    Socks5,
}

/// A proxy that opens tunnels and counts them.
struct Middle {
    address: SocketAddr,
    tunnels: Arc<AtomicUsize>,
}

impl Middle {
    fn start(protocol: Protocol) -> Middle {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let tunnels = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&tunnels);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let count = Arc::clone(&count);
                thread::spawn(move || {
                    if let Some(upstream) = open_tunnel(&client, protocol) {
                        count.fetch_add(1, Ordering::SeqCst);
                        copy_both_ways(client, upstream);
                    }
                });
            }
        });
        Middle { address, tunnels }
    }

    fn tunnels(&self) -> usize {
        self.tunnels.load(Ordering::SeqCst)
    }
}

fn open_tunnel(mut client: &TcpStream, protocol: Protocol) -> Option<TcpStream> {
    match protocol {
        Protocol::Connect => {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).ok()?;
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).ok()?;
            let target = head.strip_prefix("CONNECT ")?.split(' ').next()?;
            let upstream = TcpStream::connect(target.replace(ELSEWHERE, "127.0.0.1")).ok()?;
            client
                .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                .ok()?;
            Some(upstream)
        }
        Protocol::Socks5 => {
            let mut greeting = [0; 3];
            client.read_exact(&mut greeting).ok()?;
            client.write_all(&[5, 0]).ok()?;
            let mut request = [0; 10];
            client.read_exact(&mut request).ok()?;
            assert_eq!(request[..4], [5, 1, 0, 1], "an IPv4 address is asked for");
            assert_eq!(request[4..8], [192, 0, 2, 1]);
            let port = u16::from_be_bytes([request[8], request[9]]);
            let upstream = TcpStream::connect(("127.0.0.1", port)).ok()?;
            client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).ok()?;
            Some(upstream)
        }
    }
}

fn copy_both_ways(client: TcpStream, upstream: TcpStream) {
    let (mut from_client, mut to_upstream) =
        (client.try_clone().unwrap(), upstream.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_upstream);
        let _ = to_upstream.shutdown(Shutdown::Both);
    });
    let (mut from_upstream, mut to_client) = (upstream, client);
    let _ = std::io::copy(&mut from_upstream, &mut to_client);
    let _ = to_client.shutdown(Shutdown::Both);
}

/// A builder for a proxy whose target has `url`'s port at [`ELSEWHERE`].
fn to_elsewhere(url: &str) -> ProxyBuilder {
    ProxyProcess::to(&url.replace("127.0.0.1", ELSEWHERE)).arg("--allow-http-target")
}

fn assert_requests_go_through(protocol: Protocol, variable: &str, scheme: &str) {
    let upstream = FakeFlow::start();
    let middle = Middle::start(protocol);
    let proxy = to_elsewhere(&upstream.url())
        .env(variable, &format!("{scheme}://{}", middle.address))
        .start();
    let mut client = RawClient::connect(proxy.address());
    assert_eq!(client.request("GET", "/v1/models", &[], b"").status, 200);
    assert_eq!(client.request("POST", "/v1/x", &[], b"body").status, 200);
    assert_eq!(upstream.requests().len(), 2);
    assert_eq!(upstream.requests()[1].body, b"body");
    assert_eq!(middle.tunnels(), 1, "one kept-alive tunnel");
}

#[test]
fn an_http_proxy_of_the_environment_is_used() {
    assert_requests_go_through(Protocol::Connect, "HTTP_PROXY", "http");
    assert_requests_go_through(Protocol::Connect, "http_proxy", "http");
    assert_requests_go_through(Protocol::Connect, "ALL_PROXY", "http");
}

#[test]
fn a_socks_proxy_of_the_environment_is_used() {
    assert_requests_go_through(Protocol::Socks5, "ALL_PROXY", "socks5");
    assert_requests_go_through(Protocol::Socks5, "all_proxy", "socks5h");
}

#[test]
fn no_proxy_names_the_targets_that_are_reached_directly() {
    let proxied = |builder: ProxyBuilder| builder.env("HTTP_PROXY", "http://proxy.example:3128");
    let through = "The upstream is reached through the proxy proxy.example:3128";
    let directly = "The upstream is reached directly";
    for (hosts, expected) in [
        ("localhost,127.0.0.1", through),
        ("localhost,192.0.2.1", directly),
        ("*", directly),
    ] {
        let proxy = proxied(to_elsewhere("http://127.0.0.1:9")).env("NO_PROXY", hosts);
        proxy.start().wait_for_log(expected);
        let check = proxied(to_elsewhere("http://127.0.0.1:9")).env("NO_PROXY", hosts);
        let check = check.command("check").run_to_end(SOON);
        assert_eq!(check.code, Some(0), "{check:?}");
        assert!(
            check.stdout.lines().any(|line| line == expected),
            "{check:?}"
        );
    }
}

/// Asserts what `check` says about the way to `target` with these variables, a proxy's name or `None`.
fn assert_way(target: &str, variables: &[(&str, &str)], expected: Option<&str>) {
    let set = |builder: ProxyBuilder, (name, value): &(&str, &str)| builder.env(name, value);
    let builder = ProxyProcess::to(target).arg("--allow-http-target");
    let check = variables.iter().fold(builder, set).command("check");
    let check = check.run_to_end(SOON);
    assert_eq!(check.code, Some(0), "{check:?}");
    let expected = match expected {
        Some(proxy) => format!("The upstream is reached through the proxy {proxy}"),
        None => "The upstream is reached directly".to_owned(),
    };
    let is_told = check.stdout.lines().any(|line| line == expected);
    assert!(is_told, "{target} {variables:?}: {}", check.stdout);
    assert!(!check.output().contains("fake-password"), "{check:?}");
}

#[test]
fn the_variables_name_the_proxy_as_curl_reads_them() {
    const OWN: &str = "http://me:fake-password@own.example:3128";
    const ALL: &str = "socks5://me:fake-password@all.example";
    let (own, all) = (Some("own.example:3128"), Some("all.example:1080"));
    let (http, https) = ("http://flow.example", "https://flow.example");
    for (target, variables, expected) in [
        (https, &[("HTTPS_PROXY", OWN)][..], own),
        (https, &[("https_proxy", OWN)], own),
        (https, &[("HTTP_PROXY", OWN)], None),
        (https, &[("http_proxy", OWN)], None),
        (https, &[("HTTP_PROXY", OWN), ("ALL_PROXY", ALL)], all),
        (https, &[("all_proxy", ALL), ("HTTPS_PROXY", OWN)], own),
        (https, &[("ALL_PROXY", ALL)], all),
        (https, &[("HTTPS_PROXY", ""), ("ALL_PROXY", ALL)], None),
        (https, &[("ALL_PROXY", "")], None),
        (https, &[("HTTPS_PROXY", "own.example:3128")], own),
        (http, &[("HTTP_PROXY", OWN)], own),
        (http, &[("http_proxy", OWN), ("all_proxy", ALL)], own),
        (http, &[("HTTPS_PROXY", OWN)], None),
        (http, &[("HTTPS_PROXY", OWN), ("all_proxy", ALL)], all),
        (http, &[("HTTP_PROXY", ""), ("ALL_PROXY", ALL)], None),
    ] {
        assert_way(target, variables, expected);
    }
}

#[test]
fn no_proxy_covers_what_curl_takes_it_to_cover() {
    for (target, hosts, is_direct) in [
        ("https://flow.corp.example", "corp.example", true),
        ("https://corp.example", "corp.example", true),
        ("https://flow.corp.example", ".corp.example", true),
        ("https://FLOW.corp.example", "Corp.Example", true),
        ("https://flow.corp.example", "x.example, corp.example", true),
        ("https://flow.corp.example", "x.example corp.example", true),
        ("https://flow.corp.example", "*", true),
        ("https://flow.corp.example", "x.example, *", false),
        ("https://flowcorp.example", "corp.example", false),
        ("https://corp.example", "flow.corp.example", false),
        ("https://flow.corp.example", "", false),
        ("https://flow.corp.example", " , ", false),
        ("https://10.1.2.3", "10.0.0.0/8", true),
        ("https://10.1.2.3", "192.168.0.0/16,10.1.2.3", true),
        ("https://11.1.2.3", "10.0.0.0/8", false),
        ("https://11.1.2.3", "0.0.0.0/0", false),
        ("https://[fd12::1]", "fd00::/8", true),
        ("https://[fe80::1]", "fd00::/8", false),
    ] {
        let expected = (!is_direct).then_some("proxy.example:3128");
        for name in ["NO_PROXY", "no_proxy"] {
            let variables = [("HTTPS_PROXY", "http://proxy.example:3128"), (name, hosts)];
            assert_way(target, &variables, expected);
        }
    }
}

#[test]
fn a_loopback_target_is_never_reached_through_a_proxy() {
    let upstream = FakeFlow::start();
    let middle = Middle::start(Protocol::Connect);
    let url = format!("http://{}", middle.address);
    let variables = ["ALL_PROXY", "http_proxy", "HTTPS_PROXY"];
    let with = |builder: ProxyBuilder| {
        let set = |builder: ProxyBuilder, name: &&str| builder.env(name, &url);
        variables.iter().fold(builder, set)
    };
    let localhost = upstream.url().replace("127.0.0.1", "localhost");
    for target in [upstream.url(), localhost] {
        let proxy = with(ProxyProcess::to(&target)).start();
        assert_eq!(get(proxy.address(), "/v1/models").status, 200);
        proxy.wait_for_log("The upstream is reached directly");
    }
    assert_eq!(middle.tunnels(), 0);
}

#[test]
fn a_proxy_in_dotenv_is_used_where_the_environment_names_none() {
    let upstream = FakeFlow::start();
    let (one, other) = (
        Middle::start(Protocol::Connect),
        Middle::start(Protocol::Connect),
    );
    let dotenv = format!("SECRET=\"\nexport HTTP_PROXY='http://{}'\n", one.address);
    let proxy = to_elsewhere(&upstream.url())
        .with_file(".env", &dotenv)
        .start();
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    assert_eq!((one.tunnels(), other.tunnels()), (1, 0));
    let proxy = to_elsewhere(&upstream.url())
        .with_file(".env", &dotenv)
        .env("http_proxy", &format!("http://{}", other.address))
        .start();
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    assert_eq!((one.tunnels(), other.tunnels()), (1, 1));
}

#[test]
fn a_client_that_leaves_ends_its_request_through_a_proxy_too() {
    for (protocol, scheme) in [(Protocol::Connect, "http"), (Protocol::Socks5, "socks5")] {
        let (upstream, commands) = RawUpstream::on_command();
        let middle = Middle::start(protocol);
        let proxy = to_elsewhere(&upstream.url())
            .env("ALL_PROXY", &format!("{scheme}://{}", middle.address))
            .start();
        let mut client = RawClient::connect(proxy.address());
        client.send_request("GET", "/v1/x", &[], b"");
        wait_until("the request", Duration::from_secs(5), || {
            upstream.requests().len() == 1
        });
        drop(client);
        commands.wait_for_close(Duration::from_secs(1));
        assert_eq!(proxy.wait_for_access_line(1).field("end"), "client_gone");
    }
}

#[test]
fn a_proxy_that_is_not_there_is_a_502_that_says_so() {
    let closed = ClosedPort::hold();
    let proxy = to_elsewhere("http://127.0.0.1:9")
        .env("ALL_PROXY", &format!("socks5://{closed}"))
        .start();
    let response = get(proxy.address(), "/v1/models");
    response.assert_error(502, "upstream_unreachable");
}

#[test]
fn a_proxy_that_makes_no_sense_stops_the_start_without_being_quoted() {
    for value in ["http://user:fake-password@", "socks4://127.0.0.1:1"] {
        let finished = to_elsewhere("http://127.0.0.1:1")
            .env("HTTP_PROXY", value)
            .run_to_end(Duration::from_secs(10));
        assert_eq!(finished.code, Some(2), "{value}: {}", finished.stderr);
        assert!(
            finished.stderr.contains("HTTP_PROXY"),
            "{}",
            finished.stderr
        );
        assert!(
            !finished.stderr.contains("fake-password"),
            "{}",
            finished.stderr
        );
    }
}

#[test]
fn the_demo_needs_no_proxy_whatever_the_environment_says() {
    let closed = ClosedPort::hold();
    let proxy = ProxyProcess::bare()
        .command("demo")
        .env("ALL_PROXY", &format!("http://{closed}"))
        .start();
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
}
