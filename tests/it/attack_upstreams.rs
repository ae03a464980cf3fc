//! Hostile upstreams: whatever they answer, the client learns the truth, memory stays small and the
//! next request is served.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::support::attack::{Attack, assert_no_bug};
use crate::support::{
    CHUNKED_HEAD, EMPTY_OK, Ended, Framing, KIB_PER_MIB, ProxyProcess, RawClient, RawUpstream,
    Response, SOON, UpstreamConnection, get, wait_until,
};

/// Sends a request that the upstream attacks, and asserts that the next one is served.
fn request_under_attack(
    name: &'static str,
    attack: impl Fn(&mut UpstreamConnection) + Send + Sync + 'static,
) -> Response {
    let upstream = RawUpstream::ok_except("/attack", attack);
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--workers", "2")
        .start();
    let watch = Attack::begin(name, &proxy);
    let response = get(proxy.address(), "/attack");
    watch.end(4 * KIB_PER_MIB, 2);
    response
}

fn assert_broke(name: &'static str, bytes: impl Into<Vec<u8>>) {
    let bytes = bytes.into();
    let response = request_under_attack(name, move |connection| {
        connection.send(&bytes);
        connection.wait_for_close(Duration::from_secs(2));
    });
    response.assert_error_to(name, 502, "upstream_broke");
}

#[test]
fn an_endless_answer_head_is_a_502() {
    let response = request_under_attack("endless answer head", |connection| {
        connection.send("HTTP/1.1 200 OK\r\n");
        while connection.send("X-Filler: 0123456789012345678901234567890\r\n".repeat(100)) {}
    });
    response.assert_error(502, "upstream_broke");
}

#[test]
fn an_endless_status_line_is_a_502() {
    let response = request_under_attack("endless status line", |connection| {
        connection.send("HTTP/1.1 200 O");
        while connection.send([b'K'; 4096]) {}
    });
    response.assert_error(502, "upstream_broke");
}

#[test]
fn an_answer_field_of_1_mib_is_a_502() {
    let value = "x".repeat(1 << 20);
    assert_broke(
        "answer field of 1 MiB",
        format!("HTTP/1.1 200 OK\r\nX-Long: {value}\r\nContent-Length: 0\r\n\r\n"),
    );
}

#[test]
fn a_head_that_never_ends_is_a_502_when_the_upstream_closes() {
    let response = request_under_attack("head without an end", |connection| {
        connection.send("HTTP/1.1 200 OK\r\nContent-Type: text/pl");
    });
    response.assert_error(502, "upstream_broke");
}

#[test]
fn impossible_content_lengths_never_become_a_whole_answer() {
    for length in [
        "-1",
        "abc",
        "5, 6",
        "99999999999999999999999",
        "0x5",
        "+5",
        "",
    ] {
        assert_broke(
            "impossible Content-Length",
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nhello"),
        );
    }
}

#[test]
fn two_different_content_lengths_never_become_a_whole_answer() {
    assert_broke(
        "two Content-Lengths",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 50\r\n\r\nhello",
    );
}

#[test]
fn a_huge_content_length_is_passed_on_and_nothing_is_allocated_from_it() {
    let response = request_under_attack("huge Content-Length", |connection| {
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\nhello");
    });
    assert_eq!(response.status, 200);
    response.assert_ended("hello", Ended::Short);
}

#[test]
fn garbage_chunk_sizes_never_become_a_whole_answer() {
    for size in ["xyz", "-5", "", "fffffffffffffffff", " 5", "0x5"] {
        let name = "garbage chunk sizes";
        let response = request_under_attack(name, move |connection| {
            connection.send(format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n{size}\r\nhello\r\n"
            ));
            connection.wait_for_close(Duration::from_secs(2));
        });
        if response.status == 200 {
            assert_eq!(
                response.ended,
                Ended::WithoutLastChunk,
                "{size:?}: {response:?}"
            );
        } else {
            assert_eq!(response.error_code(), "upstream_broke", "{size:?}");
        }
    }
}

#[test]
fn a_bare_lf_as_line_end_never_smuggles_a_field() {
    let response = request_under_attack("bare LF in an answer head", |connection| {
        connection.send("HTTP/1.1 200 OK\nX-A: 1\nContent-Length: 2\n\nok");
    });
    // Either it is rejected or it is understood: RawClient is strict about what arrives.
    if response.status == 200 {
        assert_eq!(response.header("x-a"), Some("1"));
        assert_eq!(response.text(), "ok");
    } else {
        assert_eq!(response.error_code(), "upstream_broke");
    }
}

#[test]
fn invalid_answer_heads_are_a_502() {
    for head in [
        "HTTP/1.1 200 OK\r\nX Y: 1\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: 1\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n",
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "\0\0\0\0\0\r\n\r\n",
        "\r\n\r\n\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ] {
        assert_broke("invalid answer head", head);
    }
}

