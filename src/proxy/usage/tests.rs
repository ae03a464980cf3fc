//! Recorded responses of a LiteLLM, each cut in many ways, against a reading of the whole text; and
//! written ones for what it did not show.

use http::{Method, StatusCode};
use serde_json::Value;

use super::observer::{Observed, Observer};
use super::tokens::{Tokens, Usage};
use super::totals::BadEnd;
use crate::http1::headers::HeaderBlock;
use crate::proxy::recorded;

/// What an observer sees of a response that comes in these pieces.
fn observe<'p>(
    path: &str,
    status: u16,
    fields: &HeaderBlock,
    pieces: impl Iterator<Item = &'p [u8]>,
) -> Option<Observed> {
    let status = StatusCode::from_u16(status).unwrap();
    let mut observer = Observer::new((&Method::POST, path.as_bytes()), (status, fields))?;
    pieces.for_each(|piece| observer.observe(piece));
    Some(observer.finish())
}

/// What an observer sees of a 200 that comes at once.
fn seen(path: &str, content_type: &str, body: &[u8]) -> Observed {
    let fields = HeaderBlock::of(&[("Content-Type", content_type)]);
    observe(path, 200, &fields, std::iter::once(body)).unwrap()
}

fn of_json(body: &str) -> Observed {
    seen("/v1/x", "application/json", body.as_bytes())
}

fn of_stream(path: &str, body: &str) -> Observed {
    seen(path, "text/event-stream; charset=utf-8", body.as_bytes())
}

fn known(input: u64, cached: u64, output: u64) -> Usage {
    Usage::Known(Tokens {
        input,
        cached,
        output,
    })
}

fn path_of(file: &str) -> &'static str {
    let starts = [
        ("chat", "/v1/chat/completions"),
        ("completions", "/v1/completions"),
        ("messages", "/v1/messages"),
        ("responses", "/v1/responses"),
        ("gemini", "/v1beta/models/x:streamGenerateContent"),
        ("count_tokens", "/v1/messages/count_tokens"),
        ("moderations", "/v1/moderations"),
        ("rerank", "/rerank"),
        ("limit-parallel-messages", "/v1/messages"),
    ];
    let of_start = starts.iter().find(|(start, _)| file.starts_with(start));
    let within = |route: &str| file.starts_with("limit") && file.contains(&format!("-{route}-"));
    let of_limit = || starts.iter().find(|(route, _)| within(route));
    of_start
        .or_else(of_limit)
        .map_or("/v1/chat/completions", |(_, path)| path)
}

/// The JSON of a response: the data of its events, or its body.
fn documents(body: &[u8], is_stream: bool) -> Vec<Value> {
    let text = std::str::from_utf8(body).unwrap();
    let data = |line: &str| serde_json::from_str(line.strip_prefix("data: ")?).ok();
    match is_stream {
        true => text.lines().filter_map(data).collect(),
        false => serde_json::from_str(text).into_iter().collect(),
    }
}

/// The tokens of a response, read from its whole text, and its cost.
fn reference(documents: &[Value], path: &str) -> (Usage, Option<f64>) {
    let (mut sum, mut cost) = (Tokens::default(), None);
    let is_messages = path == "/v1/messages";
    for document in documents {
        let inner = if document["response"].is_object() {
            &document["response"]
        } else if document["message"].is_object() {
            &document["message"]
        } else {
            document
        };
        let count = |name: &str| inner["usage"][name].as_u64().unwrap_or(0);
        let gemini = |name: &str| inner["usageMetadata"][name].as_u64().unwrap_or(0);
        let detail = |name: &str| inner["usage"][name]["cached_tokens"].as_u64().unwrap_or(0);
        cost = inner["usage"]["cost"].as_f64().or(cost);
        let tokens = if is_messages {
            let cached = count("cache_read_input_tokens");
            Tokens {
                input: count("input_tokens") + cached + count("cache_creation_input_tokens"),
                cached,
                output: count("output_tokens"),
            }
        } else {
            Tokens {
                input: count("prompt_tokens") + count("input_tokens") + gemini("promptTokenCount"),
                cached: detail("prompt_tokens_details")
                    + detail("input_tokens_details")
                    + gemini("cachedContentTokenCount"),
                output: count("completion_tokens")
                    + count("output_tokens")
                    + gemini("candidatesTokenCount")
                    + gemini("thoughtsTokenCount"),
            }
        };
        if is_messages {
            sum.input = sum.input.max(tokens.input);
            sum.cached = sum.cached.max(tokens.cached);
            sum.output = sum.output.max(tokens.output);
        } else if tokens != Tokens::default() {
            sum = tokens;
        }
    }
    let usage = match sum == Tokens::default() {
        true => Usage::Unknown,
        false => Usage::Known(sum),
    };
    (usage, cost)
}

#[test]
fn recorded_responses_tell_the_same_in_pieces_of_any_size() {
    let (mut known, mut unknown) = (0, 0);
    for file in recorded::files() {
        let (status, fields, body) = recorded::read(&file);
        let fields: Vec<_> = fields.iter().map(|(n, v)| (&**n, &**v)).collect();
        let fields = HeaderBlock::of(&fields);
        let path = path_of(&file);
        let is_stream = fields.is_event_stream();
        let mut expected = reference(&documents(&body, is_stream), path);
        if let Some(cost) = fields.find(b"x-litellm-response-cost") {
            expected.1 = Some(std::str::from_utf8(cost).unwrap().parse().unwrap());
        }
        if !(200..300).contains(&status) {
            expected = (Usage::None, None);
        }
        for end in ["count_tokens", "moderations", "rerank"] {
            if file.starts_with(end) {
                expected.0 = Usage::None;
            }
        }
        for size in [1, 2, 3, 7, 64, 1000, usize::MAX] {
            let pieces = body.chunks(size.min(body.len().max(1)));
            let observed = observe(path, status, &fields, pieces);
            let (usage, cost) = observed.map_or((Usage::None, None), |one| (one.usage, one.cost));
            assert_eq!(usage, expected.0, "{file} in pieces of {size}");
            // serde_json is not exact in the last digit.
            let picodollars = |cost: Option<f64>| cost.map(|cost| (cost * 1e12).round());
            assert_eq!(
                picodollars(cost),
                picodollars(expected.1),
                "{file} in pieces of {size}"
            );
        }
        known += usize::from(matches!(expected.0, Usage::Known(_)));
        unknown += usize::from(expected.0 == Usage::Unknown);
    }
    assert!(known > 100 && unknown > 20, "{known} {unknown}");
}

