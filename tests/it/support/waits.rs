//! Waits are conditions with a deadline: no test sleeps for luck.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a condition may take that is expected at once: long enough for a busy machine, and
/// never waited for where the program is right.
pub const SOON: Duration = Duration::from_secs(15);

/// Polls `look` until it returns something; panics after `deadline`, and says what it waited for.
pub fn wait_for<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            started.elapsed() < deadline,
            "waited {deadline:?} in vain for: {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Polls `holds` until it does, as [`wait_for`].
pub fn wait_until(what: &str, deadline: Duration, mut holds: impl FnMut() -> bool) {
    wait_for(what, deadline, || holds().then_some(()));
}

/// Tells other threads to end, also where a test fails: a scope waits for them.
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
