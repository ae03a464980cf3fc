//! What counts of an access line, in whatever form it is written.

use std::borrow::Cow;

use super::head::Time;
use crate::proxy::access_log::{CLIENT_GONE_STATUS, ExchangeEnd, GOOD_ENDS, is_bad_status};
use crate::proxy::usage::observer::is_counted_path;
use crate::proxy::usage::tokens::Tokens;

/// An access line, or a line that counts requests without one. Names are as they are written.
pub struct Record<'a> {
    pub time: Time,
    /// How many requests it is about.
    pub requests: u64,
    pub method: Cow<'a, [u8]>,
    pub path: Cow<'a, [u8]>,
    /// 0 where it is not told.
    pub status: u16,
    pub config: Cow<'a, [u8]>,
    pub end: Cow<'a, [u8]>,
    /// Whether a response has begun.
    pub has_begun: bool,
    /// Empty where it is unknown; so are the next ones.
    pub model: Cow<'a, [u8]>,
    pub agent: Cow<'a, [u8]>,
    pub client: Cow<'a, [u8]>,
    pub tokens: Option<Tokens>,
    /// In US dollars, finite and not negative.
    pub cost: Option<f64>,
}

impl Record<'_> {
    /// A record of nothing but its time.
    pub fn at(time: Time) -> Record<'static> {
        let empty = || Cow::Borrowed(&b""[..]);
        Record {
            time,
            requests: 1,
            method: empty(),
            path: empty(),
            status: 0,
            config: empty(),
            end: empty(),
            has_begun: false,
            model: empty(),
            agent: empty(),
            client: empty(),
            tokens: None,
            cost: None,
        }
    }

    /// Whether something went wrong other than that the client left.
    pub fn is_error(&self) -> bool {
        let is_end = |end: &ExchangeEnd| end.as_str().as_bytes() == &*self.end;
        is_bad_status(self.status) || !GOOD_ENDS.iter().any(is_end)
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether the response is one that uses tokens. One that the client did not read to its end has
    /// another status than the upstream gave it.
    pub fn is_counted(&self) -> bool {
        let is_answered =
            self.is_success() || (self.status == CLIENT_GONE_STATUS && self.has_begun);
        is_answered && &*self.method == b"POST" && is_counted_path(&self.path)
    }
}

/// Whether a status can stand in an access line.
pub fn is_status(status: u16) -> bool {
    (100..1000).contains(&status)
}

/// Returns a cost that counts.
pub fn amount(cost: f64) -> Option<f64> {
    (cost.is_finite() && cost >= 0.0).then_some(cost)
}
