//! Who else can read or replace a secrets file.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use crate::config::shown::shown_path;

/// The bits of a mode by which others than the owner can read, write or run a file.
const OTHERS: u32 = 0o077;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
/// In such a directory, as `/tmp` is, everyone can make files and only their owners can replace them.
const STICKY: u32 = 0o1000;

/// Returns what is unsafe about the file at `path`, which was opened and has this metadata. Each warning
/// continues a sentence that begins with the path.
pub(super) fn warnings(path: &Path, metadata: &Metadata) -> impl Iterator<Item = String> {
    // The mode of a pipe (`<(pass show flow)`) says nothing about who can read it.
    let is_file = metadata.is_file();
    let is_readable = is_file && metadata.mode() & OTHERS != 0;
    let readable = is_readable.then(|| {
        let place = shown_path(path);
        format!("can be read by other users of this machine: run chmod 600 {place}")
    });
    let uid = metadata.uid();
    let foreign = (is_file && is_foreign(uid)).then(|| {
        format!("belongs to another user (uid {uid}), who can read and change it: make it your own, with chmod 600")
    });
    let replaceable = (is_file && directories(path).iter().any(others_can_write)).then(|| {
        "is in a directory where other users can replace it: run chmod go-w on the directory, or \
         move the file to one of your own, with chmod 600"
            .to_owned()
    });
    [readable, foreign, replaceable].into_iter().flatten()
}

/// Whether the owner is neither this user nor root, who can read everything in any case.
fn is_foreign(uid: u32) -> bool {
    uid != geteuid().as_raw() && uid != 0
}

/// The directory of the path, and that of the file that a symlink leads to.
fn directories(path: &Path) -> Vec<Metadata> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let real = fs::canonicalize(path).ok();
    let all = [Some(parent(path)), real.as_deref().map(parent)];
    let all = all.into_iter().flatten();
    all.filter_map(|directory| fs::metadata(directory).ok())
        .collect()
}

fn others_can_write(directory: &Metadata) -> bool {
    let mode = directory.mode();
    // Where each user has a group of that number, no one else is in it.
    let is_own_group = directory.gid() == geteuid().as_raw();
    let is_open = mode & OTHERS_WRITE != 0 || (mode & GROUP_WRITES != 0 && !is_own_group);
    is_foreign(directory.uid()) || (is_open && mode & STICKY == 0)
}
