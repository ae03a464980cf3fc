//! Requests that the upstream does not answer: why, and what the client is told, in the dialect of its
//! API.

use std::fmt;

use http::{HeaderName, HeaderValue, StatusCode, header};

use super::access_log::ExchangeEnd;
use super::api::Api;
use super::headers;
use crate::http1::error::HttpError;
use crate::server::ClientError;
use crate::upstream::error::UpstreamError;

/// Tells our errors from the upstream's.
pub const ERROR_HEADER: HeaderName = HeaderName::from_static("x-flow-proxy-error");
/// What the upstream understands, for a 405.
const ALLOWED_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Why a request is not answered by the upstream.
#[derive(Debug)]
pub enum ProxyError {
    /// The proxy answers itself.
    Respond(HttpError),
    Client(ClientError),
    Upstream(UpstreamError),
}

impl From<HttpError> for ProxyError {
    fn from(error: HttpError) -> Self {
        ProxyError::Respond(error)
    }
}

impl From<ClientError> for ProxyError {
    fn from(error: ClientError) -> Self {
        ProxyError::Client(error)
    }
}

impl From<UpstreamError> for ProxyError {
    fn from(error: UpstreamError) -> Self {
        ProxyError::Upstream(error)
    }
}

impl ProxyError {
    /// The response for the client and how the log says that the exchange ended. `None`: the client
    /// is gone. `host` is the target's; `is_aborting` tells that the server cuts requests off.
    pub fn response(self, host: &str, is_aborting: bool) -> (Option<HttpError>, ExchangeEnd) {
        match self {
            ProxyError::Respond(error) | ProxyError::Client(ClientError::Rejected(error)) => {
                let end = end_of(&error);
                (Some(error), end)
            }
            ProxyError::Client(ClientError::Closed)
            | ProxyError::Upstream(UpstreamError::ClientClosed) => {
                if is_aborting {
                    let error = HttpError::shutting_down("the proxy was stopped meanwhile");
                    (Some(error), ExchangeEnd::Shutdown)
                } else {
                    (None, ExchangeEnd::ClientGone)
                }
            }
            ProxyError::Client(ClientError::TimedOut) => (None, ExchangeEnd::ClientTimeout),
            ProxyError::Upstream(error) => {
                let (error, end) = upstream_response(error, host);
                (Some(error), end)
            }
        }
    }
}

/// How the log says that an exchange ended that the proxy answers with `error`.
pub fn end_of(error: &HttpError) -> ExchangeEnd {
    match error.status {
        StatusCode::REQUEST_TIMEOUT => ExchangeEnd::ClientTimeout,
        _ => ExchangeEnd::Ok,
    }
}

fn upstream_response(error: UpstreamError, host: &str) -> (HttpError, ExchangeEnd) {
    match error {
        UpstreamError::ClientClosed => (
            HttpError::internal_error("the client left"),
            ExchangeEnd::ClientGone,
        ),
        UpstreamError::TimedOut => (
            HttpError::upstream_timeout(format!(
                "{host} did not answer in time: try again, or raise --upstream-timeout"
            )),
            ExchangeEnd::UpstreamTimeout,
        ),
        UpstreamError::NoDescriptors => (
            HttpError::overloaded(
                "the proxy has no file descriptors left: raise its limit (ulimit -n), or lower \
                 --workers",
            ),
            ExchangeEnd::Ok,
        ),
        UpstreamError::Unreachable(why) => (
            HttpError::upstream_unreachable(format!(
                "cannot reach {host}: {why}. Check the network, --target-url, --ca-file and \
                 HTTPS_PROXY on the machine that runs the proxy"
            )),
            ExchangeEnd::UpstreamBroke,
        ),
        UpstreamError::Broke(why) => (
            HttpError::upstream_broke(format!(
                "{host} closed the connection or sent no valid answer: {why}. It may have worked on the \
                 request; try again if that may be done twice"
            )),
            ExchangeEnd::UpstreamBroke,
        ),
    }
}

