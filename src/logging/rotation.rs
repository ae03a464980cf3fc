//! Keeps the log at its path and its file below the largest size.
//!
//! Owns renaming full files and noticing that the file was renamed, removed or replaced: by logrotate, by
//! hand, or by another instance that logs to it. Only the writer thread of the file calls it. What is no
//! regular file is left alone.
//!
//! Two instances that find one file full rename it once: each takes the lock of the file that it has
//! open, and looks under the lock whether that file is still at the path.

use std::fs::{self, File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::geteuid;

/// How long lines still go to a file that was renamed while there is no other one: logrotate makes one.
const RENAME_GRACE: Duration = Duration::from_secs(1);

/// How long it takes until what has failed, such as a rename, is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// When the file is full, and what is kept then.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// In bytes; `None` is no limit.
    pub(super) max_size: Option<u64>,
    /// How many renamed files are kept. With 0 the full file is emptied.
    pub(super) keep: u32,
}

/// Opens the file at the path.
pub(super) type Open = Box<dyn Fn() -> io::Result<File> + Send>;

pub(super) struct Rotation {
    path: PathBuf,
    /// What messages call the file.
    name: String,
    limits: Limits,
    open: Open,
    /// The open file; `None` where it is no regular one.
    id: Option<FileId>,
    /// Since when the path does not lead to the open file.
    gone_since: Option<Instant>,
    failed_at: Option<Instant>,
    /// What is to be reported.
    problem: Option<String>,
}

/// Device and inode.
type FileId = (u64, u64);

/// What can be written now.
pub(super) struct Room {
    /// The number of bytes: whole lines.
    pub(super) length: usize,
    /// Whether they go to another file than those before.
    pub(super) is_new_file: bool,
}

impl Rotation {
    pub(super) fn new(path: PathBuf, name: String, limits: Limits, open: Open) -> Self {
        Self {
            path,
            name,
            limits,
            open,
            id: None,
            gone_since: None,
            failed_at: None,
            problem: None,
        }
    }

    /// Notes that lines go to `file` from now on.
    pub(super) fn note_opened(&mut self, file: &File) {
        let metadata = file.metadata().ok().filter(Metadata::is_file);
        self.id = metadata.as_ref().map(file_id);
        self.gone_since = None;
        self.failed_at = None;
    }

    /// Returns what has begun to fail, once.
    pub(super) fn take_problem(&mut self) -> Option<String> {
        self.problem.take()
    }

    /// Makes room for the first of `lines` at least. Fails where there is no file that they could go to.
    pub(super) fn make_room(&mut self, file: &mut File, lines: &[u8]) -> io::Result<Room> {
        let all = lines.len();
        let Some(id) = self.id else {
            return Ok(Room::new(all, false));
        };
        let mut size = match fs::metadata(&self.path) {
            Ok(found) if file_id(&found) == id => {
                self.gone_since = None;
                found.len()
            }
            found => {
                self.follow(file, found.is_ok())?;
                size_of(file)
            }
        };
        let Some(max_size) = self.limits.max_size else {
            return Ok(Room::new(all, self.id != Some(id)));
        };
        let first = first_line(lines);
        let is_full = |size: u64| size > 0 && size.saturating_add(first as u64) > max_size;
        if is_full(size) && !self.is_pausing() {
            if let Err(error) = self.rotate(file, is_full) {
                self.fail(&format!("Cannot rotate log file {}: {error}", self.name));
            }
            size = size_of(file);
        }
        let length = if is_full(size) {
            all
        } else {
            whole_lines(lines, max_size.saturating_sub(size)).max(first)
        };
        Ok(Room::new(length, self.id != Some(id)))
    }

    /// Whether what was just written is gone with the file: it was removed meanwhile.
    pub(super) fn is_lost(&self, file: &File) -> bool {
        let is_at_path = |found: Metadata| Some(file_id(&found)) == self.id;
        self.id.is_some() && is_removed(file) && !fs::metadata(&self.path).is_ok_and(is_at_path)
    }

