//! Reads the bytes of a secrets file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use crate::config::shown::{may_hold_secret, shown_path};

/// The largest secrets file. An entry has some hundred bytes; the limit keeps a wrong path (a core dump,
/// `/dev/zero`) from filling the memory.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Which files are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    /// All; a pipe is waited for.
    Any,
    /// Regular files only. Nothing blocks.
    Regular,
}

/// What a file holds.
pub(super) struct Contents {
    pub(super) bytes: Vec<u8>,
    /// Whether it is a regular file, and no pipe or device.
    pub(super) is_regular: bool,
    /// Whether other users can read it.
    pub(super) is_exposed: bool,
}

/// Reads the file at `path`.
pub(super) fn read(path: &Path, kind: FileKind) -> Result<Contents, String> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => missing(path),
        _ => format!("cannot be read: {error}"),
    };
    let file = open(path, kind).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err("is a directory, not a file".into());
    }
    let is_regular = metadata.is_file();
    if !is_regular && kind == FileKind::Regular {
        return Err("is no regular file: such files are read at the start only".into());
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("is larger than {} MiB", MAX_FILE_BYTES >> 20));
    }

    Ok(Contents {
        bytes,
        is_regular,
        // The mode of a pipe (`<(pass show flow)`) says nothing about who can read it.
        is_exposed: is_regular && metadata.permissions().mode() & 0o077 != 0,
    })
}

fn open(path: &Path, kind: FileKind) -> io::Result<File> {
    let mut options = File::options();
    options.read(true);
    if kind == FileKind::Regular {
        // Opening a pipe without a writer does not wait then. It has no effect on regular files.
        options.custom_flags(OFlags::NONBLOCK.bits() as i32);
    }
    options.open(path)
}

fn missing(path: &Path) -> String {
    if may_hold_secret(&path.to_string_lossy()) {
        return "no such file. The variable FLOW_PROXY_SECRETS may hold the array itself"
            .to_owned();
    }
    format!(
        "no such file. Copy secrets.json.template to {} and put your credentials in",
        shown_path(path)
    )
}
