//! Responses that take their time: each piece is passed on as soon as it is read, and none is cut
//! while it moves (contract section 4).

use std::time::{Duration, Instant};

use crate::support::{
    Answer, Ended, FakeFlow, Framing, ProxyProcess, RawClient, RawUpstream, SOON, SSE_HEAD, chunk,
    patterned_bytes, post, start_request, wait_until,
};

#[test]
fn the_head_goes_out_before_the_first_byte_of_the_body() {
    let (_upstream, commands, _proxy, mut client) = start_request(&[]);
    commands.send(SSE_HEAD);
    let head = client.read_head();
    assert_eq!(
        (head.status, head.header("content-type")),
        (200, Some("text/event-stream"))
    );
    commands.send(chunk("data: 1\n\n") + "0\r\n\r\n");
    assert_eq!(client.read_body_to_end().2, Ended::Complete);
}

#[test]
fn each_event_arrives_before_the_next_is_sent() {
    let (_upstream, commands, proxy, mut client) = start_request(&[]);
    commands.send(SSE_HEAD);
    client.read_head();
    let mut sent = String::new();
    let events = (0..50).map(|n| format!("data: {{\"n\":{n}}}\n\n"));
    for event in events.chain(["data: [DONE]\n\n".into()]) {
        sent.push_str(&event);
        commands.send(chunk(&event));
        client.read_body_until("the event that was sent", |body| body == sent.as_bytes());
    }
    commands.send("0\r\n\r\n");
    assert_eq!(
        client.read_body_to_end(),
        (Framing::Chunked, sent.into_bytes(), Ended::Complete)
    );
    assert_eq!(proxy.wait_for_access_line(1).field("end"), "ok");
}

#[test]
fn each_single_byte_arrives_before_the_next_is_sent() {
    let (_upstream, commands, _proxy, mut client) = start_request(&[]);
    commands.send(SSE_HEAD);
    client.read_head();
    let text = "data: no newline for a while";
    for length in 1..=text.len() {
        commands.send(chunk(&text[length - 1..length]));
        client.read_body_until("the byte", |body| body == &text.as_bytes()[..length]);
    }
}

#[test]
fn pieces_of_a_body_with_a_length_arrive_at_once() {
    let (_upstream, commands, _proxy, mut client) = start_request(&[]);
    commands.send("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n");
    client.read_head();
    for (piece, so_far) in [
        ("one ", "one "),
        ("two ", "one two "),
        ("thr.", "one two thr."),
    ] {
        commands.send(piece);
        client.read_body_until(piece, |body| body == so_far.as_bytes());
    }
    assert_eq!(client.read_body_to_end().2, Ended::Complete);
}

#[test]
fn pieces_of_a_body_that_ends_with_the_connection_arrive_at_once() {
    let (_upstream, commands, _proxy, mut client) = start_request(&[]);
    commands.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
    client.read_head();
    commands.send("data: 1\n\n");
    client.read_body_until("the first event", |body| body == b"data: 1\n\n");
    commands.send("data: 2\n\n");
    client.read_body_until("the second event", |body| body == b"data: 1\n\ndata: 2\n\n");
    drop(commands);
    assert_eq!(client.read_body_to_end().2, Ended::Complete);
}

#[test]
fn half_a_chunk_arrives_before_the_other_half_is_sent() {
    let (_upstream, commands, _proxy, mut client) = start_request(&[]);
    commands.send(SSE_HEAD);
    client.read_head();
    commands.send("a\r\ndata:");
    client.read_body_until("half a chunk", |body| body == b"data:");
    commands.send(" 12\n\n\r\n0\r\n\r\n");
    assert_eq!(client.read_body_to_end().1, b"data: 12\n\n");
}

#[test]
fn an_http_1_0_client_gets_each_piece_at_once_too() {
    let (upstream, commands) = RawUpstream::on_command();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send("GET /v1/x HTTP/1.0\r\nHost: localhost\r\n\r\n");
    commands.send(SSE_HEAD);
    client.read_head();
    commands.send(chunk("data: 1\n\n"));
    client.read_body_until("the first event", |body| body == b"data: 1\n\n");
    commands.send(chunk("data: 2\n\n") + "0\r\n\r\n");
    let (framing, body, _) = client.read_body_to_end();
    assert_eq!(
        (framing, body.as_slice()),
        (Framing::UntilClose, &b"data: 1\n\ndata: 2\n\n"[..])
    );
}

