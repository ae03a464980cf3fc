//! Values of options: text to typed value, and back.
//!
//! Every parser takes one value, which is not empty. Its error quotes the value and says what is
//! allowed; the caller puts the value's source in front. The parsers read what the `show_…` functions
//! write. Pure.

use std::path::{Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;
use tz::UtcDateTime;

use super::commands::{GroupBy, Since};
use crate::config::address::{Block, Host};
use crate::config::options::{LogFile, LogFormat};
use crate::config::origin;
use crate::config::shown::quoted;

/// The log levels that shells offer.
pub(super) const LEVELS: [&str; 4] = ["DEBUG", "INFO", "WARNING", "ERROR"];

/// The formats of the log.
pub(super) const LOG_FORMATS: [&str; 2] = ["text", "json"];

/// The most workers: each is a thread.
const MAX_WORKERS: usize = 16_384;

/// The longest timeout, a week: it fits in the 31 bits of milliseconds that poll(2) takes.
const MAX_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The smallest size of a full log file in bytes, some 16 access lines: `32` was meant to be `32M`.
const MIN_LOG_SIZE: u64 = 4 * 1024;

/// The most log files to keep: each rotation renames them all.
const MAX_LOG_KEEP: u32 = 1000;

/// Reads a number of ASCII digits only. Rust's own parser also allows a sign.
fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Splits `10m` into 10 and `m`; blanks between them are allowed.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(end);
    Some((digits(number)?, unit.trim_start()))
}

/// Reads a port.
pub(super) fn port(text: &str) -> Result<u16, String> {
    if let Some(port) = digits(text).and_then(|number| u16::try_from(number).ok()) {
        return Ok(port);
    }
    let error = format!("{} is not a port (0 to 65535)", quoted(text));
    // Kubernetes gives every pod FLOW_PROXY_PORT=tcp://… when a Service is called flow-proxy.
    if text.starts_with("tcp://") {
        return Err(format!(
            "{error}; Kubernetes sets it for a Service called flow-proxy: set enableServiceLinks: \
             false in the pod, or give the port by --port"
        ));
    }
    Err(error)
}

/// Reads an address to listen on.
pub(super) fn host(text: &str) -> Result<Host, String> {
    Host::parse(text).ok_or_else(|| {
        let value = quoted(text);
        format!("{value} is not an IP address (such as 127.0.0.1, 0.0.0.0 or ::1) or localhost")
    })
}

/// Reads a boolean, in any case.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{} is neither true nor false", quoted(text))),
    }
}

/// Reads host names, comma-separated. Ports and wildcards are no part of them.
pub(super) fn host_names(text: &str) -> Result<Vec<String>, String> {
    let is_name = |name: &str| {
        let is_char = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
        let is_literal = name.starts_with('[') && name.ends_with(']');
        !name.is_empty() && name.bytes().all(is_char) && (is_literal || !name.contains([':', '[']))
    };
    let names = text.split(',').map(str::trim);
    match names.clone().find(|name| !is_name(name)) {
        None => Ok(names.map(str::to_ascii_lowercase).collect()),
        Some(name) => Err(format!(
            "{} is not a host name (such as proxy.example, without port and wildcards)",
            quoted(name)
        )),
    }
}

/// Reads origins, comma-separated.
pub(super) fn origins(text: &str) -> Result<Vec<String>, String> {
    let read = |text: &str| {
        origin::canonical(text).ok_or_else(|| {
            format!(
                "{} is not an origin (such as https://app.example:8443: scheme, host in ASCII and \
                 port, without path and wildcards)",
                quoted(text)
            )
        })
    };
    text.split(',').map(str::trim).map(read).collect()
}

/// Reads addresses and blocks of addresses, comma-separated.
pub(super) fn blocks(text: &str) -> Result<Vec<Block>, String> {
    let read = |text: &str| {
        Block::parse(text).ok_or_else(|| {
            format!(
                "{} is not an address or a block of them (such as 172.17.0.1 or 10.0.0.0/8)",
                quoted(text)
            )
        })
    };
    text.split(',').map(str::trim).map(read).collect()
}

