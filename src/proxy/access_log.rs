//! The access line, written when a request is over: an allow-list of facts, none of them secret. It has
//! no query, no body, and of the header fields only the request id, the client's program and its session.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use log::Level;

use super::request_id::RequestId;
use super::route::TargetSlice;
use super::usage::facts;
use super::usage::observer::Observed;
use super::usage::tokens::Usage;
use super::usage::totals::BadEnd;
use crate::config::secrets::Configuration;
use crate::config::shown::holds_token;
use crate::http1::headers::{HeaderBlock, KnownHeader};

/// The logged status of a request whose client left before its response; nginx has the same.
pub const CLIENT_GONE_STATUS: u16 = 499;
/// The ends of exchanges in which nothing went wrong, or only that the client left.
pub const GOOD_ENDS: [ExchangeEnd; 2] = [ExchangeEnd::Ok, ExchangeEnd::ClientGone];
/// The longest name from outside in the log, in characters.
const MAX_NAME: usize = 64;

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeEnd {
    Ok,
    /// An event stream had an error event.
    ErrorEvent,
    /// An event stream ended without its API's last event.
    Incomplete,
    ClientGone,
    ClientTimeout,
    UpstreamBroke,
    UpstreamTimeout,
    Shutdown,
}

/// What the access line says about one request.
#[derive(Debug, Clone)]
pub struct AccessLog {
    pub method: Method,
    /// Without its query.
    pub path: TargetSlice,
    pub status: u16,
    pub config: Option<Arc<Configuration>>,
    pub attempts: usize,
    pub started: Instant,
    /// From the request's head to the response's head.
    pub time_to_first_byte: Option<Duration>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub end: ExchangeEnd,
    /// What an error response of the upstream says.
    pub reason: Option<&'static str>,
    /// The code of the proxy's own response.
    pub error: Option<&'static str>,
    /// How often the request was sent once more because an idle connection had been closed.
    pub resent: u32,
    /// The model, by the request or else by the response.
    pub model: Option<Box<str>>,
    pub usage: Usage,
    /// In US dollars, finite and not negative.
    pub cost: Option<f64>,
    /// What the upstream says that the credential has spent, and may spend, in US dollars.
    pub spend: Option<f64>,
    pub budget: Option<f64>,
    /// The client's program.
    pub agent: Option<Box<str>>,
    /// The session of a coding tool that the request belongs to.
    pub session: Option<Box<str>>,
    pub id: RequestId,
    /// The upstream's own request id, where it set another one than the client sent.
    pub upstream_id: Option<Box<[u8]>>,
    /// LiteLLM's id of the call, of responses from 400 on.
    pub call_id: Option<Box<[u8]>>,
    /// Written at DEBUG only: a health check, or another look at the proxy itself.
    pub is_own_page: bool,
}

impl AccessLog {
    /// The log of a request of which nothing else is known yet.
    pub fn new(method: Method, id: RequestId, started: Instant) -> AccessLog {
        AccessLog {
            method,
            path: TargetSlice::In(0..0),
            status: 0,
            config: None,
            attempts: 0,
            started,
            time_to_first_byte: None,
            bytes_in: 0,
            bytes_out: 0,
            end: ExchangeEnd::Ok,
            reason: None,
            error: None,
            resent: 0,
            model: None,
            usage: Usage::None,
            cost: None,
            spend: None,
            budget: None,
            agent: None,
            session: None,
            id,
            upstream_id: None,
            call_id: None,
            is_own_page: false,
        }
    }

    /// Whether the proxy has answered by itself that it does not serve the request.
    pub fn is_rejection(&self) -> bool {
        self.error.is_some() && self.attempts == 0
    }

    /// Notes what the request's header fields say about the client.
    pub fn note_client(&mut self, fields: &HeaderBlock) {
        // RFC 9110 section 10.1.5: products are split by blanks, the most significant one first.
        let agent = fields.value(KnownHeader::UserAgent).unwrap_or_default();
        let product = agent.split(|byte| byte.is_ascii_whitespace()).next();
        self.agent = product.and_then(name);
        // Claude Code's, then Codex's of today and of until 2025.
        let session = fields
            .value(KnownHeader::XClaudeCodeSessionId)
            .or_else(|| fields.value(KnownHeader::SessionId))
            .or_else(|| fields.value(KnownHeader::SessionIdOld));
        self.session = session.and_then(name);
    }

