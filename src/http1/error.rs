//! Responses that this program gives itself: what went wrong and what the client can do about it.

use std::borrow::Cow;

use http::StatusCode;

/// An error response of our own. Which side it is about follows from its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpError {
    pub status: StatusCode,
    /// Tells our errors from the upstream's; scripts match it.
    pub code: &'static str,
    /// One sentence for the person who has to act on it. Holds nothing secret.
    pub message: Cow<'static, str>,
}

macro_rules! errors {
    ($($name:ident $status:ident)*) => {
        impl HttpError {
            $(
                #[doc = concat!("An error with the code `", stringify!($name), "`.")]
                pub fn $name(message: impl Into<Cow<'static, str>>) -> HttpError {
                    HttpError {
                        status: StatusCode::$status,
                        code: stringify!($name),
                        message: message.into(),
                    }
                }
            )*
        }
    };
}

// RFC 9110 section 15 and, for 431, RFC 6585 section 5.
errors! {
    bad_request BAD_REQUEST
    forbidden FORBIDDEN
    not_found NOT_FOUND
    method_not_allowed METHOD_NOT_ALLOWED
    request_timeout REQUEST_TIMEOUT
    body_too_large PAYLOAD_TOO_LARGE
    uri_too_long URI_TOO_LONG
    expectation_failed EXPECTATION_FAILED
    headers_too_large REQUEST_HEADER_FIELDS_TOO_LARGE
    internal_error INTERNAL_SERVER_ERROR
    not_implemented NOT_IMPLEMENTED
    upstream_unreachable BAD_GATEWAY
    upstream_broke BAD_GATEWAY
    overloaded SERVICE_UNAVAILABLE
    shutting_down SERVICE_UNAVAILABLE
    upstream_timeout GATEWAY_TIMEOUT
    version_not_supported HTTP_VERSION_NOT_SUPPORTED
}
