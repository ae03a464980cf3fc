//! What is wrong with a request, in the error formats of the two APIs.

use std::borrow::Cow;

use http::StatusCode;
use serde_json::{Value, json};

/// Why a request is not answered as asked.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) status: StatusCode,
    pub(super) message: Cow<'static, str>,
    /// The methods that the path takes, where that is what is wrong.
    pub(super) allow: Option<&'static str>,
}

/// Whose error format a client expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// OpenAI's, as LiteLLM fills it.
    LiteLlm,
    Anthropic,
}

impl Fault {
    pub(super) fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Fault {
        Fault {
            status,
            message: message.into(),
            allow: None,
        }
    }

    pub(super) fn bad_request(message: impl Into<Cow<'static, str>>) -> Fault {
        Fault::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn body(&self, dialect: Dialect) -> Value {
        let message = &self.message;
        let (litellm, anthropic) = match self.status {
            StatusCode::UNAUTHORIZED => ("auth_error", "authentication_error"),
            StatusCode::NOT_FOUND => ("not_found_error", "not_found_error"),
            StatusCode::PAYLOAD_TOO_LARGE => ("invalid_request_error", "request_too_large"),
            _ => ("invalid_request_error", "invalid_request_error"),
        };
        match dialect {
            // LiteLLM writes a missing param as "None", and the status as a string.
            Dialect::LiteLlm => json!({"error": {
                "message": message,
                "type": litellm,
                "param": "None",
                "code": self.status.as_str(),
            }}),
            Dialect::Anthropic => {
                json!({"type": "error", "error": {"type": anthropic, "message": message}})
            }
        }
    }
}