    /// Notes the model that the request asks for.
    pub fn note_model(&mut self, model: &str) {
        self.model = name(model.as_bytes()).or(self.model.take());
    }

    /// Notes what was seen of the response with this status, which ended as the relay says.
    pub fn note_response(&mut self, observed: &Observed, status: u16) {
        if self.end == ExchangeEnd::ClientGone && observed.is_complete {
            // Some tools close at the last event, before the end of the body.
            (self.end, self.status) = (ExchangeEnd::Ok, status);
        }
        self.usage = observed.usage;
        self.cost = observed.cost;
        self.model = name(&observed.model);
        self.end = match (self.end, observed.bad_end) {
            // Its clients leave when they see it.
            (ExchangeEnd::Ok | ExchangeEnd::ClientGone, Some(BadEnd::ErrorEvent)) => {
                ExchangeEnd::ErrorEvent
            }
            (ExchangeEnd::Ok, Some(BadEnd::Incomplete)) => ExchangeEnd::Incomplete,
            (end, _) => end,
        };
    }

    /// Notes what the upstream says of the credential's budget.
    pub fn note_budget(&mut self, fields: &HeaderBlock) {
        let amount = |field| fields.value(field).and_then(facts::cost);
        self.spend = amount(KnownHeader::XLitellmKeySpend);
        self.budget = amount(KnownHeader::XLitellmKeyMaxBudget);
    }

    /// Whether something went wrong other than that the client left.
    pub fn is_error(&self) -> bool {
        is_bad_status(self.status) || !self.ends_well()
    }

    fn ends_well(&self) -> bool {
        GOOD_ENDS.contains(&self.end)
    }

    /// Puts `-` in the place of each text from outside that holds a token or the clientSecret, which an
    /// upstream or a client may send back. `target` is the request target.
    pub fn hide_secrets(&mut self, target: &[u8]) {
        let config = self.config.clone();
        let is_secret = |text: &[u8]| {
            let has_secret = |config: &Arc<Configuration>| config.credential.has_secret_in(text);
            holds_token(text) || config.as_ref().is_some_and(has_secret)
        };
        if is_secret(self.path.of(target)) {
            self.path = TargetSlice::Other(b"-".into());
        }
        if is_secret(self.method.as_str().as_bytes()) {
            self.method = Method::from_bytes(b"-").unwrap_or_default();
        }
        if is_secret(self.id.as_bytes()) {
            self.id = RequestId::Client(b"-".as_slice().into());
        }
        for name in [&mut self.model, &mut self.agent, &mut self.session] {
            if name.as_ref().is_some_and(|name| is_secret(name.as_bytes())) {
                *name = Some("-".into());
            }
        }
        for id in [&mut self.upstream_id, &mut self.call_id] {
            if id.as_ref().is_some_and(|id| is_secret(id)) {
                *id = Some(b"-".as_slice().into());
            }
        }
    }

    /// The level of its line.
    pub fn level(&self) -> Level {
        match self.status {
            _ if self.is_own_page => Level::Debug,
            500.. => Level::Error,
            400.. => Level::Warn,
            _ if !self.ends_well() => Level::Warn,
            _ => Level::Info,
        }
    }
}

/// Whether the status says that something went wrong other than that the client left.
pub fn is_bad_status(status: u16) -> bool {
    status >= 400 && status != CLIENT_GONE_STATUS
}

/// A name from outside as the log shows it, or `None` if nothing is left of it.
fn name(text: &[u8]) -> Option<Box<str>> {
    let shown = text.iter().filter(|byte| is_plain(**byte));
    let mut name = String::with_capacity(text.len().min(MAX_NAME));
    name.extend(shown.take(MAX_NAME).copied().map(char::from));
    (!name.is_empty()).then(|| name.into())
}

/// Whether a byte from outside can stand in a line whose fields are split at spaces and quotes.
pub fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'"' && byte != b'\''
}

