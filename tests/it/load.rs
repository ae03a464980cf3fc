//! Many connections at once: which give way, which wait, and that order and memory hold (contract
//! section 8).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::attack::Attack;
use crate::support::{
    CHUNKED_HEAD, Ended, KIB_PER_MIB, OK, ProxyProcess, RawClient, RawUpstream, SOON, SetOnDrop,
    get, hold_machine, raise_descriptor_limit, rejections_counted, wait_until,
};

fn pipelined_request(number: usize) -> String {
    format!("GET /-/health HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: n{number}\r\n\r\n")
}

/// Reads `count` health responses and asserts that their `x-request-id`s are in order.
fn assert_ids_in_order(stream: &mut TcpStream, count: usize) {
    stream.set_read_timeout(Some(SOON)).expect("not zero");
    let mut buffered = Vec::new();
    let mut piece = vec![0; 256 * 1024];
    let mut next = 0;
    while next < count {
        let length = stream.read(&mut piece).expect("answers go on");
        assert!(length > 0, "closed after {next} of {count} answers");
        buffered.extend_from_slice(&piece[..length]);
        let text = String::from_utf8_lossy(&buffered);
        let mut used = 0;
        while let Some(at) = text[used..].find("x-request-id: n") {
            let id = &text[used + at + 15..];
            let Some(end) = id.find('\r') else { break };
            assert_eq!(id[..end], next.to_string(), "out of order");
            next += 1;
            used += at + 15 + end;
        }
        buffered.drain(..used);
    }
    assert_eq!(next, count);
}

/// Starts a proxy whose log does not count as memory.
fn start_quiet_proxy(upstream: &RawUpstream, workers: &str) -> ProxyProcess {
    ProxyProcess::to(&upstream.url())
        .option("--workers", workers)
        .option("--log-level", "ERROR")
        .start_silent()
}

#[test]
fn two_hundred_thousand_pipelined_requests_are_answered_in_order() {
    const REQUESTS: usize = 200_000;
    let _machine = hold_machine();
    let upstream = RawUpstream::always(OK);
    let proxy = start_quiet_proxy(&upstream, "4");
    let attack = Attack::begin("200,000 pipelined requests", &proxy);
    let mut stream = TcpStream::connect(proxy.address()).expect("it accepts");
    let mut sending = stream.try_clone().expect("a duplicate descriptor");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for start in (0..REQUESTS).step_by(1000) {
                let batch: String = (start..start + 1000).map(pipelined_request).collect();
                sending.write_all(batch.as_bytes()).expect("it reads on");
            }
        });
        assert_ids_in_order(&mut stream, REQUESTS);
    });
    drop(stream);
    attack.end(4 * KIB_PER_MIB, 4);
}

#[test]
fn a_client_that_sends_requests_and_reads_no_answer_is_not_read_from_for_ever() {
    let _machine = hold_machine();
    let upstream = RawUpstream::always(OK);
    let proxy = start_quiet_proxy(&upstream, "4");
    let attack = Attack::begin("pipelining without reading", &proxy);
    let mut stream = TcpStream::connect(proxy.address()).expect("it accepts");
    let timeout = Some(Duration::from_secs(1));
    stream.set_write_timeout(timeout).expect("not zero");
    // Sends until it has been stuck for a second: the proxy waits for its responses to be read.
    let mut whole = 0;
    'sending: while whole < 1_000_000 {
        let request = pipelined_request(whole);
        let mut rest = request.as_bytes();
        while !rest.is_empty() {
            match stream.write(rest) {
                Ok(length) => rest = &rest[length..],
                Err(_) => break 'sending,
            }
        }
        whole += 1;
    }
    assert!(whole < 1_000_000, "read without end");
    // Another client is served meanwhile; each request is answered, in order.
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    assert_ids_in_order(&mut stream, whole);
    drop(stream);
    attack.end(4 * KIB_PER_MIB, 4);
}

