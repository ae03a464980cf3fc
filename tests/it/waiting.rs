//! Requests that share the threads that wait for them: each response reaches its own client however
//! long it takes, and no wait delays another request.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::echo::{assert_echo, measure_many, start_echo};
use crate::support::{ProxyProcess, RawClient, SOON, SetOnDrop, hold_machine, wait_until};

/// How long a response or a pause takes, in milliseconds: around what a shared wait lasts (100 ms
/// for a response, 10 to 20 ms for the next request), and well off it.
const PACES: [u64; 12] = [0, 1, 95, 0, 100, 104, 15, 9, 108, 112, 21, 150];

#[test]
fn each_answer_reaches_its_own_client_however_long_it_takes() {
    let upstream = start_echo();
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
    let upstream = start_echo();
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
    let upstream = start_echo();
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

/// Counts those of many quick requests that take over 20 ms.
fn count_delayed(address: SocketAddr) -> usize {
    let durations = measure_many(address, 2000);
    let slowest = durations[durations.len() - 1];
    assert!(slowest < Duration::from_secs(1), "slowest {slowest:?}");
    let is_delayed = |took: &&Duration| **took > Duration::from_millis(20);
    durations.iter().filter(is_delayed).count()
}

#[test]
fn nobody_waits_for_the_waits_of_others() {
    let _machine = hold_machine();
    let upstream = start_echo();
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
                        // A response that takes longer than a shared wait.
                        0 => client.send_request("GET", "/v1/180/x", &[], b""),
                        // A response that takes less.
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
        let _over = SetOnDrop(&is_over);
        // A thread that waits while others depend on it delays some of them each time; other
        // programs on this machine do not do that three times in a row.
        let delayed = (0..3).map(|_| count_delayed(address));
        let fewest = delayed.min();
        assert!(fewest < Some(8), "{fewest:?} of 2000 delayed");
    });
}

#[test]
fn idle_clients_keep_no_more_upstream_connections_than_there_may_be_requests() {
    let upstream = start_echo();
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
