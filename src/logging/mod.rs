//! The log: writes each line to stderr and to the log file.
//!
//! Owns the line format, the two sinks and their threads, rotating and reopening the file. Out of scope: what
//! is logged. Any thread logs, through the macros of the crate `log`: it formats the line in its own
//! buffer and appends it to the queue of each sink. It never waits for a sink. Each sink has a writer
//! thread, so that a full disk, a pipe without a reader or a closed stderr delays neither the program
//! nor the other sink.
//!
//! Only lines of this crate are logged: lines of the HTTP and TLS crates contain headers, and with
//! them secrets.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{LevelFilter, Log, Metadata, Record};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::geteuid;
use simplelog::{CombinedLogger, Config, SharedLogger};

mod json;
mod line;
mod rotation;
mod sink;
mod write;

pub use line::local_time;
pub use sink::lines_dropped;

use line::Line;
use rotation::{Limits, Rotation};
use sink::Sink;

use crate::config::options::LogFormat;

/// The crate whose lines are logged: the first segment of the target that `log`'s macros set.
const OWN_TARGET: &str = "flow_proxy";

/// The maximum time that [`Handle::flush`] waits for the sinks.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The file that the log goes to.
pub struct LogFile {
    pub path: PathBuf,
    /// What messages call it.
    pub name: String,
    /// Whether the user named it. Failing to open it is then an error, and it may be of any kind. Otherwise
    /// that is a WARNING, and it must be a regular file of this user's: a symlink or a file that lies in
    /// the directory may be there to have something else overwritten.
    pub is_required: bool,
    /// The size in bytes at which it is full and renamed to `….1`; `None` is never.
    pub max_size: Option<u64>,
    /// How many renamed files are kept.
    pub keep: u32,
    /// The files that it must not be, whatever replaces it, each with what messages call it.
    pub read_files: Vec<(&'static str, PathBuf)>,
}

/// Installs the logger for the whole process and starts its writer threads. Without a file, the log goes
/// to stderr only.
///
/// # Errors
///
/// A message that names what failed: a required file, a thread that could not be started, or a logger
/// that is installed already.
pub fn init(
    level: LevelFilter,
    format: LogFormat,
    log_file: Option<LogFile>,
) -> Result<Handle, String> {
    let log_file = log_file.map(Arc::new);
    let opened = log_file.as_ref().map(|file| file.open()).transpose();
    if let (Some(file), Err(error)) = (&log_file, &opened)
        && file.is_required
    {
        return Err(file.cannot_open(error));
    }
    // A descriptor of our own: a writer that blocks in `std::io::Stderr` would hold its lock, and every
    // thread that panics would wait for it.
    let stderr = io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .map(File::from)
        .ok();
    let (file, open_error) = match opened {
        Ok(file) => (file, None),
        Err(error) => (None, Some(error)),
    };
    let is_exposed = file.as_ref().is_some_and(can_be_written_by_others);
    let name = log_file.as_ref().map_or("", |file| &file.name);
    let sinks = Sinks::start(format, stderr, file, log_file.as_ref())?;
    let logger = Logger {
        level,
        format,
        colours_stderr: format == LogFormat::Text && may_colour(&io::stderr()),
        sinks: sinks.clone(),
    };
    CombinedLogger::init(vec![Box::new(logger)])
        .map_err(|_| String::from("another logger is installed already"))?;
    if let (Some(file), Some(error)) = (&log_file, open_error) {
        log::warn!("{}; logging to stderr only", file.cannot_open(&error));
    }
    if is_exposed {
        log::warn!(
            "Log file {name} can be written by all users of this machine: run chmod 600 {name}"
        );
    }
    Ok(Handle { sinks, log_file })
}

impl LogFile {
    /// Opens the file for appending. A new file can be read by its owner only.
    fn open(&self) -> io::Result<File> {
        // Opening a FIFO that has no reader fails instead of waiting forever.
        let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        if !self.is_required {
            flags |= OFlags::NOFOLLOW;
        }
        let mut options = OpenOptions::new();
        let options = options.append(true).create(true).mode(0o600);
        let opened = options.custom_flags(flags.bits() as i32).open(&self.path);
        let file = opened.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::LOOP) if !self.is_required => io::Error::other("it is a symbolic link"),
            _ => error,
        })?;
        let metadata = file.metadata()?;
        let is_own_file = metadata.is_file() && metadata.uid() == geteuid().as_raw();
        if !self.is_required && !is_own_file {
            return Err(io::Error::other("it is no regular file of this user's"));
        }
        self.check_not_read(&metadata)?;
        Ok(file)
    }

    /// Returns what keeps it below its size.
    fn rotation(self: &Arc<Self>) -> Rotation {
        let limits = Limits {
            max_size: self.max_size,
            keep: self.keep,
        };
        let file = Arc::clone(self);
        let open = Box::new(move || file.open());
        Rotation::new(self.path.clone(), self.name.clone(), limits, open)
    }

    /// Checks that what was opened is none of the files that are read.
    fn check_not_read(&self, opened: &fs::Metadata) -> io::Result<()> {
        let id = |file: &fs::Metadata| (file.dev(), file.ino());
        let is_opened = |path| fs::metadata(path).is_ok_and(|file| id(&file) == id(opened));
        match self.read_files.iter().find(|(_, path)| is_opened(path)) {
            Some((kind, _)) => Err(io::Error::other(format!("it is {kind}"))),
            None => Ok(()),
        }
    }

    fn cannot_open(&self, error: &io::Error) -> String {
        format!("Cannot open log file {}: {error}", self.name)
    }
}

