//! The terminal that this process was started in, and whether it is still there.

use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;
use rustix::io::Errno;
use signal_hook::consts::SIGHUP;

/// Where the terminal of this process is found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Terminal {
    Stdin,
    Stdout,
    Stderr,
    /// None of these, but the controlling terminal.
    Controlling,
}

impl Terminal {
    /// Returns the terminal that this process was started in, if it was started in one that it depends
    /// on: with `nohup`, which ignores SIGHUP, it does not. Call this before SIGHUP is handled.
    pub(super) fn find() -> Option<Terminal> {
        use Terminal::{Controlling, Stderr, Stdin, Stdout};
        if ignores_hangup() {
            return None;
        }
        [Stdin, Stdout, Stderr, Controlling]
            .into_iter()
            .find(|terminal| terminal.is_open().unwrap_or(false))
    }

    /// Whether the terminal was closed. Then system calls on it fail, and it controls no process.
    pub(super) fn is_gone(self) -> bool {
        self.is_open().is_ok_and(|is_open| !is_open)
    }

    /// Whether it is a terminal that is open. An error says nothing about it.
    fn is_open(self) -> io::Result<bool> {
        match self {
            Terminal::Stdin => Ok(io::stdin().is_terminal()),
            Terminal::Stdout => Ok(io::stdout().is_terminal()),
            Terminal::Stderr => Ok(io::stderr().is_terminal()),
            Terminal::Controlling => {
                let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
                let mut options = File::options();
                let options = options.read(true).custom_flags(flags.bits() as i32);
                match options.open("/dev/tty") {
                    Ok(_) => Ok(true),
                    Err(error) => match Errno::from_io_error(&error) {
                        Some(Errno::NXIO | Errno::NOTTY | Errno::NODEV | Errno::NOENT) => Ok(false),
                        _ => Err(error),
                    },
                }
            }
        }
    }
}

/// Whether SIGHUP was ignored when the process was started. Only Linux tells.
fn ignores_hangup() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & (1 << (SIGHUP - 1)) != 0)
}
