//! Requests that wait at the same time and share the threads that wait: each answer reaches its own
//! client however long it takes, and neither waits nor work without end hold anybody else up.

mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::{ProxyProcess, RawClient, RawUpstream, SOON, wait_until};

/// How long an answer or a pause takes, in milliseconds: around what a shared wait lasts (100 ms for
/// an answer, 10 to 20 ms for the next request), and well off it.
const PACES: [u64; 12] = [0, 1, 95, 0, 100, 104, 15, 9, 108, 112, 21, 150];

/// An upstream that answers `/…/MS/ID` after so many milliseconds with the id, in the head and in the
/// body. An odd id comes in two pieces.
fn echoing() -> RawUpstream {
    RawUpstream::start(|connection| {
        while let Some(request) = connection.read_request() {
            let words: Vec<&str> = request.target.rsplit('/').take(2).collect();
            let [id, milliseconds] = words[..] else {
                return;
            };
            thread::sleep(Duration::from_millis(milliseconds.parse().unwrap()));
            let head = format!(
                "HTTP/1.1 200 OK\r\nX-Id: {id}\r\nContent-Length: {}\r\n\r\n",
                id.len()
            );
            let is_sent = if id.ends_with(['1', '3', '5', '7', '9']) {
                connection.send(head) && connection.send(id)
            } else {
                connection.send(head + id)
            };
            if !is_sent {
                return;
            }
        }
    })
}

fn assert_echo(client: &mut RawClient, id: &str) {
    let response = client.read_response();
    assert_eq!((response.status, response.text().as_str()), (200, id));
    assert_eq!(response.header("x-id"), Some(id));
}

#[test]
fn each_answer_reaches_its_own_client_however_long_it_takes() {
    let upstream = echoing();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let address = proxy.address();
    let clients = (0..24).map(|number| {
        thread::spawn(move || {
            let mut client = RawClient::connect(address);
            for turn in 0..PACES.len() * 2 {
                let pace = PACES[(turn + number) % PACES.len()];
                let id = format!("{number}-{turn}");
                let body = if turn % 3 == 0 { "a body" } else { "" };
                let path = format!("/v1/{pace}/{id}");
                client.send_request("POST", &path, &[], body.as_bytes());
                assert_echo(&mut client, &id);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.join().expect("each client got its own answers");
    }
    assert_eq!(upstream.requests().len(), 24 * PACES.len() * 2);
}

#[test]
fn a_client_may_pause_for_any_time_between_its_requests() {
    let upstream = echoing();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    for turn in 0..60 {
        let pace = PACES[turn % PACES.len()].min(25) + turn as u64 / PACES.len() as u64;
        thread::sleep(Duration::from_millis(pace));
        let id = format!("{turn}");
        // In two pieces, so that the second one meets the connection in whatever state.
        client.send(format!("GET /v1/0/{id} HTTP/1.1\r\nHo"));
        if turn % 2 == 0 {
            thread::sleep(Duration::from_millis(pace));
        }
        client.send("st: localhost\r\n\r\n");
        assert_echo(&mut client, &id);
    }
    assert_eq!(upstream.connections(), 1, "it is kept all the while");
}

#[test]
fn a_request_that_comes_while_an_answer_is_awaited_is_served_after_it() {
    let upstream = echoing();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    for pace in [20, 150] {
        let mut client = RawClient::connect(proxy.address());
        let before = upstream.requests().len();
        client.send_request("GET", &format!("/v1/{pace}/first"), &[], b"");
        wait_until("the first request arrives", SOON, || {
            upstream.requests().len() > before
        });
        client.send_request("GET", "/v1/0/second", &[], b"");
        assert_echo(&mut client, "first");
        assert_echo(&mut client, "second");
    }
}

/// What many quick requests on a kept connection took, one after the other, in rising order.
fn durations_of_many(address: SocketAddr, count: usize) -> Vec<Duration> {
    let mut client = RawClient::connect(address);
    let durations = (0..count).map(|turn| {
        let begun = Instant::now();
        let id = format!("good-{turn}");
        client.send_request("GET", &format!("/v1/0/{id}"), &[], b"");
        assert_echo(&mut client, &id);
        begun.elapsed()
    });
    let mut durations: Vec<_> = durations.collect();
    durations.sort();
    durations
}

#[test]
fn nobody_waits_for_the_waits_of_others() {
    let upstream = echoing();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let address = proxy.address();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..40 {
            let is_over = &is_over;
            scope.spawn(move || {
                let mut client = RawClient::connect(address);
                while !is_over.load(Ordering::Relaxed) {
                    match number % 4 {
                        // An answer that takes longer than a shared wait.
                        0 => client.send_request("GET", "/v1/180/x", &[], b""),
                        // An answer that takes shorter.
                        1 => client.send_request("GET", "/v1/30/x", &[], b""),
                        // A body that pauses.
                        2 => {
                            client.send("POST /v1/0/x HTTP/1.1\r\nHost: localhost\r\n");
                            client.send("Content-Length: 6\r\n\r\nabc");
                            thread::sleep(Duration::from_millis(120));
                            client.send("def");
                        }
                        // A head that pauses.
                        _ => {
                            client.send("GET /v1/0/x HTTP/1.1\r\nHost: loc");
                            thread::sleep(Duration::from_millis(60));
                            client.send("alhost\r\n\r\n");
                        }
                    }
                    assert_echo(&mut client, "x");
                }
            });
        }
        let durations = durations_of_many(address, 2000);
        is_over.store(true, Ordering::Relaxed);
        let slowest = durations[durations.len() - 1];
        assert!(slowest < Duration::from_secs(1), "slowest {slowest:?}");
        // A thread that waits without passing its lane on holds up some of them for tens of
        // milliseconds.
        let held_up = durations
            .iter()
            .filter(|took| **took > Duration::from_millis(20));
        let held_up = held_up.count();
        assert!(held_up < 8, "{held_up} of {}", durations.len());
    });
}

#[test]
fn idle_clients_keep_no_more_upstream_connections_than_there_may_be_requests() {
    let upstream = echoing();
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--workers", "3")
        .start();
    let connect = |_| RawClient::connect(proxy.address());
    let mut clients: Vec<_> = (0..20).map(connect).collect();
    for turn in 0..10 {
        for (number, client) in clients.iter_mut().enumerate() {
            let id = format!("{turn}-{number}");
            client.send_request("GET", &format!("/v1/0/{id}"), &[], b"");
            assert_echo(client, &id);
        }
    }
    // One request at a time: what is kept for later ones is at most what could be in flight.
    let connections = upstream.connections();
    assert!(connections <= 4, "{connections} connections");
}

/// Asserts that quick requests stay quick while eight threads do `work`.
fn assert_quick_beside(address: SocketAddr, work: impl Fn(SocketAddr, &AtomicBool) + Sync) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| work(address, &is_over));
        }
        let each = (0..40).map(|_| durations_of_many(address, 10)[9]);
        let slow = each.into_iter().find(|took| *took > QUICK);
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(slow, None, "one of the slow ones");
    });
}