#[test]
fn two_thousand_idle_connections_leave_64_workers_free_and_are_all_kept() {
    const IDLE: usize = 2000;
    let _machine = hold_machine();
    let allowed = raise_descriptor_limit();
    if allowed < 3 * IDLE as u64 {
        println!(
            "skipped: the hard limit on descriptors is {allowed}, {} are needed",
            3 * IDLE
        );
        return;
    }
    let upstream = RawUpstream::always(OK);
    let proxy = start_quiet_proxy(&upstream, "64");
    let attack = Attack::begin("2,000 idle connections, 64 workers", &proxy);
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        let mut client = RawClient::connect(proxy.address());
        assert_eq!(client.request("GET", "/v1/x", &[], b"").status, 200);
        idle.push(client);
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let asked = Instant::now();
        assert_eq!(get(proxy.address(), "/v1/models").status, 200);
        slowest = slowest.max(asked.elapsed());
    }
    println!("2,000 idle connections: the slowest good request took {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    for client in &mut idle {
        assert_eq!(client.request("GET", "/v1/x", &[], b"").status, 200);
    }
    drop(idle);
    attack.end(12 * KIB_PER_MIB, 64);
}

#[test]
fn a_flood_of_slow_heads_delays_no_request_by_a_second_and_ends_in_408() {
    const SLOW: usize = 500;
    let upstream = RawUpstream::always(OK);
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--workers", "8")
        .start();
    let attack = Attack::begin("500 slow heads, a byte each 100 ms", &proxy);
    let mut slow: Vec<RawClient> = (0..SLOW)
        .map(|_| RawClient::connect(proxy.address()))
        .collect();
    let started = Instant::now();
    let is_over = AtomicBool::new(false);
    let slowest = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Goes on until all have been rejected: the first byte counts, not the last.
            let start = "GET /v1/x HTTP/1.1\r\nHost: localhost\r\nX-Filler: ";
            let endless = start.bytes().chain(std::iter::repeat(b'x'));
            let mut due = Instant::now();
            for byte in endless.take(105) {
                for client in &mut slow {
                    client.try_send([byte]);
                }
                due += Duration::from_millis(100);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            is_over.store(true, Ordering::SeqCst);
        });
        let mut slowest = Duration::ZERO;
        let mut asked_times = 0;
        while asked_times < 20 || !is_over.load(Ordering::SeqCst) {
            let asked = Instant::now();
            assert_eq!(get(proxy.address(), "/v1/models").status, 200);
            slowest = slowest.max(asked.elapsed());
            asked_times += 1;
            std::thread::sleep(Duration::from_millis(50)); // the good client's pace
        }
        println!("slow heads: {asked_times} good requests, the slowest took {slowest:?}");
        slowest
    });
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    for client in &mut slow {
        let answer = client.read_raw_to_close(SOON);
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408 "),
            "{answer}"
        );
    }
    assert!(started.elapsed() < Duration::from_secs(20));
    wait_until("each to be in the log", SOON, || {
        let lines = proxy.access_lines();
        let with_line = lines.iter().filter(|line| line.status == 408).count();
        with_line + rejections_counted(&proxy.log()).iter().sum::<usize>() == SLOW
    });
    drop(slow);
    attack.end(16 * KIB_PER_MIB, 8);
}

/// Starts an upstream whose responses to `/stream` go on until the test sets the flag.
fn start_streaming_upstream() -> (RawUpstream, Arc<AtomicBool>) {
    let may_end = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&may_end);
    let upstream = RawUpstream::ok_except("/stream", move |connection| {
        connection.send(CHUNKED_HEAD);
        while !end.load(Ordering::SeqCst) && connection.send("5\r\npiece\r\n") {
            std::thread::sleep(Duration::from_millis(20)); // the model's pace
        }
        connection.send("3\r\nend\r\n0\r\n\r\n");
    });
    (upstream, may_end)
}

/// Opens streams, each of which has a worker when it returns.
fn open_streams(proxy: &ProxyProcess, count: usize) -> Vec<RawClient> {
    let open = |_| {
        let mut client = RawClient::connect(proxy.address());
        client.send_request("GET", "/stream", &[], b"");
        assert_eq!(client.read_head().status, 200);
        client
    };
    (0..count).map(open).collect()
}