#[test]
fn streams_do_not_wait_for_each_other() {
    let upstream = RawUpstream::start(|connection| {
        connection.read_request();
        connection.send(SSE_HEAD);
        connection.send(chunk("data: 1\n\n"));
        connection.wait_for_close(Duration::from_secs(60));
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut clients: Vec<RawClient> = (0..50)
        .map(|_| {
            let mut client = RawClient::connect(proxy.address());
            client.send_request("GET", "/v1/x", &[], b"");
            client
        })
        .collect();
    for client in &mut clients {
        client.read_head();
        client.read_body_until("the first event", |body| body == b"data: 1\n\n");
    }
    assert_eq!(upstream.connections(), 50);
}

#[test]
fn a_stream_that_still_moves_is_never_cut() {
    let (_upstream, commands, proxy, mut client) = start_request(&[("--upstream-timeout", "1")]);
    commands.send(SSE_HEAD);
    client.read_head();
    let started = Instant::now();
    let mut sent = 0;
    while started.elapsed() < Duration::from_secs(3) {
        commands.send(chunk(":\n\n"));
        sent += 3;
        client.read_body_until("the next piece", |body| body.len() == sent);
        // The upstream's own pace, well inside the timeout.
        std::thread::sleep(Duration::from_millis(250));
    }
    commands.send(chunk("data: [DONE]\n\n") + "0\r\n\r\n");
    assert_eq!(client.read_body_to_end().2, Ended::Complete);
    assert_eq!(proxy.wait_for_access_line(1).field("end"), "ok");
}

#[test]
fn a_slow_reader_gets_every_byte_and_does_not_fill_the_proxys_memory() {
    const BODY_BYTES: usize = 64 * 1024 * 1024;
    let upstream = RawUpstream::start(|connection| {
        connection.read_request();
        connection.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {BODY_BYTES}\r\n\r\n"
        ));
        let piece = vec![b'x'; 64 * 1024];
        for _ in 0..BODY_BYTES / piece.len() {
            if !connection.send(&piece) {
                return;
            }
        }
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let before = proxy.rss_kib();
    let mut client = RawClient::connect(proxy.address());
    client.send_request("GET", "/v1/x", &[], b"");
    client.read_head();
    wait_until("some of the body", SOON, || {
        client.read_body_until("a beginning", |body| !body.is_empty());
        true
    });
    let grown = proxy.rss_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "RSS grew by {grown} KiB");
    let (_, body, ended) = client.read_body_to_end();
    assert_eq!((body.len(), ended), (BODY_BYTES, Ended::Complete));
}

// The kernel's limit on data that a peer does not acknowledge counts the time in which its window is closed.
#[test]
fn a_client_that_reads_nothing_for_45_s_and_then_reads_on_gets_every_byte() {
    const PAUSE: Duration = Duration::from_secs(45);
    let body = patterned_bytes(64 * 1024 * 1024);
    let sent = body.clone();
    let upstream = FakeFlow::answering(move |_| Answer::new(200, sent.clone()));
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send_request("GET", "/v1/x", &[], b"");
    let asked = Instant::now();
    wait_until("the client to go on", 2 * PAUSE, || {
        let ended = proxy.access_lines();
        assert!(ended.is_empty(), "given up after {:?}", asked.elapsed());
        asked.elapsed() >= PAUSE
    });
    let response = client.read_response();
    assert_eq!((response.status, response.ended), (200, Ended::Complete));
    assert!(response.body == body);
    assert_eq!(proxy.wait_for_access_line(1).field("end"), "ok");
}

#[test]
fn a_large_request_and_a_large_answer_pass_each_other() {
    let upstream = FakeFlow::answering(|request| Answer::new(200, request.body.clone()));
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let body = patterned_bytes(5 * 1024 * 1024);
    let response = post(proxy.address(), "/v1/x", &body);
    assert!(response.body == body);
}
