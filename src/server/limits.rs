//! Every limit of the client's side.

use std::time::Duration;

use crate::http1::error::HttpError;

/// A request head must be complete this long after its first byte.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection without a request is closed after this long; nginx's keepalive_timeout.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// A request that has waited this long for a worker gets a 503.
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a plain read of a request body blocks. A stall is noticed this much late.
pub const BODY_READ_TIMEOUT: Duration = Duration::from_millis(10);
/// How long a closed connection may go on sending, so that the client can read the last response.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// How many bytes it may send in that time.
pub const MAX_DRAINED_BYTES: usize = 8 << 20;
/// Contexts that no request has needed for this long are dropped.
pub const CONTEXT_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The most bytes of incomplete heads that all waiting connections hold together.
pub const MAX_INCOMPLETE_HEAD_BYTES: usize = 64 << 20;
/// A body must be faster than this on average, in bytes per second of waiting for the client. Apache's
/// mod_reqtimeout has the same figures.
pub const MIN_BODY_RATE: u64 = 500;
/// How long a body is waited for before [`MIN_BODY_RATE`] counts.
pub const BODY_GRACE: Duration = Duration::from_secs(20);

/// The limits that the operator sets.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Requests in flight at once.
    pub workers: usize,
    /// Connections open at once, idle ones included.
    pub max_connections: usize,
    /// The longest stall of a client in the middle of a request body or a response.
    pub client_timeout: Duration,
    /// The largest request body in bytes; `None`: no limit.
    pub max_body: Option<u64>,
}

/// The response to a head that was not complete in [`HEAD_TIMEOUT`].
pub fn head_timeout_error() -> HttpError {
    let limit_s = HEAD_TIMEOUT.as_secs();
    HttpError::request_timeout(format!(
        "the request head was not complete after {limit_s} s"
    ))
}
