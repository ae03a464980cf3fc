//! What the pages are made from, and what they are.

use std::borrow::Cow;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, StatusCode};
use tz::UtcDateTime;

use crate::config::target::Target;
use crate::proxy::balancer::Balancer;
use crate::proxy::ledger::Ledger;
use crate::server::ServerLoad;

/// What the pages look at.
#[derive(Clone, Copy)]
pub struct Look<'p> {
    pub balancer: &'p Balancer,
    pub ledger: &'p Ledger,
    pub target: &'p Target,
    pub server: ServerLoad,
    /// The secrets file on disk could be loaded.
    pub is_file_valid: bool,
    pub is_stopping: bool,
    /// Lines that the log has lost.
    pub log_lines_dropped: u64,
    pub now: Instant,
    /// The same moment by the clock on the wall.
    pub at: SystemTime,
}

/// A page.
#[derive(Debug)]
pub struct AdminResponse {
    pub status: StatusCode,
    pub content_type: &'static str,
    /// Content-Security-Policy, of a page with scripts.
    pub policy: Option<HeaderValue>,
    pub body: Cow<'static, str>,
}

impl AdminResponse {
    pub fn json(status: StatusCode, body: String) -> AdminResponse {
        AdminResponse {
            status,
            content_type: "application/json",
            policy: None,
            body: body.into(),
        }
    }
}

/// Writes a time as RFC 3339 section 5.6 does, in UTC.
pub fn utc(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or_default();
    let Ok(time) = UtcDateTime::from_timespec(seconds, 0) else {
        return String::new();
    };
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        time.year(),
        time.month(),
        time.month_day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}
