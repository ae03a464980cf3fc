//! The line that counts rejected requests without an access line of their own.

use std::borrow::Cow;

use super::record::{Record, time};

/// The length of a line's time without its offset, in bytes.
const TIME_LENGTH: usize = 19;
/// How its message goes on behind the number.
const MESSAGE: &[u8] = b" more requests were rejected within 1 s";

/// Takes the line apart, text or JSON, without its line end. `None`: it is another one.
pub fn parse(line: &[u8]) -> Option<Record<'static>> {
    let (stamp, count, separator) = match line.strip_prefix(b"{\"time\":\"") {
        None => {
            let (stamp, rest) = line.split_at_checked(TIME_LENGTH)?;
            let count = rest.strip_prefix(b" - WARNING - ")?.strip_suffix(MESSAGE)?;
            (stamp, count, b' ')
        }
        Some(rest) => {
            let rest = rest.strip_suffix(b"\"}")?.strip_suffix(MESSAGE)?;
            let (stamp, rest) = rest.split_at_checked(TIME_LENGTH)?;
            let offset = rest.iter().position(|byte| *byte == b'"')?;
            let rest = &rest[offset..];
            let count = rest.strip_prefix(b"\",\"level\":\"WARNING\",\"message\":\"")?;
            (stamp, count, b'T')
        }
    };
    if !count.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let empty = Cow::Borrowed(&b""[..]);
    Some(Record {
        time: time(stamp, separator)?,
        requests: std::str::from_utf8(count).ok()?.parse().ok()?,
        method: empty.clone(),
        path: empty.clone(),
        status: 0,
        config: b"-"[..].into(),
        end: b"rejected"[..].into(),
        has_begun: false,
        model: empty.clone(),
        agent: empty.clone(),
        client: empty,
        tokens: None,
        cost: None,
    })
}
