//! The addresses that the proxy listens on (contract section 2).

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};

use crate::support::{ProxyProcess, SOON, get, wait_until};

const TARGET: &str = "http://127.0.0.1:9/x";

fn v6(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::LOCALHOST, port))
}

/// Binds the IPv6 loopback address. `None`, after a line that says so, where the machine has none.
fn hold_v6() -> Option<TcpListener> {
    let listener = TcpListener::bind(v6(0)).ok();
    if listener.is_none() {
        eprintln!("skipped: this machine has no IPv6 loopback address");
    }
    listener
}

fn port_of(listener: &TcpListener) -> u16 {
    let address = listener.local_addr();
    address.expect("a bound listener has an address").port()
}

/// The addresses of the `Listening on` lines.
fn addresses(proxy: &ProxyProcess) -> Vec<String> {
    let log = proxy.log();
    let lines = log
        .lines()
        .filter_map(|line| line.split_once("Listening on http://"));
    lines.map(|(_, address)| address.to_owned()).collect()
}

#[test]
fn both_loopback_addresses_are_listened_on_with_one_port() {
    if hold_v6().is_none() {
        return;
    }
    for host in [None, Some("localhost")] {
        let builder = ProxyProcess::to(TARGET);
        let mut proxy = match host {
            None => builder.start(),
            Some(host) => builder.option("--host", host).start(),
        };
        let port = proxy.address().port();
        proxy.wait_for_log(&format!("Listening on http://[::1]:{port}"));
        let expected = [format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
        assert_eq!(addresses(&proxy), expected);
        for address in [proxy.address(), v6(port)] {
            assert_eq!(get(address, "/-/health").status, 200, "{address}");
        }
        proxy.signal("TERM");
        assert_eq!(proxy.wait_for_exit(SOON).code(), Some(0));
        wait_until("both to be closed", SOON, || {
            TcpStream::connect(v6(port)).is_err()
        });
    }
}

#[test]
fn an_ipv6_address_that_another_program_holds_is_a_warning_by_default() {
    let Some(holder) = hold_v6() else {
        return;
    };
    let port = port_of(&holder);
    let proxy = ProxyProcess::to(TARGET).port(port).start();
    let line = proxy.wait_for_log(&format!("cannot listen on [::1]:{port}"));
    assert!(line.contains(" - WARNING - "), "{line}");
    assert_eq!(addresses(&proxy), [format!("127.0.0.1:{port}")]);
    assert_eq!(get(proxy.address(), "/-/health").status, 200);
}

#[test]
fn an_ipv6_address_that_another_program_holds_is_an_error_for_localhost() {
    let Some(holder) = hold_v6() else {
        return;
    };
    let port = port_of(&holder);
    let finished = ProxyProcess::to(TARGET)
        .port(port)
        .option("--host", "localhost")
        .run_to_end(SOON);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let problem = format!("cannot listen on [::1]:{port}");
    assert!(finished.stderr.contains(&problem), "{finished:?}");
    assert!(!finished.stderr.contains("Listening on"), "{finished:?}");
}

#[test]
fn an_address_that_is_given_is_taken_at_its_word() {
    if hold_v6().is_none() {
        return;
    }
    let proxy = ProxyProcess::to(TARGET)
        .option("--host", "127.0.0.1")
        .start();
    let port = proxy.address().port();
    assert_eq!(get(proxy.address(), "/-/health").status, 200);
    assert_eq!(addresses(&proxy), [format!("127.0.0.1:{port}")]);
    assert!(TcpStream::connect(v6(port)).is_err());

    let proxy = ProxyProcess::to(TARGET).option("--host", "::1").start();
    assert_eq!(
        addresses(&proxy),
        [format!("[::1]:{}", proxy.address().port())]
    );
}

#[test]
fn check_shows_where_is_listened() {
    for (args, shown) in [
        (&[][..], "127.0.0.1,[::1]  (default)"),
        (&["--host", "localhost"], "localhost  (command line)"),
        (&["--host", "127.0.0.1"], "127.0.0.1  (command line)"),
    ] {
        let builder = ProxyProcess::to(TARGET).command("check");
        let builder = args.iter().fold(builder, |builder, arg| builder.arg(arg));
        let check = builder.run_to_end(SOON);
        let line = check.stdout.lines().find(|line| line.starts_with("host "));
        assert!(line.is_some_and(|line| line.ends_with(shown)), "{check:?}");
    }
}

#[test]
fn health_finds_a_proxy_on_either_loopback_address() {
    if hold_v6().is_none() {
        return;
    }
    for host in ["127.0.0.1", "::1", "localhost"] {
        let proxy = ProxyProcess::to(TARGET).option("--host", host).start();
        let health = ProxyProcess::bare()
            .command("health")
            .port(proxy.address().port());
        let health = health.run_to_end(SOON);
        assert_eq!(
            (health.code, health.stderr.as_str()),
            (Some(0), ""),
            "{host}"
        );
    }
}

#[test]
fn health_asks_the_ipv4_address_first() {
    let Some(v6_listener) = hold_v6() else {
        return;
    };
    let port = port_of(&v6_listener);
    let _proxy = ProxyProcess::to(TARGET).port(port).start();
    let health = ProxyProcess::bare().command("health").port(port);
    assert_eq!(health.run_to_end(SOON).code, Some(0));
    v6_listener.set_nonblocking(true).expect("our own listener");
    assert!(v6_listener.accept().is_err(), "nothing was asked at ::1");
}

#[test]
fn health_believes_no_other_program_and_shows_nothing_of_it() {
    let page = |body: &str| {
        let length = body.len();
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    let closing = "HTTP/1.1 200 hush\r\nX: hush\r\n\r\n".to_owned();
    for response in [
        page("hush"),
        page(r#"{"status":"ok"}"#),
        page(r#"{"status":"ok","version":"hush"}"#),
        page(r#"{"status":"hush","version":"1","configurations":{"available":1,"total":1}}"#),
        page(&" ".repeat(100_000)),
        "HTTP/1.1 204 hush\r\n\r\n".to_owned(),
        "HTTP/1.1 302 hush\r\nLocation: /hush\r\nContent-Length: 0\r\n\r\n".to_owned(),
        closing,
        "HTTP/1.1 hush\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nhush\x1b[31m\r\n\r\n".to_owned(),
        "220 hush \x1b]0;hush\x07 ESMTP\r\n".repeat(10_000),
        String::new(),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
        let port = port_of(&listener);
        let answer = response.clone();
        let server = std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().expect("health asks");
            let _ = connection.read(&mut [0; 1024]);
            let _ = connection.write_all(answer.as_bytes());
        });
        let health = ProxyProcess::bare()
            .command("health")
            .option("--host", "127.0.0.1");
        let health = health.port(port).run_to_end(SOON);
        server.join().expect("no panic");
        let lines = health.stderr.lines().count();
        assert_eq!(
            (health.code, lines),
            (Some(1), 1),
            "{response:.40} {health:?}"
        );
        let shown = health.stdout + &health.stderr;
        assert!(
            !shown.contains("hush") && !shown.contains('\x1b'),
            "{shown}"
        );
    }
}
