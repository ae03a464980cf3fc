//! Requests and responses of the simulated Flow, as its routes and APIs see them. Plain data.

use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::Value;

/// LiteLLM sets it on every response to a call of a model, once the token is accepted.
const CALL_ID: HeaderName = HeaderName::from_static("x-litellm-call-id");

/// A complete request.
pub(super) struct Request<'a> {
    pub(super) method: &'a Method,
    /// The request target, with its query.
    pub(super) target: &'a [u8],
    /// The value of the Authorization header.
    pub(super) authorization: Option<&'a [u8]>,
    pub(super) body: &'a [u8],
}

/// The body of a request to a model.
pub(super) struct Prompt {
    /// A JSON object.
    pub(super) json: Value,
    pub(super) tokens: u64,
}

/// Distinguishes a response from all others.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResponseId {
    /// Counts from 1.
    pub(super) serial: u64,
    /// Seconds since 1970.
    pub(super) created: u64,
}

/// A response, without the headers that follow from its body.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    Json(Value),
    /// Server-sent events in their order, each with the empty line that ends it.
    Events(Vec<String>),
}

impl Response {
    pub(super) fn ok(body: Body) -> Response {
        Response {
            status: StatusCode::OK,
            headers: Vec::new(),
            body,
        }
    }

    /// Marks this as the response to a call of a model.
    pub(super) fn with_call_id(mut self, id: ResponseId) -> Response {
        // LiteLLM's ids are random UUIDs; this one has the format of such (RFC 9562 section 5.4).
        let uuid = format!("00000000-0000-4000-8000-{:012x}", id.serial);
        let value = HeaderValue::from_str(&uuid).expect("hexadecimal digits are a header value");
        self.headers.push((CALL_ID, value));
        self
    }
}

/// Returns how many tokens a body of this length counts as: models need about four bytes of English
/// for a token. The JSON around the text is counted as well.
pub(super) fn prompt_tokens(body_bytes: usize) -> u64 {
    (body_bytes as u64).div_ceil(4)
}

/// Returns events that have data only, as OpenAI's streams do, and the last one of such a stream.
pub(super) fn data_events(data: &[Value]) -> Vec<String> {
    let events = data.iter().map(|data| format!("data: {data}\n\n"));
    events.chain(["data: [DONE]\n\n".to_owned()]).collect()
}
