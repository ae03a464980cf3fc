//! Why an exchange with the upstream failed.

use std::fmt::Display;

use crate::net::wait::WaitError;

/// The longest reason that is shown, in characters: that of a certificate tells all of its names.
const MAX_REASON: usize = 300;

/// Why there is no response, or no more of it. The texts are a reason for the user, without secrets.
#[derive(Debug)]
pub enum UpstreamError {
    /// The client disconnected while this side waited for the upstream.
    ClientClosed,
    /// The upstream sent nothing for longer than its timeout.
    TimedOut,
    /// There is no connection, because of DNS, TCP, TLS or a proxy in between, or it was closed before
    /// the request was sent: the upstream has not worked on it.
    Unreachable(String),
    /// There is no connection, because this process may not open more files.
    NoDescriptors,
    /// The request was sent, and the upstream closed too early, or sent something that is not a valid
    /// HTTP response. It may have worked on the request.
    Broke(String),
}

/// What the system or a library says of a failure, cut.
pub(super) fn reason(error: &impl Display) -> String {
    let text = error.to_string();
    match text.char_indices().nth(MAX_REASON) {
        Some((end, _)) => text[..end].to_owned() + "…",
        None => text,
    }
}

impl From<WaitError> for UpstreamError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::TimedOut => UpstreamError::TimedOut,
            WaitError::ClientClosed => UpstreamError::ClientClosed,
            WaitError::Io(error) => UpstreamError::Broke(reason(&error)),
        }
    }
}

impl UpstreamError {
    /// The upstream closed in the middle of a response, or before it.
    pub(super) fn closed_early() -> UpstreamError {
        UpstreamError::Broke("it closed the connection too early".into())
    }

    /// The response is malformed, for this reason.
    pub(super) fn not_http(reason: &str) -> UpstreamError {
        UpstreamError::Broke(format!("not a valid HTTP response: {reason}"))
    }
}
