//! What has been read of the log so far.

use super::groups::Groups;
use super::head::{Content, Level, Line, Time};
use super::record::Record;
use super::{json_line, rejections, text_line};
use crate::cli::GroupBy;
use crate::commands::serve::{HIDES_SUCCESSES, OPTIONS};

/// Adds up lines.
pub struct Reading {
    pub groups: Groups,
    /// The first time that counts.
    pub since: Option<String>,
    /// The earliest and the latest time of a line that counts.
    pub period: Option<(Time, Time)>,
    has_info: bool,
    has_warnings: bool,
    /// Of the latest start: its time, and whether its level hides successes.
    start: Option<(Time, bool)>,
}

impl Reading {
    pub fn new(by: &[GroupBy], since: Option<String>) -> Reading {
        Reading {
            groups: Groups::new(by),
            since,
            period: None,
            has_info: false,
            has_warnings: false,
            start: None,
        }
    }

    /// Takes the next line, which may be anything.
    pub fn take(&mut self, line: &[u8]) {
        let Some(line) = Line::read(line) else {
            return;
        };
        match line.level {
            // Requests for the proxy's own pages are logged at DEBUG.
            Level::Debug => {
                self.has_info = true;
                return;
            }
            Level::Info => self.has_info = true,
            Level::Warning | Level::Error => self.has_warnings = true,
        }
        let record = match line.content {
            Content::Text(message) => text_line::parse(line.time, message),
            Content::JsonObject(object) => json_line::parse(line.time, object),
            Content::JsonMessage(_) => None,
        };
        if let Some(record) = record.or_else(|| rejections::parse(&line)) {
            self.add(&record);
        } else if let Some(hides) = hides_successes(&line)
            && self.start.is_none_or(|(known, _)| known <= line.time)
        {
            self.start = Some((line.time, hides));
        }
    }

    /// Whether the log is one without lines of INFO, which those of successful requests are.
    pub fn lacks_successes(&self) -> bool {
        let is_hidden = self.start.is_some_and(|(_, hides)| hides);
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
}

/// Whether the level of a start hides successes. `None`: the line is another one.
fn hides_successes(line: &Line<'_>) -> Option<bool> {
    let message = line.message()?;
    match line.level {
        Level::Info => message.starts_with(OPTIONS.as_bytes()).then_some(false),
        _ => (message == HIDES_SUCCESSES.as_bytes()).then_some(true),
    }
}