fn assert_end_whole(streams: &mut [RawClient]) {
    for stream in streams {
        let (_, body, ended) = stream.read_body_to_end();
        assert_eq!(ended, Ended::Complete, "a stream never gives way");
        assert!(body.ends_with(b"end"));
    }
}

#[test]
fn idle_and_slow_connections_hold_no_worker_and_streams_never_give_way() {
    for workers in [2, 8] {
        let (upstream, may_end) = start_streaming_upstream();
        let proxy = ProxyProcess::to(&upstream.url())
            .option("--workers", &workers.to_string())
            .start();
        let attack = Attack::begin("idle and slow beside streams", &proxy);
        let mut streams = open_streams(&proxy, workers - 1);
        let mut waiting = Vec::new();
        for _ in 0..50 {
            let mut idle = RawClient::connect(proxy.address());
            assert_eq!(idle.request("GET", "/v1/x", &[], b"").status, 200);
            waiting.push(idle);
            let mut slow = RawClient::connect(proxy.address());
            slow.send("GET /v1/x HTTP/1.1\r\nHo");
            waiting.push(slow);
        }
        let asked = Instant::now();
        assert_eq!(get(proxy.address(), "/v1/models").status, 200);
        assert!(asked.elapsed() < Duration::from_secs(1));
        may_end.store(true, Ordering::SeqCst);
        assert_end_whole(&mut streams);
        drop((streams, waiting));
        attack.end(8 * KIB_PER_MIB, workers);
    }
}

#[test]
fn who_waited_5_s_can_read_that_we_are_overloaded_in_their_own_dialect() {
    let (upstream, may_end) = start_streaming_upstream();
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--workers", "2")
        .start();
    let attack = Attack::begin("overload", &proxy);
    let mut streams = open_streams(&proxy, 2);
    let body = vec![b'x'; 64 * 1024];
    let asked = Instant::now();
    let mut waiting: Vec<(RawClient, &str)> = Vec::new();
    for path in ["/v1/messages", "/v1/chat/completions", "/-/health"] {
        for body in [&b""[..], &body] {
            let mut client = RawClient::connect(proxy.address());
            client.send_request("POST", path, &[], body);
            waiting.push((client, path));
        }
    }
    for (client, path) in &mut waiting {
        let response = client.read_response();
        let took = asked.elapsed();
        assert!(
            took > Duration::from_secs(4) && took < Duration::from_secs(8),
            "{took:?}"
        );
        response.assert_error(503, "overloaded");
        assert_eq!(response.header("retry-after"), Some("1"));
        let error = response.json();
        let is_anthropic = error["type"] == "error";
        assert_eq!(is_anthropic, *path == "/v1/messages", "{path}: {error}");
        assert!(
            error["error"]["message"]
                .as_str()
                .is_some_and(|m| m.contains("--workers"))
        );
        client.assert_closed();
    }
    may_end.store(true, Ordering::SeqCst);
    assert_end_whole(&mut streams);
    drop((streams, waiting));
    attack.end(8 * KIB_PER_MIB, 2);
}

#[test]
fn clients_that_ask_without_pause_let_other_clients_in() {
    let _machine = hold_machine();
    let upstream = RawUpstream::always(OK);
    let proxy = start_quiet_proxy(&upstream, "2");
    let attack = Attack::begin("greedy clients", &proxy);
    let is_over = AtomicBool::new(false);
    let slowest = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut greedy = RawClient::connect(proxy.address());
                while !is_over.load(Ordering::SeqCst) {
                    assert_eq!(greedy.request("GET", "/-/health", &[], b"").status, 200);
                }
            });
        }
        let _over = SetOnDrop(&is_over);
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            let asked = Instant::now();
            assert_eq!(get(proxy.address(), "/v1/models").status, 200);
            slowest = slowest.max(asked.elapsed());
        }
        slowest
    });
    println!("greedy clients: the slowest good request took {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    attack.end(4 * KIB_PER_MIB, 2);
}
