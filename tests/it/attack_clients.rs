//! Hostile clients: slow, endless, silent, rude. After each attack the next request is served, and
//! all is given back. `--nocapture` shows the peak of memory that each attack caused.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::support::attack::{Attack, Numbers};
use crate::support::{
    CHUNKED_HEAD, CHUNKED_POST_HEAD, KIB_PER_MIB, OK, POST_START, ProxyProcess, RawClient,
    RawUpstream, SOON, get, hold_machine, post_head, wait_until,
};

fn connect_many(proxy: &ProxyProcess, count: usize) -> Vec<RawClient> {
    (0..count)
        .map(|_| RawClient::connect(proxy.address()))
        .collect()
}

/// Finds the status of each response in what arrived.
fn statuses(answer: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(answer)
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| String::from_utf8_lossy(&answer[at + 9..at + 12]).into_owned())
        .collect()
}

/// Sends `start` and then `piece` again and again on 20 connections; the proxy must reject each with
/// one of `codes`, or close it.
fn assert_endless_is_rejected(name: &'static str, start: &str, piece: &[u8], codes: &[&str]) {
    let upstream = RawUpstream::always(OK);
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--workers", "8")
        .start();
    let attack = Attack::begin(name, &proxy);
    let mut rejected = 0;
    for mut client in connect_many(&proxy, 20) {
        client.send(start);
        let started = Instant::now();
        // Far more than any limit: what the proxy drains after its rejection is bounded as well.
        let mut sent = 0;
        while sent < 64 << 20 && client.try_send_within(piece, Duration::from_secs(1)) {
            sent += piece.len();
        }
        assert!(sent < 64 << 20, "{name}: never rejected");
        assert!(started.elapsed() < SOON, "{name}: {:?}", started.elapsed());
        let answers = statuses(&client.read_raw_to_close(SOON));
        if let Some(status) = answers.first() {
            assert!(codes.contains(&status.as_str()), "{name}: {answers:?}");
            rejected += 1;
        }
    }
    println!("{name}: {rejected} of 20 read their rejection");
    attack.end(4 * KIB_PER_MIB, 8);
}

#[test]
fn an_endless_head_is_rejected_and_fills_no_memory() {
    let start = "GET /v1/x HTTP/1.1\r\nHost: localhost\r\n";
    let line = b"X-Filler: 0123456789012345678901234567890123456789\r\n".repeat(500);
    assert_endless_is_rejected("endless head", start, &line, &["431"]);
}

#[test]
fn heads_that_are_rejected_fill_no_memory_while_their_clients_stay() {
    let upstream = RawUpstream::always(OK);
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--workers", "8")
        .start();
    let attack = Attack::begin("200 rejected heads of 70 KiB", &proxy);
    let filler = format!("X-Filler: {}\r\n", "x".repeat(1000)).repeat(70);
    let head = format!("GET /v1/x HTTP/1.1\r\nHost: localhost\r\n{filler}\r\n");
    let mut clients = connect_many(&proxy, 200);
    for client in &mut clients {
        client.try_send(&head);
        assert_eq!(client.read_head().status, 431);
    }
    attack.end(8 * KIB_PER_MIB, 0);
}

#[test]
fn endless_chunk_extensions_are_rejected_and_fill_no_memory() {
    let start = format!("{CHUNKED_POST_HEAD}1;a=");
    assert_endless_is_rejected("endless chunk extension", &start, &[b'x'; 16384], &["400"]);
}

#[test]
fn extensions_on_endlessly_many_chunks_are_rejected_and_fill_no_memory() {
    let chunk = format!("1;{}\r\nx\r\n", "e".repeat(900)).repeat(16);
    let name = "extensions on every chunk";
    assert_endless_is_rejected(name, CHUNKED_POST_HEAD, chunk.as_bytes(), &["400"]);
}

#[test]
fn endless_trailers_are_rejected_and_fill_no_memory() {
    let start = format!("{CHUNKED_POST_HEAD}1\r\nx\r\n0\r\n");
    let trailers = b"X-Trailer: 0123456789\r\n".repeat(700);
    assert_endless_is_rejected("endless trailers", &start, &trailers, &["400"]);
}

