//! Errors of the simulated Flow, in the formats of its two APIs. Pure.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

/// How long a rate limit lasts, in seconds: long enough to be seen, short enough not to bore.
const LIMIT_SECONDS: u64 = 5;

/// Why a request gets an error response.
#[derive(Debug)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    message: Cow<'static, str>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    cause: Cause,
}

/// What is at fault.
#[derive(Debug, Clone, Copy)]
enum Cause {
    Request,
    Token,
    Model,
    Budget,
    Limit,
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
            headers: Vec::new(),
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
            headers: vec![(header::ALLOW, HeaderValue::from_static(allowed))],
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

    /// The account has spent more than its budget, both in USD.
    pub(super) fn budget_exceeded(spent: f64, budget: f64) -> ApiError {
        let message =
            format!("Budget has been exceeded! Current cost: {spent}, Max budget: {budget}");
        ApiError {
            cause: Cause::Budget,
            ..ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message)
        }
    }

    /// The account has sent more requests than its `limit`.
    pub(super) fn rate_limited(account: &str, limit: u64) -> ApiError {
        let message = format!(
            "Rate limit exceeded for api_key: {account}. Limit type: requests. Current limit: \
             {limit}, Remaining: 0."
        );
        let kind = HeaderName::from_static("rate_limit_type");
        ApiError {
            cause: Cause::Limit,
            headers: vec![
                (header::RETRY_AFTER, HeaderValue::from(LIMIT_SECONDS)),
                (kind, HeaderValue::from_static("requests")),
            ],
            ..ApiError::new(StatusCode::TOO_MANY_REQUESTS, message)
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
                self.anthropic_body(kind)
            }
            // LiteLLM checks tokens before it knows the API, so these have one format on every path.
            (Cause::Token, _) => self.litellm_body("auth_error", "None".into()),
            (Cause::Model, _) => self.litellm_body("key_model_access_denied", "model".into()),
            (Cause::Limit, Dialect::LiteLlm) => self.litellm_body("throttling_error", Value::Null),
            (Cause::Limit, Dialect::Anthropic) => self.anthropic_body("rate_limit_error"),
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

    fn anthropic_body(&self, kind: &str) -> Value {
        json!({"type": "error", "error": {"type": kind, "message": self.message}})
    }
}
