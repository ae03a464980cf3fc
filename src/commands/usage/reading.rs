//! What has been read of the log so far.

use memchr::memmem;

use super::groups::Groups;
use super::record::{Record, Time, time};
use super::{json_line, rejections, text_line};
use crate::cli::GroupBy;

/// How far into a line its message begins, at most, in bytes.
const HEAD: usize = 100;

/// Adds up lines.
pub struct Reading {
    pub groups: Groups,
    /// The first time that counts.
    pub since: Option<String>,
    /// The earliest and the latest time of a line that counts.
    pub period: Option<(Time, Time)>,
    has_info: bool,
    has_warnings: bool,
    /// Of the latest line with a start's options: its time, and whether its level hides successes.
    options: Option<(Time, bool)>,
}

impl Reading {
    pub fn new(by: &[GroupBy], since: Option<String>) -> Reading {
        Reading {
            groups: Groups::new(by),
            since,
            period: None,
            has_info: false,
            has_warnings: false,
            options: None,
        }
    }

    /// Takes the next line, which may be anything.
    pub fn take(&mut self, line: &[u8]) {
        if !self.has_info {
            self.note_level(line);
        }
        let record = match line.first() {
            Some(b'{') => json_line::parse(line),
            _ => text_line::parse(line),
        };
        if let Some(record) = record.or_else(|| rejections::parse(line)) {
            self.add(&record);
        } else if let Some((time, hides)) = start_options(line) {
            let is_latest = self.options.is_none_or(|(known, _)| known <= time);
            self.options = if is_latest {
                Some((time, hides))
            } else {
                self.options
            };
        }
    }

    /// Whether the log is one without lines of INFO, which those of successful requests are.
    pub fn lacks_successes(&self) -> bool {
        let is_hidden = self.options.is_some_and(|(_, hides)| hides);
        is_hidden || (self.has_warnings && !self.has_info)
    }

    fn add(&mut self, record: &Record<'_>) {
        let time = record.time;
        if let Some(since) = &self.since
            && time[..] < *since.as_bytes()
        {
            return;
        }
        let (first, last) = self.period.unwrap_or((time, time));
        self.period = Some((first.min(time), last.max(time)));
        self.groups.add(record);
    }

    fn note_level(&mut self, line: &[u8]) {
        let is_of = |level: &str| match line.split_at_checked(19) {
            Some((_, rest)) if line.starts_with(b"{\"time\":\"") => {
                let rest = &rest[..rest.len().min(HEAD)];
                memmem::find(rest, format!("\"level\":\"{level}\"").as_bytes()).is_some()
            }
            Some((stamp, rest)) => {
                let start = format!(" - {level} - ");
                time(stamp, b' ').is_some() && rest.starts_with(start.as_bytes())
            }
            None => false,
        };
        self.has_info |= is_of("INFO") || is_of("DEBUG");
        self.has_warnings |= is_of("WARNING") || is_of("ERROR");
    }
}

/// Reads the line that a start writes with its options: its time, and whether they hide successes.
fn start_options(line: &[u8]) -> Option<(Time, bool)> {
    let (is_json, stamp) = match line.strip_prefix(b"{\"time\":\"") {
        Some(rest) => (true, rest.get(..19)?),
        None => (false, line.get(..19)?),
    };
    let start: &[u8] = if is_json {
        b"\",\"message\":\"Options: "
    } else {
        b" - INFO - Options: "
    };
    let head = &line[..line.len().min(HEAD)];
    let options = &line[memmem::find(head, start)? + start.len()..];
    let level = &options[memmem::find(options, b" log-level=")? + b" log-level=".len()..];
    let hides = level.starts_with(b"WARNING") || level.starts_with(b"ERROR");
    let separator = if is_json { b'T' } else { b' ' };
    Some((time(stamp, separator)?, hides))
}
