//! Requests and responses of the simulated Flow, as its routes and APIs see them. Plain data.

use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::Value;

use super::accounts::Model;
use super::speech::Reply;
use super::usage::{InputTokens, Usage};

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
    pub(super) tokens: InputTokens,
}

/// What a model says to a prompt, in no API's form.
pub(super) struct Answer<'a> {
    pub(super) reply: Reply,
    pub(super) model: &'a str,
    pub(super) usage: Usage,
    pub(super) id: ResponseId,
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

/// The response to a call of a model.
#[derive(Debug)]
pub(super) struct Completed {
    pub(super) body: Body,
    pub(super) usage: Usage,
}

impl Prompt {
    /// Returns the model that the request names, `default` where it names none.
    pub(super) fn model<'a>(&'a self, default: &'a str) -> &'a str {
        self.json["model"].as_str().unwrap_or(default)
    }

    /// Returns what this prompt uses with an output of so many tokens.
    pub(super) fn usage(&self, output: u64) -> Usage {
        Usage::new(self.tokens, output, Model::named(self.model("")))
    }

    /// Makes a reply the answer of the model that the request names.
    pub(super) fn answer<'a>(
        &'a self,
        reply: Reply,
        id: ResponseId,
        default_model: &'a str,
    ) -> Answer<'a> {
        Answer {
            usage: self.usage(reply.pieces().len() as u64),
            model: self.model(default_model),
            reply,
            id,
        }
    }

    /// Writes an answer: as a stream where the request asks for one.
    pub(super) fn completed(
        &self,
        usage: Usage,
        whole: impl FnOnce() -> Value,
        events: impl FnOnce() -> Vec<String>,
    ) -> Completed {
        let body = match self.json["stream"] == true {
            true => Body::Events(events()),
            false => Body::Json(whole()),
        };
        Completed { body, usage }
    }
}

impl Response {
    pub(super) fn ok(body: Body) -> Response {
        Response {
            status: StatusCode::OK,
            headers: Vec::new(),
            body,
        }
    }

    /// Adds a header of LiteLLM's.
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Response {
        let value = HeaderValue::from_str(value).expect("ids and numbers are header values");
        self.headers.push((HeaderName::from_static(name), value));
        self
    }
}

/// Returns events that have data only, as OpenAI's streams do, and the last one of such a stream.
pub(super) fn data_events(data: &[Value]) -> Vec<String> {
    let events = data.iter().map(|data| format!("data: {data}\n\n"));
    events.chain(["data: [DONE]\n\n".to_owned()]).collect()
}
