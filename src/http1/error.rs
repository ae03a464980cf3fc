//! Requests that the server itself cannot take: malformed, too large, too slow, too many.

use std::borrow::Cow;

/// Why a request is refused before, or instead of, its handler's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    BadRequest,
    RequestTimeout,
    BodyTooLarge,
    UriTooLong,
    HeadersTooLarge,
    ExpectationFailed,
    NotImplemented,
    VersionNotSupported,
    Overloaded,
    ShuttingDown,
}

impl Reason {
    /// The status code of the answer (RFC 9110 section 15).
    pub fn status(self) -> u16 {
        match self {
            Reason::BadRequest => 400,
            Reason::RequestTimeout => 408,
            Reason::BodyTooLarge => 413,
            Reason::UriTooLong => 414,
            Reason::HeadersTooLarge => 431,
            Reason::ExpectationFailed => 417,
            Reason::NotImplemented => 501,
            Reason::VersionNotSupported => 505,
            Reason::Overloaded | Reason::ShuttingDown => 503,
        }
    }
}

/// A reason and a sentence for the person who has to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub message: Cow<'static, str>,
}

impl Refusal {
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Refusal {
            reason,
            message: message.into(),
        }
    }
}
