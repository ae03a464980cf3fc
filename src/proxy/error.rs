//! Errors of the proxy's own: status, code, message, and the dialect of the client.

use crate::http1::error::{Reason, Refusal};
use http::{HeaderName, HeaderValue, header};

/// The field that tells our errors from the upstream's.
pub const ERROR_FIELD: HeaderName = HeaderName::from_static("x-flow-proxy-error");

/// What went wrong, on whichever side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    BadRequest,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    BodyTooLarge,
    UriTooLong,
    HeadersTooLarge,
    ExpectationFailed,
    NotImplemented,
    VersionNotSupported,
    InternalError,
    UpstreamUnreachable,
    UpstreamBroke,
    UpstreamTimeout,
    Overloaded,
    ShuttingDown,
}

/// An answer of the proxy's own.
#[derive(Debug)]
pub struct ProxyError {
    pub code: Code,
    /// Says what to do. Never holds anything secret.
    pub message: String,
}

/// Whose error format a client expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    OpenAi,
    Anthropic,
}

impl Code {
    /// Status, code, and the error types of OpenAI's and of Anthropic's API.
    fn facts(self) -> (u16, &'static str, &'static str, &'static str) {
        const INVALID: &str = "invalid_request_error";
        match self {
            Code::BadRequest => (400, "bad_request", INVALID, INVALID),
            Code::Forbidden => (403, "forbidden", INVALID, "permission_error"),
            Code::NotFound => (404, "not_found", INVALID, "not_found_error"),
            Code::MethodNotAllowed => (405, "method_not_allowed", INVALID, INVALID),
            Code::RequestTimeout => (408, "request_timeout", INVALID, INVALID),
            Code::BodyTooLarge => (413, "body_too_large", INVALID, "request_too_large"),
            Code::UriTooLong => (414, "uri_too_long", INVALID, INVALID),
            Code::ExpectationFailed => (417, "expectation_failed", INVALID, INVALID),
            Code::HeadersTooLarge => (431, "headers_too_large", INVALID, INVALID),
            Code::InternalError => (500, "internal_error", "server_error", "api_error"),
            Code::NotImplemented => (501, "not_implemented", INVALID, INVALID),
            Code::UpstreamUnreachable => (502, "upstream_unreachable", "server_error", "api_error"),
            Code::UpstreamBroke => (502, "upstream_broke", "server_error", "api_error"),
            Code::Overloaded => (503, "overloaded", "server_error", "overloaded_error"),
            Code::ShuttingDown => (503, "shutting_down", "server_error", "overloaded_error"),
            Code::UpstreamTimeout => (504, "upstream_timeout", "server_error", "timeout_error"),
            Code::VersionNotSupported => (505, "version_not_supported", INVALID, INVALID),
        }
    }

    pub fn status(self) -> u16 {
        self.facts().0
    }

    pub fn name(self) -> &'static str {
        self.facts().1
    }
}

impl From<Reason> for Code {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::BadRequest => Code::BadRequest,
            Reason::RequestTimeout => Code::RequestTimeout,
            Reason::BodyTooLarge => Code::BodyTooLarge,
            Reason::UriTooLong => Code::UriTooLong,
            Reason::HeadersTooLarge => Code::HeadersTooLarge,
            Reason::ExpectationFailed => Code::ExpectationFailed,
            Reason::NotImplemented => Code::NotImplemented,
            Reason::VersionNotSupported => Code::VersionNotSupported,
            Reason::Overloaded => Code::Overloaded,
            Reason::ShuttingDown => Code::ShuttingDown,
        }
    }
}

impl From<&Refusal> for ProxyError {
    fn from(refusal: &Refusal) -> Self {
        ProxyError {
            code: refusal.reason.into(),
            message: refusal.message.clone().into_owned(),
        }
    }
}

impl ProxyError {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        ProxyError {
            code,
            message: message.into(),
        }
    }

    /// The fields and the body of the answer.
    pub fn answer(&self, dialect: Dialect) -> (Vec<(HeaderName, HeaderValue)>, Vec<u8>) {
        let (_, code, openai, anthropic) = self.code.facts();
        let message = format!("flow-proxy: {}", self.message);
        let body = match dialect {
            Dialect::Anthropic => anthropic_error(anthropic, &message),
            Dialect::OpenAi => openai_error(openai, code, &message),
        };
        let body = body.into_bytes();
        let mut fields = vec![
            (
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            ),
            (header::CONTENT_LENGTH, HeaderValue::from(body.len())),
            (ERROR_FIELD, HeaderValue::from_static(code)),
        ];
        match self.code {
            Code::Overloaded | Code::ShuttingDown => {
                fields.push((header::RETRY_AFTER, HeaderValue::from_static("1")));
            }
            Code::MethodNotAllowed => {
                let allowed =
                    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
                fields.push((header::ALLOW, allowed));
            }
            _ => {}
        }
        (fields, body)
    }
}

/// Anthropic's error object, members in the order of its documentation.
pub(super) fn anthropic_error(kind: &str, message: &str) -> String {
    let message = serde_json::Value::from(message);
    format!(r#"{{"type":"error","error":{{"type":"{kind}","message":{message}}}}}"#)
}

/// OpenAI's error object, members in the order of its documentation.
fn openai_error(kind: &str, code: &str, message: &str) -> String {
    let message = serde_json::Value::from(message);
    format!(r#"{{"error":{{"message":{message},"type":"{kind}","param":null,"code":"{code}"}}}}"#)
}

impl Dialect {
    /// The dialect of a request's path: Anthropic's under `/v1/messages`, with the target's base
    /// path before it or not.
    pub fn of(path: &[u8], base_path: &str) -> Dialect {
        let rest = path.strip_prefix(base_path.as_bytes());
        let path = rest.filter(|rest| rest.starts_with(b"/")).unwrap_or(path);
        match path.strip_prefix(b"/v1/messages") {
            Some([] | [b'/' | b'?', ..]) => Dialect::Anthropic,
            _ => Dialect::OpenAi,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_tells_the_dialect() {
        for path in [
            "/v1/messages",
            "/v1/messages?beta=true",
            "/v1/messages/count_tokens",
        ] {
            assert_eq!(
                Dialect::of(path.as_bytes(), "/base"),
                Dialect::Anthropic,
                "{path}"
            );
        }
        assert_eq!(
            Dialect::of(b"/base/v1/messages", "/base"),
            Dialect::Anthropic
        );
        for path in [
            "/v1/messagesx",
            "/v1/chat/completions",
            "/",
            "-",
            "/basev1/messages",
        ] {
            assert_eq!(
                Dialect::of(path.as_bytes(), "/base"),
                Dialect::OpenAi,
                "{path}"
            );
        }
    }

    #[test]
    fn both_dialects_carry_type_and_message() {
        let error = ProxyError::new(Code::Overloaded, "busy \"now\"");
        let (fields, body) = error.answer(Dialect::OpenAi);
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["code"], "overloaded");
        assert_eq!(body["error"]["message"], "flow-proxy: busy \"now\"");
        assert!(body["error"]["param"].is_null());
        assert!(fields.contains(&(header::RETRY_AFTER, HeaderValue::from_static("1"))));
        assert!(fields.contains(&(ERROR_FIELD, HeaderValue::from_static("overloaded"))));
        let (_, body) = error.answer(Dialect::Anthropic);
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["type"], "error");
        assert_eq!(body["error"]["type"], "overloaded_error");
    }
}
