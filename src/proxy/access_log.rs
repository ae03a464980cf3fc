//! The access line: what is told about a request when it is over. An allow-list of facts, none of
//! them secret: no query, no field but the request id, no body.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use log::Level;

use super::route::TargetSlice;
use crate::config::secrets::Configuration;

/// The status in the log of a request whose client left before it had its answer; nginx's.
pub const CLIENT_GONE_STATUS: u16 = 499;
/// Room for an access line without its path, in bytes; it grows where a name or an id is long.
const USUAL_LINE: usize = 192;
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

/// The facts of one request, as far as they are known only here.
#[derive(Debug)]
pub struct AccessLog {
    pub method: Method,
    /// Without its query.
    pub path: TargetSlice,
    pub status: u16,
    pub config: Option<Arc<Configuration>>,
    pub attempts: usize,
    pub started: Instant,
    /// From the request's head to the head of the answer.
    pub time_to_first_byte: Option<Duration>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub end: ExchangeEnd,
    pub id: RequestId,
}

impl AccessLog {
    pub fn level(&self) -> Level {
        match self.status {
            500.. => Level::Error,
            400.. => Level::Warn,
            _ => Level::Info,
        }
    }

    /// Writes the line, if its level is on, with the client's address and the request target.
    pub fn log(&self, peer: &str, target: &[u8]) {
        let line = AccessLine {
            peer,
            path: self.path.of(target),
            access_log: self,
        };
        log::log!(self.level(), "{line}");
    }
}

/// The access line.
struct AccessLine<'r> {
    peer: &'r str,
    path: &'r [u8],
    access_log: &'r AccessLog,
}

impl fmt::Display for AccessLine<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AccessLine {
            peer,
            path,
            access_log,
        } = self;
        let duration = access_log.started.elapsed();
        let first_byte = access_log.time_to_first_byte.unwrap_or(duration);
        // Put together here and given out whole: through the formatter each piece takes three times as
        // long, and there is such a line for each request.
        let mut line = Vec::with_capacity(USUAL_LINE + path.len());
        line.extend_from_slice(peer.as_bytes());
        line.extend_from_slice(b" \"");
        line.extend_from_slice(access_log.method.as_str().as_bytes());
        line.push(b' ');
        push_escaped(path, &mut line);
        line.extend_from_slice(b"\" ");
        let mut digits = itoa::Buffer::new();
        line.extend_from_slice(digits.format(access_log.status).as_bytes());
        line.extend_from_slice(b" config='");
        let config = access_log
            .config
            .as_ref()
            .map_or("-", |config| &config.name);
        line.extend_from_slice(config.as_bytes());
        line.push(b'\'');
        for (label, number) in [
            (" attempts=", access_log.attempts as u64),
            (" ttfb_ms=", milliseconds(first_byte)),
            (" duration_ms=", milliseconds(duration)),
            (" in=", access_log.bytes_in),
            (" out=", access_log.bytes_out),
        ] {
            line.extend_from_slice(label.as_bytes());
            line.extend_from_slice(digits.format(number).as_bytes());
        }
        line.extend_from_slice(b" end=");
        line.extend_from_slice(access_log.end.as_str().as_bytes());
        line.extend_from_slice(b" id=");
        match &access_log.id {
            RequestId::Client(id) => push_escaped(&id[..id.len().min(MAX_ID)], &mut line),
            RequestId::Own(id) => line.extend_from_slice(id),
        }
        formatter.write_str(std::str::from_utf8(&line).map_err(|_| fmt::Error)?)
    }
}

/// Half the digits of `as_millis` are never there, and take their time.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Puts text of a client's into a line whose fields are split at spaces and quotes.
fn push_escaped(text: &[u8], line: &mut Vec<u8>) {
    if text.iter().copied().all(is_plain) {
        // As nearly always.
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

/// What ties the log lines of client, proxy and upstream together.
#[derive(Debug)]
pub enum RequestId {
    /// The client's, as it was sent.
    Client(Box<[u8]>),
    /// One of our own: hexadecimal digits.
    Own([u8; 16]),
}

impl RequestId {
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            RequestId::Client(id) => id,
            RequestId::Own(id) => id,
        }
    }
}

/// Makes request ids: unique in this process, and hardly ever the same as another's.
#[derive(Debug)]
pub struct RequestIds {
    seed: u64,
    /// The number of the next id.
    next: AtomicU64,
}

impl RequestIds {
    pub fn new() -> RequestIds {
        // The standard library seeds its hash maps from the system's random numbers.
        let seed = RandomState::new().build_hasher().finish();
        RequestIds {
            seed,
            next: AtomicU64::new(0),
        }
    }

    /// Makes the next one.
    pub fn make(&self) -> RequestId {
        // An odd factor: a bijection, so that no two numbers give the same id.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = number.wrapping_mul(SPREAD) ^ self.seed;
        let mut digits = [0; 16];
        for (index, digit) in digits.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(id >> (60 - 4 * index) & 15) as usize];
        }
        RequestId::Own(digits)
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        RequestIds::new()
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
        let access_log = AccessLog {
            method: Method::POST,
            path: TargetSlice::In(0..10),
            status: 200,
            config: Some(Arc::new(configuration)),
            attempts: 2,
            started: Instant::now(),
            time_to_first_byte: Some(Duration::from_millis(12)),
            bytes_in: 512,
            bytes_out: 20480,
            end: ExchangeEnd::Ok,
            id: RequestId::Client(b"a b'c".as_slice().into()),
        };
        let (peer, path) = ("127.0.0.1:53422", access_log.path.of(b"/v1/chat\"x?query"));
        let access_log = &access_log;
        let line = AccessLine {
            peer,
            path,
            access_log,
        }
        .to_string();
        let start = "127.0.0.1:53422 \"POST /v1/chat%22x\" 200 config='primary-2' attempts=2 \
                     ttfb_ms=12 duration_ms=";
        assert!(line.starts_with(start), "{line}");
        assert!(
            line.ends_with(" in=512 out=20480 end=ok id=a%20b%27c"),
            "{line}"
        );
    }

    #[test]
    fn the_level_follows_the_status() {
        for (status, level) in [
            (200, Level::Info),
            (302, Level::Info),
            (404, Level::Warn),
            (499, Level::Warn),
            (500, Level::Error),
            (504, Level::Error),
        ] {
            let access_log = AccessLog {
                method: Method::GET,
                path: TargetSlice::In(0..1),
                status,
                config: None,
                attempts: 0,
                started: Instant::now(),
                time_to_first_byte: None,
                bytes_in: 0,
                bytes_out: 0,
                end: ExchangeEnd::Ok,
                id: RequestId::Client(b"x".as_slice().into()),
            };
            assert_eq!(access_log.level(), level, "{status}");
        }
    }

    #[test]
    fn request_ids_are_different() {
        let ids = RequestIds::new();
        let some: std::collections::HashSet<_> =
            (0..4096).map(|_| ids.make().as_bytes().to_vec()).collect();
        assert_eq!(some.len(), 4096);
    }
}
