//! An access line as a JSON object. Only an object with all that an access line has is one.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::record::{Record, amount, is_of_requests, is_status, time};
use crate::proxy::usage::tokens::Tokens;

/// The length of a line's time without its offset, in bytes.
const TIME_LENGTH: usize = 19;

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    level: Cow<'a, str>,
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

/// Takes a line apart, without its line end. `None`: it is no access line.
pub fn parse(line: &[u8]) -> Option<Record<'_>> {
    let object: Object<'_> = serde_json::from_slice(line).ok()?;
    let local = object.time.as_bytes().get(..TIME_LENGTH)?;
    let is_own = is_of_requests(object.level.as_bytes()) && is_status(object.status);
    if !is_own || object.message.is_some() {
        return None;
    }
    let cost = match object.cost {
        Some(cost) => Some(amount(cost)?),
        None => None,
    };
    Some(Record {
        time: time(local, b'T')?,
        requests: 1,
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
    })
}

fn bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => text.as_bytes().into(),
        Cow::Owned(text) => text.into_bytes().into(),
    }
}
