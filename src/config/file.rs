//! Reads the files that options name: secrets, certificates, `.env`. Opening one never blocks, and none is
//! read beyond 1 MiB.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use zeroize::Zeroizing;

/// The largest file in bytes. An entry of secrets.json has some hundred, a bundle of all public roots a
/// quarter of this. The limit keeps a wrong path (a core dump, `/dev/zero`) from filling the memory.
const MAX_FILE_BYTES: usize = 1 << 20;

/// How long a pipe is waited for by those who read nothing else meanwhile.
pub const PIPE_PATIENCE: Duration = Duration::from_secs(2);

/// U+FEFF in UTF-8, which editors on Windows write before a text.
pub const BYTE_ORDER_MARK: [u8; 3] = *b"\xef\xbb\xbf";

/// What to do with a file that is no regular one: a pipe, a device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pipes {
    /// Wait for its end, however long that takes.
    Wait,
    /// Wait for its end, for this time at most.
    WaitFor(Duration),
    Reject,
}

/// What a file holds.
pub struct Contents {
    pub bytes: Zeroizing<Vec<u8>>,
    pub metadata: Metadata,
}

/// Why a file cannot be read. Display continues a sentence that begins with its path.
#[derive(Debug)]
pub enum ReadError {
    Missing,
    Directory,
    /// It is no regular file where only such a one is read.
    Irregular,
    /// A pipe without an end.
    Silent(Duration),
    TooLarge,
    Io(io::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Missing => f.write_str("no such file"),
            ReadError::Directory => f.write_str("is a directory, not a file"),
            ReadError::Irregular => {
                f.write_str("is no regular file: such files are read at the start only")
            }
            ReadError::Silent(patience) => {
                let seconds = patience.as_secs();
                write!(f, "is a pipe whose end has not come after {seconds} s")
            }
            ReadError::TooLarge => write!(f, "is larger than {} MiB", MAX_FILE_BYTES >> 20),
            ReadError::Io(error) => write!(f, "cannot be read: {error}"),
        }
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> ReadError {
        match error.kind() {
            io::ErrorKind::NotFound => ReadError::Missing,
            _ => ReadError::Io(error),
        }
    }
}

/// Reads the file at `path`.
///
/// # Errors
/// Why it cannot be read.
pub fn read(path: &Path, pipes: Pipes) -> Result<Contents, ReadError> {
    // Opening a pipe without a writer does not wait then, and a terminal does not become ours. It has no
    // effect on regular files.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut options = File::options();
    let options = options.read(true).custom_flags(flags.bits() as i32);
    let mut file = options.open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(ReadError::Directory);
    }
    let deadline = match pipes {
        _ if metadata.is_file() => None,
        Pipes::Reject => return Err(ReadError::Irregular),
        Pipes::Wait => None,
        Pipes::WaitFor(patience) => Some((Instant::now() + patience, patience)),
    };
    // One byte more tells that the file is longer. The vector never grows: that would leave copies.
    let mut bytes = Zeroizing::new(vec![0; MAX_FILE_BYTES + 1]);
    let mut filled = 0;
    loop {
        if !metadata.is_file() {
            wait_for_data(&file, deadline)?;
        }
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(amount) => filled += amount,
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => {}
                _ => return Err(error.into()),
            },
        }
    }
    if filled > MAX_FILE_BYTES {
        return Err(ReadError::TooLarge);
    }
    bytes.truncate(filled);
    Ok(Contents { bytes, metadata })
}

/// Whether `path`, whatever links are on the way, leads into `directory`, which has none.
pub fn leads_into(path: &Path, directory: &Path) -> bool {
    fs::canonicalize(path).is_ok_and(|found| found.starts_with(directory))
}

/// Waits until a pipe has data or has come to its end. One that has had no writer yet has neither.
fn wait_for_data(pipe: &File, deadline: Option<(Instant, Duration)>) -> Result<(), ReadError> {
    loop {
        let left = match deadline {
            None => None,
            Some((at, patience)) => match at.checked_duration_since(Instant::now()) {
                Some(left) => Some(left),
                None => return Err(ReadError::Silent(patience)),
            },
        };
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::new(pipe, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(ReadError::Io(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_of_a_usual_size_is_an_error() {
        for (path, expected) in [
            ("/nonexistent/x", "no such file"),
            ("/", "is a directory, not a file"),
            ("/dev/zero", "is larger than 1 MiB"),
        ] {
            let error = read(Path::new(path), Pipes::Wait).err().unwrap();
            assert_eq!(error.to_string(), expected, "{path}");
        }
        let rejected = read(Path::new("/dev/null"), Pipes::Reject).err().unwrap();
        assert!(matches!(rejected, ReadError::Irregular));
        let nothing = read(Path::new("/dev/null"), Pipes::WaitFor(PIPE_PATIENCE));
        assert!(nothing.unwrap().bytes.is_empty());
    }

    #[test]
    fn a_file_of_1_mib_is_read_whole() {
        let name = format!("flow-proxy-size-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let read_with = |length: usize| {
            std::fs::write(&path, vec![b'x'; length]).unwrap();
            read(&path, Pipes::Reject)
        };
        let lengths = [0, 1, 4096, MAX_FILE_BYTES];
        let found = lengths.map(|length| read_with(length).unwrap().bytes.len());
        let longer = read_with(MAX_FILE_BYTES + 1);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(found, lengths);
        assert!(matches!(longer, Err(ReadError::TooLarge)));
    }
}