    /// Opens what is at the path, or a new file. Where that fails, lines go on to the open file, if that
    /// has a name.
    fn follow(&mut self, file: &mut File, is_replaced: bool) -> io::Result<()> {
        let is_removed = is_removed(file);
        let gone_since = *self.gone_since.get_or_insert_with(Instant::now);
        let may_come = !is_replaced && gone_since.elapsed() < RENAME_GRACE;
        if !is_removed && (may_come || self.is_pausing()) {
            return Ok(());
        }
        match self.reopen(file) {
            Err(error) if !is_removed => {
                self.fail(&format!("Cannot open log file {}: {error}", self.name));
                Ok(())
            }
            result => result,
        }
    }

    fn reopen(&mut self, file: &mut File) -> io::Result<()> {
        *file = (self.open)()?;
        self.note_opened(file);
        Ok(())
    }

    /// Renames the full file and opens a new one, unless another instance has done so or is doing so.
    fn rotate(&mut self, file: &mut File, is_full: impl Fn(u64) -> bool) -> io::Result<()> {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(()),
            // A file system without locks has seldom two writers; the checks below make harm unlikely.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let rotated = self.rotate_locked(file, is_full);
        // Closing a file that was replaced has unlocked it.
        let _ = file.unlock();
        rotated
    }

    fn rotate_locked(&mut self, file: &mut File, is_full: impl Fn(u64) -> bool) -> io::Result<()> {
        let found = match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        if found.is_symlink() {
            return Err(io::Error::other("it is a symbolic link"));
        }
        if Some(file_id(&found)) != self.id {
            return self.reopen(file);
        }
        if !is_own_file(&found) {
            return Err(io::Error::other("it is no regular file of this user's"));
        }
        match is_full(found.len()) {
            false => Ok(()),
            true if self.limits.keep == 0 => file.set_len(0),
            true => self.shift().and_then(|()| self.reopen(file)),
        }
    }

    /// Renames the file to `….1` and older ones to the next number each, up to the first number that is
    /// free. The oldest one is replaced where none is. Numbers that something else has are passed over.
    fn shift(&self) -> io::Result<()> {
        let mut chain = vec![self.path.clone()];
        for number in 1..=self.limits.keep {
            let mut numbered = self.path.clone().into_os_string();
            numbered.push(format!(".{number}"));
            let numbered = PathBuf::from(numbered);
            let is_free = match fs::symlink_metadata(&numbered) {
                Ok(found) if !is_own_file(&found) => continue,
                Ok(_) => false,
                Err(error) if error.kind() == io::ErrorKind::NotFound => true,
                Err(error) => return Err(error),
            };
            chain.push(numbered);
            if is_free {
                break;
            }
        }
        if chain.len() == 1 {
            let taken = "what is no log file of this user's has the names of rotated files";
            return Err(io::Error::other(taken));
        }
        chain
            .windows(2)
            .rev()
            .try_for_each(|pair| fs::rename(&pair[0], &pair[1]))
    }

    fn is_pausing(&self) -> bool {
        let is_recent = |failed_at: Instant| failed_at.elapsed() < RETRY_INTERVAL;
        self.failed_at.is_some_and(is_recent)
    }

    /// Notes a failure. It is reported where nothing had failed before.
    fn fail(&mut self, problem: &str) {
        if self.failed_at.replace(Instant::now()).is_none() {
            self.problem = Some(format!("{problem}; the log goes on where it went before"));
        }
    }
}

impl Room {
    fn new(length: usize, is_new_file: bool) -> Self {
        Self {
            length,
            is_new_file,
        }
    }
}

fn file_id(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

fn is_own_file(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.uid() == geteuid().as_raw()
}

/// Whether the open file has no name any more. One that cannot be looked at is gone, too: NFS says ESTALE.
fn is_removed(file: &File) -> bool {
    file.metadata()
        .map_or(true, |metadata| metadata.nlink() == 0)
}

fn size_of(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.len())
}

/// The length of the first line.
fn first_line(lines: &[u8]) -> usize {
    memchr::memchr(b'\n', lines).map_or(lines.len(), |end| end + 1)
}

/// The length of the whole lines that fit into `room` bytes.
fn whole_lines(lines: &[u8], room: u64) -> usize {
    match usize::try_from(room) {
        Ok(room) if room < lines.len() => {
            memchr::memrchr(b'\n', &lines[..room]).map_or(0, |end| end + 1)
        }
        _ => lines.len(),
    }
}

#[cfg(test)]
mod tests;
