//! Requests and responses of the simulated Flow, as its routes and APIs see them. Plain data.

use http::{Method, StatusCode};
use serde_json::Value;

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

/// A response, without the headers that follow from it.
#[derive(Debug)]
pub(super) enum Response {
    Json {
        status: StatusCode,
        /// The value of the Allow header.
        allow: Option<&'static str>,
        body: Value,
    },
    /// Server-sent events in their order, each with the empty line that ends it.
    Events(Vec<String>),
}

impl Response {
    pub(super) fn ok(body: Value) -> Response {
        Response::Json {
            status: StatusCode::OK,
            allow: None,
            body,
        }
    }
}

/// Returns how many tokens a body of this length counts as: models need about four bytes of English
/// for a token. The JSON around the text is counted as well.
pub(super) fn prompt_tokens(body_bytes: usize) -> u64 {
    (body_bytes as u64).div_ceil(4)
}
