//! The model that a request asks for. Pure.
//!
//! It is the last top-level `model` of a JSON body, which LiteLLM takes too, or the one in the path. A body
//! may have a megabyte of messages, so the usual case is found without reading it as JSON: one `"model"`
//! near the beginning or the end, and no escape that could spell another one.

use std::borrow::Cow;
use std::fmt;

use memchr::memmem;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::config::file::BYTE_ORDER_MARK;

/// A longer name is none, in bytes: what is kept of a request is bounded.
const MAX_MODEL: usize = 128;
/// How far from an end of the body a lone `"model"` is looked at closely, in bytes.
const NEAR: usize = 16 * 1024;
const KEY: &[u8] = b"\"model\"";
/// All letters of the key are U+006x: an escape that spells one begins so.
const ESCAPE: &[u8] = b"\\u006";

/// Returns the model of a request with this path and body.
pub fn of_request(path: &[u8], body: &[u8]) -> Option<String> {
    in_body(body)
        .or_else(|| in_path(path))
        .filter(|model| !model.is_empty() && model.len() <= MAX_MODEL)
}

/// `/models/X…` as in Gemini's API, `/deployments/X/…` as in Azure's.
fn in_path(path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    let rest = ["/models/", "/deployments/"]
        .iter()
        .find_map(|before| Some(path.split_once(before)?.1))?;
    let end = rest.find(['/', ':', '?']).unwrap_or(rest.len());
    let model = percent_decode_str(&rest[..end]).decode_utf8().ok()?;
    Some(model.into_owned())
}

fn in_body(body: &[u8]) -> Option<String> {
    let body = body.strip_prefix(&BYTE_ORDER_MARK).unwrap_or(body);
    let text = body.trim_ascii_start();
    if text.first() != Some(&b'{') {
        return None;
    }
    let mut keys = memmem::find_iter(text, KEY);
    let (first, second) = (keys.next(), keys.next());
    let is_usual = second.is_none() && memmem::find(text, ESCAPE).is_none();
    match first {
        None if is_usual => None,
        Some(at) if is_usual => match is_at_top(text, at) {
            Some(true) => value_behind(&text[at + KEY.len()..]),
            Some(false) => None,
            None => read(text),
        },
        _ => read(text),
    }
}

/// The text that is the value of the member whose name ends before `rest`.
fn value_behind(rest: &[u8]) -> Option<String> {
    let value = rest.trim_ascii_start().strip_prefix(b":")?;
    let mut parser = serde_json::Deserializer::from_slice(value);
    String::deserialize(&mut parser).ok()
}

/// Whether the only `"model"`, at `at`, is the name of a member of the outermost object. `None`: it is too
/// far from both ends to tell without reading everything.
fn is_at_top(text: &[u8], at: usize) -> Option<bool> {
    let (before, rest) = (&text[..at], &text[at + KEY.len()..]);
    if before.ends_with(b"\\") || !rest.trim_ascii_start().starts_with(b":") {
        // Behind a backslash the quote is part of a string; without a colon it is a value.
        return Some(false);
    }
    if before.len() <= NEAR {
        return Some(scan(before, 0)? == 1);
    }
    if rest.len() <= NEAR {
        return Some(scan(rest, 1)? == 0);
    }
    None
}

/// Returns the depth at the end of `text`, which begins at `depth`. `None`: it ends inside a string, or
/// closes more than is open.
fn scan(text: &[u8], mut depth: usize) -> Option<usize> {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b'"' => at += string_end(&text[at..])?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    Some(depth)
}

/// The index behind the quote that ends the string in which `text` begins.
fn string_end(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', &text[at..])?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
        if at > text.len() {
            return None;
        }
    }
}

/// Reads all of the body as JSON.
fn read(text: &[u8]) -> Option<String> {
    let mut parser = serde_json::Deserializer::from_slice(text);
    parser.deserialize_map(LastModel).ok().flatten()
}

