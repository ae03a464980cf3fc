//! The access line as text. The order of its fields is what scripts expect.

use std::fmt;
use std::time::Duration;

use super::access_log::{self, AccessLog};
use super::usage::tokens::Usage;

/// Bytes reserved for a line beside its path; a long name or id makes it grow.
const USUAL_LINE: usize = 320;
/// The longest path in the log, and the longest method, in bytes.
const MAX_PATH: usize = 512;
/// The longest request id in the log, in bytes.
const MAX_ID: usize = 128;

/// Writes the line, if its level is on. `peer` is the client's address, `target` the request target.
pub fn write(log: &AccessLog, peer: &str, target: &[u8]) {
    let path = log.path.of(target);
    log::log!(log.level(), "{}", AccessLine { peer, path, log });
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
        push_path(log.shown(log.method.as_str().as_bytes()), &mut line);
        line.push(b' ');
        push_path(log.shown(path), &mut line);
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
        for (label, word) in [(&b" reason="[..], log.reason), (b" error=", log.error)] {
            if let Some(word) = word {
                line.extend_from_slice(label);
                line.extend_from_slice(word.as_bytes());
            }
        }
        if log.resent > 0 {
            line.extend_from_slice(b" resent=");
            line.extend_from_slice(digits.format(log.resent).as_bytes());
        }
        push_response(log, &mut line);
        push_name(log, b" agent='", log.agent.as_deref(), &mut line);
        push_name(log, b" session='", log.session.as_deref(), &mut line);
        line.extend_from_slice(b" id=");
        push_id(log.shown(log.id.as_bytes()), &mut line);
        for (label, id) in [
            (&b" upstream_id="[..], &log.upstream_id),
            (b" call_id=", &log.call_id),
        ] {
            if let Some(id) = id {
                line.extend_from_slice(label);
                push_id(log.shown(id), &mut line);
            }
        }
        formatter.write_str(std::str::from_utf8(&line).map_err(|_| fmt::Error)?)
    }
}

/// Appends what is known of the model and of what it used.
fn push_response(log: &AccessLog, line: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    push_name(log, b" model='", log.model.as_deref(), line);
    if let Usage::Known(tokens) = log.usage {
        for (label, number) in [
            (&b" input_tokens="[..], tokens.input),
            (b" cached_tokens=", tokens.cached),
            (b" output_tokens=", tokens.output),
        ] {
            line.extend_from_slice(label);
            line.extend_from_slice(digits.format(number).as_bytes());
        }
    }
    if let Some(cost) = log.cost {
        line.extend_from_slice(b" cost=");
        line.extend_from_slice(amount(cost).as_bytes());
    }
}

fn push_name(log: &AccessLog, label: &[u8], name: Option<&str>, line: &mut Vec<u8>) {
    if let Some(name) = name {
        line.extend_from_slice(label);
        line.extend_from_slice(log.shown(name.as_bytes()));
        line.push(b'\'');
    }
}

/// Six digits say enough: LiteLLM sends what its computation gave, such as 2.9999999999999997e-05.
fn amount(cost: f64) -> String {
    let rounded: f64 = format!("{cost:.5e}").parse().unwrap_or(cost);
    match rounded {
        0.0 => "0".into(),
        1e-12..1e12 => rounded.to_string(),
        _ => format!("{rounded:e}"),
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
    if text.iter().copied().all(access_log::is_plain) {
        return line.extend_from_slice(text);
    }
    for byte in text {
        if access_log::is_plain(*byte) {
            line.push(*byte);
        } else {
            line.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use http::Method;

    use super::*;
    use crate::config::secrets::{Configuration, Credential};
    use crate::http1::headers::HeaderBlock;
    use crate::proxy::access_log::ExchangeEnd;
    use crate::proxy::request_id::RequestId;
    use crate::proxy::route::TargetSlice;
    use crate::proxy::usage::tokens::Tokens;

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
    fn what_is_known_of_the_response_stands_between_end_and_id() {
        let id = RequestId::Client(b"x".as_slice().into());
        let mut log = AccessLog::new(Method::POST, id, Instant::now());
        log.end = ExchangeEnd::ErrorEvent;
        log.reason = Some("limit");
        log.error = Some("overloaded");
        log.resent = 1;
        log.note_model("gpt-4o");
        log.usage = Usage::Known(Tokens {
            input: 1200,
            cached: 1024,
            output: u64::MAX,
        });
        log.cost = Some(0.0041);
        log.note_client(&HeaderBlock::of(&[
            ("User-Agent", "claude-cli/2.1.9 (external, cli)"),
            ("session-id", "s-1"),
        ]));
        let (peer, path, log) = ("-", &b"/"[..], &log);
        let line = AccessLine { peer, path, log }.to_string();
        let end = " end=error_event reason=limit error=overloaded resent=1 model='gpt-4o' \
                   input_tokens=1200 cached_tokens=1024 output_tokens=18446744073709551615 \
                   cost=0.0041 agent='claude-cli/2.1.9' session='s-1' id=x";
        assert!(line.ends_with(end), "{line}");
    }

    #[test]
    fn costs_are_short_whatever_they_are() {
        for (cost, expected) in [
            (0.0, "0"),
            (2.9999999999999997e-05, "0.00003"),
            (0.0041, "0.0041"),
            (0.002058, "0.002058"),
            (1.23456789, "1.23457"),
            (12345.678, "12345.7"),
            (1e-7, "0.0000001"),
            (1e-300, "1e-300"),
            (f64::MAX, "1.79769e308"),
        ] {
            assert_eq!(amount(cost), expected);
        }
    }
}