/// Whether all users of the machine may write a file, as they may the null device.
fn can_be_written_by_others(file: &File) -> bool {
    let metadata = file.metadata();
    metadata.is_ok_and(|file| file.is_file() && file.mode() & 0o002 != 0)
}

/// Flushes the log and reopens its file. Used by the main thread.
pub struct Handle {
    sinks: Sinks,
    log_file: Option<Arc<LogFile>>,
}

impl Handle {
    /// Waits until all lines that were logged so far are written, 1 s at most. Call this before the
    /// process exits.
    pub fn flush(&self) {
        self.sinks.flush();
    }

    /// Opens the file again, because logrotate may have renamed it. If that fails, an ERROR says so and
    /// the old file stays in use. A file that could not be opened at the start is tried again.
    pub fn reopen(&self) {
        let Some(log_file) = &self.log_file else {
            return;
        };
        match log_file.open() {
            Ok(file) => {
                self.sinks.file.switch_to(file);
                log::info!("Log file {} reopened", log_file.name);
            }
            Err(error) => {
                let problem = log_file.cannot_open(&error);
                log::error!("{problem}; the log goes on where it went before");
            }
        }
    }
}

/// The two sinks that each line goes to.
#[derive(Clone)]
struct Sinks {
    stderr: Arc<Sink>,
    file: Arc<Sink>,
}

impl Sinks {
    fn start(
        format: LogFormat,
        stderr: Option<File>,
        file: Option<File>,
        log_file: Option<&Arc<LogFile>>,
    ) -> Result<Self, String> {
        let name = log_file.map_or("", |file| &file.name);
        let rotation = log_file.map(LogFile::rotation);
        let sinks = Self {
            stderr: Arc::new(Sink::new("stderr".into(), format, stderr.is_some())),
            file: Arc::new(Sink::new(
                format!("log file {name}"),
                format,
                file.is_some(),
            )),
        };
        let no_thread = |error: io::Error| format!("cannot start a thread for the log: {error}");
        sink::start_writer("log-stderr", stderr, None, &sinks.stderr, &sinks.file)
            .map_err(no_thread)?;
        sink::start_writer("log-file", file, rotation, &sinks.file, &sinks.stderr)
            .map_err(no_thread)?;
        Ok(sinks)
    }

    fn flush(&self) {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        self.stderr.wait_until_written(deadline);
        self.file.wait_until_written(deadline);
    }
}

/// Whether to colour what goes to `output`: a terminal that can show it, unless the user declines
/// (<https://no-color.org>: `NO_COLOR` is set and not empty).
pub fn may_colour(output: &impl IsTerminal) -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let is_declined =
        set("NO_COLOR").is_some() || set("TERM").as_deref() == Some(OsStr::new("dumb"));
    output.is_terminal() && !is_declined
}

/// What the macros of the crate `log` call.
struct Logger {
    level: LevelFilter,
    format: LogFormat,
    /// Whether the level is coloured on stderr.
    colours_stderr: bool,
    sinks: Sinks,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let own = metadata.target().strip_prefix(OWN_TARGET);
        metadata.level() <= self.level
            && own.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let push = |line: Line<'_>| {
            if self.colours_stderr {
                self.sinks.stderr.push(&line.coloured());
            } else {
                self.sinks.stderr.push(&[line.plain()]);
            }
            self.sinks.file.push(&[line.plain()]);
        };
        let (level, fields) = (record.level(), record.key_values());
        line::format(self.format, level, record.args(), fields, push);
    }

    fn flush(&self) {
        self.sinks.flush();
    }
}

impl SharedLogger for Logger {
    fn level(&self) -> LevelFilter {
        self.level
    }

    fn config(&self) -> Option<&Config> {
        None
    }

    fn as_log(self: Box<Self>) -> Box<dyn Log> {
        self
    }
}

#[cfg(test)]
mod tests;
