//! JSON for the secrets file. Objects keep the order and the repeats of their fields, which
//! `serde_json::Value` drops silently, and errors never quote the input. Pure.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

/// A JSON value. Numbers and booleans are known by their kind only.
pub(super) enum Json {
    Array(Vec<Json>),
    /// In the order of the text, with repeated keys.
    Object(Vec<(String, Json)>),
    /// Wiped when dropped, since any text may be a secret.
    Text(Zeroizing<String>),
    Number,
    Boolean,
    Null,
}

impl Json {
    /// Returns the kind of the value with its article, for error messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
            Self::Text(_) => "a string",
            Self::Number => "a number",
            Self::Boolean => "a boolean",
            Self::Null => "null",
        }
    }
}

/// Parses a JSON text. Skips a byte order mark, which editors on Windows write (RFC 8259 section 8.1
/// lets a parser ignore it).
///
/// # Errors
///
/// What is wrong, with line and column, both counted from 1, the column in bytes.
pub(super) fn parse(bytes: &[u8]) -> Result<Json, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let valid = &bytes[..error.valid_up_to()];
        let line = 1 + valid.iter().filter(|&&b| b == b'\n').count();
        let column = 1 + valid.iter().rev().take_while(|&&b| b != b'\n').count();
        format!("is not UTF-8 at line {line} column {column}: save it with that encoding")
    })?;
    if text.trim().is_empty() {
        return Err("is empty: it must hold a JSON array of objects".into());
    }
    // The messages of serde_json itself are fixed texts. Messages of a visitor could quote the input,
    // but ours has none: it accepts every type.
    serde_json::from_str(text).map_err(|error| format!("is not valid JSON: {error}"))
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Boolean)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Json, E> {
        Ok(Json::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Number)
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(Zeroizing::new(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element()? {
            elements.push(element);
        }
        Ok(Json::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Json::Object(fields))
    }
}
