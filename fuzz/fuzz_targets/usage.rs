//! What is read of a response's usage: for any bytes the same, however they are cut, where they are not
//! very many events; and for JSON what a parser of whole documents reads.
//!
//! The first byte of the input chooses what the response is, the second one how the rest is cut.

#![no_main]

use flow_proxy_fuzz::http1::headers::HeaderBlock;
use flow_proxy_fuzz::pieces;
use flow_proxy_fuzz::proxy::usage::observer::Observer;
use flow_proxy_fuzz::proxy::usage::tokens::{Tokens, Usage};
use http::{Method, StatusCode};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const EVENTS: &str = "text/event-stream";
const JSON: &str = "application/json";

fuzz_target!(|bytes: &[u8]| {
    let [kind, seed, body @ ..] = bytes else {
        return;
    };
    let content_type = if kind & 1 == 1 { EVENTS } else { JSON };
    let coding = ["identity", "gzip", "deflate"][usize::from(kind >> 1) % 3];
    let path = [
        "/v1/chat/completions",
        "/v1/messages",
        "/v1/responses",
        "/v1/x",
    ][usize::from(kind >> 4) % 4];
    let body = match content_type {
        EVENTS if coding == "identity" => first_events(body),
        _ => body,
    };
    let whole = observe(path, content_type, coding, body, 0);
    let cut = observe(path, content_type, coding, body, *seed);
    // How many events a compressed body has is not known here.
    if content_type == JSON || coding == "identity" {
        assert_eq!(whole.1, cut.1, "in pieces");
    }
    if let Ok(value) = serde_json::from_slice::<Value>(body) {
        check_json(&value, *seed);
    }
});

/// The beginning of a stream up to its fifth empty line: of more events in one piece, those in the middle
/// are passed over.
fn first_events(body: &[u8]) -> &[u8] {
    let is_end = |at: &usize| {
        let line = body[..*at].strip_suffix(b"\r").unwrap_or(&body[..*at]);
        body[*at] == b'\n' && line.ends_with(b"\n")
    };
    match (0..body.len()).filter(is_end).nth(4) {
        Some(end) => &body[..end],
        None => body,
    }
}

/// The usage that is read, and all that is read as text.
fn observe(path: &str, content_type: &str, coding: &str, body: &[u8], seed: u8) -> (Usage, String) {
    let length = body.len();
    let head = format!(
        "content-type: {content_type}\r\ncontent-encoding: {coding}\r\n\
         content-length: {length}\r\n\r\n"
    );
    let mut fields = HeaderBlock::default();
    let parsed = fields.parse::<3>(head.as_bytes());
    assert_eq!(parsed, Ok(Some(head.len())), "a valid head");
    let asked = (&Method::POST, path.as_bytes());
    let mut observer = Observer::new(asked, (StatusCode::OK, &fields)).expect("an answer");
    for piece in pieces(body, seed) {
        observer.observe(piece);
    }
    let observed = observer.finish();
    assert!(observed.model.len() <= 64);
    assert!(
        observed
            .cost
            .is_none_or(|cost| cost.is_finite() && cost >= 0.0)
    );
    (observed.usage, format!("{observed:?}"))
}

/// Compares with the document itself. Written anew, it repeats no name and escapes none that counts.
fn check_json(value: &Value, seed: u8) {
    let text = value.to_string();
    let expected = match value {
        Value::Object(_) => tokens(value),
        Value::Array(answers) => {
            let told = answers.iter().filter(|answer| answer.is_object());
            let sum = |sum: Option<Tokens>, answer: &Value| match (sum, tokens(answer)) {
                (Some(sum), Some(tokens)) if !is_gemini(answer) => Some(sum.plus(tokens)),
                (sum, tokens) => tokens.or(sum),
            };
            told.fold(None, sum)
        }
        _ => None,
    };
    let expected = expected.map_or(Usage::Unknown, Usage::Known);
    let seen = observe("/v1/x", JSON, "identity", text.as_bytes(), seed);
    // A number that is too long to keep is one to the parser.
    if text.contains(&"0".repeat(16)) {
        return;
    }
    assert_eq!(seen.0, expected, "{text}");
    if let Some(members) = text.strip_prefix('{')
        && !value.as_object().is_some_and(serde_json::Map::is_empty)
        && text.len() < 16_000
        && !(is_gemini(value) || value["type"].is_string())
        && !["message", "response"]
            .iter()
            .any(|inner| value[inner]["usage"].is_object())
        && seed % 16 < 2
    {
        // Its middle is passed over. What is told within other members is not found behind it.
        let long = format!("{{\"\":\"{}\",{members}", "\\\"".repeat(150_000));
        let seen = observe("/v1/x", JSON, "identity", long.as_bytes(), seed % 2 * 200);
        assert_eq!(seen.0, expected, "{text}");
    }
}