/// Ten times what is seen.
const QUICK: Duration = Duration::from_millis(500);

#[test]
fn request_bodies_of_tiny_chunks_hold_nobody_up() {
    let upstream = echoing();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let chunks = "1\r\nx\r\n".repeat(400_000);
    assert_quick_beside(proxy.address(), |address, is_over| {
        let mut client = RawClient::connect(address);
        while !is_over.load(Ordering::Relaxed) {
            client.send(
                "POST /v1/0/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
            );
            client.send(&chunks);
            client.send("0\r\n\r\n");
            assert_echo(&mut client, "x");
        }
    });
}

#[test]
fn answers_that_are_almost_only_framing_are_passed_on_at_once_and_hold_nobody_up() {
    let upstream = RawUpstream::start(|connection| {
        while let Some(request) = connection.read_request() {
            let Some(id) = request.target.strip_prefix("/flow-llm-proxy/v1/0/") else {
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                let flood = format!("1;{}\r\nx\r\n", "e".repeat(1000)).repeat(16);
                let mut goes_on = connection.send(head);
                while goes_on {
                    goes_on = connection.send(&flood);
                }
                return;
            };
            let length = id.len();
            connection.send(format!(
                "HTTP/1.1 200 OK\r\nX-Id: {id}\r\nContent-Length: {length}\r\n\r\n{id}"
            ));
        }
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    assert_quick_beside(proxy.address(), |address, is_over| {
        let mut client = RawClient::connect(address);
        let begun = Instant::now();
        client.send_request("GET", "/v1/flood", &[], b"");
        assert_eq!(client.read_head().status, 200);
        let took = begun.elapsed();
        assert!(took < QUICK, "the head after {took:?}");
        while !is_over.load(Ordering::Relaxed) {
            client.read_body_until("more of the flood", |body| !body.is_empty());
        }
    });
}