impl Api {
    /// The `type` of an error with this status in the API's documentation.
    fn error_type(self, status: StatusCode) -> &'static str {
        match (self, status.as_u16()) {
            (_, 501 | 505) => "invalid_request_error",
            (Api::Messages, 403) => "permission_error",
            (Api::Messages, 404) => "not_found_error",
            (Api::Messages, 413) => "request_too_large",
            (Api::Messages, 503) => "overloaded_error",
            (Api::Messages, 504) => "timeout_error",
            (Api::Messages, 500..) => "api_error",
            (_, 500..) => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// The response to the client of the request with this id: header fields and body.
    pub fn error_response(
        self,
        error: &HttpError,
        id: &[u8],
    ) -> (Vec<(HeaderName, HeaderValue)>, Vec<u8>) {
        let kind = self.error_type(error.status);
        let message = format!("flow-proxy: {}", error.message);
        let body = match self {
            Api::Messages => AnthropicError(kind, &message).to_string(),
            Api::Responses | Api::Other => openai_error(kind, error.code, &message),
        };
        let body = body.into_bytes();
        let mut fields = vec![
            (
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            ),
            (header::CONTENT_LENGTH, HeaderValue::from(body.len())),
            (ERROR_HEADER, HeaderValue::from_static(error.code)),
        ];
        if self == Api::Messages
            && let Ok(id) = HeaderValue::from_bytes(id)
        {
            fields.push((HeaderName::from_static(headers::ANTHROPIC_ID), id));
        }
        match error.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                fields.push((header::RETRY_AFTER, HeaderValue::from_static("1")));
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                fields.push((header::ALLOW, HeaderValue::from_static(ALLOWED_METHODS)));
            }
            StatusCode::UPGRADE_REQUIRED => {
                fields.push((header::UPGRADE, HeaderValue::from_static("HTTP/1.1")));
                // RFC 9110 section 7.8: Connection names it.
                fields.push((header::CONNECTION, HeaderValue::from_static("Upgrade")));
            }
            // What the upstream has worked on costs money, and SDKs would send it again by themselves.
            StatusCode::BAD_GATEWAY if error.code == "upstream_broke" => {
                let name = HeaderName::from_static(headers::SHOULD_RETRY);
                fields.push((name, HeaderValue::from_static("false")));
            }
            _ => {}
        }
        (fields, body)
    }
}

/// Anthropic's error object of a type and a message, members in the order of its documentation.
pub struct AnthropicError<'a>(pub &'a str, pub &'a str);

impl fmt::Display for AnthropicError<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AnthropicError(kind, message) = self;
        let message = serde_json::Value::from(*message);
        write!(
            formatter,
            r#"{{"type":"error","error":{{"type":"{kind}","message":{message}}}}}"#
        )
    }
}

/// OpenAI's error object, members in the order of its documentation.
fn openai_error(kind: &str, code: &str, message: &str) -> String {
    let message = serde_json::Value::from(message);
    format!(r#"{{"error":{{"message":{message},"type":"{kind}","param":null,"code":"{code}"}}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_dialects_carry_type_and_message() {
        let error = HttpError::overloaded("busy \"now\"");
        let (fields, body) = Api::Other.error_response(&error, b"id-1");
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["code"], "overloaded");
        assert_eq!(body["error"]["message"], "flow-proxy: busy \"now\"");
        assert!(body["error"]["param"].is_null());
        assert!(fields.contains(&(header::RETRY_AFTER, HeaderValue::from_static("1"))));
        assert!(fields.contains(&(ERROR_HEADER, HeaderValue::from_static("overloaded"))));
        let (_, body) = Api::Messages.error_response(&error, b"id-1");
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["type"], "error");
        assert_eq!(body["error"]["type"], "overloaded_error");
    }

    #[test]
    fn each_status_has_the_type_of_the_api_s_documentation() {
        let types = |status| {
            let status = StatusCode::from_u16(status).unwrap();
            [Api::Other, Api::Messages].map(|dialect| dialect.error_type(status))
        };
        let invalid = "invalid_request_error";
        for status in [400, 405, 408, 414, 417, 431, 501, 505] {
            assert_eq!(types(status), [invalid; 2], "{status}");
        }
        for (status, anthropic) in [
            (403, "permission_error"),
            (404, "not_found_error"),
            (413, "request_too_large"),
        ] {
            assert_eq!(types(status), [invalid, anthropic]);
        }
        for (status, anthropic) in [
            (500, "api_error"),
            (502, "api_error"),
            (503, "overloaded_error"),
            (504, "timeout_error"),
        ] {
            assert_eq!(types(status), ["server_error", anthropic]);
        }
    }
}
