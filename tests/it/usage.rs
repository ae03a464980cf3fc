//! What passes is looked at: tokens, cost, model and client in the access line, and how a stream ended
//! (contract sections 6 and 12).

use std::fs;
use std::path::Path;

use crate::support::{
    AccessLine, Answer, ClosedPort, Ended, FakeFlow, ProxyProcess, RawClient, RawUpstream,
    SSE_HEAD, chunk, packed, post, start_request,
};

/// What a real LiteLLM sent: the cost that its head tells, and its body.
fn recorded(file: &str) -> (Option<String>, Vec<u8>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/answers")
        .join(file);
    let bytes = fs::read(path).expect("a recorded response");
    let end = memchr::memmem::find(&bytes, b"\r\n\r\n").expect("the end of its head");
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.lines();
    let cost = lines.find_map(|line| line.strip_prefix("x-litellm-response-cost: "));
    (cost.map(str::to_owned), bytes[end + 4..].to_vec())
}

fn event_stream(body: impl Into<Vec<u8>>) -> Answer {
    Answer::new(200, body)
        .header("Content-Type", "text/event-stream")
        .chunked()
}

/// Sends a POST to an upstream that answers so; returns its access line.
fn line_of(path: &str, request: &str, answer: Answer) -> AccessLine {
    let body = answer.body.clone();
    let upstream = FakeFlow::answering(move |_| answer.clone());
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let response = post(proxy.address(), path, request.as_bytes());
    assert_eq!(response.body, body, "{path}");
    proxy.wait_for_access_line(1)
}

/// The token counts of a line: input, cached, output; empty where they are not there.
fn tokens(line: &AccessLine) -> [&str; 3] {
    ["input_tokens", "cached_tokens", "output_tokens"].map(|name| line.field(name))
}

