//! One line of the log: `2024-01-15 10:30:45 - INFO - message`, in local time, or a JSON object.
//!
//! Owns the text format, the clock and the escaping that keeps each message on one line. Every thread
//! formats in its own buffer: without a lock and, once the buffer has grown, without an allocation.

use std::cell::RefCell;
use std::fmt::{self, Write};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use log::Level;
use log::kv::Source;
use tz::{DateTime, TimeZone, TimeZoneRef};

use super::json;
use crate::config::options::LogFormat;
use crate::config::shown::printable;

/// What a line has instead of its message, in JSON: nothing.
pub(super) const NO_FIELDS: Option<(&str, &str)> = None;

/// The memory that a thread's buffer keeps after a line, in bytes.
const KEPT_BUFFER_BYTES: usize = 4 * 1024;

/// Formats a message, or its fields where JSON is written and there are some, and calls `deliver` with the
/// finished line.
pub(super) fn format(
    format: LogFormat,
    level: Level,
    message: &fmt::Arguments<'_>,
    fields: &dyn Source,
    deliver: impl FnOnce(Line<'_>),
) {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
    }
    let mut deliver = Some(deliver);
    let mut format_in = |scratch: &mut Scratch| {
        if let Some(deliver) = deliver.take() {
            deliver(scratch.format(format, level, message, fields));
            scratch.reset();
        }
    };
    // The buffer is in use where the Display of the message logs too, and gone when the thread ends.
    let done = SCRATCH.try_with(|scratch| match scratch.try_borrow_mut() {
        Ok(mut scratch) => format_in(&mut scratch),
        Err(_) => format_in(&mut Scratch::new()),
    });
    if done.is_err() {
        format_in(&mut Scratch::new());
    }
}

/// A finished line, with its line feed.
pub(super) struct Line<'a> {
    text: &'a str,
    level: Level,
    /// Where the level's name begins in `text`, which is no JSON.
    level_at: usize,
}

impl<'a> Line<'a> {
    /// Returns the line as it is written to files.
    pub(super) fn plain(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    /// Returns the line in parts, with its level coloured (ECMA-48 SGR).
    pub(super) fn coloured(&self) -> [&'a [u8]; 5] {
        let (before, rest) = self.text.split_at(self.level_at);
        let (level, after) = rest.split_at(level_name(self.level).len());
        let colour: &[u8] = match self.level {
            Level::Error => b"\x1b[31m",
            Level::Warn => b"\x1b[33m",
            Level::Info => b"\x1b[32m",
            Level::Debug | Level::Trace => b"\x1b[36m",
        };
        [
            before.as_bytes(),
            colour,
            level.as_bytes(),
            b"\x1b[0m",
            after.as_bytes(),
        ]
    }
}

/// Returns the level's name as scripts grep for it: `WARNING`, not `WARN`. The proxy logs nothing
/// below DEBUG.
fn level_name(level: Level) -> &'static str {
    match level {
        Level::Error => "ERROR",
        Level::Warn => "WARNING",
        Level::Info => "INFO",
        Level::Debug | Level::Trace => "DEBUG",
    }
}

/// A thread's buffer, with the last timestamp that it formatted.
struct Scratch {
    line: String,
    timestamp: String,
    /// What `timestamp` shows, in seconds since the epoch, and how.
    shows: Option<(i64, LogFormat)>,
}

impl Scratch {
    const fn new() -> Self {
        Self {
            line: String::new(),
            timestamp: String::new(),
            shows: None,
        }
    }

    fn format(
        &mut self,
        format: LogFormat,
        level: Level,
        message: &fmt::Arguments<'_>,
        fields: &dyn Source,
    ) -> Line<'_> {
        let second = unix_seconds();
        if self.shows != Some((second, format)) {
            self.timestamp = timestamp(local_zone(), second, format);
            self.shows = Some((second, format));
        }
        self.line.clear();
        let name = level_name(level);
        let level_at = match format {
            LogFormat::Text => self.push_text(name, message),
            LogFormat::Json => {
                json::push_line(&mut self.line, &self.timestamp, name, message, fields)
            }
        };
        self.line.push('\n');
        Line {
            text: &self.line,
            level,
            level_at,
        }
    }

    /// Returns where the level's name begins.
    fn push_text(&mut self, level: &str, message: &fmt::Arguments<'_>) -> usize {
        self.line.push_str(&self.timestamp);
        self.line.push_str(" - ");
        let level_at = self.line.len();
        self.line.push_str(level);
        self.line.push_str(" - ");
        let message_at = self.line.len();
        // Fails only if a Display does. What it wrote until then is still worth logging.
        let _ = self.line.write_fmt(*message);
        escape_from(&mut self.line, message_at);
        level_at
    }

    fn reset(&mut self) {
        self.line.clear();
        self.line.shrink_to(KEPT_BUFFER_BYTES);
    }
}

/// Escapes `line` from `start` on, so that it stays on one line and cannot control a terminal: a message
/// may quote what a client sent, and a client may try to forge a line.
fn escape_from(line: &mut String, start: usize) {
    // Almost all messages are plain: one pass over the bytes, without a branch for each.
    let is_plain = |plain, byte: &u8| plain & matches!(byte, b' '..=b'~');
    if line.as_bytes()[start..].iter().fold(true, is_plain) {
        return;
    }
    let message = line.split_off(start);
    line.push_str(&printable(&message));
}

fn unix_seconds() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)
}