#[test]
fn recorded_responses_tell_the_same_wherever_they_are_cut() {
    for (file, expected) in [
        ("chat-an-cached.txt", known(2048, 1920, 5)),
        ("chat-an-cached-stream-usage.txt", known(2048, 1920, 5)),
        ("chat-ge-reason-stream-usage.txt", known(20, 0, 105)),
        (
            "completions-oa-cached-stream-usage.txt",
            known(2048, 1920, 5),
        ),
        ("embeddings.txt", known(8, 0, 0)),
        ("images.txt", known(20, 0, 1050)),
        ("gemini-ge-cached-stream.txt", known(2048, 1920, 5)),
        ("gemini-ge-reason.txt", known(20, 0, 105)),
        ("messages-an-cached.txt", known(2048, 1920, 5)),
        ("messages-an-reason-stream.txt", known(20, 0, 105)),
        ("messages-oa-cached-stream.txt", known(2048, 1920, 5)),
        ("responses-an-length-stream.txt", known(20, 0, 5)),
        ("responses-oa-cached.txt", known(2048, 1920, 5)),
    ] {
        let (status, fields, body) = recorded::read(file);
        let fields: Vec<_> = fields.iter().map(|(n, v)| (&**n, &**v)).collect();
        let fields = HeaderBlock::of(&fields);
        for at in 0..=body.len() {
            let (one, other) = body.split_at(at);
            let pieces = [one, other].into_iter();
            let observed = observe(path_of(file), status, &fields, pieces).unwrap();
            assert_eq!(observed.usage, expected, "{file} cut at {at}");
            assert_eq!(observed.bad_end, None, "{file} cut at {at}");
        }
    }
}

/// What the recorded streams that failed at the provider can be known by: their status, an error event,
/// a missing last event; the last are those of which LiteLLM makes a good end.
#[test]
fn recorded_streams_that_failed_show_it_where_it_can_be_known() {
    let failures = ["-e4", "-failed-", "-first", "-mid"];
    let incomplete = [
        "gemini-ge-midend-stream.txt",
        "messages-an-firstend-stream.txt",
        "messages-an-midend-stream.txt",
    ];
    let made_up = [
        "chat-an-failed-stream.txt",
        "chat-an-firstend-stream.txt",
        "chat-an-midend-stream-usage.txt",
        "chat-an-midend-stream.txt",
        "chat-ge-midend-stream-usage.txt",
        "chat-oa-failed-stream.txt",
        "chat-oa-firstend-stream.txt",
        "chat-oa-midend-stream-usage.txt",
        "chat-oa-midend-stream.txt",
        "completions-oa-midend-stream-usage.txt",
        "completions-oa-midend-stream.txt",
        "gemini-an-midend-stream.txt",
        "gemini-oa-midend-stream.txt",
        "messages-an-failed-stream.txt",
        "responses-an-failed-stream.txt",
        "responses-an-firstend-stream.txt",
        "responses-an-midend-stream.txt",
    ];
    let (mut by_status, mut by_error, mut well) = (0, 0, 0);
    for file in recorded::files() {
        if !file.contains("stream") {
            continue;
        }
        let (status, fields, body) = recorded::read(&file);
        let fields: Vec<_> = fields.iter().map(|(n, v)| (&**n, &**v)).collect();
        let fields = HeaderBlock::of(&fields);
        let is_failure = !file.starts_with("limit") && failures.iter().any(|f| file.contains(f));
        let expected = if incomplete.contains(&&*file) {
            Some(BadEnd::Incomplete)
        } else if !is_failure || made_up.contains(&&*file) {
            None
        } else if status >= 400 {
            by_status += 1;
            None
        } else {
            by_error += 1;
            Some(BadEnd::ErrorEvent)
        };
        well += usize::from(!is_failure && status == 200);
        for size in [1, 7, usize::MAX] {
            let pieces = body.chunks(size.min(body.len().max(1)));
            let observed = observe(path_of(&file), status, &fields, pieces);
            assert_eq!(observed.and_then(|one| one.bad_end), expected, "{file}");
        }
    }
    assert_eq!((by_status, by_error, well), (35, 41, 72));
}