impl ExchangeEnd {
    pub fn as_str(self) -> &'static str {
        match self {
            ExchangeEnd::Ok => "ok",
            ExchangeEnd::ErrorEvent => "error_event",
            ExchangeEnd::Incomplete => "incomplete",
            ExchangeEnd::ClientGone => "client_gone",
            ExchangeEnd::ClientTimeout => "client_timeout",
            ExchangeEnd::UpstreamBroke => "upstream_broke",
            ExchangeEnd::UpstreamTimeout => "upstream_timeout",
            ExchangeEnd::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for ExchangeEnd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_follows_status_and_end() {
        for (status, end, level) in [
            (200, ExchangeEnd::Ok, Level::Info),
            (302, ExchangeEnd::Ok, Level::Info),
            (200, ExchangeEnd::UpstreamBroke, Level::Warn),
            (200, ExchangeEnd::ClientTimeout, Level::Warn),
            (200, ExchangeEnd::ErrorEvent, Level::Warn),
            (200, ExchangeEnd::Incomplete, Level::Warn),
            (200, ExchangeEnd::ClientGone, Level::Info),
            (404, ExchangeEnd::Ok, Level::Warn),
            (499, ExchangeEnd::ClientGone, Level::Warn),
            (500, ExchangeEnd::Ok, Level::Error),
            (504, ExchangeEnd::UpstreamTimeout, Level::Error),
        ] {
            let id = RequestId::Client(b"x".as_slice().into());
            let log = AccessLog {
                status,
                end,
                ..AccessLog::new(Method::GET, id, Instant::now())
            };
            assert_eq!(log.level(), level, "{status} {end}");
        }
    }

    fn log() -> AccessLog {
        let id = RequestId::Client(b"x".as_slice().into());
        AccessLog::new(Method::POST, id, Instant::now())
    }

    #[test]
    fn the_client_is_known_by_its_header_fields() {
        let long = "x".repeat(100);
        for (fields, agent, session) in [
            (
                &[("User-Agent", "claude-cli/2.1 (external, cli)")][..],
                Some("claude-cli/2.1"),
                None,
            ),
            (
                &[("User-Agent", "OpenAI/Python 1.2.3")],
                Some("OpenAI/Python"),
                None,
            ),
            (&[("User-Agent", &long)], Some(&long[..64]), None),
            (
                &[("User-Agent", "a'b\"c\u{e9}[31m/1 x")],
                Some("abc[31m/1"),
                None,
            ),
            (&[("User-Agent", "\u{e9}")], None, None),
            (&[("User-Agent", "")], None, None),
            (&[], None, None),
            (
                &[("X-Claude-Code-Session-Id", "c"), ("session_id", "o")],
                None,
                Some("c"),
            ),
            (&[("session_id", "o"), ("session-id", "n")], None, Some("n")),
            (&[("session_id", "o' end=ok")], None, Some("oend=ok")),
        ] {
            let mut log = log();
            log.note_client(&HeaderBlock::of(fields));
            assert_eq!(log.agent.as_deref(), agent, "{fields:?}");
            assert_eq!(log.session.as_deref(), session, "{fields:?}");
        }
    }

    #[test]
    fn a_bad_end_of_the_stream_counts_unless_it_was_cut_short() {
        use ExchangeEnd::{ClientGone, ErrorEvent, Incomplete, Ok, UpstreamBroke};
        for (end, bad_end, expected) in [
            (Ok, None, Ok),
            (Ok, Some(BadEnd::ErrorEvent), ErrorEvent),
            (Ok, Some(BadEnd::Incomplete), Incomplete),
            (ClientGone, None, ClientGone),
            (ClientGone, Some(BadEnd::ErrorEvent), ErrorEvent),
            (ClientGone, Some(BadEnd::Incomplete), ClientGone),
            (UpstreamBroke, Some(BadEnd::ErrorEvent), UpstreamBroke),
            (UpstreamBroke, Some(BadEnd::Incomplete), UpstreamBroke),
        ] {
            let mut log = AccessLog { end, ..log() };
            let observed = Observed {
                usage: Usage::Unknown,
                cost: None,
                model: b"the response's".to_vec(),
                bad_end,
                is_complete: false,
            };
            log.note_response(&observed, 200);
            assert_eq!(log.end, expected, "{end} {bad_end:?}");
            assert_eq!(log.model.as_deref(), Some("theresponses"));
            log.note_model("the_request_s");
            assert_eq!(log.model.as_deref(), Some("the_request_s"));
        }
    }
}
