//! The event scanner and the closing frames of broken event streams: for any bytes, in any pieces,
//! broken off anywhere, a decoder gets the complete events that were sent and then the error.
//!
//! The first byte of the input chooses how the rest is cut; the second one whether, and where, an
//! event becomes longer than the scanner keeps.

#![no_main]

use flow_proxy_fuzz::pieces;
use flow_proxy_fuzz::sse::EventScanner;
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;

const MESSAGE: &str = "it \"broke\"\n\u{2028}";
/// More than the scanner keeps of one event.
const LONG: usize = 64 * 1024 + 7;
/// How many prefixes of the stream are tried, beside the whole stream.
const BREAKS: usize = 8;

fuzz_target!(|bytes: &[u8]| {
    let [seed, stretch, stream @ ..] = bytes else {
        return;
    };
    let mut stream = stream.to_vec();
    let is_long = stretch % 16 == 15;
    if is_long {
        let at = usize::from(*stretch).min(stream.len());
        stream.splice(at..at, std::iter::repeat_n(b'x', LONG));
    }
    check_boundaries(&stream, *seed);
    let step = 1 + stream.len() / if is_long { 1 } else { BREAKS };
    for length in (0..stream.len()).step_by(step).chain([stream.len()]) {
        check_ending(&stream[..length], *seed);
    }
});

fn check_boundaries(stream: &[u8], seed: u8) {
    let mut scanner = EventScanner::default();
    let mut sent = 0;
    for piece in pieces(stream, seed) {
        scanner.feed(piece);
        sent += piece.len();
        if sent < 256 || sent == stream.len() {
            assert_eq!(scanner.is_at_boundary(), is_at_boundary(&stream[..sent]));
        }
    }
}

/// The data of the error frame.
fn error_data(message: &str) -> String {
    let message = serde_json::Value::from(message);
    format!(r#"{{"type":"error","error":{{"type":"api_error","message":{message}}}}}"#)
}

fn check_ending(stream: &[u8], seed: u8) {
    let mut scanner = EventScanner::default();
    for piece in pieces(stream, seed) {
        scanner.feed(piece);
    }
    let closing_frames = scanner.closing_frames(MESSAGE, &error_data(MESSAGE));
    assert!(closing_frames.len() < 1024 + stream.len().min(LONG));
    let whole = [stream, &closing_frames[..]].concat();
    for decoder in [Decoder::Standard, Decoder::Sdk] {
        let before = decode(stream, decoder);
        let after = decode(&whole, decoder);
        let (same, added) = after.split_at(before.len());
        assert_eq!(same, before, "complete events do not change");
        assert!((1..=2).contains(&added.len()), "{added:?}");
        assert!(
            added.iter().all(|event| event.name == b"error"),
            "{added:?}"
        );
        let frame: Value = serde_json::from_slice(&added[added.len() - 1].data).expect("JSON");
        assert_eq!(frame["type"], "error");
        assert_eq!(frame["error"]["type"], "api_error");
        assert_eq!(frame["error"]["message"], MESSAGE);
    }
    check_completion(stream, &whole);
}

/// If the beginning of a JSON object was sent as data, a decoder that parses every event's data finds
/// an object with our error in it.
fn check_completion(stream: &[u8], whole: &[u8]) {
    let last_line = lines(without_mark(stream)).pop().unwrap_or_default();
    let is_in_data_line = last_line.starts_with(b"data:");
    let dispatched = decode(stream, Decoder::Standard).len();
    let data = [stream, b"\n\n"].concat();
    let data = decode(&data, Decoder::Standard);
    let Some(Event { data, .. }) = data.get(dispatched) else {
        return;
    };
    let mut data = String::from_utf8_lossy(data).into_owned();
    if !is_in_data_line {
        // The next bytes belong to another line of data.
        data.push('\n');
    }
    // serde_json does not check the digits of an escape that is cut short.
    let end = &data.as_bytes()[data.len().saturating_sub(5)..];
    if let Some(escape) = end.windows(2).position(|pair| pair == b"\\u")
        && !end[escape + 2..].iter().all(u8::is_ascii_hexdigit)
    {
        return;
    }
    let is_open_object = data.trim_ascii_start().starts_with('{')
        && serde_json::from_str::<IgnoredAny>(&data).is_err_and(|error| error.is_eof());
    if is_open_object {
        let events = decode(whole, Decoder::Standard);
        let closed = String::from_utf8_lossy(&events[dispatched].data);
        let syntax = serde_json::from_str::<IgnoredAny>(&closed);
        assert!(syntax.is_ok(), "{closed:?}: {syntax:?}");
        // Half a surrogate pair and a number out of range are JSON, but serde_json rejects them.
        if let Ok(value) = serde_json::from_str::<Value>(&closed) {
            assert_eq!(value["error"]["message"], MESSAGE, "{closed:?}");
        }
    }
}

/// The stream without a byte order mark at its start.
fn without_mark(stream: &[u8]) -> &[u8] {
    stream.strip_prefix("\u{feff}".as_bytes()).unwrap_or(stream)
}

/// The lines, ended by CR, LF or CRLF, and last the bytes after the last line end.
fn lines(stream: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = stream;
    while let Some(length) = rest.iter().position(|byte| b"\r\n".contains(byte)) {
        lines.push(&rest[..length]);
        let end = if rest[length..].starts_with(b"\r\n") {
            2
        } else {
            1
        };
        rest = &rest[length + end..];
    }
    lines.push(rest);
    lines
}

/// The lines since the last empty line.
fn open_lines(stream: &[u8]) -> Vec<&[u8]> {
    let mut lines = lines(stream);
    let last = lines.pop().unwrap_or_default();
    let start = lines.iter().rposition(|line| line.is_empty());
    let mut open = lines.split_off(start.map_or(0, |index| index + 1));
    if !last.is_empty() {
        open.push(last);
    }
    open
}

fn is_at_boundary(stream: &[u8]) -> bool {
    open_lines(stream).is_empty()
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Event {
    name: Vec<u8>,
    data: Vec<u8>,
}

/// Whose rules decide what is an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decoder {
    /// WHATWG HTML section 9.2.6: an event without data is ignored, and so is a byte order mark.
    Standard,
    /// The Python SDKs' rules: an event with only a name counts.
    Sdk,
}

fn decode(stream: &[u8], decoder: Decoder) -> Vec<Event> {
    let mut events = Vec::new();
    let (mut name, mut data) = (Vec::new(), None::<Vec<u8>>);
    let mut lines = match decoder {
        Decoder::Standard => lines(without_mark(stream)),
        Decoder::Sdk => lines(stream),
    };
    // A line without its end does not count.
    lines.pop();
    for line in lines {
        if line.is_empty() {
            let name = std::mem::take(&mut name);
            let is_event = match decoder {
                Decoder::Standard => data.is_some(),
                Decoder::Sdk => data.is_some() || !name.is_empty(),
            };
            let data = data.take().unwrap_or_default();
            if is_event {
                events.push(Event { name, data });
            }
            continue;
        }
        let colon = line.iter().position(|&byte| byte == b':');
        let (field, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => name = value.to_vec(),
            b"data" => match &mut data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => data = Some(value.to_vec()),
            },
            _ => {}
        }
    }
    events
}
