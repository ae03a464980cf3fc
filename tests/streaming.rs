//! Answers that take their time: each piece as soon as it is read, and an honest end where the
//! upstream breaks off or falls silent (contract sections 4 and 7).

mod support;

use std::time::{Duration, Instant};

use support::{
    AccessLine, Commands, Ended, FakeFlow, Framing, ProxyProcess, RawClient, RawUpstream, Response,
    get, wait_until,
};

const SSE_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const JSON_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// A proxy in front of an upstream on command, and a client whose request is there.
fn commanded(options: &[(&str, &str)]) -> (RawUpstream, Commands, ProxyProcess, RawClient) {
    let (upstream, commands) = RawUpstream::on_command();
    let mut builder = ProxyProcess::to(&upstream.url());
    for (name, value) in options {
        builder = builder.option(name, value);
    }
    let proxy = builder.start();
    let mut client = RawClient::connect(proxy.address());
    client.send_request("POST", "/v1/chat/completions", &[], br#"{"stream":true}"#);
    (upstream, commands, proxy, client)
}

/// The answer to one request whose upstream sends `response` and breaks off, with its access line.
fn broken_off(response: &str, request: &str) -> (Response, AccessLine) {
    let upstream = RawUpstream::once(response);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send(request);
    let answer = client.read_response();
    client.assert_closed();
    let line = proxy.wait_for_access_line(1);
    assert_eq!(
        get(proxy.address(), "/-/health").status,
        200,
        "the proxy goes on"
    );
    (answer, line)
}

const GET_REQUEST: &str = "GET /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn the_head_goes_out_before_the_first_byte_of_the_body() {
    let (_upstream, commands, _proxy, mut client) = commanded(&[]);
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
    let (_upstream, commands, proxy, mut client) = commanded(&[]);
    commands.send(SSE_HEAD);
    client.read_head();
    let mut sent = String::new();
    for n in 0..50 {
        let event = format!("data: {{\"n\":{n}}}\n\n");
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
    let (_upstream, commands, _proxy, mut client) = commanded(&[]);
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
    let (_upstream, commands, _proxy, mut client) = commanded(&[]);
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
    let (_upstream, commands, _proxy, mut client) = commanded(&[]);
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
    let (_upstream, commands, _proxy, mut client) = commanded(&[]);
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
fn a_body_short_of_its_length_stays_short() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
    let (answer, line) = broken_off(&format!("{head}only this"), GET_REQUEST);
    assert_eq!((answer.status, answer.framing), (200, Framing::Length(100)));
    assert_eq!(
        (answer.text().as_str(), answer.ended),
        ("only this", Ended::Short)
    );
    assert_eq!(
        (line.status, line.field("end"), line.level.as_str()),
        (200, "upstream_broke", "INFO")
    );
    assert_eq!(line.number("out"), 9);
}

#[test]
fn a_chunked_body_that_breaks_off_gets_no_last_chunk() {
    let (answer, line) = broken_off(&format!("{JSON_HEAD}{}", chunk("{\"half\":")), GET_REQUEST);
    assert_eq!(
        (answer.text().as_str(), answer.ended),
        ("{\"half\":", Ended::WithoutLastChunk)
    );
    assert_eq!((line.status, line.field("end")), (200, "upstream_broke"));
}

#[test]
fn a_chunked_body_that_breaks_off_in_a_chunk_gets_no_last_chunk() {
    let (answer, _) = broken_off(&format!("{JSON_HEAD}ff\r\npart"), GET_REQUEST);
    assert_eq!(
        (answer.text().as_str(), answer.ended),
        ("part", Ended::WithoutLastChunk)
    );
}

#[test]
fn a_chunked_body_that_becomes_unreadable_gets_no_last_chunk() {
    let (answer, line) = broken_off(
        &format!("{JSON_HEAD}{}zz\r\nlies\r\n0\r\n\r\n", chunk("good")),
        GET_REQUEST,
    );
    assert_eq!(
        (answer.text().as_str(), answer.ended),
        ("good", Ended::WithoutLastChunk)
    );
    assert_eq!(line.field("end"), "upstream_broke");
}

#[test]
fn a_broken_answer_that_is_no_sse_gets_no_frame() {
    let (answer, _) = broken_off(&format!("{JSON_HEAD}{}", chunk("data: x\n")), GET_REQUEST);
    assert_eq!(answer.text(), "data: x\n");
}

/// Asserts that `body` is `sent` and then, behind an empty line, one error frame and no more.
/// Returns what stands between `sent` and the frame.
fn assert_ends_with_error_frame(body: &str, sent: &str) -> String {
    let rest = body
        .strip_prefix(sent)
        .unwrap_or_else(|| panic!("{body:?} begins with {sent:?}"));
    let at = rest
        .find("event: error\ndata: ")
        .unwrap_or_else(|| panic!("a frame in {body:?}"));
    let before = &body[..sent.len() + at];
    assert!(
        before.is_empty()
            || before.ends_with("\n\n")
            || before.ends_with("\r\n\r\n")
            || before.ends_with("\r\n\n")
            || before.ends_with("\r\r"),
        "the frame stands alone: {body:?}"
    );
    let data = rest[at..]
        .strip_prefix("event: error\ndata: ")
        .expect("found above");
    let data = data
        .strip_suffix("\n\n")
        .expect("the frame is ended by an empty line");
    let error: serde_json::Value = serde_json::from_str(data).expect("one line of JSON");
    assert_eq!(error["type"], "error");
    assert_eq!(error["error"]["type"], "api_error");
    assert!(
        !error["error"]["message"]
            .as_str()
            .expect("a message")
            .is_empty()
    );
    rest[..at].to_owned()
}

#[test]
fn a_broken_sse_answer_gets_an_error_frame_at_the_event_boundary() {
    let sent = "data: {\"n\":1}\n\n";
    let (answer, line) = broken_off(&format!("{SSE_HEAD}{}", chunk(sent)), GET_REQUEST);
    assert_eq!(answer.ended, Ended::WithoutLastChunk);
    assert_eq!(
        assert_ends_with_error_frame(&answer.text(), sent),
        "",
        "nothing else is inserted"
    );
    assert_eq!((line.status, line.field("end")), (200, "upstream_broke"));
}

#[test]
fn an_sse_answer_that_breaks_before_its_first_event_gets_an_error_frame() {
    let (answer, _) = broken_off(SSE_HEAD, GET_REQUEST);
    assert_eq!(answer.ended, Ended::WithoutLastChunk);
    assert_ends_with_error_frame(&answer.text(), "");
}

#[test]
fn an_error_frame_after_half_a_line_stands_alone() {
    for half in [
        "data: {\"n\":2,\"te",
        "da",
        "event: content_block_delta\ndata: {\"x\"",
        ":",
    ] {
        let sent = format!("data: {{\"n\":1}}\n\n{half}");
        let (answer, _) = broken_off(&format!("{SSE_HEAD}{}", chunk(&sent)), GET_REQUEST);
        assert_ends_with_error_frame(&answer.text(), &sent);
        assert_eq!(answer.ended, Ended::WithoutLastChunk);
    }
}

#[test]
fn an_error_frame_after_a_line_without_its_empty_line_stands_alone() {
    for lines in [
        "data: {\"n\":2}\n",
        "event: ping\n",
        "event: message\r\ndata: {\"n\":2}\r\n",
    ] {
        let sent = format!("data: {{\"n\":1}}\n\n{lines}");
        let (answer, _) = broken_off(&format!("{SSE_HEAD}{}", chunk(&sent)), GET_REQUEST);
        assert_ends_with_error_frame(&answer.text(), &sent);
    }
}

#[test]
fn an_error_frame_after_crlf_events_stands_alone() {
    let sent = "event: a\r\ndata: 1\r\n\r\n";
    let (answer, _) = broken_off(&format!("{SSE_HEAD}{}", chunk(sent)), GET_REQUEST);
    assert_ends_with_error_frame(&answer.text(), sent);
}

#[test]
fn a_frame_is_known_by_the_media_type_whatever_its_parameters_and_case() {
    let head = SSE_HEAD.replace("text/event-stream", "Text/Event-Stream; charset=utf-8");
    let (answer, _) = broken_off(&format!("{head}{}", chunk("data: 1\n\n")), GET_REQUEST);
    assert_ends_with_error_frame(&answer.text(), "data: 1\n\n");
}

#[test]
fn a_compressed_sse_answer_gets_no_plain_frame() {
    let head = SSE_HEAD.replace("Transfer", "Content-Encoding: gzip\r\nTransfer");
    let (answer, _) = broken_off(&format!("{head}{}", chunk("compressed")), GET_REQUEST);
    assert_eq!(
        (answer.text().as_str(), answer.ended),
        ("compressed", Ended::WithoutLastChunk)
    );
}

#[test]
fn an_sse_answer_with_a_length_never_exceeds_or_fills_it() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 60\r\n\r\n";
    let (answer, _) = broken_off(&format!("{head}data: 1\n\n"), GET_REQUEST);
    assert!(answer.text().starts_with("data: 1\n\n"));
    assert_eq!(
        (answer.framing, answer.ended),
        (Framing::Length(60), Ended::Short)
    );
}