/// Writes a list as its parser reads it.
pub(super) fn show_list(list: &[String]) -> String {
    if list.is_empty() {
        "none".to_owned()
    } else {
        list.join(",")
    }
}

/// Reads a log level, in any case.
pub(super) fn level(text: &str) -> Result<LevelFilter, String> {
    match text.to_ascii_uppercase().as_str() {
        "DEBUG" => Ok(LevelFilter::Debug),
        "INFO" => Ok(LevelFilter::Info),
        "WARNING" | "WARN" => Ok(LevelFilter::Warn),
        "ERROR" => Ok(LevelFilter::Error),
        _ => Err(format!(
            "{} is not a log level (DEBUG, INFO, WARNING or ERROR)",
            quoted(text)
        )),
    }
}

pub(super) fn show_level(level: LevelFilter) -> String {
    match level {
        LevelFilter::Warn => "WARNING".to_owned(),
        other => other.to_string(),
    }
}

/// Reads the path of a file.
pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.contains('\0') {
        return Err(format!(
            "{} is not a file path (it holds a NUL)",
            quoted(text)
        ));
    }
    Ok(PathBuf::from(text))
}

pub(super) fn show_path(path: &Path) -> String {
    path.display().to_string()
}

/// Writes the path of a file that may be missing.
pub(super) fn show_optional_path(path: Option<&Path>) -> String {
    path.map_or("none".to_owned(), show_path)
}

/// Reads the path of the log file. `None`, written none or -, is no file.
pub(super) fn log_file(text: &str) -> Result<Option<LogFile>, String> {
    if matches!(text, "none" | "-") {
        return Ok(None);
    }
    let path = path(text)?;
    Ok(Some(LogFile {
        path,
        is_required: true,
    }))
}

/// Reads the size of a full log file. `None`, written 0, is no limit.
pub(super) fn log_size(text: &str) -> Result<Option<u64>, String> {
    let size = size(text)?;
    if size.is_some_and(|bytes| bytes < MIN_LOG_SIZE) {
        return Err(format!(
            "{} is too small for a log file ({} or more; 0 = no limit)",
            quoted(text),
            show_size(Some(MIN_LOG_SIZE))
        ));
    }
    Ok(size)
}

/// Reads a number of log files to keep.
pub(super) fn log_keep(text: &str) -> Result<u32, String> {
    digits(text)
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| *number <= MAX_LOG_KEEP)
        .ok_or_else(|| {
            let value = quoted(text);
            format!("{value} is not a number of log files (0 to {MAX_LOG_KEEP})")
        })
}

/// Reads a format of the log, in any case.
pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text.to_ascii_lowercase().as_str() {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{} is neither text nor json", quoted(text))),
    }
}

pub(super) fn show_log_format(format: LogFormat) -> String {
    match format {
        LogFormat::Text => "text".to_owned(),
        LogFormat::Json => "json".to_owned(),
    }
}

/// Reads a number of workers.
pub(super) fn workers(text: &str) -> Result<usize, String> {
    digits(text)
        .and_then(|number| usize::try_from(number).ok())
        .filter(|number| (1..=MAX_WORKERS).contains(number))
        .ok_or_else(|| {
            format!(
                "{} is not a number of workers (1 to {MAX_WORKERS})",
                quoted(text)
            )
        })
}

/// Reads a timeout that is longer than 0.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    duration(text)
        .filter(|timeout| !timeout.is_zero())
        .ok_or_else(|| {
            let value = quoted(text);
            format!(
                "{value} is not a timeout (seconds, or a number with ms, s, m or h; 1ms to 168h)"
            )
        })
}

