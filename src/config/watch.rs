//! Watches the secrets file: loads it again when it changes, or when SIGHUP asks for it.
//!
//! A file that cannot be used changes nothing and is reported once, not at every look. Called by the
//! reload thread, which this module owns, and by the main thread.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::secrets::{self, Configuration};

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_secs(5);

/// The stack of the reload thread in bytes. It calls nothing deeper than the JSON parser.
const STACK_BYTES: usize = 256 << 10;

/// What to do with the configurations of a reloaded file.
pub type OnReload = Box<dyn Fn(&[Configuration]) + Send + Sync>;

/// Loads the secrets file when it changes.
pub struct SecretsWatcher {
    path: PathBuf,
    /// The directory that the file must not leave, if there is one.
    within: Option<PathBuf>,
    /// Whether the file that was last looked at could be loaded.
    is_valid: Arc<AtomicBool>,
    on_reload: OnReload,
    /// The version that was last loaded or found unusable. Locked during a load, so that of two loads
    /// at once the older one cannot replace what the newer one has read.
    seen: Mutex<FileVersion>,
}

/// A version of a file, to notice that the file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileVersion(Option<Stamp>);

/// Metadata that changes with every change of a file: replacing it by a rename changes the inode,
/// writing in place changes the times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    /// Seconds and nanoseconds since the epoch.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileVersion {
    /// Returns the version of the file at `path`; that there is no such file is a version too. Call
    /// this before reading the file: a change in between is then seen at the next look.
    pub fn of(path: &Path) -> FileVersion {
        let metadata = fs::metadata(path).ok();
        FileVersion(metadata.map(|metadata| Stamp {
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }))
    }
}

impl SecretsWatcher {
    /// Starts the thread that watches `path`, whose version `seen` was loaded. What replaces the file must
    /// not lead out of `within`: a link could lead to secrets that are not this directory's. `on_reload` is called
    /// with the configurations of each valid file, and `is_valid` tells whether the last one was.
    ///
    /// # Errors
    /// The system allows no further thread.
    pub fn start(
        path: &Path,
        within: Option<PathBuf>,
        seen: FileVersion,
        on_reload: OnReload,
        is_valid: Arc<AtomicBool>,
    ) -> io::Result<Arc<SecretsWatcher>> {
        let watcher = Arc::new(SecretsWatcher {
            path: path.to_owned(),
            within,
            on_reload,
            is_valid,
            seen: Mutex::new(seen),
        });
        let watching = Arc::clone(&watcher);
        thread::Builder::new()
            .name("reload".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                loop {
                    thread::sleep(INTERVAL);
                    watching.reload_if_changed();
                }
            })?;
        Ok(watcher)
    }

    /// Loads the file whether it has changed or not.
    pub fn reload(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = FileVersion::of(&self.path);
        let within = self.within.as_deref();
        match secrets::load_again(&self.path, within) {
            Ok(loaded) => {
                for warning in &loaded.warnings {
                    log::warn!("{warning}");
                }
                self.is_valid.store(true, Ordering::Relaxed);
                (self.on_reload)(&loaded.configurations);
                let names = secrets::quoted_names(&loaded.configurations);
                let count = loaded.configurations.len();
                log::info!("Reloaded {count} configurations: {names}");
            }
            Err(errors) => {
                self.is_valid.store(false, Ordering::Relaxed);
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
