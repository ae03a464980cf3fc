//! The access line, written when a request is over: an allow-list of facts, none of them secret. It has
//! no query, no body, and no header field but the request id.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use log::Level;

use super::request_id::RequestId;
use super::route::TargetSlice;
use crate::config::secrets::Configuration;

/// The logged status of a request whose client left before its response; nginx has the same.
pub const CLIENT_GONE_STATUS: u16 = 499;
/// Bytes reserved for a line beside its path; a long name or id makes it grow.
const USUAL_LINE: usize = 192;
/// The longest path in the log, and the longest method, in bytes.
const MAX_PATH: usize = 512;
/// The longest request id in the log, in bytes.
const MAX_ID: usize = 128;

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeEnd {
    Ok,
    ClientGone,
    ClientTimeout,
    UpstreamBroke,
    UpstreamTimeout,
    Shutdown,
}

/// What the access line says about one request.
#[derive(Debug)]
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
    /// The code of the proxy's own response.
    pub error: Option<&'static str>,
    /// How often the request was sent once more because an idle connection had been closed.
    pub resent: u32,
    pub id: RequestId,
    /// The upstream's own request id, where it set another one than the client sent.
    pub upstream_id: Option<Box<[u8]>>,
    /// LiteLLM's id of the call, of responses from 400 on.
    pub call_id: Option<Box<[u8]>>,
    /// Written at DEBUG only: a health check.
    pub is_probe: bool,
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
            error: None,
            resent: 0,
            id,
            upstream_id: None,
            call_id: None,
            is_probe: false,
        }
    }

    /// Whether the proxy has answered by itself that it does not serve the request.
    pub fn is_rejection(&self) -> bool {
        self.error.is_some() && self.attempts == 0
    }

    fn level(&self) -> Level {
        let ends_well = matches!(self.end, ExchangeEnd::Ok | ExchangeEnd::ClientGone);
        match self.status {
            _ if self.is_probe => Level::Debug,
            500.. => Level::Error,
            400.. => Level::Warn,
            _ if !ends_well => Level::Warn,
            _ => Level::Info,
        }
    }

    /// Writes the line, if its level is on. `peer` is the client's address, `target` the request target.
    pub fn write(&self, peer: &str, target: &[u8]) {
        let line = AccessLine {
            peer,
            path: self.path.of(target),
            log: self,
        };
        log::log!(self.level(), "{line}");
    }
}

/// The access line.
struct AccessLine<'r> {
    peer: &'r str,
    path: &'r [u8],
    log: &'r AccessLog,
}

impl fmt::Display for AccessLine<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AccessLine { peer, path, log } = self;
        let duration = log.started.elapsed();
        let first_byte = log.time_to_first_byte.unwrap_or(duration);
        // Built as bytes: through the formatter each piece takes three times as long (measured).
        let mut line = Vec::with_capacity(USUAL_LINE + path.len().min(MAX_PATH));
        line.extend_from_slice(peer.as_bytes());
        line.extend_from_slice(b" \"");
        push_path(log.method.as_str().as_bytes(), &mut line);
        line.push(b' ');
        push_path(path, &mut line);
        line.extend_from_slice(b"\" ");
        let mut digits = itoa::Buffer::new();
        line.extend_from_slice(digits.format(log.status).as_bytes());
        line.extend_from_slice(b" config='");
        let config = log.config.as_ref().map_or("-", |config| &config.name);
        line.extend_from_slice(config.as_bytes());
        line.push(b'\'');
        for (label, number) in [
            (" attempts=", log.attempts as u64),
            (" ttfb_ms=", milliseconds(first_byte)),
            (" duration_ms=", milliseconds(duration)),
            (" in=", log.bytes_in),
            (" out=", log.bytes_out),
        ] {
            line.extend_from_slice(label.as_bytes());
            line.extend_from_slice(digits.format(number).as_bytes());
        }
        line.extend_from_slice(b" end=");
        line.extend_from_slice(log.end.as_str().as_bytes());
        if let Some(error) = log.error {
            line.extend_from_slice(b" error=");
            line.extend_from_slice(error.as_bytes());
        }
        if log.resent > 0 {
            line.extend_from_slice(b" resent=");
            line.extend_from_slice(digits.format(log.resent).as_bytes());
        }
        line.extend_from_slice(b" id=");
        push_id(log.id.as_bytes(), &mut line);
        for (label, id) in [
            (&b" upstream_id="[..], &log.upstream_id),
            (b" call_id=", &log.call_id),
        ] {
            if let Some(id) = id {
                line.extend_from_slice(label);
                push_id(id, &mut line);
            }
        }
        formatter.write_str(std::str::from_utf8(&line).map_err(|_| fmt::Error)?)
    }
}

