//! An access line as a JSON object. Only an object with all that an access line has is one.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::head::Time;
use super::record::{Record, amount, is_status};
use crate::proxy::usage::tokens::Tokens;

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(rename = "peer")]
    _peer: IgnoredAny,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    path: Cow<'a, str>,
    status: u16,
    #[serde(borrow)]
    config: Cow<'a, str>,
    #[serde(rename = "attempts")]
    _attempts: u64,
    ttfb_ms: u64,
    duration_ms: u64,
    out: u64,
    #[serde(borrow)]
    end: Cow<'a, str>,
    #[serde(borrow, default)]
    model: Cow<'a, str>,
    #[serde(borrow, default)]
    agent: Cow<'a, str>,
    #[serde(borrow, default)]
    client: Cow<'a, str>,
    input_tokens: Option<u64>,
    #[serde(default)]
    cached_tokens: u64,
    #[serde(default)]
    output_tokens: u64,
    cost: Option<f64>,
    #[serde(rename = "id")]
    _id: IgnoredAny,
    message: Option<IgnoredAny>,
}

/// Takes an object apart. `None`: it is no access line.
pub fn parse(time: Time, object: &[u8]) -> Option<Record<'_>> {
    let object: Object<'_> = serde_json::from_slice(object).ok()?;
    if object.message.is_some() || !is_status(object.status) {
        return None;
    }
    let cost = match object.cost {
        Some(cost) => Some(amount(cost)?),
        None => None,
    };
    Some(Record {
        method: bytes(object.method),
        path: bytes(object.path),
        status: object.status,
        config: bytes(object.config),
        end: bytes(object.end),
        has_begun: object.out > 0 || object.ttfb_ms < object.duration_ms,
        model: bytes(object.model),
        agent: bytes(object.agent),
        client: bytes(object.client),
        tokens: object.input_tokens.map(|input| Tokens {
            input,
            cached: object.cached_tokens,
            output: object.output_tokens,
        }),
        cost,
        ..Record::at(time)
    })
}

fn bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => text.as_bytes().into(),
        Cow::Owned(text) => text.into_bytes().into(),
    }
}
