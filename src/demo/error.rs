//! Errors of the simulated Flow, in the formats of its two APIs. Pure.

use std::borrow::Cow;

use http::StatusCode;
use serde_json::{Value, json};

/// Why a request gets an error response.
#[derive(Debug)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) message: Cow<'static, str>,
    /// The methods that the path allows, where the method is at fault.
    pub(super) allow: Option<&'static str>,
}

/// The error format that a client expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// OpenAI's, as LiteLLM fills it.
    LiteLlm,
    Anthropic,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError {
            status,
            message: message.into(),
            allow: None,
        }
    }

    pub(super) fn bad_request(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    /// Returns the body of the error response.
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
