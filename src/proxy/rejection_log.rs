//! How many access lines rejected requests may write. Rejecting costs a client nothing: without a limit it
//! could fill the disk, or wash away what the log is for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The most access lines of rejected requests in an [`INTERVAL`].
const MAX_LINES: u32 = 50;
/// How often the limit starts anew, and the rest is counted by a line.
const INTERVAL: Duration = Duration::from_secs(1);
/// How the message of that line goes on behind the number.
pub const MORE_REJECTED: &str = " more requests were rejected within 1 s";
/// The stack of the thread that writes that line, in bytes.
const STACK_BYTES: usize = 128 * 1024;

/// Limits the access lines of rejected requests. One for the process.
pub struct RejectionLog {
    /// Guards the counts of the current interval. Held for a few instructions.
    interval: Mutex<Interval>,
}

struct Interval {
    began: Instant,
    lines: u32,
    /// Requests without a line that no line counts yet.
    uncounted: u64,
    /// Whether a thread is on its way that counts them and ends the interval.
    is_ending: bool,
}

impl RejectionLog {
    /// A limit that nothing has used yet.
    pub fn new() -> Arc<RejectionLog> {
        let interval = Interval {
            began: Instant::now(),
            lines: 0,
            uncounted: 0,
            is_ending: false,
        };
        let interval = Mutex::new(interval);
        Arc::new(RejectionLog { interval })
    }

    /// Whether a rejected request gets its access line. Otherwise it is counted by a line at the end of
    /// the interval.
    pub fn admits(self: &Arc<RejectionLog>) -> bool {
        let mut interval = self.lock();
        let now = Instant::now();
        if !interval.is_ending && now.duration_since(interval.began) >= INTERVAL {
            interval.restart(now);
        }
        if interval.lines < MAX_LINES {
            interval.lines += 1;
            return true;
        }
        interval.uncounted += 1;
        if !interval.is_ending {
            let left = INTERVAL.saturating_sub(now.duration_since(interval.began));
            // Without a thread the requests are counted by the next one.
            interval.is_ending = self.end_after(left).is_ok();
        }
        false
    }

    fn end_after(self: &Arc<RejectionLog>, left: Duration) -> std::io::Result<()> {
        let this = Arc::clone(self);
        let builder = thread::Builder::new().name("rejections".into());
        let end = move || {
            thread::sleep(left);
            let mut interval = this.lock();
            let count = std::mem::take(&mut interval.uncounted);
            interval.restart(Instant::now());
            interval.is_ending = false;
            drop(interval);
            log::warn!("{count}{MORE_REJECTED}");
        };
        builder.stack_size(STACK_BYTES).spawn(end).map(drop)
    }

    fn lock(&self) -> MutexGuard<'_, Interval> {
        // A panic cannot leave the counts half changed.
        self.interval.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Interval {
    fn restart(&mut self, now: Instant) {
        self.began = now;
        self.lines = 0;
    }
}
