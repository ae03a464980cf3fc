//! The error responses of this program: what went wrong, and what the client can do about it.

use std::borrow::Cow;

use http::StatusCode;

/// An error response of this program. Its status tells which side is at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpError {
    pub status: StatusCode,
    /// Distinguishes our errors from the upstream's. Scripts match it.
    pub code: &'static str,
    /// One sentence for the person who has to act on it. Contains nothing secret.
    pub message: Cow<'static, str>,
}

/// Defines one constructor for each error: its name is the code, and the status follows.
macro_rules! errors {
    ($($code:ident $status:ident)*) => {
        impl HttpError {
            $(
                #[doc = concat!("Returns an error with the code `", stringify!($code), "`.")]
                pub fn $code(message: impl Into<Cow<'static, str>>) -> HttpError {
                    HttpError {
                        status: StatusCode::$status,
                        code: stringify!($code),
                        message: message.into(),
                    }
                }
            )*
        }
    };
}

// RFC 9110 section 15; 431 is from RFC 6585 section 5.
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
    upgrade_not_supported UPGRADE_REQUIRED
    version_not_supported HTTP_VERSION_NOT_SUPPORTED
}
