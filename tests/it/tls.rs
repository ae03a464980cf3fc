//! An upstream over TLS, as Flow is: a rustls server with a certificate of the test's own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Ended, MIB, OK, ProxyProcess, RawClient, SOON, get, post_head, tls_server, tls_server_of_many,
};
use rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};

/// A TLS server that answers each request and counts its handshakes.
struct TlsUpstream {
    address: SocketAddr,
    certificate_pem: String,
    full: Arc<AtomicUsize>,
    resumed: Arc<AtomicUsize>,
}

impl TlsUpstream {
    fn start() -> TlsUpstream {
        TlsUpstream::with_tickets(2)
    }

    /// Gives each client so many session tickets; until it reads them it has something to read.
    fn with_tickets(tickets: usize) -> TlsUpstream {
        let (mut config, certificate_pem) = tls_server("localhost");
        config.send_tls13_tickets = tickets;
        TlsUpstream::of(config, certificate_pem)
    }

    fn of(mut config: ServerConfig, certificate_pem: String) -> TlsUpstream {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // All is in the ticket: a store would forget sessions.
        config.ticketer = rustls::crypto::ring::Ticketer::new().unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = TlsUpstream {
            address: listener.local_addr().unwrap(),
            certificate_pem,
            full: Arc::default(),
            resumed: Arc::default(),
        };
        let (full, resumed) = (Arc::clone(&upstream.full), Arc::clone(&upstream.resumed));
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let (full, resumed) = (Arc::clone(&full), Arc::clone(&resumed));
                thread::spawn(move || {
                    answer(StreamOwned::new(connection, socket), &full, &resumed)
                });
            }
        });
        upstream
    }

    /// Runs `script` on the first connection.
    fn scripted(script: impl FnOnce(Stream) + Send + 'static) -> TlsUpstream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (config, certificate_pem) = tls_server("localhost");
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let connection = ServerConnection::new(Arc::new(config)).unwrap();
            script(StreamOwned::new(connection, socket));
        });
        TlsUpstream {
            address,
            certificate_pem,
            full: Arc::default(),
            resumed: Arc::default(),
        }
    }

    /// Starts a proxy that trusts its certificate, with further options.
    fn start_trusting_proxy(&self, options: &[(&str, &str)]) -> ProxyProcess {
        let builder = ProxyProcess::to(&self.url()).with_file("ca.pem", &self.certificate_pem);
        let ca = builder.path("ca.pem");
        let builder = builder.option("--ca-file", ca.to_str().unwrap());
        builder.options(options).start()
    }

    /// Counts full and resumed handshakes.
    fn handshakes(&self) -> (usize, usize) {
        let (full, resumed) = (&self.full, &self.resumed);
        (full.load(Ordering::SeqCst), resumed.load(Ordering::SeqCst))
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/flow-llm-proxy", self.address.port())
    }
}

type Stream = StreamOwned<ServerConnection, std::net::TcpStream>;

/// Answers each request: `/close` without a close_notify, `/doubled` with one response too many,
/// `/trickled` in pieces of one record. The body for `/deaf` is never read, nor is
/// that for `/early`, which is answered at once.
fn answer(mut stream: Stream, full: &AtomicUsize, resumed: &AtomicUsize) {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    let mut is_counted = false;
    loop {
        match stream.read(&mut piece) {
            Ok(length @ 1..) => request.extend_from_slice(&piece[..length]),
            _ => return,
        }
        if !std::mem::replace(&mut is_counted, true) {
            // RFC 7301: some servers reject a client that offers none.
            assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
            match stream.conn.handshake_kind() {
                Some(HandshakeKind::Resumed) => resumed.fetch_add(1, Ordering::SeqCst),
                _ => full.fetch_add(1, Ordering::SeqCst),
            };
        }
        if request.starts_with(b"POST /flow-llm-proxy/deaf ") {
            thread::sleep(HELD);
            return;
        }
        if request.starts_with(b"POST /flow-llm-proxy/early ") {
            let early = "HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large";
            stream.write_all(early.as_bytes()).unwrap();
            thread::sleep(HELD);
            return;
        }
        if !request.ends_with(b"\r\n\r\n") {
            continue;
        }
        if request.starts_with(b"GET /flow-llm-proxy/trickled ") {
            return trickle(&mut stream);
        }
        let is_cut = request.starts_with(b"GET /flow-llm-proxy/close ");
        let sent = if is_cut {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf of it")
        } else if request.starts_with(b"GET /flow-llm-proxy/doubled ") {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 16342\r\n\r\n";
            let good = format!("{head}{}", "g".repeat(16342));
            assert_eq!(good.len(), 16 * 1024);
            // The first response fills the proxy's buffer.
            let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
            stream.write_all(format!("{good}{evil}").as_bytes())
        } else {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        };
        if sent.is_err() || is_cut {
            return;
        }
        request.clear();
    }
}

