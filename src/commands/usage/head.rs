//! What all lines of the log begin with: time and level, as text or as JSON.

use memchr::{memchr, memmem};

/// A local time as the log has it: `2024-01-15 10:30:45`. Later ones are greater.
pub type Time = [u8; 19];

/// A line of the log, without its line end.
pub struct Line<'a> {
    pub time: Time,
    pub level: Level,
    pub content: Content<'a>,
}

/// What stands in a line.
pub enum Content<'a> {
    /// The message of a text line.
    Text(&'a [u8]),
    /// The message of a JSON line, escaped as in JSON.
    JsonMessage(&'a [u8]),
    /// A JSON object with other fields than a message: all of it.
    JsonObject(&'a [u8]),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
}

impl<'a> Line<'a> {
    /// Takes the beginning of a line apart. `None`: it is no line of the log.
    pub fn read(line: &'a [u8]) -> Option<Line<'a>> {
        match line.strip_prefix(b"{\"time\":\"") {
            Some(rest) => Line::read_json(line, rest),
            None => Line::read_text(line),
        }
    }

    fn read_text(line: &'a [u8]) -> Option<Line<'a>> {
        let (stamp, rest) = line.split_first_chunk()?;
        let rest = rest.strip_prefix(b" - ")?;
        let end = memmem::find(rest, b" - ")?;
        Some(Line {
            time: time(stamp, b' ')?,
            level: level(&rest[..end])?,
            content: Content::Text(&rest[end + 3..]),
        })
    }

    fn read_json(line: &'a [u8], rest: &'a [u8]) -> Option<Line<'a>> {
        let (stamp, rest) = rest.split_first_chunk()?;
        // The offset from UTC.
        let rest = &rest[memchr(b'"', rest)?..];
        let rest = rest.strip_prefix(b"\",\"level\":\"")?;
        let end = memchr(b'"', rest)?;
        let message = rest[end..].strip_prefix(b"\",\"message\":\"");
        let message = message.and_then(|message| message.strip_suffix(b"\"}"));
        Some(Line {
            time: time(stamp, b'T')?,
            level: level(&rest[..end])?,
            content: message.map_or(Content::JsonObject(line), Content::JsonMessage),
        })
    }

    /// Returns the message, if it has one.
    pub fn message(&self) -> Option<&'a [u8]> {
        match self.content {
            Content::Text(message) | Content::JsonMessage(message) => Some(message),
            Content::JsonObject(_) => None,
        }
    }
}

/// Reads a time whose date and time of day are split by `separator`.
fn time(stamp: &Time, separator: u8) -> Option<Time> {
    const PATTERN: &Time = b"0000-00-00 00:00:00";
    let mut time = *stamp;
    if time[10] != separator {
        return None;
    }
    time[10] = b' ';
    let fits = |(byte, pattern): (&u8, &u8)| match pattern {
        b'0' => byte.is_ascii_digit(),
        other => byte == other,
    };
    time.iter().zip(PATTERN).all(fits).then_some(time)
}

fn level(word: &[u8]) -> Option<Level> {
    match word {
        b"DEBUG" => Some(Level::Debug),
        b"INFO" => Some(Level::Info),
        b"WARNING" => Some(Level::Warning),
        b"ERROR" => Some(Level::Error),
        _ => None,
    }
}
