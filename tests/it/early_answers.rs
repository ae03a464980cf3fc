//! An upstream that answers before it has the whole request, takes no more of it and stays open: the
//! client gets the answer within a second, and then another connection.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::support::{
    MIB, ProxyProcess, RawClient, RawUpstream, SOON, UpstreamConnection, get, patterned_bytes,
    post_head,
};

const EARLY: &str = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\n\r\ntoo large";
/// What the contract promises is a second; the rest is for a machine with other work.
const AT_MOST: Duration = Duration::from_millis(1800);
/// More than the sockets on the way hold.
const LARGE: usize = 16 * MIB;
/// More than is held, so that it streams.
const STREAMED: usize = 40 * MIB;

/// Starts an upstream that reads the head of a request for `/x`, then does what `script` says and reads
/// nothing more; the proxy in front of it notices no silence for a minute.
fn start(
    script: impl Fn(&mut UpstreamConnection) + Send + Sync + 'static,
) -> (RawUpstream, ProxyProcess) {
    let upstream = RawUpstream::start(move |connection| {
        while let Some(request) = connection.read_request_head() {
            if request.target.ends_with("/x") {
                return script(connection);
            }
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--upstream-timeout", "60")
        .option("--workers", "2")
        .start();
    (upstream, proxy)
}

#[test]
fn an_answer_that_comes_before_the_body_is_sent_is_passed_on_within_a_second() {
    let (_upstream, proxy) = start(|connection| {
        connection.send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
        connection.send(EARLY);
        std::thread::sleep(Duration::from_secs(10)); // stays open, longer than the test
    });
    for length in [LARGE, STREAMED] {
        let mut client = RawClient::connect(proxy.address());
        let begun = Instant::now();
        client.send(post_head(length));
        client.try_send(vec![b'x'; length]);
        client.read_response().assert_text(413, "too large");
        let took = begun.elapsed();
        assert!(took < AT_MOST, "{length} bytes: {took:?}");
        client.assert_closed();
        get(proxy.address(), "/after").assert_text(200, "ok");
    }
}

#[test]
fn an_upstream_that_closes_its_receiving_side_ends_a_slow_upload() {
    let (_upstream, proxy) = start(|connection| {
        connection.send(EARLY);
    });
    let mut client = RawClient::connect(proxy.address());
    client.send(post_head(STREAMED));
    client.try_send(vec![b'x'; 33 * MIB]);
    // The rest is not sent for now.
    client.try_send(b"more");
    client.read_response().assert_text(413, "too large");
}

#[test]
fn a_success_that_comes_early_does_not_end_an_upload_that_pauses() {
    let (begun, has_begun) = channel();
    let upstream = RawUpstream::start(move |connection| {
        connection.read_request_head();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
        connection.read_bytes(MIB);
        let _ = begun.send(());
        connection.read_bytes(STREAMED - MIB);
        connection.send("read");
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send(post_head(STREAMED));
    client.send(vec![b'x'; MIB]);
    has_begun.recv_timeout(SOON).expect("the upstream reads");
    client.send(vec![b'x'; STREAMED - MIB]);
    client.read_response().assert_text(200, "read");
}

#[test]
fn an_interim_answer_does_not_end_the_sending_of_a_body() {
    let upstream = RawUpstream::start(|connection| {
        connection.send("HTTP/1.1 103 Early Hints\r\n\r\n");
        connection.wait_for_byte();
        std::thread::sleep(Duration::from_secs(2)); // the upstream takes nothing for so long
        if connection.read_request().is_some() {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    let body = patterned_bytes(LARGE);
    client.send(post_head(LARGE));
    client.send(&body);
    client.read_response().assert_text(200, "ok");
    let seen = upstream.request();
    assert!(seen.body == body, "{} bytes arrived", seen.body.len());
}