#[test]
fn a_body_tells_its_usage_in_each_form_and_nothing_else_does() {
    let max = u64::MAX;
    let big = "9".repeat(40);
    let too_long = "9".repeat(100);
    let deep = "[".repeat(100_000);
    for (body, expected) in [
        (
            r#"{"usage":{"prompt_tokens":20,"completion_tokens":5}}"#,
            known(20, 0, 5),
        ),
        (
            "\u{feff} {\n\"usage\" : {\r\n\"prompt_tokens\"\t: 20 , \"completion_tokens\": 5 }\n}\n",
            known(20, 0, 5),
        ),
        (r#"{"usage":{"prompt_tokens":8}}"#, known(8, 0, 0)),
        (
            r#"{"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":3},"output_tokens":1}}"#,
            known(9, 3, 1),
        ),
        (
            r#"{"usage":{"input_tokens":9,"cache_read_input_tokens":3,"cache_creation_input_tokens":4,"output_tokens":1},"type":"message"}"#,
            known(16, 3, 1),
        ),
        (
            r#"{"usage":{"prompt_tokens":16,"completion_tokens":1,"cache_read_input_tokens":3,"cache_creation_input_tokens":4}}"#,
            known(16, 3, 1),
        ),
        (
            r#"{"usage":{"prompt_tokens":20,"prompt_tokens_details":null,"completion_tokens":null}}"#,
            known(20, 0, 0),
        ),
        (
            r#"{"usageMetadata":{"promptTokenCount":1,"toolUsePromptTokenCount":2,"cachedContentTokenCount":1,"candidatesTokenCount":4,"thoughtsTokenCount":8}}"#,
            known(3, 1, 12),
        ),
        // The last one counts of Gemini's streams; LiteLLM answers for several models with an array.
        (
            r#"[{"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":1}},{"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":7}}]"#,
            known(1, 0, 7),
        ),
        (
            r#"[{"usage":{"prompt_tokens":20,"completion_tokens":5}},{"error":"x"},{"usage":{"prompt_tokens":1,"completion_tokens":2}}]"#,
            known(21, 0, 7),
        ),
        (
            r#"[{"usage":{"prompt_tokens":20,"completion_tokens":5}},{"usage":{"prompt_"#,
            known(20, 0, 5),
        ),
        // Numbers.
        (
            &format!(r#"{{"usage":{{"prompt_tokens":{big},"completion_tokens":5}}}}"#),
            known(max, 0, 5),
        ),
        (
            &format!(
                r#"[{{"usage":{{"prompt_tokens":{max}}}}},{{"usage":{{"prompt_tokens":2}}}}]"#
            ),
            known(max, 0, 0),
        ),
        (
            &format!(r#"{{"usage":{{"prompt_tokens":{too_long}}}}}"#),
            Usage::Unknown,
        ),
        (
            r#"{"usage":{"prompt_tokens":-20,"completion_tokens":5}}"#,
            Usage::Unknown,
        ),
        (
            r#"{"usage":{"prompt_tokens":20.5,"completion_tokens":5}}"#,
            Usage::Unknown,
        ),
        (
            r#"{"usage":{"prompt_tokens":2e1,"completion_tokens":5}}"#,
            Usage::Unknown,
        ),
        (
            r#"{"usage":{"prompt_tokens":"20","completion_tokens":5}}"#,
            Usage::Unknown,
        ),
        (
            r#"{"usage":{"prompt_tokens":true,"completion_tokens":[5]}}"#,
            Usage::Unknown,
        ),
        (
            r#"{"usage":{"prompt_tokens":0,"completion_tokens":0}}"#,
            Usage::Unknown,
        ),
        (r#"{"usage":null}"#, Usage::Unknown),
        (r#"{"usage":[{"prompt_tokens":20}]}"#, Usage::Unknown),
        // What is not the answer's own usage.
        (
            r#"{"choices":[{"message":{"content":"{\"usage\":{\"prompt_tokens\":9}}"}}]}"#,
            Usage::Unknown,
        ),
        (
            r#"{"content":[{"type":"tool_use","input":{"usage":{"input_tokens":9}}}]}"#,
            Usage::Unknown,
        ),
        (r#"{"a":"\\","usage":{"prompt_tokens":1}}"#, known(1, 0, 0)),
        (
            r#"{"a":"\\\"usage\":{","b":["]","}","\""],"c":{"d":"{"},"usage":{"prompt_tokens":1}}"#,
            known(1, 0, 0),
        ),
        (
            r#"{"x":{"usage":{"prompt_tokens":9}},"\"usage":{"prompt_tokens":9}}"#,
            Usage::Unknown,
        ),
        (r#"{"input_tokens":9}"#, Usage::Unknown),
        (
            r#"{"usage":{"x":{"prompt_tokens":9},"prompt_tokens_details":{"prompt_tokens":9}}}"#,
            Usage::Unknown,
        ),
        // What is no JSON.
        (r#"{"usage":{"prompt_tokens":20"#, Usage::Unknown),
        (r#"{"usage" {"prompt_tokens":20}}"#, Usage::Unknown),
        (r#"{"a":}"#, Usage::Unknown),
        ("]}", Usage::Unknown),
        ("[]", Usage::Unknown),
        ("\"usage\"", Usage::Unknown),
        ("7,8", Usage::Unknown),
        ("", Usage::Unknown),
        (&deep, Usage::Unknown),
        (&format!(r#"{{"a":{deep}"#), Usage::Unknown),
        (&"{\"usage\":".repeat(10_000), Usage::Unknown),
    ] {
        let fields = HeaderBlock::of(&[("Content-Type", "application/json")]);
        for size in [1, 5, usize::MAX] {
            let pieces = body.as_bytes().chunks(size);
            let observed = observe("/v1/x", 200, &fields, pieces).unwrap();
            assert_eq!(
                observed.usage, expected,
                "{:.300} in pieces of {size}",
                body
            );
        }
    }
}

#[test]
fn a_long_answer_tells_its_usage_wherever_it_stands() {
    let text = r#"say \"usage\": {\"prompt_tokens\": 9} and [ { \\ "#.repeat(20_000);
    let floats = "0.0123,-0.456e-2,".repeat(20_000);
    let usage = r#""usage":{"prompt_tokens":20,"completion_tokens":5}"#;
    for body in [
        format!(r#"{{"choices":[{{"message":{{"content":"{text}"}}}}],{usage}}}"#),
        format!(r#"{{{usage},"choices":[{{"message":{{"content":"{text}"}}}}]}}"#),
        format!(r#"{{"output":"{text}",{usage},"text":"{text}"}}"#),
        format!(r#"{{"data":[{{"embedding":[{floats}0]}},{{"embedding":[{floats}0]}}],{usage}}}"#),
    ] {
        assert_eq!(of_json(&body).usage, known(20, 0, 5), "{:.100}", body);
    }
}

#[test]
fn a_text_ends_where_its_quote_is_whatever_it_ends_with() {
    for length in 0..200 {
        for end in ["", "\\", "\"", "\\\\", "\\\"", "\"\\", "\"}]"] {
            let text = format!("\"{}{end}", "x".repeat(length));
            let answer = serde_json::json!({
                "choices": [{"message": {"content": text}}],
                "usage": {"prompt_tokens": 4, "completion_tokens": 2},
            });
            let seen = of_json(&answer.to_string());
            assert_eq!(seen.usage, known(4, 0, 2), "{answer}");
            let wrong = serde_json::json!({"text": text, "x": "\"usage\":{\"prompt_tokens\":4}"});
            assert_eq!(of_json(&wrong.to_string()).usage, Usage::Unknown, "{wrong}");
        }
    }
}

#[test]
fn events_tell_their_usage_however_their_lines_are_written() {
    let chat = r#"{"choices":[],"usage":{"prompt_tokens":20,"completion_tokens":5}}"#;
    let two = [
        r#"{"choices":[],"usage":{"prompt_tokens":"#,
        r#"20,"completion_tokens":5}}"#,
    ];
    let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":8,"cache_read_input_tokens":2,"output_tokens":1}}}"#;
    for (stream, expected) in [
        (format!("data: {chat}\n\n"), known(20, 0, 5)),
        (format!("data: {chat}\r\n\r\n"), known(20, 0, 5)),
        (format!("data: {chat}\r\r"), known(20, 0, 5)),
        (format!("data:{chat}\n\n"), known(20, 0, 5)),
        (format!("\u{feff}data: {chat}\n\n"), known(20, 0, 5)),
        (format!(": ping\n\n: {chat}\nid: 7\nevent: x\ndata: {chat}\nretry: 9\n\n"), known(20, 0, 5)),
        (format!("data: {}\ndata: {}\n\n", two[0], two[1]), known(20, 0, 5)),
        (format!("data: {}\r\ndata:{}\r\n\r\n", two[0], two[1]), known(20, 0, 5)),
        // The end of the stream ends its last event.
        (format!("data: {chat}"), known(20, 0, 5)),
        (format!("data: {chat}\n"), known(20, 0, 5)),
        // The last one that says something counts.
        (format!("data: {{\"usage\":{{\"prompt_tokens\":1}}}}\n\ndata: {chat}\n\ndata: {{\"usage\":null}}\n\n"), known(20, 0, 5)),
        (format!("data: {chat}\n\ndata: {{\"usage\":{{\"prompt_tokens\":0}}}}\n\n"), known(20, 0, 5)),
        (format!("data: {chat}\n\ndata: {{\"usage\":{{\"prompt_tokens\":-1}}}}\n\n"), known(20, 0, 5)),
        (format!("data: {chat}\n\ndata: {{\"usage\":{{\"prompt_tok"), known(20, 0, 5)),
        // A message's numbers come in parts, and 0 says nothing.
        (format!("data: {start}\n\n"), known(10, 2, 1)),
        (format!("data: {start}\n\ndata: {{\"type\":\"message_delta\",\"usage\":{{\"input_tokens\":0,\"output_tokens\":7}}}}\n\n"), known(10, 2, 7)),
        (format!("data: {start}\n\ndata: {{\"type\":\"message_delta\",\"usage\":{{\"input_tokens\":9,\"cache_read_input_tokens\":3,\"output_tokens\":7}}}}\n\n"), known(12, 3, 7)),
        (r#"data: {"type":"response.completed","response":{"usage":{"input_tokens":9,"output_tokens":1}}}"#.to_owned(), known(9, 0, 1)),
        // What is none.
        (format!("dat: {chat}\n\n"), Usage::Unknown),
        (format!("data {chat}\n\n"), Usage::Unknown),
        (format!("datas: {chat}\n\n"), Usage::Unknown),
        (format!("event: {chat}\n\n"), Usage::Unknown),
        (format!("data: x{chat}\n\n"), Usage::Unknown),
        (format!("data: [{chat}]\n\n"), Usage::Unknown),
        (format!("data: {}\n\ndata: {}\n\n", two[0], two[1]), Usage::Unknown),
        ("data: {\"delta\":\"{\\\"usage\\\":{\\\"prompt_tokens\\\":9}}\"}\n\n".to_owned(), Usage::Unknown),
    ] {
        let fields = HeaderBlock::of(&[("Content-Type", "text/event-stream")]);
        for size in 1..=stream.len() {
            let pieces = stream.as_bytes().chunks(size);
            let observed = observe("/v1/x", 200, &fields, pieces).unwrap();
            assert_eq!(observed.usage, expected, "{stream:?} in pieces of {size}");
        }
    }
}

/// Pieces of all small sizes, and of some up to `length`.
fn sizes(length: usize) -> impl Iterator<Item = usize> {
    let larger = (100..length).step_by(331);
    (1..=32).chain(larger).chain([length])
}

#[test]
fn an_error_is_seen_wherever_it_stands_and_comments_hide_nothing() {
    let delta = |text: &str| {
        format!(
            "data: {{\"model\":\"m\",\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
        )
    };
    let error = "data: {\"error\":{\"message\":\"x\"}}\n\n";
    let used = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":2}}\n\n";
    let pings = ": ping\n\n".repeat(400);
    let deltas = delta("x").repeat(60);
    let written = delta("error \\\"error\\\": error").repeat(60);
    let done = "data: [DONE]\n\n";
    let (told, untold, failed) = (known(4, 0, 2), Usage::Unknown, Some(BadEnd::ErrorEvent));
    for (text, usage, bad_end) in [
        (format!("{deltas}{used}{pings}{done}{pings}"), told, None),
        (format!("{written}{used}{done}"), told, None),
        (format!("{deltas}{error}{deltas}{done}"), untold, failed),
        (format!("{deltas}{error}{used}{done}"), told, failed),
        (format!("{deltas}{used}{error}{done}"), told, failed),
        (
            format!("{deltas}event: error\ndata: {{}}\n\n{deltas}{done}"),
            untold,
            failed,
        ),
        (
            format!("{deltas}event:error\r\ndata: {{}}\r\n\r\n{deltas}{done}"),
            untold,
            failed,
        ),
        (
            format!("{deltas}data: {{\"type\": \"error\"}}\n\n{deltas}{done}"),
            untold,
            failed,
        ),
    ] {
        let fields = HeaderBlock::of(&[("Content-Type", "text/event-stream")]);
        for size in sizes(text.len()) {
            let pieces = text.as_bytes().chunks(size);
            let seen = observe("/v1/chat/completions", 200, &fields, pieces).unwrap();
            assert_eq!(
                (seen.usage, seen.bad_end),
                (usage, bad_end),
                "{size} {text}"
            );
        }
    }
}

/// No event makes those before it needless.
#[test]
fn what_the_last_events_of_a_long_stream_tell_counts_together() {
    let chunk = |output: usize| {
        format!(
            "data: {{\"model\":\"m\",\"choices\":[],\"usage\":{{\"prompt_tokens\":9,\"completion_tokens\":{output}}}}}\n\n"
        )
    };
    let chunks: String = (1..=150).map(chunk).collect();
    let cut = chunks.len() - 20;
    let nothing = "data: {\"choices\":[],\"usage\":{}}\n\ndata: [DONE]\n\n";
    let start = "data: {\"type\":\"message_start\",\"message\":{\"model\":\"m\",\"usage\":{\"input_tokens\":0}}}\n\n";
    let deltas = "data: {\"type\":\"content_block_delta\"}\n\n".repeat(60);
    let one = "data: {\"type\":\"message_delta\",\"usage\":{\"input_tokens\":100,\"cache_read_input_tokens\":50,\"output_tokens\":1}}\n\n";
    let other = "data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":20}}\n\n";
    let stop = "data: {\"type\":\"message_stop\"}\n\n";
    let texts = "data: {\"candidates\":[{\"content\":{}}],\"modelVersion\":\"m\"}\n\n".repeat(60);
    let ended = "data: {\"candidates\":[{\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":9,\"candidatesTokenCount\":3}}\n\n";
    let call = "data: {\"candidates\":[{\"content\":{\"args\":{\"usage\":{\"x\":1}}}}]}\n\n";
    for (text, usage, bad_end) in [
        (&chunks[..cut], known(9, 0, 149), Some(BadEnd::Incomplete)),
        (&format!("{chunks}{nothing}"), known(9, 0, 150), None),
        (
            &format!("{start}{deltas}{one}{other}{stop}"),
            known(150, 50, 20),
            None,
        ),
        (&format!("{texts}{ended}{call}"), known(9, 0, 3), None),
    ] {
        let fields = HeaderBlock::of(&[("Content-Type", "text/event-stream")]);
        for size in sizes(text.len()) {
            let pieces = text.as_bytes().chunks(size);
            let seen = observe("/v1/x", 200, &fields, pieces).unwrap();
            assert_eq!(
                (seen.usage, seen.bad_end),
                (usage, bad_end),
                "{size} {text}"
            );
        }
    }
}

/// The word that tells an error is found although two pieces share it, however long they are.
#[test]
fn an_error_that_is_cut_is_seen_before_a_burst() {
    let delta = "data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
    let error = "event: error\ndata: {}\n\n";
    let deltas = delta.repeat(60);
    let text = format!("{delta}{error}{deltas}data: [DONE]\n\n");
    let fields = HeaderBlock::of(&[("Content-Type", "text/event-stream")]);
    for at in delta.len()..=delta.len() + error.len() {
        let (one, other) = text.as_bytes().split_at(at);
        let pieces = [one, other].into_iter();
        let seen = observe("/v1/chat/completions", 200, &fields, pieces).unwrap();
        assert_eq!(seen.bad_end, Some(BadEnd::ErrorEvent), "cut at {at}");
    }
}

#[test]
fn usage_is_told_by_events_that_are_longer_than_what_is_held() {
    let long = "x".repeat(5000);
    let delta = format!(
        "data: {{\"model\":\"m\",\"choices\":[{{\"text\":\"{long}\"}}],\"usage\":null}}\n\n"
    );
    let used = format!(
        "data: {{\"choices\":[],\"pad\":\"{long}\",\"usage\":{{\"prompt_tokens\":4,\"completion_tokens\":2}}}}\n\n"
    );
    let end = "data: {}\n\n".repeat(2) + "data: [DONE]\n\n";
    let text = format!("{}{used}{end}", delta.repeat(6));
    let fields = HeaderBlock::of(&[("Content-Type", "text/event-stream")]);
    for size in sizes(text.len()) {
        let pieces = text.as_bytes().chunks(size);
        let seen = observe("/v1/chat/completions", 200, &fields, pieces).unwrap();
        assert_eq!(seen.usage, known(4, 0, 2), "pieces of {size}");
        assert_eq!(seen.bad_end, None, "pieces of {size}");
    }
}

#[test]
fn a_long_stream_tells_at_its_beginning_and_its_end_in_pieces_of_any_size() {
    let delta = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"x\"}}\n\n";
    let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"m\",\"usage\":{\"input_tokens\":11,\"output_tokens\":1}}}\n\n";
    let end = "data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":9}}\n\nevent: ping\ndata: {}\n\ndata: {\"type\":\"message_stop\"}\n\n";
    for line_end in ["\n", "\r\n", "\r"] {
        for (end, bad_end) in [
            (end, None),
            (
                &format!("{end}event: error\ndata: {{}}\n\n"),
                Some(BadEnd::ErrorEvent),
            ),
            (
                "data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":9}}\n\n",
                Some(BadEnd::Incomplete),
            ),
        ] {
            let text = format!("{start}{}{end}", delta.repeat(200)).replace('\n', line_end);
            let fields = HeaderBlock::of(&[("Content-Type", "text/event-stream")]);
            for size in [1, 7, 100, 1000, 5000, text.len()] {
                let pieces = text.as_bytes().chunks(size);
                let seen = observe("/v1/messages", 200, &fields, pieces).unwrap();
                assert_eq!(seen.usage, known(11, 0, 9), "{size} {line_end:?}");
                assert_eq!(seen.bad_end, bad_end, "{size} {line_end:?}");
            }
        }
    }
}

/// To read it would cost almost as much as to pass it on.
#[test]
fn what_is_in_the_middle_of_a_stream_is_not_read() {
    let event = |size: usize, rest: &str| {
        let start = format!("data: {{\"model\":\"m\",\"choices\":[],{rest}\"x\":\"");
        let text = "x".repeat(size.saturating_sub(start.len() + 4));
        format!("{start}{text}\"}}\n\n")
    };
    let usage = "\"usage\":{\"prompt_tokens\":20},";
    let fields = HeaderBlock::of(&[("Content-Type", "text/event-stream")]);
    for size in [100, 250, 350, 440] {
        for (line_end, after) in [("\n", 50), ("\r\n", 50), ("\n", 3), ("\r\n", 3)] {
            let mut events = vec![event(size, ""); 50];
            events.push(event(size, usage));
            events.extend(vec![event(size, ""); after]);
            let events: Vec<_> = events
                .iter()
                .map(|event| event.replace('\n', line_end))
                .collect();
            let whole = events.concat();
            let expected = match after {
                3 => known(20, 0, 0),
                _ => Usage::Unknown,
            };
            let one_by_one = events.iter().map(String::as_bytes);
            let seen = |pieces: &mut dyn Iterator<Item = &[u8]>| {
                let observed = observe("/v1/chat/completions", 200, &fields, pieces);
                observed.unwrap().usage
            };
            assert_eq!(
                seen(&mut one_by_one.into_iter()),
                expected,
                "{size} {after}"
            );
            assert_eq!(seen(&mut std::iter::once(whole.as_bytes())), expected);
            let fours: Vec<_> = events.chunks(4).map(<[String]>::concat).collect();
            let by_fours = fours.iter().map(String::as_bytes);
            assert_eq!(seen(&mut by_fours.into_iter()), expected, "{size} {after}");
            if size < 400 {
                assert_eq!(seen(&mut whole.as_bytes().chunks(100)), expected, "{size}");
            }
        }
    }
}

#[test]
fn a_stream_ends_badly_with_an_error_or_without_its_last_event() {
    use BadEnd::{ErrorEvent, Incomplete};
    let (chat, responses) = ("/v1/chat/completions", "/v1/responses");
    let (messages, gemini) = ("/v1/messages", "/v1beta/models/x:streamGenerateContent");
    let other = "/v1/audio/transcriptions";
    let choices = "data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n";
    for (path, stream, expected) in [
        (chat, format!("{choices}data: [DONE]\n\n"), None),
        (chat, format!("{choices}data:[DONE]\r\n\r\n"), None),
        (chat, format!("{choices}data: [DONE]"), None),
        (chat, choices.to_owned(), Some(Incomplete)),
        (chat, format!("{choices}data: [DONE\n\n"), Some(Incomplete)),
        (chat, format!("{choices}: [DONE]\n\n"), Some(Incomplete)),
        (chat, String::new(), Some(Incomplete)),
        (chat, "data: [DONE]\n\n".into(), None),
        (
            "/openai/deployments/x/chat/completions",
            ": x\n\n".into(),
            Some(Incomplete),
        ),
        // The stream tells whose it is.
        (other, choices.to_owned(), Some(Incomplete)),
        (
            chat,
            format!("{choices}data: {{\"error\":{{\"message\":\"x\"}}}}\n\ndata: [DONE]\n\n"),
            Some(ErrorEvent),
        ),
        (
            chat,
            format!("{choices}data: {{\"error\":null}}\n\ndata: [DONE]\n\n"),
            None,
        ),
        (
            chat,
            format!("{choices}data: {{\"x\":{{\"error\":\"x\"}}}}\n\ndata: [DONE]\n\n"),
            None,
        ),
        (
            chat,
            format!("{choices}event: error\ndata: x\n\ndata: [DONE]\n\n"),
            Some(ErrorEvent),
        ),
        (
            chat,
            format!("{choices}event: errors\ndata: x\n\ndata: [DONE]\n\n"),
            None,
        ),
        (
            chat,
            format!("{choices}event: error\nevent: x\ndata: x\n\ndata: [DONE]\n\n"),
            None,
        ),
        (
            messages,
            "event: message_start\ndata: {\"type\":\"message_start\"}\n\n".into(),
            Some(Incomplete),
        ),
        (
            messages,
            "data: {\"type\":\"message_start\"}\n\ndata: {\"type\":\"message_stop\"}\n\n".into(),
            None,
        ),
        (
            messages,
            "data: {\"type\":\"message_stop\"}\n\ndata: {\"type\":\"error\"}\n\n".into(),
            Some(ErrorEvent),
        ),
        (
            messages,
            "data: {\"type\":\"message_start\"}\n\ndata: [DONE]\n\n".into(),
            Some(Incomplete),
        ),
        (messages, String::new(), Some(Incomplete)),
        ("/v1/messages/count_tokens", String::new(), None),
        (
            responses,
            "data: {\"type\":\"response.created\"}\n\ndata: [DONE]\n\n".into(),
            Some(Incomplete),
        ),
        (
            responses,
            "data: {\"type\":\"response.incomplete\"}\n\n".into(),
            None,
        ),
        (
            responses,
            "data: {\"type\":\"response.completed\"}\n\n".into(),
            None,
        ),
        (
            responses,
            "data: {\"type\":\"response.failed\"}\n\n".into(),
            Some(ErrorEvent),
        ),
        (
            responses,
            "data: {\"type\":\"error\",\"message\":\"x\"}\n\n".into(),
            Some(ErrorEvent),
        ),
        (
            gemini,
            "data: {\"candidates\":[{\"finishReason\":null}]}\n\n".into(),
            Some(Incomplete),
        ),
        (
            gemini,
            "data: {\"candidates\":[{},{\"finishReason\":\"STOP\"}]}\n\n".into(),
            None,
        ),
        (
            gemini,
            "data: {\"promptFeedback\":{\"blockReason\":\"SAFETY\"}}\n\n".into(),
            None,
        ),
        (
            other,
            "data: {\"type\":\"transcript.text.delta\"}\n\n".into(),
            None,
        ),
        (other, String::new(), None),
    ] {
        assert_eq!(
            of_stream(path, &stream).bad_end,
            expected,
            "{path} {stream:?}"
        );
    }
    let fields = HeaderBlock::of(&[("Content-Type", "text/event-stream")]);
    let failed = observe(chat, 500, &fields, [&b"{\"error\":{}}"[..]].into_iter());
    assert_eq!(failed.unwrap().bad_end, None, "the status tells it");
}

#[test]
fn cost_and_model_are_read_from_the_response() {
    let body = |cost: &str| format!(r#"{{"usage":{{"cost":{cost}}}}}"#);
    for (header, cost, expected) in [
        (None, "0.25", Some(0.25)),
        (None, "3e-05", Some(0.00003)),
        (None, "0", Some(0.0)),
        (None, "-0.1", None),
        (None, "1e999", None),
        (None, "\"0.25\"", None),
        (None, "null", None),
        (Some("0.5"), "0.25", Some(0.5)),
        (Some("-1"), "0.25", Some(0.25)),
        (Some("nan"), "0.25", Some(0.25)),
        (Some("None"), "null", None),
    ] {
        let fields: Vec<_> = header
            .map(|cost| ("x-litellm-response-cost", cost))
            .into_iter()
            .collect();
        let fields = HeaderBlock::of(&fields);
        let body = body(cost);
        let observed = observe("/v1/x", 200, &fields, std::iter::once(body.as_bytes())).unwrap();
        assert_eq!(observed.cost, expected, "{header:?} {cost}");
    }
    let sum = of_json(r#"[{"usage":{"cost":0.25}},{"usage":{"cost":0.5}}]"#);
    assert_eq!(sum.cost, Some(0.75));
    for (body, expected) in [
        (r#"{"model":"a"}"#, "a"),
        (r#"{"model":"a\/b"}"#, "a/b"),
        (r#"{"modelVersion":"g"}"#, "g"),
        (
            r#"{"response":{"model":"provider's"},"model":"ours"}"#,
            "ours",
        ),
        (
            r#"{"model":"ours","response":{"model":"provider's"}}"#,
            "ours",
        ),
        (r#"{"message":{"model":"m"}}"#, "m"),
        (r#"{"model":{"a":"b"},"x":[{"model":"no"}]}"#, ""),
    ] {
        assert_eq!(of_json(body).model, expected.as_bytes(), "{body}");
    }
    let long = format!(r#"{{"model":"{}"}}"#, "x".repeat(1000));
    assert_eq!(of_json(&long).model.len(), 64);
}

#[test]
fn compressed_responses_are_read_on_the_side_up_to_64_kib() {
    let usage = r#""usage":{"prompt_tokens":20,"completion_tokens":5}"#;
    let text = |length| format!(r#"{{"text":"{}",{usage}}}"#, "x".repeat(length));
    let event = format!("data: {{\"choices\":[],{usage}}}\n\n");
    let (json, stream) = ("application/json", "text/event-stream");
    let whole_stream = format!("{event}data: [DONE]\n\n");
    let long_stream = format!("{event}: {}\n\n", "x".repeat(70_000));
    let incomplete = Some(BadEnd::Incomplete);
    for (kind, body, usage, end) in [
        (json, text(60_000), known(20, 0, 5), None),
        (json, text(70_000), Usage::Unknown, None),
        (stream, event, known(20, 0, 5), incomplete),
        (stream, whole_stream, known(20, 0, 5), None),
        // Its end has not been seen.
        (stream, long_stream, known(20, 0, 5), None),
    ] {
        for (coding, packed) in packed(body.as_bytes()) {
            let fields = HeaderBlock::of(&[("Content-Type", kind), ("Content-Encoding", coding)]);
            for size in [1, 10, usize::MAX] {
                let observed = observe("/v1/x", 200, &fields, packed.chunks(size)).unwrap();
                let length = body.len();
                assert_eq!(
                    observed.usage, usage,
                    "{coding} {length} in pieces of {size}"
                );
                assert_eq!(
                    observed.bad_end, end,
                    "{coding} {length} in pieces of {size}"
                );
            }
            let broken = [&packed[..packed.len() / 2], b"\xff\xff\xff\xff"].concat();
            let observed = observe("/v1/x", 200, &fields, broken.chunks(10)).unwrap();
            assert_eq!(observed.bad_end, None, "{coding} is broken");
        }
    }
    let body = text(10).into_bytes();
    for coding in ["br", "zstd", "gzip, gzip", "identity", ""] {
        let fields = HeaderBlock::of(&[("Content-Encoding", coding)]);
        let observed = observe("/v1/x", 200, &fields, std::iter::once(&body[..])).unwrap();
        let is_read = matches!(coding, "identity" | "");
        assert_eq!(observed.usage != Usage::Unknown, is_read, "{coding}");
    }
}

/// A body in each coding that is read.
fn packed(body: &[u8]) -> [(&'static str, Vec<u8>); 3] {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    let level = Compression::default();
    let mut gzip = GzEncoder::new(Vec::new(), level);
    let mut zlib = ZlibEncoder::new(Vec::new(), level);
    let mut raw = DeflateEncoder::new(Vec::new(), level);
    gzip.write_all(body).unwrap();
    zlib.write_all(body).unwrap();
    raw.write_all(body).unwrap();
    [
        ("gzip", gzip.finish().unwrap()),
        ("deflate", zlib.finish().unwrap()),
        ("deflate", raw.finish().unwrap()),
    ]
}

#[test]
fn only_answers_that_may_have_used_tokens_count() {
    let json = HeaderBlock::of(&[("Content-Type", "application/json")]);
    let stream = HeaderBlock::of(&[("Content-Type", "text/event-stream")]);
    let body = br#"{"usage":{"prompt_tokens":20,"cost":1}}"#;
    let observe = |method: &Method, path: &str, status: u16, fields: &HeaderBlock| {
        let status = StatusCode::from_u16(status).unwrap();
        let mut observer = Observer::new((method, path.as_bytes()), (status, fields))?;
        observer.observe(body);
        Some(observer.finish().usage)
    };
    let (post, get) = (Method::POST, Method::GET);
    assert_eq!(observe(&post, "/v1/x", 200, &json), Some(known(20, 0, 0)));
    assert_eq!(observe(&post, "/v1/x", 201, &json), Some(known(20, 0, 0)));
    for path in [
        "/v1/messages/count_tokens",
        "/v1/moderations",
        "/v2/rerank",
        "/x:countTokens",
    ] {
        assert_eq!(
            observe(&post, path, 200, &json),
            Some(Usage::None),
            "{path}"
        );
    }
    // A response that is asked for once more has been counted.
    assert_eq!(observe(&get, "/v1/responses/x", 200, &json), None);
    assert_eq!(observe(&post, "/v1/x", 400, &json), None);
    assert_eq!(observe(&Method::HEAD, "/v1/messages", 200, &stream), None);
    assert_eq!(
        observe(&get, "/v1/responses/x", 200, &stream),
        Some(Usage::None)
    );
    assert_eq!(observe(&post, "/v1/x", 500, &stream), Some(Usage::None));
}

const KIB: usize = 1024;

/// What an observer sees of an answer whose length is known.
fn of_answer(length: usize, body: &str, size: usize) -> Observed {
    let fields = HeaderBlock::of(&[("Content-Length", &length.to_string())]);
    observe("/v1/x", 200, &fields, body.as_bytes().chunks(size)).unwrap()
}

#[test]
fn a_very_large_answer_tells_the_same_where_its_middle_is_passed_over() {
    let usage = r#""usage":{"prompt_tokens":20,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":3}}"#;
    let quoted = r#"\"usage\":{\"prompt_tokens\":7}, }]{[ \\\" \\\\"#;
    let large = [
        format!(r#""text":"{}""#, quoted.repeat(400 * KIB / quoted.len())),
        format!(r#""data":[{{"embedding":[{}1]}}]"#, "-0.25,".repeat(70_000)),
        format!(r#""text":"{}""#, r"\\".repeat(200 * KIB)),
    ];
    // What stands there besides, and seems to tell something.
    let others = [
        r#""a":1"#,
        r#""a":{"usage":{"prompt_tokens":7},"model":"no"}"#,
        r#""a":[{"usage":{"prompt_tokens":7}},{"b":{"model":"no","usage":{}}} ]"#,
        r#""a":"usage","b":["usage","model"],"c":"model""#,
        r#""a":{"b":{"usage": {"prompt_tokens":7}  }  }, "c":"\\""#,
        r#""a":"\"usage\":{","b\"usage":{"prompt_tokens":7}"#,
        r#""usage_of":{"prompt_tokens":7},"models":["no"]"#,
    ];
    for large in &large {
        for (other, size) in others
            .into_iter()
            .zip([64 * KIB, 997, 16 * KIB].into_iter().cycle())
        {
            for body in [
                format!(r#"{{"model":"m",{large},{other},{usage}}}"#),
                format!(r#"{{"x":1,"model":"m",{large},{other},{usage},{other}}}"#),
                format!(r#"{{{large},{usage},{other},"model":"m" , "z":null }} "#),
                format!(r#"{{"model":"m",{usage},{large},{other}}}"#),
                format!(
                    r#"{{"type":"message","model":"m",{large},"usage" : {{"input_tokens":12,"output_tokens":5,"cache_read_input_tokens":3,"cache_creation_input_tokens":5}},{other}}}"#
                ),
            ] {
                let seen = of_answer(body.len(), &body, size);
                assert_eq!(seen.usage, known(20, 3, 5), "{other} {size}");
                assert_eq!(seen.model, b"m", "{other}");
            }
        }
    }
}

#[test]
fn names_are_found_wherever_the_end_of_a_very_large_answer_is_cut() {
    let large = format!(r#""data":["{}"]"#, r#"x\""#.repeat(150 * KIB));
    let end = r#"{"a":{"usage":{"prompt_tokens":7}},"b":"usage","usage":{"prompt_tokens":20},"model":"m"}"#;
    let body = format!("{{{large},{}", &end[1..]);
    let start = body.len() - end.len() - 10;
    for size in 1..=20 {
        for first in start..start + 20 {
            let fields = HeaderBlock::of(&[("Content-Length", &body.len().to_string())]);
            let (before, behind) = body.as_bytes().split_at(first);
            let pieces = before.chunks(64 * KIB).chain(behind.chunks(size));
            let seen = observe("/v1/x", 200, &fields, pieces).unwrap();
            assert_eq!(seen.usage, known(20, 0, 0), "{size} {first}");
            assert_eq!(seen.model, b"m", "{size} {first}");
        }
    }
}

#[test]
fn only_the_middle_of_a_very_large_answer_is_passed_over() {
    let usage = r#""usage":{"prompt_tokens":20}"#;
    let text = |kib: usize| "x".repeat(kib * KIB);
    let usage_of = |body: &str| of_answer(body.len(), body, 8 * KIB).usage;
    // As much as this stands behind the usage where the thinking is told twice.
    let late = format!(r#"{{"a":"{}",{usage},"b":"{}"}}"#, text(400), text(250));
    assert_eq!(usage_of(&late), known(20, 0, 0));
    let in_the_middle = format!(r#"{{"a":"{}",{usage},"b":"{}"}}"#, text(400), text(260));
    assert_eq!(usage_of(&in_the_middle), Usage::Unknown);
    let whole = of_json(&in_the_middle).usage;
    assert_eq!(whole, known(20, 0, 0), "its length is not known");
    // An image of Gemini's is within a candidate.
    let metadata = r#""usageMetadata":{"promptTokenCount":20,"candidatesTokenCount":5}"#;
    let image = format!(r#""candidates":[{{"content":"{}","b":1}}]"#, text(400));
    assert_eq!(
        usage_of(&format!("{{{image},{metadata}}}")),
        known(20, 0, 5)
    );
    let b = text(260);
    let in_the_middle_of_it = format!(r#"{{{image},{metadata},"b":"{b}"}}"#);
    assert_eq!(usage_of(&in_the_middle_of_it), Usage::Unknown);
    // Of several answers all are read, and all of a member that counts.
    let several = format!("[{in_the_middle},{in_the_middle}]");
    assert_eq!(usage_of(&several), known(40, 0, 0));
    let a = text(400);
    let within = format!(r#"{{"usage":{{"a":"{a}","prompt_tokens":20}},"b":"{a}"}}"#);
    assert_eq!(usage_of(&within), known(20, 0, 0));
    // Nor is a name that is cut passed over.
    let early = format!(r#"{{"a":"{}",{usage},"b":"{a}"}}"#, text(20));
    let start = early.find(usage).unwrap();
    for size in start..start + usage.len() {
        let seen = of_answer(early.len(), &early, size);
        assert_eq!(seen.usage, known(20, 0, 0), "{size}");
    }
}

#[test]
fn a_very_large_answer_that_is_cut_off_or_malformed_tells_nothing_wrong() {
    let large = "x".repeat(400 * KIB);
    let nested = format!(r#"{{"a":"{large}","b":{{"usage":{{"prompt_tokens":7}}}}"#);
    let told = |length, body: &str| of_answer(length, body, 8 * KIB).usage;
    assert_eq!(told(nested.len() + 1, &nested), Usage::Unknown, "cut off");
    assert_eq!(
        told(nested.len() + 1, &format!("{nested}}}")),
        Usage::Unknown
    );
    for end in [
        "",
        "}",
        "]",
        "\"",
        "\\\"}",
        ",}",
        "\"usage",
        "\"usage\"}",
        "\"usage\":}",
        "\"usage\":{}",
        "\"usage\":{\"prompt_tokens\":7}",
    ] {
        let body = format!(r#"{{"a":"{large}",{end}"#);
        assert_eq!(told(body.len(), &body), Usage::Unknown, "{end}");
    }
}
