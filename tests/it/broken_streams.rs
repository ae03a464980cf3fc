//! Upstreams that break off or fall silent: the client sees that too (contract sections 4 and 7).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{
    AccessLine, Ended, Framing, GET_REQUEST, ProxyProcess, RawClient, RawUpstream, Response, SOON,
    SSE_HEAD, chunk, get, start_request,
};

const JSON_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Sends `request` to an upstream that sends `response` and breaks off; returns what arrives, and
/// its access line.
fn request_broken_off(response: &str, request: &str) -> (Response, AccessLine) {
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

#[test]
fn a_body_short_of_its_length_stays_short() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
    let (answer, line) = request_broken_off(&format!("{head}only this"), GET_REQUEST);
    assert_eq!((answer.status, answer.framing), (200, Framing::Length(100)));
    answer.assert_ended("only this", Ended::Short);
    assert_eq!(
        (line.status, line.field("end"), line.level.as_str()),
        (200, "upstream_broke", "WARNING")
    );
    assert_eq!(line.number("out"), 9);
}

#[test]
fn a_chunked_body_that_breaks_off_gets_no_last_chunk() {
    let (answer, line) =
        request_broken_off(&format!("{JSON_HEAD}{}", chunk("{\"half\":")), GET_REQUEST);
    answer.assert_ended("{\"half\":", Ended::WithoutLastChunk);
    assert_eq!((line.status, line.field("end")), (200, "upstream_broke"));
}

#[test]
fn a_chunked_body_that_breaks_off_in_a_chunk_gets_no_last_chunk() {
    let (answer, _) = request_broken_off(&format!("{JSON_HEAD}ff\r\npart"), GET_REQUEST);
    answer.assert_ended("part", Ended::WithoutLastChunk);
}

#[test]
fn a_chunked_body_that_becomes_unreadable_gets_no_last_chunk() {
    let (_upstream, commands, proxy, mut client) = start_request(&[]);
    commands.send(JSON_HEAD.to_owned() + &chunk("good"));
    client.read_head();
    client.read_body_until("the good chunk", |body| body == b"good");
    commands.send("zz\r\nlies\r\n0\r\n\r\n");
    let (_, body, ended) = client.read_body_to_end();
    assert_eq!(
        (body.as_slice(), ended),
        (&b"good"[..], Ended::WithoutLastChunk)
    );
    assert_eq!(proxy.wait_for_access_line(1).field("end"), "upstream_broke");
}

#[test]
fn a_broken_answer_that_is_no_sse_gets_no_frame() {
    let (answer, _) =
        request_broken_off(&format!("{JSON_HEAD}{}", chunk("data: x\n")), GET_REQUEST);
    assert_eq!(answer.text(), "data: x\n");
}

/// Decodes `text` to events as the HTML standard says: type and data.
fn decode_events(text: &str) -> Vec<(String, String)> {
    let lines = text.replace("\r\n", "\n").replace('\r', "\n");
    let (mut kind, mut data): (String, Vec<&str>) = (String::new(), vec![]);
    let mut events = Vec::new();
    for line in lines.split_inclusive('\n') {
        let Some(line) = line.strip_suffix('\n') else {
            break;
        };
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if line.is_empty() => {
                if !data.is_empty() {
                    events.push((std::mem::take(&mut kind), data.join("\n")));
                }
                kind.clear();
                data.clear();
            }
            "event" => kind = value.to_owned(),
            "data" => data.push(value),
            _ => {}
        }
    }
    events
}

/// Asserts that `body` is `sent` and then an error frame, which every decoder takes for an event,
/// and a part of an event before it at most for an error. Returns what stands between the two.
fn assert_ends_with_error_frame(body: &str, sent: &str) -> String {
    let rest = body
        .strip_prefix(sent)
        .unwrap_or_else(|| panic!("{body:?} begins with {sent:?}"));
    let at = rest
        .rfind("event: error\ndata: ")
        .unwrap_or_else(|| panic!("a frame in {body:?}"));
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

    let (events, whole) = (decode_events(body), decode_events(sent));
    assert_eq!(
        events.last(),
        Some(&("error".to_owned(), data.to_owned())),
        "{body:?}"
    );
    assert_eq!(
        events[..whole.len()],
        whole,
        "what was whole stays as it was: {body:?}"
    );
    let of_the_part = &events[whole.len()..events.len() - 1];
    assert!(of_the_part.len() <= 1, "{body:?}");
    assert!(
        of_the_part.iter().all(|(kind, _)| kind == "error"),
        "{body:?}"
    );
    rest[..at].to_owned()
}