#[test]
fn the_access_line_tells_model_tokens_and_cost_of_each_api() {
    let chat = "/v1/chat/completions";
    let gemini = "/v1beta/models/oa-ok:streamGenerateContent";
    for (path, file, expected, cost) in [
        (
            chat,
            "chat-an-cached.txt",
            ["2048", "1920", "5"],
            "0.002058",
        ),
        (
            chat,
            "chat-oa-ok-stream-usage.txt",
            ["20", "0", "5"],
            "0.00003",
        ),
        (chat, "chat-oa-ok-stream.txt", ["", "", ""], ""),
        (
            "/v1/completions",
            "completions-oa-ok.txt",
            ["20", "0", "5"],
            "0.00003",
        ),
        (
            "/v1/completions",
            "completions-oa-ok-stream.txt",
            ["", "", ""],
            "",
        ),
        ("/v1/embeddings", "embeddings.txt", ["8", "0", "0"], ""),
        (
            "/v1/messages",
            "messages-an-cached.txt",
            ["2048", "1920", "5"],
            "0.002058",
        ),
        (
            "/v1/messages",
            "messages-an-cached-stream.txt",
            ["2048", "1920", "5"],
            "",
        ),
        (
            "/v1/messages/count_tokens",
            "count_tokens.txt",
            ["", "", ""],
            "",
        ),
        (
            "/v1/responses",
            "responses-oa-cached-stream.txt",
            ["2048", "1920", "5"],
            "0.002058",
        ),
        (
            gemini,
            "gemini-ge-reason-stream.txt",
            ["20", "0", "105"],
            "",
        ),
    ] {
        let (header, body) = recorded(file);
        let mut answer = if file.contains("stream") {
            event_stream(body)
        } else {
            Answer::new(200, body).header("Content-Type", "application/json")
        };
        if let Some(cost) = header {
            answer = answer.header("x-litellm-response-cost", &cost);
        }
        let line = line_of(path, r#"{"model":"oa-ok"}"#, answer);
        assert_eq!(tokens(&line), expected, "{file}");
        assert_eq!(line.field("cost"), cost, "{file}");
        assert_eq!(line.field("model"), "oa-ok", "{file}");
        assert_eq!(
            (line.field("end"), line.level.as_str()),
            ("ok", "INFO"),
            "{file}"
        );
    }
}

#[test]
fn the_model_is_the_requests_or_else_the_answers() {
    let answer = || Answer::new(200, r#"{"model":"gpt-4o-2024-08-06"}"#);
    for (path, request, expected) in [
        (
            "/v1/chat/completions",
            r#"{"messages":[],"model":"gpt-4o"}"#,
            "gpt-4o",
        ),
        ("/openai/deployments/gpt-x/chat/completions", "{}", "gpt-x"),
        ("/v1/chat/completions", "{}", "gpt-4o-2024-08-06"),
        ("/v1/chat/completions", "no json", "gpt-4o-2024-08-06"),
    ] {
        assert_eq!(line_of(path, request, answer()).field("model"), expected);
    }
    // The request's is known, whatever becomes of it.
    let closed = ClosedPort::hold();
    let proxy = ProxyProcess::to(&closed.url()).start();
    let asked = br#"{"model":"gpt-4o"}"#;
    assert_eq!(
        post(proxy.address(), "/v1/chat/completions", asked).status,
        502
    );
    let line = proxy.wait_for_access_line(1);
    assert_eq!((line.field("model"), line.field("reason")), ("gpt-4o", ""));
}

#[test]
fn the_access_line_names_the_clients_program_and_session() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    for (sent, agent, session) in [
        (
            &[
                ("User-Agent", "claude-cli/2.1.9 (external, cli)"),
                ("X-Claude-Code-Session-Id", "0a1b"),
            ][..],
            "claude-cli/2.1.9",
            "0a1b",
        ),
        (
            &[("User-Agent", "codex_cli_rs/0.9"), ("session-id", "7")],
            "codex_cli_rs/0.9",
            "7",
        ),
        (&[("session_id", "8")], "", "8"),
        (&[], "", ""),
    ] {
        client.request("GET", "/v1/x", sent, b"");
        let count = upstream.requests().len();
        let line = proxy.wait_for_access_line(count);
        assert_eq!(
            (line.field("agent"), line.field("session")),
            (agent, session)
        );
    }
}

#[test]
fn names_from_outside_cannot_forge_a_field() {
    let model = format!("m' cost=9 \u{e9}\" end=ok {}", "x".repeat(100));
    let request = serde_json::json!({ "model": model }).to_string();
    let upstream = FakeFlow::answering(|_| {
        Answer::new(
            200,
            r#"{"model":"a' cost=9 input_tokens=9\u001b","usage":{"cost":"9 x"}}"#,
        )
    });
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    let sent = [("User-Agent", "x'\"cost=9"), ("session-id", "y' cost=9")];
    for body in [request.as_str(), "{}"] {
        client.request("POST", "/v1/x", &sent, body.as_bytes());
    }
    proxy.wait_for_access_line(2);
    let lines = proxy.access_lines();
    for (line, model) in lines
        .iter()
        .zip(["mcost=9end=okxxxx", "acost=9input_tokens=9u001b"])
    {
        assert!(line.field("model").starts_with(model), "{line:?}");
        assert!(line.field("model").len() <= 64, "{line:?}");
        assert_eq!((line.field("cost"), line.field("input_tokens")), ("", ""));
        assert_eq!(
            (line.field("agent"), line.field("session")),
            ("xcost=9", "ycost=9")
        );
    }
}

#[test]
fn a_stream_with_an_error_or_without_its_last_event_is_a_warning() {
    let chat = "data: {\"choices\":[]}\n\n";
    for (path, stream, end) in [
        (
            "/v1/chat/completions",
            format!("{chat}data: [DONE]\n\n"),
            "ok",
        ),
        (
            "/v1/chat/completions",
            format!("{chat}data: {{\"error\":{{}}}}\n\n"),
            "error_event",
        ),
        ("/v1/chat/completions", chat.to_owned(), "incomplete"),
        (
            "/v1/messages",
            "event: error\ndata: {}\n\n".to_owned(),
            "error_event",
        ),
        ("/v1/messages", String::new(), "incomplete"),
        (
            "/v1/responses",
            "data: {\"type\":\"response.failed\"}\n\n".to_owned(),
            "error_event",
        ),
        (
            "/v1/threads/x/runs",
            "data: {\"type\":\"x\"}\n\n".to_owned(),
            "ok",
        ),
    ] {
        let line = line_of(path, r#"{"stream":true}"#, event_stream(stream.clone()));
        let level = if end == "ok" { "INFO" } else { "WARNING" };
        assert_eq!((line.status, line.field("end")), (200, end), "{stream:?}");
        assert_eq!(line.level, level, "{stream:?}");
    }
}

#[test]
fn the_reason_of_an_error_is_its_verdict() {
    for (answer, reason) in [
        (Answer::limited(Some("1")), "limit"),
        (Answer::error(422, "budget_exceeded", "x"), "budget"),
        (Answer::error(403, "key_model_access_denied", "x"), "model"),
        (
            Answer::error(429, "throttling_error", "litellm.RateLimitError: x"),
            "provider",
        ),
        (Answer::error(400, "invalid_request_error", "x"), "request"),
        (Answer::ok(), ""),
    ] {
        let line = line_of("/v1/chat/completions", "{}", answer);
        assert_eq!(line.field("reason"), reason);
        assert_eq!(tokens(&line), ["", "", ""]);
    }
}

#[test]
fn events_tell_their_tokens_however_they_are_cut() {
    let (_, body) = recorded("messages-an-cached-stream.txt");
    let (_upstream, commands, proxy, mut client) = start_request(&[]);
    commands.send(SSE_HEAD);
    client.read_head();
    for piece in body.chunks(7) {
        commands.send(chunk(std::str::from_utf8(piece).expect("ASCII")));
    }
    commands.send("0\r\n\r\n");
    let (_, received, ended) = client.read_body_to_end();
    assert_eq!((received, ended), (body, Ended::Complete));
    let line = proxy.wait_for_access_line(1);
    assert_eq!(tokens(&line), ["2048", "1920", "5"]);
    assert_eq!(line.field("end"), "ok");
}

const MESSAGE_START: &str = "data: {\"type\":\"message_start\",\"message\":{\"model\":\"m\",\"usage\":\
                             {\"input_tokens\":20,\"output_tokens\":1}}}\n\n";

#[test]
fn a_client_that_leaves_counts_what_was_told_until_then() {
    let (_upstream, commands, proxy, mut client) = start_request(&[]);
    commands.send(SSE_HEAD);
    client.read_head();
    commands.send(chunk(MESSAGE_START));
    client.read_body_until("the first event", |body| body == MESSAGE_START.as_bytes());
    drop(client);
    let line = proxy.wait_for_access_line(1);
    assert_eq!((line.status, line.field("end")), (499, "client_gone"));
    assert_eq!(tokens(&line), ["20", "0", "1"]);
    assert_eq!(line.field("model"), "m");
}

#[test]
fn a_client_that_leaves_at_the_last_event_has_got_all() {
    for last in [
        "response.completed",
        "response.failed",
        "response.in_progress",
    ] {
        let (_upstream, commands, proxy, mut client) = start_request(&[]);
        commands.send(SSE_HEAD);
        client.read_head();
        let event = format!("data: {{\"type\":\"{last}\",\"response\":{{\"model\":\"m\"}}}}\n\n");
        commands.send(chunk(&event));
        client.read_body_until("the event", |body| body == event.as_bytes());
        drop(client);
        let line = proxy.wait_for_access_line(1);
        let expected = match last {
            "response.completed" => (200, "ok"),
            "response.failed" => (499, "error_event"),
            _ => (499, "client_gone"),
        };
        assert_eq!((line.status, line.field("end")), expected, "{last}");
    }
}

#[test]
fn a_stream_that_breaks_off_counts_what_was_told_until_then() {
    let response = format!("{SSE_HEAD}{}", chunk(MESSAGE_START));
    let upstream = RawUpstream::once(response);
    let proxy = ProxyProcess::to(&upstream.url()).start();
    post(proxy.address(), "/v1/messages", b"{}");
    let line = proxy.wait_for_access_line(1);
    assert_eq!(line.field("end"), "upstream_broke");
    assert_eq!(tokens(&line), ["20", "0", "1"]);
}

#[test]
fn compressed_and_long_answers_tell_their_tokens_and_stay_as_they_are() {
    let usage = r#""usage":{"prompt_tokens":20,"completion_tokens":5}"#;
    let text = |length: usize| format!(r#"{{"text":"{}",{usage}}}"#, "x\\n".repeat(length / 3));
    for (coding, form, length, expected) in [
        ("gzip", "gzip", 50_000, ["20", "0", "5"]),
        ("deflate", "deflate", 50_000, ["20", "0", "5"]),
        ("deflate", "raw", 50_000, ["20", "0", "5"]),
        // No more than 64 KiB are unpacked.
        ("gzip", "gzip", 50_000_000, ["", "", ""]),
    ] {
        let body = packed(form, text(length).as_bytes());
        let answer = Answer::new(200, body).header("Content-Encoding", coding);
        assert_eq!(
            tokens(&line_of("/v1/x", "{}", answer)),
            expected,
            "{form} {length}"
        );
    }
    let long = Answer::new(200, text(3_000_000));
    for long in [long.clone(), long.chunked()] {
        assert_eq!(tokens(&line_of("/v1/x", "{}", long)), ["20", "0", "5"]);
    }
    let other = Answer::new(200, "not unpacked").header("Content-Encoding", "br");
    assert_eq!(tokens(&line_of("/v1/x", "{}", other)), ["", "", ""]);
}
