//! The log: each line to stderr and to the log file.
//!
//! Owns the line format, the two sinks and their threads, and reopening the file. Out of scope:
//! what is logged. Any thread logs, through the macros of the crate `log`; what it does there is
//! to format the line in a buffer of its own and to append it to each sink's queue. It never
//! waits for a sink: each sink has a writer thread, so that a full disk, a pipe that nobody
//! reads or a closed stderr holds back neither the program nor the other sink.
//!
//! Only lines of this crate are logged: those of the HTTP and TLS crates carry header fields,
//! and with them secrets.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{LevelFilter, Log, Metadata, Record};
use rustix::fs::OFlags;
use simplelog::{CombinedLogger, Config, SharedLogger};

mod line;
mod sink;

use sink::Sink;

/// The crate whose lines are logged: the first segment of the target that `log`'s macros set.
const OWN_TARGET: &str = "flow_proxy";

/// How long [`Handle::flush`] waits for sinks that do not move.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Installs the logger for the whole process and starts its writer threads.
///
/// `asked_for` tells whether the user named the log file. One that was asked for and cannot be
/// opened is an error; the default one is a WARNING, and the log goes to stderr alone.
///
/// # Errors
///
/// A message that names what failed: the file, a thread that could not be started, or a logger
/// that is there already.
pub fn init(level: LevelFilter, file: &Path, asked_for: bool) -> Result<Handle, String> {
    let opened = open(file);
    if asked_for && let Err(error) = &opened {
        return Err(cannot_open(file, error));
    }
    // A descriptor of our own: a writer that is stuck in `std::io::Stderr` would hold its lock,
    // and with it every thread that panics.
    let stderr = io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .map(File::from)
        .ok();
    let (file_target, open_error) = match opened {
        Ok(file) => (Some(file), None),
        Err(error) => (None, Some(error)),
    };
    let sinks = Sinks::start(stderr, file_target, file)?;
    let handle = Handle {
        sinks: sinks.clone(),
        path: file.to_owned(),
    };
    let logger = Logger {
        level,
        colour: wants_colour(),
        sinks,
    };
    CombinedLogger::init(vec![Box::new(logger)])
        .map_err(|_| String::from("another logger is installed already"))?;
    if let Some(error) = open_error {
        log::warn!("{}; logging to stderr only", cannot_open(file, &error));
    }
    Ok(handle)
}

/// What the main thread keeps of the log.
pub struct Handle {
    sinks: Sinks,
    path: PathBuf,
}

impl Handle {
    /// Waits until everything logged so far is written, 1 s at most. To be called before the
    /// process exits.
    pub fn flush(&self) {
        self.sinks.flush();
    }

    /// Opens the file anew, since it may have been renamed (logrotate). If that fails the old
    /// one stays in use, and an ERROR says so. A file that could not be opened at the start
    /// gets another chance.
    pub fn reopen(&self) {
        match open(&self.path) {
            Ok(file) => {
                self.sinks.file.switch_to(file);
                log::info!("Log file {} reopened", self.path.display());
            }
            Err(error) => {
                let problem = cannot_open(&self.path, &error);
                log::error!("{problem}; the log goes on where it went before");
            }
        }
    }
}

/// Where lines go.
#[derive(Clone)]
struct Sinks {
    stderr: Arc<Sink>,
    file: Arc<Sink>,
}

impl Sinks {
    fn start(stderr: Option<File>, file: Option<File>, path: &Path) -> Result<Self, String> {
        let sinks = Self {
            stderr: Arc::new(Sink::new("stderr".into(), stderr.is_some())),
            file: Arc::new(Sink::new(
                format!("log file {}", path.display()),
                file.is_some(),
            )),
        };
        let no_thread = |error: io::Error| format!("cannot start a thread for the log: {error}");
        sink::start_writer("log-stderr", stderr, &sinks.stderr, &sinks.file).map_err(no_thread)?;
        sink::start_writer("log-file", file, &sinks.file, &sinks.stderr).map_err(no_thread)?;
        Ok(sinks)
    }

    fn flush(&self) {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        self.stderr.wait_until_written(deadline);
        self.file.wait_until_written(deadline);
    }
}

/// Whether the level is coloured on stderr.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Colour {
    Never,
    Stderr,
}

/// Colour is for people: not for pipes, not for terminals that cannot, and not for those who
/// said no (<https://no-color.org>: set and not empty).
fn wants_colour() -> Colour {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let refused = set("NO_COLOR").is_some() || set("TERM").as_deref() == Some(OsStr::new("dumb"));
    if io::stderr().is_terminal() && !refused {
        Colour::Stderr
    } else {
        Colour::Never
    }
}

/// What the macros of `log` call.
struct Logger {
    level: LevelFilter,
    colour: Colour,
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
        line::format(record.level(), record.args(), |line| {
            match self.colour {
                Colour::Never => self.sinks.stderr.push(&[line.whole()]),
                Colour::Stderr => self.sinks.stderr.push(&line.coloured()),
            }
            self.sinks.file.push(&[line.whole()]);
        });
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

/// Opens the log file to append to it; a new one is readable by its owner only.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        // A FIFO without a reader is an error now instead of a wait without end.
        .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32)
        .open(path)
}

fn cannot_open(path: &Path, error: &io::Error) -> String {
    format!("Cannot open log file {}: {error}", path.display())
}

#[cfg(test)]
mod tests;