#[test]
fn a_hundred_thousand_interim_answers_fill_no_memory() {
    let response = request_under_attack("100,000 interim answers", |connection| {
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(1000);
        for _ in 0..100 {
            connection.send(&interim);
        }
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
        connection.wait_for_close(Duration::from_secs(2));
    });
    // So many may be taken for an attack, or read to the end.
    if response.status == 200 {
        assert_eq!(response.text(), "done");
    } else {
        assert_eq!(response.error_code(), "upstream_broke");
    }
}

#[test]
fn a_client_that_leaves_ends_endless_interim_answers() {
    let ended = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&ended);
    let upstream = RawUpstream::ok_except("/attack", move |connection| {
        while connection.send("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100)) {}
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let watch = Attack::begin("endless interim answers", &proxy);
    let mut client = RawClient::connect(proxy.address());
    client.send_request("GET", "/attack", &[], b"");
    wait_until("the upstream to be asked", SOON, || {
        upstream.requests().len() > 1
    });
    drop(client);
    wait_until("the upstream connection to be closed", SOON, || {
        ended.load(Ordering::SeqCst) == 1
    });
    watch.end(4 * KIB_PER_MIB, 2);
}

#[test]
fn an_answer_that_comes_before_its_request_is_never_another_clients() {
    let good = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
    let evil = good.replace("good", "evil");
    // Right behind each response comes a second one: in the same piece, at once, or later.
    for pause in [None, Some(Duration::ZERO), Some(Duration::from_millis(30))] {
        let (sent, reports) = channel();
        let evil = evil.clone();
        let upstream = RawUpstream::start(move |connection| {
            while connection.read_request().is_some() {
                if let Some(pause) = pause {
                    connection.send(good);
                    std::thread::sleep(pause); // so that it comes on the idle connection
                    connection.send(&evil);
                } else {
                    connection.send(good.to_owned() + &evil);
                }
                let _ = sent.send(());
            }
        });
        let proxy = ProxyProcess::to(&upstream.url())
            .option("--workers", "1")
            .start();
        for _ in 0..5 {
            assert_eq!(get(proxy.address(), "/v1/x").text(), "good");
            // Behind the next request it could not be told from the response to that.
            let report = reports.recv_timeout(SOON);
            report.expect("the second answer is sent");
        }
        assert_no_bug(&proxy.log());
    }
}

#[test]
fn a_body_where_none_can_be_is_never_another_clients_answer() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for (method, head) in [
        (
            "HEAD",
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", evil.len()),
        ),
        ("HEAD", CHUNKED_HEAD.to_owned()),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n".to_owned()),
        ("GET", "HTTP/1.1 304 Not Modified\r\n\r\n".to_owned()),
        ("GET", EMPTY_OK.to_owned()),
    ] {
        let answer = format!("{head}{evil}");
        let upstream = RawUpstream::start(move |connection| {
            while let Some(request) = connection.read_request() {
                if request.target.ends_with("/attack") {
                    connection.send(&answer);
                } else {
                    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
                }
            }
        });
        let proxy = ProxyProcess::to(&upstream.url())
            .option("--workers", "1")
            .start();
        let mut attacker = RawClient::connect(proxy.address());
        attacker.send_request(method, "/attack", &[], b"");
        attacker.read_response_to(method);
        let after = attacker.request("GET", "/v1/x", &[], b"");
        assert_eq!(after.text(), "good", "{method} {head:?}");
        assert_eq!(get(proxy.address(), "/v1/x").text(), "good");
        assert_no_bug(&proxy.log());
    }
}

#[test]
fn an_endless_answer_for_a_slow_reader_fills_no_memory() {
    let upstream = RawUpstream::ok_except("/attack", |connection| {
        connection.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
        while connection.send("data: 0123456789\n\n".repeat(1000)) {}
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let watch = Attack::begin("endless answers, slow readers", &proxy);
    let mut clients: Vec<RawClient> = (0..10)
        .map(|_| {
            let mut client = RawClient::connect(proxy.address());
            client.send_request("GET", "/attack", &[], b"");
            client.read_head();
            client
        })
        .collect();
    let started = Instant::now();
    let mut wanted = 0;
    while started.elapsed() < Duration::from_secs(2) {
        wanted += 16 * 1024;
        for client in &mut clients {
            client.read_body_until("the next piece", |body| body.len() >= wanted);
        }
        std::thread::sleep(Duration::from_millis(20)); // the clients' own pace
    }
    drop(clients);
    watch.end(8 * KIB_PER_MIB, 10);
}

/// Starts an upstream that answers `/attack` with `bytes` and a reset, else `ok`; returns its URL.
fn start_resetting(bytes: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let length = stream.read(&mut head).unwrap_or(0);
            if !head[..length].starts_with(b"GET /attack ") {
                let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok");
                continue;
            }
            let _ = stream.write_all(bytes.as_bytes());
            std::thread::sleep(Duration::from_millis(50)); // the bytes arrive before the reset
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
    });
    url
}

#[test]
fn an_upstream_that_resets_is_a_502_or_a_broken_answer() {
    let proxy = ProxyProcess::to(&start_resetting("")).start();
    let watch = Attack::begin("upstream resets before its head", &proxy);
    let response = get(proxy.address(), "/attack");
    response.assert_error(502, "upstream_broke");
    watch.end(4 * KIB_PER_MIB, 1);
    let proxy = ProxyProcess::to(&start_resetting("HTTP/1.1 200 OK\r\n\r\nhello")).start();
    let watch = Attack::begin("upstream resets in its body", &proxy);
    let response = get(proxy.address(), "/attack");
    let answered = (response.status, response.ended);
    assert_eq!(answered, (200, Ended::WithoutLastChunk));
    watch.end(4 * KIB_PER_MIB, 1);
}

#[test]
fn a_flood_of_tiny_chunks_in_an_answer_arrives_whole() {
    let response = request_under_attack("200,000 one-byte chunks in an answer", |connection| {
        connection.send(CHUNKED_HEAD);
        for _ in 0..200 {
            connection.send("1;extension=nonsense\r\nx\r\n".repeat(1000));
        }
        connection.send("0\r\nX-Trailer: y\r\n\r\n");
        connection.wait_for_close(Duration::from_secs(2));
    });
    assert_eq!(
        (response.body.len(), response.ended),
        (200_000, Ended::Complete)
    );
}

#[test]
fn padded_chunk_sizes_of_an_answer_are_read() {
    let response = request_under_attack("padded chunk sizes", |connection| {
        connection.send(CHUNKED_HEAD);
        connection.send("2  \r\nok\r\n1\t;a=b\r\n!\r\n0 \r\n\r\n");
        connection.wait_for_close(Duration::from_secs(2));
    });
    response.assert_ended("ok!", Ended::Complete);
}

#[test]
fn an_answers_framing_cannot_be_taken_away_or_doubled() {
    for fields in [
        "Connection: content-length\r\nContent-Length: 5\r\n",
        "Connection: keep-alive, Content-Length\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length:\t5 \r\n",
        "Content-Length: 5\r\nX-A: 1\r\nX-A: 2\r\n",
    ] {
        let upstream = RawUpstream::ok_except("/attack", move |connection| {
            connection.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\nhello"));
        });
        let proxy = ProxyProcess::to(&upstream.url()).start();
        let mut client = RawClient::connect(proxy.address());
        let response = client.request("GET", "/attack", &[], b"");
        assert_ne!(response.framing, Framing::UntilClose, "{fields:?}");
        if response.status == 200 {
            assert_eq!(response.text(), "hello", "{fields:?}");
            let next = client.request("GET", "/v1/x", &[], b"");
            assert_eq!(next.text(), "ok", "{fields:?}");
        } else {
            assert_eq!(response.error_code(), "upstream_broke", "{fields:?}");
        }
    }
}

#[test]
fn an_unrequested_switch_of_protocols_is_a_502() {
    // Upgrade is hop-by-hop and never forwarded, so no 101 can be a response to it.
    assert_broke(
        "unasked 101",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello",
    );
}

/// Asks an upstream whose response has a head with these lines; returns what arrives.
fn response_with_head(lines: &str) -> Response {
    let upstream = RawUpstream::always(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{lines}\r\nok"
    ));
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    for _ in 0..2 {
        client.request("POST", "/v1/x", &[], b"{}");
    }
    client.request("POST", "/v1/x", &[], b"{}")
}

#[test]
fn a_head_of_64_kib_and_256_lines_is_passed_on() {
    let long = format!("X-Long: {}\r\n", "x".repeat(60_000));
    let response = response_with_head(&long);
    response.assert_text(200, "ok");
    assert_eq!(response.header("x-long").map(str::len), Some(60_000));
    let many: String = (0..255).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let response = response_with_head(&many);
    response.assert_text(200, "ok");
    assert_eq!(response.header("x-254"), Some("254"));
}

#[test]
fn a_longer_head_is_a_502_that_says_so() {
    let long = format!("X-Long: {}\r\n", "x".repeat(66_000));
    let response = response_with_head(&long);
    response.assert_error(502, "upstream_broke");
    assert!(response.text().contains("64 KiB"), "{}", response.text());
    let many: String = (0..256).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let response = response_with_head(&many);
    response.assert_error(502, "upstream_broke");
    assert!(response.text().contains("256"), "{}", response.text());
}