#[test]
fn a_broken_sse_answer_gets_an_error_frame_at_the_event_boundary() {
    let sent = "data: {\"n\":1}\n\n";
    let (answer, line) = request_broken_off(&format!("{SSE_HEAD}{}", chunk(sent)), GET_REQUEST);
    assert_eq!(answer.ended, Ended::WithoutLastChunk);
    assert_eq!(
        assert_ends_with_error_frame(&answer.text(), sent),
        "",
        "nothing else is inserted"
    );
    assert_eq!((line.status, line.field("end")), (200, "upstream_broke"));
}

/// Closing a socket that has something to read resets the connection, and what the client has not
/// received yet is lost.
#[test]
fn a_client_that_has_sent_another_request_meanwhile_gets_the_frame_and_no_reset() {
    let (upstream, commands) = RawUpstream::on_command();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = TcpStream::connect(proxy.address()).expect("the proxy accepts connections");
    let request = GET_REQUEST.as_bytes();
    client.write_all(request).expect("a request");
    commands.send(SSE_HEAD);
    let mut head = [0; 12];
    client.read_exact(&mut head).expect("the answer begins");
    assert_eq!(&head, b"HTTP/1.1 200");
    client.write_all(request).expect("the next request");
    let event = format!("data: {}\n\n", "Z".repeat(50_000));
    commands.send(chunk(&event));
    drop(commands);
    let line = proxy.wait_for_access_line(1);
    assert_eq!(line.field("end"), "upstream_broke");
    client.set_read_timeout(Some(SOON)).expect("not zero");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("an end, no reset");
    let rest = String::from_utf8(rest).expect("text");
    assert_eq!(rest.matches('Z').count(), 50_000);
    assert!(rest.contains("event: error\ndata: "));
    assert!(!rest.contains("\r\n0\r\n"), "it has no last chunk");
}

#[test]
fn an_sse_answer_that_breaks_before_its_first_event_gets_an_error_frame() {
    let (answer, _) = request_broken_off(SSE_HEAD, GET_REQUEST);
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
        let (answer, _) = request_broken_off(&format!("{SSE_HEAD}{}", chunk(&sent)), GET_REQUEST);
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
        let (answer, _) = request_broken_off(&format!("{SSE_HEAD}{}", chunk(&sent)), GET_REQUEST);
        assert_ends_with_error_frame(&answer.text(), &sent);
    }
}

#[test]
fn an_error_frame_after_crlf_events_stands_alone() {
    let sent = "event: a\r\ndata: 1\r\n\r\n";
    let (answer, _) = request_broken_off(&format!("{SSE_HEAD}{}", chunk(sent)), GET_REQUEST);
    assert_ends_with_error_frame(&answer.text(), sent);
}

#[test]
fn a_frame_is_known_by_the_media_type_whatever_its_parameters_and_case() {
    let head = SSE_HEAD.replace("text/event-stream", "Text/Event-Stream; charset=utf-8");
    let (answer, _) = request_broken_off(&format!("{head}{}", chunk("data: 1\n\n")), GET_REQUEST);
    assert_ends_with_error_frame(&answer.text(), "data: 1\n\n");
}

#[test]
fn a_compressed_sse_answer_gets_no_plain_frame() {
    let head = SSE_HEAD.replace("Transfer", "Content-Encoding: gzip\r\nTransfer");
    let (answer, _) = request_broken_off(&format!("{head}{}", chunk("compressed")), GET_REQUEST);
    answer.assert_ended("compressed", Ended::WithoutLastChunk);
}

#[test]
fn identity_is_no_compression() {
    for coding in ["identity", "Identity", "none", ""] {
        let coded = format!("Content-Encoding: {coding}\r\nTransfer");
        let head = SSE_HEAD.replace("Transfer", &coded);
        let (answer, _) =
            request_broken_off(&format!("{head}{}", chunk("data: 1\n\n")), GET_REQUEST);
        assert_ends_with_error_frame(&answer.text(), "data: 1\n\n");
    }
}

