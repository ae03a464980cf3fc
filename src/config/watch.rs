//! The secrets file, loaded again when it changes or when SIGHUP asks for it.
//!
//! A file that cannot be used changes nothing and is reported once, not every time that it is
//! looked at. Called by the reload thread and by the main thread.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::config::secrets;
use crate::proxy::balancer::Balancer;

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_secs(5);

/// Keeps a balancer up to date with its secrets file.
pub struct Reloader {
    path: PathBuf,
    balancer: Arc<Balancer>,
    /// What the file looked like when it was last loaded, or found unusable.
    seen: Mutex<Option<FileVersion>>,
}

/// What changes when a file is written or replaced: a rename changes the inode, writing in place
/// the times and perhaps the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileVersion {
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileVersion {
    /// To be taken before the file is read, so that no change is missed. `None` where there is no
    /// such file.
    pub fn of(path: &Path) -> Option<FileVersion> {
        let metadata = fs::metadata(path).ok()?;
        Some(FileVersion {
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl Reloader {
    /// Watches `path`, which `balancer` was loaded from when the file looked like `seen`.
    pub fn new(path: &Path, seen: Option<FileVersion>, balancer: Arc<Balancer>) -> Arc<Reloader> {
        let seen = Mutex::new(seen);
        Arc::new(Reloader {
            path: path.to_owned(),
            balancer,
            seen,
        })
    }

    /// Starts the thread that looks at the file.
    ///
    /// # Errors
    /// The system allows no further thread.
    pub fn watch(self: &Arc<Self>) -> std::io::Result<()> {
        let reloader = Arc::clone(self);
        let look = move || {
            loop {
                thread::sleep(INTERVAL);
                reloader.reload_if_changed();
            }
        };
        thread::Builder::new()
            .name("reload".into())
            .stack_size(256 << 10)
            .spawn(look)?;
        Ok(())
    }

    /// Loads the file whether it has changed or not.
    pub fn reload(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken before the file is read: a change in between is seen the next time.
        *seen = FileVersion::of(&self.path);
        match secrets::load(&self.path) {
            Ok(loaded) => {
                for warning in &loaded.warnings {
                    log::warn!("{warning}");
                }
                self.balancer.replace(&loaded.configurations);
                let names: Vec<_> = loaded
                    .configurations
                    .iter()
                    .map(|one| format!("'{}'", one.name))
                    .collect();
                log::info!(
                    "Reloaded {} configurations: {}",
                    names.len(),
                    names.join(", ")
                );
            }
            Err(errors) => {
                for problem in errors.problems() {
                    log::error!("Not reloaded, the configurations stay as they were: {problem}");
                }
            }
        }
    }

    fn reload_if_changed(&self) {
        let now = FileVersion::of(&self.path);
        let is_changed = *self.seen.lock().unwrap_or_else(PoisonError::into_inner) != now;
        if is_changed {
            self.reload();
        }
    }
}