/// Returns the time zone that `TZ` names, or the system's; UTC where there is none or it is
/// unreadable. Read once, so that later lines cost no system call.
fn local_zone() -> &'static TimeZone {
    static ZONE: OnceLock<TimeZone> = OnceLock::new();
    ZONE.get_or_init(|| {
        let zone = match std::env::var("TZ") {
            // POSIX does not define an empty TZ; the C libraries take it for UTC.
            Ok(name) if name.is_empty() => return TimeZone::utc(),
            Ok(name) => TimeZone::from_posix_tz(&name),
            Err(_) => TimeZone::local(),
        };
        zone.unwrap_or_else(|_| TimeZone::utc())
    })
}

/// Returns a second since the epoch as lines of text show it: `2024-01-15 10:30:45`, in local time.
pub fn local_time(unix_second: i64) -> String {
    timestamp(local_zone(), unix_second, LogFormat::Text)
}

/// Formats a second since the epoch as `2024-01-15 10:30:45`, in JSON as `2024-01-15T10:30:45+01:00`
/// (RFC 3339), in `zone`, with daylight saving; in UTC where the zone does not cover that second.
fn timestamp(zone: &TimeZone, unix_second: i64, format: LogFormat) -> String {
    let local = DateTime::from_timespec(unix_second, 0, zone.as_ref())
        .or_else(|_| DateTime::from_timespec(unix_second, 0, TimeZoneRef::utc()));
    // Fails only for a year that no clock shows.
    let Ok(time) = local else {
        return "0000-00-00 00:00:00".to_owned();
    };
    let (separator, offset) = match format {
        LogFormat::Text => (' ', String::new()),
        LogFormat::Json => ('T', utc_offset(time.local_time_type().ut_offset())),
    };
    format!(
        "{:04}-{:02}-{:02}{separator}{:02}:{:02}:{:02}{offset}",
        time.year(),
        time.month(),
        time.month_day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// Formats an offset in seconds as `+01:00`. Those with seconds were given up about 1970.
fn utc_offset(seconds: i32) -> String {
    let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.abs() / 60);
    format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: Level, message: &fmt::Arguments<'_>) -> String {
        let mut text = String::new();
        format(LogFormat::Text, level, message, &NO_FIELDS, |line| {
            text = String::from_utf8(line.plain().to_vec()).unwrap()
        });
        text
    }

    #[test]
    fn a_line_has_time_level_and_message() {
        let text = line(
            Level::Info,
            &format_args!("Using configuration '{}'", "primary-1"),
        );
        let (stamp, rest) = text.split_at("2024-01-15 10:30:45".len());
        assert_eq!(rest, " - INFO - Using configuration 'primary-1'\n");
        let shape: String = stamp
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert_eq!(shape, "0000-00-00 00:00:00");
    }

    #[test]
    fn levels_have_the_names_that_scripts_grep_for() {
        for (level, name) in [
            (Level::Error, " - ERROR - "),
            (Level::Warn, " - WARNING - "),
            (Level::Info, " - INFO - "),
            (Level::Debug, " - DEBUG - "),
        ] {
            assert!(line(level, &format_args!("x")).contains(name));
        }
    }

    #[test]
    fn a_message_cannot_forge_a_line_or_command_a_terminal() {
        let message = "a\nb\r\tc\u{1b}[2J\u{7f}\u{85}\u{2028}\u{202e}\u{61c}é中";
        assert!(
            line(Level::Info, &format_args!("{message}")).ends_with(
                " - a\\nb\\r\\tc\\u{1b}[2J\\u{7f}\\u{85}\\u{2028}\\u{202e}\\u{61c}é中\n"
            )
        );
    }

    #[test]
    fn only_the_level_is_coloured() {
        let check = |line: Line<'_>| {
            let coloured = line.coloured().concat();
            let coloured = String::from_utf8(coloured).unwrap();
            assert!(
                coloured.ends_with(" - \u{1b}[33mWARNING\u{1b}[0m - m\n"),
                "{coloured:?}"
            );
        };
        let (message, level) = (format_args!("m"), Level::Warn);
        format(LogFormat::Text, level, &message, &NO_FIELDS, check);
    }

    #[test]
    fn a_display_that_logs_itself_gets_a_line_of_its_own() {
        struct Nested;
        impl fmt::Display for Nested {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&line(Level::Debug, &format_args!("inner"))[19..])
            }
        }
        let text = line(Level::Info, &format_args!("{Nested}"));
        assert!(
            text.ends_with(" - INFO -  - DEBUG - inner\\n\n"),
            "{text:?}"
        );
    }

    #[test]
    fn the_time_is_the_zones_daylight_saving_included() {
        let zone = |text| TimeZone::from_posix_tz(text).unwrap();
        let (utc, berlin) = (TimeZone::utc(), zone("CET-1CEST,M3.5.0,M10.5.0/3"));
        // Expected values from date(1).
        for (zone, second, text, offset) in [
            (&utc, 951_782_400, "2000-02-29 00:00:00", "+00:00"),
            (&utc, 1_735_689_599, "2024-12-31 23:59:59", "+00:00"),
            (&berlin, 1_705_314_645, "2024-01-15 11:30:45", "+01:00"),
            (&berlin, 1_720_000_000, "2024-07-03 11:46:40", "+02:00"),
            (&zone("NST3:30"), 0, "1969-12-31 20:30:00", "-03:30"),
        ] {
            assert_eq!(timestamp(zone, second, LogFormat::Text), text);
            let json = timestamp(zone, second, LogFormat::Json);
            assert_eq!(json, text.replace(' ', "T") + offset);
        }
    }
}
