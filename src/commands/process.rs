//! This process as the operating system sees it: memory, descriptors, signals, panics.

use std::sync::Arc;

#[cfg(target_os = "linux")]
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::SIGXFSZ;

/// Descriptors that belong to neither a client nor an upstream: log, listener, waker, standard ones.
const OWN_DESCRIPTORS: usize = 16;
/// What no limit on descriptors counts as.
const UNLIMITED: usize = 1 << 20;

/// Raises the soft limit on descriptors to the hard one. Returns the limit in force.
pub(super) fn raise_descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let in_force = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            log::warn!(
                "The limit on descriptors stays at {:?}: {error}",
                limit.current
            );
            limit.current
        }
    };
    in_force
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(UNLIMITED)
}

/// Keeps the secrets in this process's memory to itself: there is no core dump, and no other process of
/// this user can attach to it. (Root can.)
pub fn keep_memory_private() {
    // Neither can fail: any process may lower its own limits.
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = setrlimit(Resource::Core, none);
    // A limit of 0 does not hold where a program takes the dumps; and only this forbids attaching.
    #[cfg(target_os = "linux")]
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Makes a write beyond the limit on file sizes fail with an error, which the log reports, instead of
/// ending the process by SIGXFSZ.
pub(super) fn survive_file_size_limit() {
    // Any handler will do: the flag is never read. Fails for signals that cannot be handled only.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
}

/// Returns how many clients may be connected at once with this limit on descriptors: four for nine
/// descriptors. Four more are for their upstream connections; the ninth covers the event loops, which
/// have two descriptors each.
pub(super) fn max_connections(descriptors: usize) -> usize {
    (descriptors.saturating_sub(OWN_DESCRIPTORS) / 9 * 4).max(1)
}

/// Returns the signal's name, such as `SIGTERM`.
pub(super) fn signal_name(signal: i32) -> &'static str {
    signal_hook::low_level::signal_name(signal).unwrap_or("a signal")
}

/// Makes a panic a line of the log instead of text on stderr. The line names the place and never a
/// value: the panic's message may quote a request.
pub(super) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map_or_else(String::new, |at| format!("{}:{}", at.file(), at.line()));
        let thread = std::thread::current();
        log::error!(
            "Bug: thread '{}' panicked at {place}",
            thread.name().unwrap_or("?")
        );
    }));
}