fn is_gemini(answer: &Value) -> bool {
    answer["usageMetadata"].is_object()
        || answer["candidates"].is_array()
        || answer["promptFeedback"].is_object()
}

/// The tokens that an answer tells; `None` where it tells none, or one of its numbers is none.
fn tokens(answer: &Value) -> Option<Tokens> {
    let mut usages: Vec<&Value> = vec![&answer["usage"]];
    for inner in ["message", "response"] {
        usages.push(&answer[inner]["usage"]);
    }
    if usages.iter().filter(|usage| usage.is_object()).count() > 1 {
        // Which one counts is not defined.
        return observed(answer);
    }
    let usage = usages.into_iter().find(|usage| usage.is_object());
    let usage = usage.unwrap_or(&Value::Null);
    let metadata = &answer["usageMetadata"];
    let details = ["prompt_tokens_details", "input_tokens_details"];
    let details: Vec<&Value> = details
        .map(|name| &usage[name]["cached_tokens"])
        .into_iter()
        .filter(|value| !value.is_null())
        .collect();
    if details.len() > 1 {
        return observed(answer);
    }
    let detail = details.first().copied().unwrap_or(&Value::Null);
    let names = ["prompt_tokens", "completion_tokens", "input_tokens"];
    let [prompt, completion, input] = names.map(|name| &usage[name]);
    let names = [
        "output_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
    ];
    let [output, read, created] = names.map(|name| &usage[name]);
    let names = [
        "promptTokenCount",
        "toolUsePromptTokenCount",
        "cachedContentTokenCount",
        "candidatesTokenCount",
        "thoughtsTokenCount",
    ];
    let gemini = names.map(|name| &metadata[name]);
    let told = [prompt, completion, input, output, read, created, detail];
    if told
        .iter()
        .chain(&gemini)
        .any(|value| !value.is_null() && !value.is_u64())
    {
        return None;
    }
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let sum = |values: &[&Value]| {
        let numbers = values.iter().map(|value| number(value));
        numbers.fold(0, u64::saturating_add)
    };
    let kind = answer["type"].as_str().unwrap_or_default();
    let is_message = ["message", "message_start", "message_delta"].contains(&kind);
    let (input, cached, output) = if is_message && !kind.ends_with("message") {
        (sum(&[input, read, created]), number(read), number(output))
    } else if is_gemini(answer) {
        let [prompt, tools, cached, candidates, thoughts] = gemini;
        (
            sum(&[prompt, tools]),
            number(cached),
            sum(&[candidates, thoughts]),
        )
    } else if prompt.is_u64() || completion.is_u64() {
        let cached = if detail.is_u64() { detail } else { read };
        (number(prompt), number(cached), number(completion))
    } else if is_message || read.is_u64() || created.is_u64() {
        (sum(&[input, read, created]), number(read), number(output))
    } else {
        (number(input), number(detail), number(output))
    };
    Tokens {
        input,
        cached,
        output,
    }
    .some()
}

/// The tokens as they are read, where a document contradicts itself.
fn observed(answer: &Value) -> Option<Tokens> {
    let text = answer.to_string();
    match observe("/v1/x", JSON, "identity", text.as_bytes(), 0).0 {
        Usage::Known(tokens) => Some(tokens),
        Usage::Unknown | Usage::None => None,
    }
}
