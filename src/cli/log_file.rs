//! Which files the log is never written to: those that the program reads. Looks at the file system.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::options::Options;
use crate::config::shown::quoted;

/// Returns what is wrong with the log file, which messages call `place`: it is a file that is read.
pub(super) fn problem(options: &Options, dotenv_path: &Path, place: &str) -> Option<String> {
    let log_file = &options.log_file.as_ref()?.path;
    let read = options.read_files(dotenv_path);
    let shown = quoted(&log_file.to_string_lossy());
    if let Some((kind, _)) = read.iter().find(|(_, path)| is_same(log_file, path)) {
        return Some(format!(
            "{place}: {shown} is {kind}: name another file for the log"
        ));
    }
    let (kind, path) = read.iter().find(|(_, path)| is_rotated(log_file, path))?;
    let rotated = quoted(&path.to_string_lossy());
    Some(format!(
        "{place}: {rotated}, {kind}, has the name of a rotated {shown}: name another file for the log"
    ))
}

/// Whether a full log file is, or in time may be, renamed to `path`.
fn is_rotated(log_file: &Path, path: &Path) -> bool {
    let (Some(log_file), Some(path)) = (resolved(log_file), resolved(path)) else {
        return false;
    };
    let number = path.as_os_str().as_bytes();
    let number = number.strip_prefix(log_file.as_os_str().as_bytes());
    let number = number.and_then(|end| end.strip_prefix(b"."));
    number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

/// Whether both paths lead to the same file, which need not be there yet.
fn is_same(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => resolved(one).is_some_and(|one| resolved(other) == Some(one)),
    }
}

/// Returns the path of a file in its real directory.
fn resolved(path: &Path) -> Option<PathBuf> {
    let directory = match path.parent()? {
        empty if empty == Path::new("") => Path::new("."),
        parent => parent,
    };
    Some(fs::canonicalize(directory).ok()?.join(path.file_name()?))
}
