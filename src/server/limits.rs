//! Every limit on clients.

use std::time::Duration;

/// The time for a request head to arrive, from its first byte.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection stays open without a request: longer than the 90 s for which the pools of common
/// clients keep one, so that the client closes first and no request meets a closed connection.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(100);
/// How long a client may leave data unacknowledged, at least.
pub const MIN_UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// How long a request waits for a permit before it gets a 503.
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one `recv` of a request body blocks. A stall is noticed this much late.
pub const BODY_READ_TIMEOUT: Duration = Duration::from_millis(10);
/// How long a client may go on sending after the last response of its connection. Closing at once could
/// destroy that response before the client has read it (RFC 9112 section 9.6).
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// How many bytes a client may send in that time.
pub const MAX_DRAINED_BYTES: usize = 8 << 20;
/// How long an unused context is kept.
pub const CONTEXT_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The most bytes of incomplete heads that all waiting connections hold together.
pub const MAX_INCOMPLETE_HEAD_BYTES: usize = 64 << 20;
/// The minimum average speed of a body, in bytes per second of waiting for the client. This and
/// [`BODY_GRACE`] are the figures of Apache's mod_reqtimeout.
pub const MIN_BODY_RATE: u64 = 500;
/// How long the server waits for a body before [`MIN_BODY_RATE`] applies.
pub const BODY_GRACE: Duration = Duration::from_secs(20);

/// The limits that the operator sets.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Requests in flight at once.
    pub workers: usize,
    /// Connections open at once, including idle ones.
    pub max_connections: usize,
    /// How long a client may stall while it sends a request body or reads a response.
    pub client_timeout: Duration,
    /// The largest request body in bytes; `None` means no limit.
    pub max_body: Option<u64>,
}