#[test]
fn an_endless_chunked_body_is_rejected_at_the_limit_and_no_more_of_it_is_held() {
    let upstream = RawUpstream::start(|connection| {
        while let Some(head) = connection.read_request_head() {
            if head.method == "POST" {
                connection.wait_for_close(SOON);
                return;
            }
            connection.send(OK);
        }
    });
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--max-body", "16M")
        .start();
    let attack = Attack::begin("endless chunked body", &proxy);
    let mut client = RawClient::connect(proxy.address());
    client.send(CHUNKED_POST_HEAD);
    let chunk = [b"10000\r\n".as_slice(), &[b'x'; 65536], b"\r\n"].concat();
    let mut sent = 0;
    while sent < 64 << 20 && client.try_send_within(&chunk, Duration::from_secs(1)) {
        sent += chunk.len();
    }
    assert!(sent < 64 << 20, "never rejected");
    let answers = statuses(&client.read_raw_to_close(SOON));
    assert!(answers.iter().all(|status| status == "413"), "{answers:?}");
    proxy.wait_for_log(" 413 ");
    attack.end(24 * KIB_PER_MIB, 2);
}

#[test]
fn a_flood_of_one_byte_chunks_costs_time_and_no_memory() {
    let upstream = RawUpstream::always(OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let attack = Attack::begin("one-byte chunks", &proxy);
    let mut client = RawClient::connect(proxy.address());
    client.send(CHUNKED_POST_HEAD);
    let chunks = b"1\r\nx\r\n".repeat(10_000);
    for _ in 0..40 {
        client.send(&chunks);
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.read_response().status, 200);
    let bodies: Vec<usize> = upstream.requests().iter().map(|r| r.body.len()).collect();
    assert_eq!(bodies, [0, 400_000]);
    drop(client);
    attack.end(4 * KIB_PER_MIB, 1);
}

#[test]
fn ten_gigabytes_that_are_only_declared_cost_nothing() {
    let upstream = RawUpstream::always(OK);
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--workers", "64")
        .option("--max-body", "0")
        .start();
    let attack = Attack::begin("10 GB declared, 50 times", &proxy);
    let mut clients = connect_many(&proxy, 50);
    for (number, client) in clients.iter_mut().enumerate() {
        let framing = match number % 2 {
            0 => "Content-Length: 10000000000\r\n\r\nbegin",
            _ => "Transfer-Encoding: chunked\r\n\r\n2540BE400\r\nbegin",
        };
        client.send(format!("{POST_START}{framing}"));
    }
    wait_until("all bodies to have begun", SOON, || {
        upstream.connections() > 25
    });
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    drop(clients);
    attack.end(12 * KIB_PER_MIB, 8);
}

#[test]
fn hundreds_of_slow_heads_keep_no_client_out() {
    let upstream = RawUpstream::always(OK);
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--workers", "8")
        .start();
    let attack = Attack::begin("300 slow heads, byte by byte", &proxy);
    let mut clients = connect_many(&proxy, 300);
    let head = "GET /v1/slow HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut slowest = Duration::ZERO;
    for (position, byte) in head.bytes().enumerate() {
        for client in &mut clients {
            client.send([byte]);
        }
        if position % 8 == 0 {
            let asked = Instant::now();
            assert_eq!(get(proxy.address(), "/v1/models").status, 200);
            slowest = slowest.max(asked.elapsed());
        }
    }
    println!("slow heads: the slowest good request took {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    for client in &mut clients {
        assert_eq!(client.read_response().status, 200, "slow is no crime");
    }
    drop(clients);
    attack.end(8 * KIB_PER_MIB, 8);
}

#[test]
fn stalled_bodies_are_given_up_and_keep_no_memory() {
    let upstream = RawUpstream::always(OK);
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--workers", "64")
        .option("--client-timeout", "1")
        .start();
    let attack = Attack::begin("60 stalled bodies of 200 KiB", &proxy);
    let mut clients = connect_many(&proxy, 60);
    for client in &mut clients {
        client.send(post_head(1_000_000));
        client.send(vec![b'x'; 200 * 1024]);
    }
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    for client in &mut clients {
        let response = client.read_response();
        response.assert_error(408, "request_timeout");
        client.assert_closed();
    }
    attack.end(60 * 512, 8);
}

#[test]
fn answers_that_no_client_reads_are_given_up_and_keep_no_memory() {
    let upstream = RawUpstream::ok_except("/endless", |connection| {
        connection.send(CHUNKED_HEAD);
        let chunk = [b"4000\r\n".as_slice(), &[b'x'; 0x4000], b"\r\n"].concat();
        while connection.send(&chunk) {}
    });
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--workers", "40")
        .option("--client-timeout", "2")
        .start();
    let attack = Attack::begin("30 endless answers that no client reads", &proxy);
    let mut clients = connect_many(&proxy, 30);
    for client in &mut clients {
        client.send_request("GET", "/endless", &[], b"");
    }
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    wait_until("all of them to be given up", SOON, || {
        let lines = proxy.access_lines();
        let given_up = |end: &str| lines.iter().filter(|l| l.field("end") == end).count();
        given_up("client_timeout") == 30
    });
    attack.end(30 * 256, 8);
}

#[test]
fn garbage_of_two_thousand_connections_is_rejected() {
    let _machine = hold_machine();
    let upstream = RawUpstream::always(OK);
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--workers", "8")
        .option("--log-level", "ERROR")
        .start_silent();
    let attack = Attack::begin("garbage on 2,000 connections", &proxy);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let address = proxy.address();
            scope.spawn(move || {
                let mut numbers = Numbers::seeded(thread + 1);
                for _ in 0..500 {
                    let mut stream = TcpStream::connect(address).expect("it accepts");
                    let _ = stream.write_all(&make_garbage(&mut numbers));
                    let _ = stream.shutdown(Shutdown::Write);
                    stream.set_read_timeout(Some(SOON)).expect("not zero");
                    let mut answer = Vec::new();
                    match stream.read_to_end(&mut answer) {
                        Ok(_) => {}
                        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
                        Err(error) => panic!("not closed: {error}"),
                    }
                    let statuses = statuses(&answer);
                    let rejected =
                        |s: &String| ["400", "414", "431", "501", "505"].contains(&s.as_str());
                    assert!(statuses.iter().all(rejected), "{statuses:?}");
                }
            });
        }
    });
    attack.end(4 * KIB_PER_MIB, 8);
}