/// How long a connection is held that is not read from; longer than any test waits.
const HELD: Duration = Duration::from_secs(10);
/// Each piece comes well within the timeout of a second, all of them beyond it.
const PIECES: usize = 8;
const PIECE_EVERY: Duration = Duration::from_millis(250);

fn trickle(stream: &mut Stream) {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 12000\r\n\r\n";
    let answer = format!("{head}{}", "t".repeat(12000));
    stream.conn.writer().write_all(answer.as_bytes()).unwrap();
    let mut record = Vec::new();
    while stream.conn.wants_write() {
        stream.conn.write_tls(&mut record).unwrap();
    }
    for piece in record.chunks(record.len().div_ceil(PIECES)) {
        if stream.sock.write_all(piece).is_err() {
            return;
        }
        thread::sleep(PIECE_EVERY);
    }
}

#[test]
fn an_upstream_is_verified_against_the_ca_file() {
    let upstream = TlsUpstream::start();
    let proxy = upstream.start_trusting_proxy(&[]);
    let mut client = RawClient::connect(proxy.address());
    for _ in 0..3 {
        let response = client.request("GET", "/v1/models", &[], b"");
        response.assert_text(200, "hello");
    }
    assert_eq!(upstream.handshakes(), (1, 0), "one kept-alive connection");
}

#[test]
fn an_upstream_is_verified_against_ssl_cert_file_beside_the_ca_file() {
    let upstreams = [TlsUpstream::start(), TlsUpstream::start()];
    for upstream in &upstreams {
        let builder = ProxyProcess::to(&upstream.url())
            .with_file("one.pem", &upstreams[0].certificate_pem)
            .with_file("other.pem", &upstreams[1].certificate_pem)
            .option("--ca-file", "one.pem")
            .env("SSL_CERT_FILE", "other.pem");
        assert_eq!(get(builder.start().address(), "/v1/models").status, 200);
    }
    let upstream = &upstreams[0];
    let proxy = ProxyProcess::to(&upstream.url())
        .with_file("ca.pem", &upstream.certificate_pem)
        .env("SSL_CERT_FILE", "ca.pem")
        .start();
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
}

#[test]
fn an_ssl_cert_file_that_cannot_be_read_is_an_error_that_names_the_variable() {
    let builder =
        || ProxyProcess::to("https://localhost:9").env("SSL_CERT_FILE", "no-such-file.pem");
    for finished in [
        builder().command("check").run_to_end(SOON),
        builder().run_to_end(SOON),
    ] {
        assert_eq!(finished.code, Some(2), "{finished:?}");
        let start = "flow-proxy: SSL_CERT_FILE no-such-file.pem: ";
        assert!(finished.stderr.contains(start), "{finished:?}");
    }
    // The demo goes to no upstream over TLS.
    builder().command("demo").start();
}

#[test]
fn an_upstream_with_an_untrusted_certificate_is_a_502_that_says_so() {
    let upstream = TlsUpstream::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let response = get(proxy.address(), "/v1/models");
    response.assert_error(502, "upstream_unreachable");
    assert!(
        response.text().contains("certificate"),
        "{}",
        response.text()
    );
    assert!(response.text().contains("--ca-file"), "{}", response.text());
}