// What the OpenAI SDKs and the AI SDK raise on with its message.
#[test]
fn a_broken_responses_stream_gets_an_error_in_its_own_form() {
    let numbered =
        |n: u32| format!("event: x\ndata: {{\"type\":\"x\",\"sequence_number\":{n}}}\n\n");
    for (sent, next) in [
        (String::new(), 0),
        (numbered(0), 1),
        (numbered(6) + &numbered(7), 8),
        (numbered(7) + "data: {\"sequence_number\":9", 8),
        (
            numbered(7) + "data: {\"x\":\"\\\"sequence_number\\\":90\"}\n\n",
            8,
        ),
    ] {
        let whole = sent
            .rfind("\n\n")
            .map_or("", |end| &sent[..end + 2])
            .to_owned();
        let request = GET_REQUEST.replace("/v1/x", "/v1/responses");
        let body = if sent.is_empty() {
            String::new()
        } else {
            chunk(&sent)
        };
        let (answer, line) = request_broken_off(&format!("{SSE_HEAD}{body}"), &request);
        let text = answer.text();
        assert!(text.starts_with(&whole), "{text:?}");
        let events = decode_events(&text);
        let (kind, data) = events.last().expect("an event");
        let data: serde_json::Value = serde_json::from_str(data).expect("one line of JSON");
        assert_eq!((kind.as_str(), &data["type"]), ("error", &"error".into()));
        assert_eq!(data["sequence_number"], next, "{text:?}");
        assert_eq!(data["error"]["code"], "upstream_broke");
        assert!(data["error"]["type"].is_string() && data["error"]["param"].is_null());
        let message = data["error"]["message"].as_str().expect("a message");
        assert!(message.contains("flow-proxy"), "{message}");
        assert_eq!(line.field("end"), "upstream_broke");
    }
}

#[test]
fn an_sse_answer_with_a_length_never_exceeds_or_fills_it() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 60\r\n\r\n";
    let (answer, _) = request_broken_off(&format!("{head}data: 1\n\n"), GET_REQUEST);
    assert!(answer.text().starts_with("data: 1\n\n"));
    assert_eq!(
        (answer.framing, answer.ended),
        (Framing::Length(60), Ended::Short)
    );
}

#[test]
fn an_http_1_0_client_gets_the_error_frame_too() {
    let request = "GET /v1/x HTTP/1.0\r\nHost: localhost\r\n\r\n";
    let (answer, _) = request_broken_off(&format!("{SSE_HEAD}{}", chunk("data: 1\n\n")), request);
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
    let (_upstream, commands, proxy, mut client) = start_request(&[("--upstream-timeout", "1")]);
    let asked = Instant::now();
    let response = client.read_response();
    response.assert_error(504, "upstream_timeout");
    assert!(
        asked.elapsed() >= Duration::from_millis(900),
        "{:?}",
        asked.elapsed()
    );
    commands.wait_for_close(SOON);
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
    let (_upstream, commands, proxy, mut client) = start_request(&[("--upstream-timeout", "1")]);
    commands.send(SSE_HEAD.to_owned() + &chunk("data: 1\n\n"));
    let answer = client.read_response();
    assert_ends_with_error_frame(&answer.text(), "data: 1\n\n");
    assert_eq!(answer.ended, Ended::WithoutLastChunk);
    commands.wait_for_close(SOON);
    let line = proxy.wait_for_access_line(1);
    assert_eq!((line.status, line.field("end")), (200, "upstream_timeout"));
}

/// Asserts what arrives, and how it ends, where the upstream sends this much and falls silent.
fn assert_silence_ends(response: &str, text: &str, ended: Ended) {
    let (_upstream, commands, proxy, mut client) = start_request(&[("--upstream-timeout", "1")]);
    commands.send(response);
    client.read_response().assert_ended(text, ended);
    let line = proxy.wait_for_access_line(1);
    assert_eq!(line.field("end"), "upstream_timeout");
}

#[test]
fn a_plain_answer_that_falls_silent_is_broken_off() {
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    assert_silence_ends(half, "half", Ended::Short);
}

#[test]
fn an_answer_that_ends_with_the_connection_and_falls_silent_gets_no_clean_end() {
    let half = "HTTP/1.1 200 OK\r\n\r\nhalf";
    assert_silence_ends(half, "half", Ended::WithoutLastChunk);
}