fn push_id(id: &[u8], line: &mut Vec<u8>) {
    push_escaped(&id[..id.len().min(MAX_ID)], line);
}

/// In 64 bits, which are formatted in half the time of 128.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Appends a path or a method: as few kinds of characters as are usual in them, the others
/// percent-encoded, so that no shell, terminal or viewer of the log takes them for something else.
fn push_path(text: &[u8], line: &mut Vec<u8>) {
    if text.len() <= MAX_PATH && text.iter().copied().all(is_usual_in_path) {
        return line.extend_from_slice(text);
    }
    let end = line.len() + MAX_PATH;
    for (at, byte) in text.iter().enumerate() {
        let is_encoded = || {
            let digits = text.get(at + 1..at + 3);
            digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        };
        let (is_plain, length) = match byte {
            // What it stands for must fit, too.
            b'%' if is_encoded() => (true, 3),
            _ if is_usual_in_path(*byte) => (true, 1),
            _ => (false, 3),
        };
        if line.len() + length > end {
            return;
        }
        if is_plain {
            line.push(*byte);
        } else {
            line.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
}

fn is_usual_in_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._~:@!,=&*+-/".contains(&byte)
}

/// Appends a client's text to a line whose fields are split at spaces and quotes.
fn push_escaped(text: &[u8], line: &mut Vec<u8>) {
    if text.iter().copied().all(is_plain) {
        return line.extend_from_slice(text);
    }
    for byte in text {
        if is_plain(*byte) {
            line.push(*byte);
        } else {
            line.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'"' && byte != b'\''
}

impl ExchangeEnd {
    fn as_str(self) -> &'static str {
        match self {
            ExchangeEnd::Ok => "ok",
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
    use crate::config::secrets::Credential;

    #[test]
    fn the_line_has_the_facts_in_the_order_that_scripts_expect() {
        let configuration = Configuration {
            name: "primary-2".into(),
            credential: Arc::new(Credential::new("fake", "fake", "fake")),
        };
        let id = RequestId::Client(b"a b'c".as_slice().into());
        let log = AccessLog {
            path: TargetSlice::In(0..10),
            status: 200,
            config: Some(Arc::new(configuration)),
            attempts: 2,
            time_to_first_byte: Some(Duration::from_millis(12)),
            bytes_in: 512,
            bytes_out: 20480,
            ..AccessLog::new(Method::POST, id, Instant::now())
        };
        let (peer, path) = ("127.0.0.1:53422", log.path.of(b"/v1/chat\"x?query"));
        let log = &log;
        let line = AccessLine { peer, path, log }.to_string();
        let start = "127.0.0.1:53422 \"POST /v1/chat%22x\" 200 config='primary-2' attempts=2 \
                     ttfb_ms=12 duration_ms=";
        assert!(line.starts_with(start), "{line}");
        assert!(
            line.ends_with(" in=512 out=20480 end=ok id=a%20b%27c"),
            "{line}"
        );
    }

    #[test]
    fn paths_have_few_kinds_of_characters_and_512_bytes_at_most() {
        let pushed = |text: &[u8]| {
            let mut line = b"x".to_vec();
            push_path(text, &mut line);
            String::from_utf8(line).unwrap()
        };
        let a = |count: usize| "a".repeat(count);
        for (text, expected) in [
            ("/v1/A.b_c~d:e@f!g,h=i&j*k+l-m/%2f%2F".to_owned(), None),
            (
                "'\"()$`;<>|\\[]{}^#?".to_owned(),
                Some("%27%22%28%29%24%60%3B%3C%3E%7C%5C%5B%5D%7B%7D%5E%23%3F".to_owned()),
            ),
            (
                "%%2%zz%é".to_owned(),
                Some("%25%252%25zz%25%C3%A9".to_owned()),
            ),
            (a(512), None),
            (a(16_000), Some(a(512))),
            (a(511) + "'", Some(a(511))),
            (a(510) + "%2f", Some(a(510))),
            (a(509) + "%2fb", Some(a(509) + "%2f")),
            ("'".repeat(600), Some("%27".repeat(170))),
        ] {
            let expected = expected.unwrap_or_else(|| text.clone());
            assert_eq!(pushed(text.as_bytes()), format!("x{expected}"));
        }
    }

    #[test]
    fn the_level_follows_status_and_end() {
        for (status, end, level) in [
            (200, ExchangeEnd::Ok, Level::Info),
            (302, ExchangeEnd::Ok, Level::Info),
            (200, ExchangeEnd::UpstreamBroke, Level::Warn),
            (200, ExchangeEnd::ClientTimeout, Level::Warn),
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
}
