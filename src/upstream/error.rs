//! Why an exchange with the upstream failed.

use crate::net::wait::WaitError;

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

impl From<WaitError> for UpstreamError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::TimedOut => UpstreamError::TimedOut,
            WaitError::ClientClosed => UpstreamError::ClientClosed,
            WaitError::Io(error) => UpstreamError::Broke(error.to_string()),
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
