//! Writes lines to a destination, and tells which were lost. Only writer threads call it.

use std::io::{self, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};

/// How the last write left the destination.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LineEnd {
    Complete,
    /// In the middle of a line whose rest is lost.
    Torn,
}

/// Lines that could not be written.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) lost: u64,
    pub(super) error: io::Error,
}

impl Failure {
    pub(super) fn new(lines: &[u8], error: io::Error) -> Self {
        Self {
            lost: line_count(lines),
            error,
        }
    }
}

pub(super) fn line_count(lines: &[u8]) -> u64 {
    lines.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// Writes whole lines and waits where the destination is full for the moment, as a pipe may be. After
/// a torn line it begins a new one first.
pub(super) fn write_lines<W: Write + AsFd>(
    destination: &mut W,
    lines: &[u8],
    end: &mut LineEnd,
) -> Result<(), Failure> {
    let mut rest = lines;
    loop {
        let repair = *end == LineEnd::Torn;
        let result = if repair {
            destination.write(b"\n")
        } else if rest.is_empty() {
            return Ok(());
        } else {
            destination.write(rest)
        };
        let error = match result {
            Ok(0) => io::ErrorKind::WriteZero.into(),
            Ok(_) if repair => {
                *end = LineEnd::Complete;
                continue;
            }
            Ok(written) => {
                rest = &rest[written..];
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // The descriptor is non-blocking. An error of poll shows in the next write.
                let _ = poll(&mut [PollFd::new(destination, PollFlags::OUT)], None);
                continue;
            }
            Err(error) => error,
        };
        let written = &lines[..lines.len() - rest.len()];
        if written.last().is_some_and(|&last| last != b'\n') {
            *end = LineEnd::Torn;
        }
        return Err(Failure::new(rest, error));
    }
}
