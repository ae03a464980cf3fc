//! Endless work delays no other request: a thread on which others depend lets them go on.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::echo::{assert_echo, measure_many, start_echo};
use crate::support::{
    CHUNKED_HEAD, HELD_BODY_LIMIT_BYTES, ProxyProcess, RawClient, RawUpstream, SetOnDrop,
    hold_machine,
};

/// Asserts that quick requests stay quick while eight threads do `work`.
fn assert_quick_beside(address: SocketAddr, work: impl Fn(SocketAddr, &AtomicBool) + Sync) {
    let _machine = hold_machine();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| work(address, &is_over));
        }
        let _over = SetOnDrop(&is_over);
        let each = (0..40).map(|_| measure_many(address, 10)[9]);
        let slow = each.into_iter().find(|took| *took > QUICK);
        assert_eq!(slow, None, "one of the slow ones");
    });
}

/// Far beyond what is seen, also on a busy machine; each body of the test takes about as long.
const QUICK: Duration = Duration::from_secs(2);

#[test]
fn request_bodies_of_tiny_chunks_delay_no_other_request() {
    let upstream = start_echo();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    const PIECE_BYTES: usize = 10_000;
    let chunks = "1\r\nx\r\n".repeat(PIECE_BYTES);
    assert_quick_beside(proxy.address(), |address, is_over| {
        let mut client = RawClient::connect(address);
        while !is_over.load(Ordering::Relaxed) {
            client.send(
                "POST /v1/0/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
            );
            // As long as a body may be that is held in memory.
            for _ in 0..HELD_BODY_LIMIT_BYTES / PIECE_BYTES {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                client.send(&chunks);
            }
            client.send("0\r\n\r\n");
            assert_echo(&mut client, "x");
        }
    });
}

#[test]
fn answers_that_are_almost_only_framing_are_passed_on_at_once_and_delay_no_other_request() {
    let upstream = RawUpstream::start(|connection| {
        while let Some(request) = connection.read_request() {
            let Some(id) = request.target.strip_prefix("/flow-llm-proxy/v1/0/") else {
                let head = CHUNKED_HEAD;
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
        let mut wanted = 0;
        while !is_over.load(Ordering::Relaxed) {
            wanted += 1000;
            client.read_body_until("more of the flood", |body| body.len() >= wanted);
        }
    });
}