/// Makes random bytes, a mangled request or a TLS hello; nothing that could be a request.
fn make_garbage(numbers: &mut Numbers) -> Vec<u8> {
    let length = 1 + numbers.below(2000);
    match numbers.below(4) {
        0 => numbers.bytes(length),
        1 => [
            &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..],
            &numbers.bytes(length),
        ]
        .concat(),
        2 => {
            let mut line = numbers.bytes(length);
            line.retain(|byte| byte.is_ascii_graphic() || *byte == b' ');
            [&line[..], b" \0 HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat()
        }
        _ => {
            let mut request = b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\nX: y\r\n".to_vec();
            let at = numbers.below(request.len());
            request[at] = b"\0\n\r\x7f"[numbers.below(4)];
            [&request[..], b"\0\r\n\r\n"].concat()
        }
    }
}

#[test]
fn a_tls_client_is_told_to_use_http() {
    let upstream = RawUpstream::always(OK);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    // A TLS 1.3 ClientHello has a CR or LF somewhere or not; this one ends in one.
    client.send(b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03\r\n\r\n");
    let response = client.read_response();
    assert_eq!(response.status, 400);
    assert!(response.text().contains("http://"), "{}", response.text());
}

#[test]
fn resets_in_every_phase_of_a_request_leave_nothing_behind() {
    let upstream = RawUpstream::start(|connection| {
        while let Some(request) = connection.read_request() {
            if request.target.ends_with("/silent") {
                connection.wait_for_close(SOON);
                return;
            }
            if request.target.ends_with("/endless") {
                connection.send(CHUNKED_HEAD);
                while connection.send("5\r\nhello\r\n".repeat(1000)) {}
                return;
            }
            connection.send(OK);
        }
    });
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--workers", "16")
        .start();
    let attack = Attack::begin("resets in every phase", &proxy);
    let get_of = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let phases = [
        (String::new(), false),
        ("GET /v1/x HTT".to_owned(), false),
        (post_head(100_000) + "begin", false),
        (format!("{CHUNKED_POST_HEAD}5\r\nhe"), false),
        (get_of("/silent"), false),
        (get_of("/endless"), true),
        (get_of("/v1/x").repeat(50), true),
        (
            format!("{POST_START}Content-Length: nonsense\r\n\r\n"),
            true,
        ),
    ];
    for (bytes, reads) in &phases {
        for _ in 0..60 {
            let mut client = RawClient::connect(proxy.address());
            client.send(bytes);
            if *reads {
                client.has_response_within(SOON);
            }
            client.reset();
        }
    }
    attack.end(8 * KIB_PER_MIB, 16);
}