#[test]
fn an_http_1_0_client_gets_the_error_frame_too() {
    let request = "GET /v1/x HTTP/1.0\r\nHost: localhost\r\n\r\n";
    let (answer, _) = broken_off(&format!("{SSE_HEAD}{}", chunk("data: 1\n\n")), request);
    assert_ends_with_error_frame(&answer.text(), "data: 1\n\n");
}

#[test]
fn a_broken_upstream_is_never_held_against_the_credential() {
    let upstream = RawUpstream::once(format!("{SSE_HEAD}{}", chunk("data: 1\n\n")));
    let proxy = ProxyProcess::to(&upstream.url()).start();
    for _ in 0..3 {
        get(proxy.address(), "/v1/x");
    }
    assert_eq!(get(proxy.address(), "/-/ready").status, 200);
    assert!(!proxy.log().contains("marked as failed"));
}

#[test]
fn an_upstream_silent_before_its_head_is_a_504() {
    let (_upstream, commands, proxy, mut client) = commanded(&[("--upstream-timeout", "1")]);
    let asked = Instant::now();
    let response = client.read_response();
    assert_eq!(
        (response.status, response.error_code()),
        (504, "upstream_timeout")
    );
    assert!(
        asked.elapsed() >= Duration::from_millis(900),
        "{:?}",
        asked.elapsed()
    );
    commands.wait_for_close(support::SOON);
    let line = proxy.wait_for_access_line(1);
    assert_eq!((line.status, line.field("end")), (504, "upstream_timeout"));
    assert_eq!(
        (line.level.as_str(), line.field("config")),
        ("ERROR", "primary-1")
    );
    assert_eq!(
        get(proxy.address(), "/-/ready").status,
        200,
        "never held against the credential"
    );
}

