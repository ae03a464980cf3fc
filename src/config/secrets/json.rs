//! JSON for the secrets file. Objects keep the order and the repeats of their fields, which
//! `serde_json::Value` drops silently, and errors never quote the input. Texts are decoded here, since
//! `serde_json` leaves copies of those with escapes in memory. Pure.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::config::file::BYTE_ORDER_MARK;

/// The value of a field. What is of no use for the secrets file is known by its kind only.
pub(super) enum Json {
    /// Wiped when dropped, since any text may be a secret.
    Text(Zeroizing<String>),
    Other(&'static str),
}

impl Json {
    /// Returns the kind of the value with its article, for error messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Json::Text(_) => "a string",
            Json::Other(kind) => kind,
        }
    }
}

/// An element of the array: the fields of an object in the order of the text, with repeated keys; or the
/// kind of what is no object.
pub(super) struct Element(pub(super) Result<Vec<(String, Json)>, &'static str>);

/// Parses a JSON text that must hold an array. Skips a byte order mark, which editors on Windows write
/// (RFC 8259 section 8.1 lets a parser ignore it).
///
/// # Errors
///
/// What is wrong, with line and column, both counted from 1, the column in bytes.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Element>, String> {
    let bytes = bytes.strip_prefix(&BYTE_ORDER_MARK).unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let valid = &bytes[..error.valid_up_to()];
        let line = 1 + valid.iter().filter(|&&b| b == b'\n').count();
        let column = 1 + valid.iter().rev().take_while(|&&b| b != b'\n').count();
        format!("is not UTF-8 at line {line} column {column}: save it with that encoding")
    })?;
    if text.trim().is_empty() {
        return Err("is empty: it must hold a JSON array of objects".into());
    }
    // The messages of serde_json itself are fixed texts, and so is that of the visitor.
    let invalid = |error: serde_json::Error| format!("is not valid JSON: {error}");
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).map_err(invalid);
    }
    let other: &RawValue = serde_json::from_str(text).map_err(invalid)?;
    let kind = kind(other);
    Err(format!("must hold a JSON array of objects, not {kind}"))
}

/// Returns the kind of a valid value, which its first character tells, with its article.
fn kind(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes().first() {
        Some(b'[') => "an array",
        Some(b'{') => "an object",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// Decodes a string (RFC 8259 section 7). `None`: it is none, or has half of a surrogate pair.
fn decode(raw: &str) -> Option<Zeroizing<String>> {
    let mut rest = raw.strip_prefix('"')?.strip_suffix('"')?;
    // It never grows, which would leave copies.
    let mut text = Zeroizing::new(String::with_capacity(rest.len()));
    while let Some((plain, escape)) = rest.split_once('\\') {
        text.push_str(plain);
        let mut chars = escape.chars();
        let decoded = match chars.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let (decoded, length) = decode_utf16(escape)?;
                chars = escape.get(length..)?.chars();
                decoded
            }
            itself => itself,
        };
        text.push(decoded);
        rest = chars.as_str();
    }
    text.push_str(rest);
    Some(text)
}

/// Decodes what begins with `uXXXX`, and goes on with `\uXXXX` where that is half of a pair. Returns the
/// character and the length of its escapes.
fn decode_utf16(escape: &str) -> Option<(char, usize)> {
    let unit = |at: usize| u16::from_str_radix(escape.get(at..at + 4)?, 16).ok();
    let first = unit(1)?;
    if let Some(char) = char::from_u32(first.into()) {
        return Some((char, 5));
    }
    let second = escape.get(5..)?.starts_with("\\u").then(|| unit(7))??;
    let mut decoded = char::decode_utf16([first, second]);
    Some((decoded.next()?.ok()?, 11))
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ElementVisitor)
    }
}

struct ElementVisitor;

impl<'de> Visitor<'de> for ElementVisitor {
    type Value = Element;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Element, E> {
        Ok(Element(Err("a boolean")))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Element, E> {
        Ok(Element(Err("a number")))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Element, E> {
        Ok(Element(Err("a number")))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Element, E> {
        Ok(Element(Err("a number")))
    }

    fn visit_unit<E>(self) -> Result<Element, E> {
        Ok(Element(Err("null")))
    }

    fn visit_str<E>(self, _: &str) -> Result<Element, E> {
        Ok(Element(Err("a string")))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Element, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Element(Err("an array")))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Element, A::Error> {
        let mut fields = Vec::new();
        while let Some((key, raw)) = map.next_entry::<String, &RawValue>()? {
            let value = match kind(raw) {
                "a string" => Json::Text(
                    decode(raw.get())
                        .ok_or_else(|| A::Error::custom("half of a surrogate pair in a string"))?,
                ),
                other => Json::Other(other),
            };
            fields.push((key, value));
        }
        Ok(Element(Ok(fields)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_decoded_as_serde_json_does() {
        for raw in [
            r#""""#,
            r#""plain é 中""#,
            r#""\"\\\/\b\f\n\r\t""#,
            r#""a\u00e9\u4e2D\u0000z\\u0041""#,
            r#""\ud83d\ude00!\uD83D\uDE00""#,
            r#""\uffff\ud7ff\ue000""#,
            r#""\ud83d""#,
            r#""\ud83dx""#,
            r#""\ud83d\n""#,
            r#""\ud83d\u0041""#,
            r#""\ude00\ud83d""#,
            "1",
        ] {
            let expected: Option<String> = serde_json::from_str(raw).ok();
            assert_eq!(decode(raw).map(|text| text.to_string()), expected, "{raw}");
        }
    }
}
