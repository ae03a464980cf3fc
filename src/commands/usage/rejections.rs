//! The line that counts rejected requests without an access line of their own.

use super::head::{Level, Line};
use super::record::Record;
use crate::proxy::rejection_log::MORE_REJECTED;

/// Takes the line apart. `None`: it is another one.
pub fn parse(line: &Line<'_>) -> Option<Record<'static>> {
    let count = line.message()?.strip_suffix(MORE_REJECTED.as_bytes())?;
    if line.level != Level::Warning || !count.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(Record {
        requests: std::str::from_utf8(count).ok()?.parse().ok()?,
        config: b"-"[..].into(),
        end: b"rejected"[..].into(),
        ..Record::at(line.time)
    })
}