#[test]
fn the_thousands_of_names_of_a_certificate_are_not_all_shown() {
    let names = (0..2000).map(|n| format!("name-{n}.example")).collect();
    let (config, certificate_pem) = tls_server_of_many(names);
    let upstream = TlsUpstream::of(config, certificate_pem);
    let proxy = upstream.start_trusting_proxy(&[]);
    let response = get(proxy.address(), "/v1/models");
    response.assert_error(502, "upstream_unreachable");
    let text = response.text();
    assert!(
        text.contains("name-0.example") && text.contains("…. Check"),
        "{text}"
    );
    assert!(text.len() < 1000, "{} bytes", text.len());
    proxy.wait_for_access_line(1);
    let longest = proxy.log().lines().map(str::len).max();
    assert!(longest < Some(1000), "{longest:?}");
}

#[test]
fn new_connections_resume_their_sessions_whichever_worker_makes_them() {
    let upstream = TlsUpstream::start();
    let proxy = upstream.start_trusting_proxy(&[]);
    for _ in 0..4 {
        // Each response ends its connection, so that the next request needs a new one.
        get(proxy.address(), "/close");
    }
    assert_eq!(upstream.handshakes(), (1, 3));
}

#[test]
fn many_new_connections_at_once_resume_their_sessions() {
    const MANY: usize = 64;
    let upstream = TlsUpstream::with_tickets(MANY);
    let proxy = upstream.start_trusting_proxy(&[]);
    get(proxy.address(), "/close");
    let mut clients: Vec<_> = (0..MANY)
        .map(|_| RawClient::connect(proxy.address()))
        .collect();
    for client in &mut clients {
        client.send_request("GET", "/close", &[], b"");
    }
    for client in &mut clients {
        assert_eq!(client.read_response().status, 200);
    }
    assert_eq!(upstream.handshakes(), (1, MANY));
}

#[test]
fn tls_that_ends_without_its_close_notify_is_a_broken_answer() {
    let upstream = TlsUpstream::start();
    let proxy = upstream.start_trusting_proxy(&[]);
    let response = get(proxy.address(), "/close");
    assert_ne!(response.ended, Ended::Complete);
    assert_eq!(proxy.wait_for_access_line(1).field("end"), "upstream_broke");
}

#[test]
fn what_a_connection_has_too_much_is_never_the_next_answer() {
    let upstream = TlsUpstream::start();
    let proxy = upstream.start_trusting_proxy(&[("--workers", "1")]);
    for _ in 0..5 {
        assert_eq!(get(proxy.address(), "/doubled").body.len(), 16342);
        assert_eq!(get(proxy.address(), "/v1/models").text(), "hello");
    }
}

#[test]
fn the_timeout_is_for_the_silence_and_not_for_a_whole_record() {
    let upstream = TlsUpstream::start();
    let proxy = upstream.start_trusting_proxy(&[("--upstream-timeout", "1")]);
    assert_eq!(get(proxy.address(), "/trickled").body.len(), 12000);
}

#[test]
fn an_upload_that_the_upstream_does_not_read_is_given_up_after_one_timeout() {
    for tickets in [0, 2] {
        let upstream = TlsUpstream::with_tickets(tickets);
        let proxy = upstream.start_trusting_proxy(&[("--upstream-timeout", "4")]);
        let mut client = RawClient::connect(proxy.address());
        let begun = Instant::now();
        client.send(post_head(16 * MIB).replace("/v1/x", "/deaf"));
        client.try_send(vec![b'x'; 16 * MIB]);
        let response = client.read_response();
        response.assert_error(504, "upstream_timeout");
        // Twice the timeout would be a second one.
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(8), "{tickets} tickets: {took:?}");
    }
}

#[test]
fn a_connection_that_is_not_used_again_is_ended_with_a_close_notify() {
    let (ended, end) = channel();
    let upstream = TlsUpstream::scripted(move |mut stream| {
        read_head(&mut stream).unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
            .unwrap();
        let read = stream.read(&mut [0; 16]);
        ended.send(read.map_err(|error| error.kind())).unwrap();
    });
    let proxy = upstream.start_trusting_proxy(&[]);
    get(proxy.address(), "/v1/models").assert_text(200, "ok");
    assert_eq!(end.recv_timeout(SOON), Ok(Ok(0)));
}