/// Reads a timeout that may be 0, which means: do not wait.
pub(super) fn timeout_or_zero(text: &str) -> Result<Duration, String> {
    duration(text).ok_or_else(|| {
        let value = quoted(text);
        format!("{value} is not a timeout (seconds, or a number with ms, s, m or h; 0 to 168h)")
    })
}

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let millis_per_unit = match unit.to_ascii_lowercase().as_str() {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let timeout = Duration::from_millis(number.checked_mul(millis_per_unit)?);
    (timeout <= MAX_TIMEOUT).then_some(timeout)
}

pub(super) fn show_duration(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    }
}

/// Reads a time in the past: how long ago, or a date with or without a time.
pub(super) fn since(text: &str) -> Result<Since, String> {
    ago(text).or_else(|| date(text)).ok_or_else(|| {
        let value = quoted(text);
        format!(
            "{value} is not a time (a number with m, h or d, such as 7d; or 2024-01-15, or \
                 '2024-01-15 10:30', in local time)"
        )
    })
}

fn ago(text: &str) -> Option<Since> {
    let (number, unit) = number_and_unit(text)?;
    let seconds = match unit.to_ascii_lowercase().as_str() {
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let ago = number.checked_mul(seconds).filter(|seconds| *seconds > 0)?;
    Some(Since::Ago(Duration::from_secs(ago)))
}

fn date(text: &str) -> Option<Since> {
    let (date, time) = text.split_once([' ', 'T']).unwrap_or((text, "00:00"));
    let number = |part: &str, length| digits(part).filter(|_| part.len() == length);
    let mut parts = date.splitn(3, '-');
    let year = number(parts.next()?, 4)?;
    let (month, day) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let mut parts = time.splitn(3, ':');
    let (hour, minute) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let second = number(parts.next().unwrap_or("00"), 2)?;
    let small = |number| u8::try_from(number).ok();
    let (day, hour) = (small(day)?, small(hour)?);
    let (minute, second) = (small(minute)?, small(second)?);
    // Checks the day of the month, too. The zone does not matter for that.
    let year = i32::try_from(year).ok()?;
    UtcDateTime::new(year, small(month)?, day, hour, minute, second, 0).ok()?;
    Some(Since::At(format!(
        "{date} {hour:02}:{minute:02}:{second:02}"
    )))
}

/// Reads what requests are grouped by, comma-separated, and adds it to `by`.
pub(super) fn group_by(text: &str, by: &mut Vec<GroupBy>) -> Result<(), String> {
    for name in text.split(',').map(str::trim) {
        let key = GroupBy::ALL.into_iter().find(|key| key.name() == name);
        let Some(key) = key else {
            let (name, allowed) = (quoted(name), GroupBy::NAMES.join(", "));
            return Err(format!("{name} is not one of {allowed}"));
        };
        if !by.contains(&key) {
            by.push(key);
        }
    }
    Ok(())
}

/// The units of a size with their bytes, largest first. `K` means `KiB`.
const SIZE_UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Reads a size in bytes. `None`, written 0, is no limit.
pub(super) fn size(text: &str) -> Result<Option<u64>, String> {
    let bytes = number_and_unit(text).and_then(|(number, unit)| {
        let is_unit = |name: &str| unit.eq_ignore_ascii_case(name);
        let factor = match unit {
            "" => 1,
            _ => {
                SIZE_UNITS
                    .iter()
                    .find(|(name, _)| is_unit(name) || is_unit(&name[..1]))?
                    .1
            }
        };
        number.checked_mul(factor)
    });
    match bytes {
        Some(0) => Ok(None),
        Some(bytes) => Ok(Some(bytes)),
        None => Err(format!(
            "{} is not a size (bytes, or a number with K, M or G; 0 = no limit)",
            quoted(text)
        )),
    }
}

pub(super) fn show_size(size: Option<u64>) -> String {
    let Some(bytes) = size else {
        return "0".to_owned();
    };
    match SIZE_UNITS
        .iter()
        .find(|(_, factor)| bytes.is_multiple_of(*factor))
    {
        Some((name, factor)) => format!("{}{name}", bytes / factor),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests;