struct LastModel;

impl<'de> Visitor<'de> for LastModel {
    type Value = Option<String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<String>, A::Error> {
        let mut model = None;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if key == "model" {
                let value: serde_json::Value = map.next_value()?;
                model = value.as_str().map(str::to_owned);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(body: &str) -> Option<String> {
        of_request(b"/v1/chat/completions", body.as_bytes())
    }

    #[test]
    fn the_model_is_the_last_top_level_member() {
        for (body, expected) in [
            (r#"{"model":"a"}"#, Some("a")),
            ("\u{feff} {\n\"model\" : \"a\", \"x\": 1}", Some("a")),
            (r#"{"mod\u0065l":"a"}"#, Some("a")),
            (r#"{"model":"a","mod\u0065l":"b"}"#, Some("b")),
            (r#"{"model":"a","model":"b"}"#, Some("b")),
            (r#"{"model":"a\u00e9\"b"}"#, Some("aé\"b")),
            (r#"{"messages":[{"model":"no"}],"model":"a"}"#, Some("a")),
            (r#"{"model":"a","messages":[{"model":"no"}]}"#, Some("a")),
            (r#"{"tools":{"model":"no"}}"#, None),
            (r#"{"a":"\"model\":\"no\"","model":"a"}"#, Some("a")),
            (r#"{"a":"\"model\":\"no\""}"#, None),
            (r#"{"a":"say \"model","b":":\"no\""}"#, None),
            (r#"{"a":"model","b":["model"]}"#, None),
            (r#"{"a":"\\","model":"a"}"#, Some("a")),
            (r#"{"model":7}"#, None),
            (r#"{"model":null}"#, None),
            (r#"{"model":""}"#, None),
            (r#"["model"]"#, None),
            (r#"[{"model":"no"}]"#, None),
            ("model", None),
            ("", None),
            ("{", None),
            (r#"{"model":"#, None),
        ] {
            assert_eq!(model(body).as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn a_long_body_hides_no_model() {
        let text = r#"say \"model\": \"no\" {[\\ "#.repeat(40_000);
        let messages = format!(r#""messages":[{{"role":"user","content":"{text}"}}]"#);
        for (body, expected) in [
            (format!(r#"{{{messages},"model":"a"}}"#), Some("a")),
            (format!(r#"{{"model":"a",{messages}}}"#), Some("a")),
            (
                format!(r#"{{{messages},"model":"a",{messages}}}"#),
                Some("a"),
            ),
            (format!(r#"{{{messages},"x":{{"model":"no"}}}}"#), None),
            (format!(r#"{{"x":[{{"model":"no"}}],{messages}}}"#), None),
            (
                format!(r#"{{"x":{{{messages},"model":"no",{messages}}}}}"#),
                None,
            ),
        ] {
            assert_eq!(model(&body).as_deref(), expected);
        }
    }

    #[test]
    fn a_path_may_name_the_model_and_the_body_counts_more() {
        for (path, expected) in [
            ("/v1beta/models/gemini-x:generateContent", Some("gemini-x")),
            ("/openai/deployments/gpt-x/chat/completions", Some("gpt-x")),
            ("/v1/models/gpt-x", Some("gpt-x")),
            ("/v1/models", None),
            ("/v1/models/", None),
        ] {
            assert_eq!(of_request(path.as_bytes(), b"").as_deref(), expected);
        }
        let body = br#"{"model":"a"}"#;
        assert_eq!(of_request(b"/v1/models/x", body).as_deref(), Some("a"));
    }

    #[test]
    fn a_name_that_is_too_long_is_none() {
        let body = |length| format!(r#"{{"model":"{}"}}"#, "x".repeat(length));
        assert_eq!(
            model(&body(MAX_MODEL)).map(|name| name.len()),
            Some(MAX_MODEL)
        );
        assert_eq!(model(&body(MAX_MODEL + 1)), None);
    }
}