#[test]
fn an_sse_answer_that_falls_silent_is_broken_off_with_a_frame() {
    let (_upstream, commands, proxy, mut client) = commanded(&[("--upstream-timeout", "1")]);
    commands.send(SSE_HEAD.to_owned() + &chunk("data: 1\n\n"));
    let answer = client.read_response();
    assert_ends_with_error_frame(&answer.text(), "data: 1\n\n");
    assert_eq!(answer.ended, Ended::WithoutLastChunk);
    commands.wait_for_close(support::SOON);
    let line = proxy.wait_for_access_line(1);
    assert_eq!((line.status, line.field("end")), (200, "upstream_timeout"));
}

#[test]
fn a_plain_answer_that_falls_silent_is_broken_off() {
    let (_upstream, commands, proxy, mut client) = commanded(&[("--upstream-timeout", "1")]);
    commands.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    let answer = client.read_response();
    assert_eq!(
        (answer.text().as_str(), answer.ended),
        ("half", Ended::Short)
    );
    assert_eq!(
        proxy.wait_for_access_line(1).field("end"),
        "upstream_timeout"
    );
}

#[test]
fn an_answer_that_ends_with_the_connection_and_falls_silent_gets_no_clean_end() {
    let (_upstream, commands, proxy, mut client) = commanded(&[("--upstream-timeout", "1")]);
    commands.send("HTTP/1.1 200 OK\r\n\r\nhalf");
    let answer = client.read_response();
    assert_eq!(
        (answer.text().as_str(), answer.ended),
        ("half", Ended::WithoutLastChunk)
    );
    assert_eq!(
        proxy.wait_for_access_line(1).field("end"),
        "upstream_timeout"
    );
}

#[test]
fn a_stream_that_still_moves_is_never_cut() {
    let (_upstream, commands, proxy, mut client) = commanded(&[("--upstream-timeout", "1")]);
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
    commands.send("0\r\n\r\n");
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
    wait_until("some of the body", support::SOON, || {
        client.read_body_until("a beginning", |body| !body.is_empty());
        true
    });
    let grown = proxy.rss_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "RSS grew by {grown} KiB");
    let (_, body, ended) = client.read_body_to_end();
    assert_eq!((body.len(), ended), (BODY_BYTES, Ended::Complete));
}

#[test]
fn a_large_request_and_a_large_answer_pass_each_other() {
    let upstream = FakeFlow::answering(|request| support::Answer::new(200, request.body.clone()));
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let body = support::patterned_bytes(5 * 1024 * 1024);
    let response = support::post(proxy.address(), "/v1/x", &body);
    assert!(response.body == body);
}
