//! What has been read of the log so far.

use memchr::memmem;

use super::groups::Groups;
use super::record::{Record, Time, time};
use super::{json_line, rejections, text_line};
use crate::cli::GroupBy;

/// How far into a JSON line its level stands, at most, in bytes.
const LEVEL_WITHIN: usize = 80;

/// Adds up lines.
pub struct Reading {
    pub groups: Groups,
    /// The first time that counts.
    pub since: Option<String>,
    /// The earliest and the latest time of a line that counts.
    pub period: Option<(Time, Time)>,
    has_info: bool,
    has_warnings: bool,
}

impl Reading {
    pub fn new(by: &[GroupBy], since: Option<String>) -> Reading {
        Reading {
            groups: Groups::new(by),
            since,
            period: None,
            has_info: false,
            has_warnings: false,
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
        }
    }

    /// Whether the log is one without lines of INFO, which those of successful requests are.
    pub fn lacks_successes(&self) -> bool {
        self.has_warnings && !self.has_info
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
                let rest = &rest[..rest.len().min(LEVEL_WITHIN)];
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