#[test]
fn an_idle_connection_that_was_reset_is_dropped_without_a_line_about_a_request() {
    let (answered, reset) = (channel(), channel());
    let upstream = TlsUpstream::scripted(move |mut stream| {
        read_head(&mut stream).unwrap();
        stream.write_all(OK.as_bytes()).unwrap();
        answered.1.recv().unwrap();
        let socket = socket2::SockRef::from(&stream.sock);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        drop(stream);
        reset.0.send(()).unwrap();
    });
    let proxy = upstream.start_trusting_proxy(&[("--log-level", "DEBUG")]);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    answered.0.send(()).unwrap();
    reset.1.recv_timeout(SOON).unwrap();
    assert_eq!(get(proxy.address(), "/v1/models").status, 502);
    proxy.wait_for_access_line(2);
    let log = proxy.log();
    assert!(!log.contains("takes no more of a request"), "{log}");
}

#[test]
fn an_answer_that_comes_before_the_body_is_sent_is_told_from_session_tickets() {
    for tickets in [0, 2] {
        let upstream = TlsUpstream::with_tickets(tickets);
        let proxy = upstream.start_trusting_proxy(&[("--upstream-timeout", "60")]);
        let mut client = RawClient::connect(proxy.address());
        let begun = Instant::now();
        client.send(post_head(16 * MIB).replace("/v1/x", "/early"));
        client.try_send(vec![b'x'; 16 * MIB]);
        client.read_response().assert_text(413, "too large");
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(3), "{tickets} tickets: {took:?}");
    }
}

/// Serves as a proxy over TLS, and behind its tunnel as an upstream over TLS. Returns its address.
fn start_tls_in_tls(outer: ServerConfig, inner: ServerConfig) -> SocketAddr {
    let (outer, inner) = (Arc::new(outer), Arc::new(inner));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let outer = ServerConnection::new(Arc::clone(&outer)).expect("a configuration");
            let inner = ServerConnection::new(Arc::clone(&inner)).expect("a configuration");
            std::thread::spawn(move || -> std::io::Result<()> {
                let mut proxy = StreamOwned::new(outer, socket);
                let head = read_head(&mut proxy)?;
                assert!(
                    head.starts_with("CONNECT flow.example:443 HTTP/1.1\r\n"),
                    "{head}"
                );
                assert!(
                    head.contains("\r\nProxy-Authorization: Basic bWU6ZmFrZQ==\r\n"),
                    "{head}"
                );
                proxy.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
                let mut upstream = StreamOwned::new(inner, proxy);
                loop {
                    let head = read_head(&mut upstream)?;
                    assert!(head.contains("\r\nhost: flow.example\r\n"), "{head}");
                    upstream.write_all(OK.as_bytes())?;
                }
            });
        }
    });
    address
}

fn read_head(stream: &mut impl Read) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

#[test]
fn a_proxy_over_tls_is_verified_and_the_upstream_behind_it_too() {
    let (outer, outer_pem) = tls_server("localhost");
    let (inner, inner_pem) = tls_server("flow.example");
    let address = start_tls_in_tls(outer, inner);
    let start = |outer_pem: &str, inner_pem: &str| {
        ProxyProcess::to("https://flow.example/flow-llm-proxy")
            .with_file("outer.pem", outer_pem)
            .with_file("inner.pem", inner_pem)
            .option("--ca-file", "inner.pem")
            .env("SSL_CERT_FILE", "outer.pem")
            .env(
                "HTTPS_PROXY",
                &format!("https://me:fake@localhost:{}", address.port()),
            )
            .start()
    };
    let proxy = start(&outer_pem, &inner_pem);
    let mut client = RawClient::connect(proxy.address());
    for _ in 0..3 {
        let response = client.request("POST", "/v1/x", &[], b"");
        response.assert_text(200, "ok");
    }
    for (outer_pem, inner_pem) in [(&outer_pem, &outer_pem), (&inner_pem, &inner_pem)] {
        let proxy = start(outer_pem, inner_pem);
        let response = get(proxy.address(), "/v1/models");
        response.assert_error(502, "upstream_unreachable");
        let text = response.text();
        assert!(
            text.contains("certificate") && text.contains("--ca-file"),
            "{text}"
        );
    }
}
