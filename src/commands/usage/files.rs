//! Finds and opens the log file and its rotated ones, while others may rotate them.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::config::shown::shown_path;

/// How often the directory is looked at, at most: until a look shows no file that is not known.
const MAX_LOOKS: usize = 20;
/// The most files that are read.
const MAX_FILES: usize = 1000;
/// Endings of files that other programs than gzip compressed.
const UNREADABLE: [&str; 4] = [".bz2", ".xz", ".zst", ".Z"];

/// A file that is open.
pub struct LogPart {
    pub path: PathBuf,
    pub file: File,
}

/// All that could be opened.
pub struct Opened {
    pub files: Vec<LogPart>,
    /// What could not, one line each.
    pub problems: Vec<String>,
}

/// Opens all parts of the log, the newest first. Names may move from file to file meanwhile; inodes do
/// not: the parts are complete when a look at the directory shows known inodes only.
///
/// # Errors
/// There is no log, or no part of it can be opened.
pub fn open(path: &Path) -> Result<Opened, String> {
    let mut search = Search::default();
    search.open(path);
    for _ in 0..MAX_LOOKS {
        let mut unknown = parts(path);
        unknown.retain(|part| !search.known.contains(&part.inode));
        if unknown.is_empty() {
            break;
        }
        for part in &unknown {
            if !search.open(&part.path) {
                search.known.insert(part.inode);
            }
        }
    }
    let Search {
        files,
        mut problems,
        ..
    } = search;
    if !files.is_empty() {
        return Ok(Opened { files, problems });
    }
    let name = shown_path(path);
    Err(match problems.is_empty() {
        true => format!("{name}: there is no such log file"),
        false => problems.swap_remove(0),
    })
}

/// What has been found so far.
#[derive(Default)]
struct Search {
    files: Vec<LogPart>,
    problems: Vec<String>,
    /// The inodes that were dealt with.
    known: HashSet<u64>,
    /// Device and inode of each open file: a symlink may lead to one.
    open: HashSet<(u64, u64)>,
    /// The paths of the open files.
    paths: HashSet<PathBuf>,
}

impl Search {
    /// Opens a file, unless it is known. Returns whether that can be tried again: it is not there.
    fn open(&mut self, path: &Path) -> bool {
        let problem = if self.files.len() == MAX_FILES {
            format!("there are more than {MAX_FILES} files; only the newest are read")
        } else {
            match self.try_open(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    format!("{}: cannot be read: {error}", shown_path(path))
                }
                _ => return true,
            }
        };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
        false
    }

    fn try_open(&mut self, path: &Path) -> io::Result<()> {
        let ending = |ending: &&str| path.as_os_str().as_bytes().ends_with(ending.as_bytes());
        if UNREADABLE.iter().any(ending) {
            return Err(io::Error::other("it is compressed, but not by gzip"));
        }
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .custom_flags(flags.bits() as i32)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        self.known.insert(metadata.ino());
        // While gzip writes NAME.gz, NAME is still there.
        let is_in_the_making = ending(&".gz") && self.paths.contains(&path.with_extension(""));
        if is_in_the_making
            || self.has_before_compression(&metadata)
            || !self.open.insert((metadata.dev(), metadata.ino()))
        {
            return Ok(());
        }
        self.paths.insert(path.to_owned());
        let path = path.to_owned();
        self.files.push(LogPart { path, file });
        Ok(())
    }

    /// Whether a file that is open was compressed to this one meanwhile: then it is removed, and this one
    /// gets its time.
    fn has_before_compression(&self, packed: &Metadata) -> bool {
        let metadata = self.files.iter().map(|part| part.file.metadata());
        metadata
            .flatten()
            .any(|open| open.nlink() == 0 && open.mtime() == packed.mtime())
    }
}

/// A part of the log, as its directory shows it.
struct Found {
    rotation: Rotation,
    path: PathBuf,
    inode: u64,
}

/// Looks at the directory: the parts of the log, newest first.
fn parts(path: &Path) -> Vec<Found> {
    let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
        return Vec::new();
    };
    let directory = match parent {
        empty if empty == Path::new("") => Path::new("."),
        parent => parent,
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let found = entries.filter_map(|entry| {
        let name_of_entry = entry.file_name();
        Some(Found {
            rotation: Rotation::of(&name_of_entry, name)?,
            path: parent.join(&name_of_entry),
            inode: entry.ino(),
        })
    });
    let mut found: Vec<Found> = found.collect();
    found.sort_by(|one, other| one.rotation.cmp(&other.rotation));
    found
}

/// Where a file stands among the others. The least is the newest; of two for the same place the one that
/// is not compressed.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rotation {
    /// `NAME`.
    Current,
    /// `NAME.1`, `NAME.2.gz`.
    Number(u64, bool),
    /// `NAME-20260115`, `NAME-2026011510.gz`, `NAME-20260115-1768473045`.
    Date(Reverse<Vec<u8>>, bool),
}

impl Rotation {
    fn of(entry: &OsStr, name: &OsStr) -> Option<Rotation> {
        let suffix = entry.as_bytes().strip_prefix(name.as_bytes())?;
        if suffix.is_empty() {
            return Some(Rotation::Current);
        }
        let packed = ["", ".gz"].iter().chain(&UNREADABLE).rev();
        let mut endings = packed.map(|ending| suffix.strip_suffix(ending.as_bytes()));
        let bare = endings.find_map(|bare| bare)?;
        let is_packed = bare.len() < suffix.len();
        let (kind, place) = bare.split_first()?;
        let is_digits = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
        match kind {
            b'.' if is_digits(place) => {
                let number = std::str::from_utf8(place).ok()?.parse().ok()?;
                Some(Rotation::Number(number, is_packed))
            }
            b'-' if place.len() >= 8 && is_digits(&place[..8]) => {
                let rest = place[8..].iter();
                let is_date = rest
                    .clone()
                    .all(|byte| byte.is_ascii_digit() || *byte == b'-');
                is_date.then(|| Rotation::Date(Reverse(place.to_vec()), is_packed))
            }
            _ => None,
        }
    }
}
