//! Errors of the simulated Flow, in the formats of its two APIs. Pure.

use std::borrow::Cow;

use http::StatusCode;
use serde_json::{Value, json};

/// Why a request gets an error response.
#[derive(Debug)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    message: Cow<'static, str>,
    /// The methods that the path allows, where the method is at fault.
    pub(super) allow: Option<&'static str>,
    cause: Cause,
}

/// What is at fault.
#[derive(Debug, Clone, Copy)]
enum Cause {
    Request,
    Token,
    Model,
    Budget,
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
            cause: Cause::Request,
        }
    }

    pub(super) fn bad_request(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    /// The path does not allow the method, but those in `allowed`.
    pub(super) fn method_not_allowed(allowed: &'static str) -> ApiError {
        let message = format!("Method Not Allowed: this path takes {allowed}");
        ApiError {
            allow: Some(allowed),
            ..ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
        }
    }

    /// The token is not accepted. `why` ends a sentence that begins with "Authentication Error, ".
    pub(super) fn unauthorized(why: &str) -> ApiError {
        ApiError {
            cause: Cause::Token,
            ..ApiError::new(
                StatusCode::UNAUTHORIZED,
                format!("Authentication Error, {why}"),
            )
        }
    }

    /// The account may not use `model`.
    pub(super) fn model_denied(model: &str) -> ApiError {
        let message = format!(
            "The requested model '{model}' is not available for this API key, or the model name is \
             invalid. Check the models available to you and try again."
        );
        ApiError {
            cause: Cause::Model,
            ..ApiError::new(StatusCode::FORBIDDEN, message)
        }
    }

    /// The account's budget is spent.
    pub(super) fn budget_exceeded() -> ApiError {
        ApiError {
            cause: Cause::Budget,
            ..ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "Budget has been exceeded! Current cost: 2.0, Max budget: 1.0",
            )
        }
    }

    /// Returns the body of the error response.
    pub(super) fn body(&self, dialect: Dialect) -> Value {
        match (self.cause, dialect) {
            // LiteLLM writes a missing param as "None".
            (Cause::Request, Dialect::LiteLlm) => {
                let kind = match self.status {
                    StatusCode::NOT_FOUND => "not_found_error",
                    _ => "invalid_request_error",
                };
                self.litellm_body(kind, "None".into())
            }
            (Cause::Request, Dialect::Anthropic) => {
                let kind = match self.status {
                    StatusCode::NOT_FOUND => "not_found_error",
                    StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
                    _ => "invalid_request_error",
                };
                json!({"type": "error", "error": {"type": kind, "message": self.message}})
            }
            // LiteLLM checks tokens before it knows the API, so these have one format on every path.
            (Cause::Token, _) => self.litellm_body("auth_error", "None".into()),
            (Cause::Model, _) => self.litellm_body("key_model_access_denied", "model".into()),
            (Cause::Budget, _) => self.litellm_body("budget_exceeded", Value::Null),
        }
    }

    /// LiteLLM writes the status as a string.
    fn litellm_body(&self, kind: &str, param: Value) -> Value {
        json!({"error": {
            "message": self.message,
            "type": kind,
            "param": param,
            "code": self.status.as_str(),
        }})
    }
}
