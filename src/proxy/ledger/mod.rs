//! What has passed, in numbers: by configuration, model and client, by minute, and the last requests.
//!
//! One lock, taken once at a request's end and once for each look at it. Nothing is kept on disk, and
//! everything is bounded: names by count, the rest by what it is. Out of scope: which credential rests
//! until when, which the balancer knows.

use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

pub mod counts;
pub mod histogram;
pub mod minutes;
pub mod recent;
#[cfg(test)]
mod tests;

use self::counts::Counts;
use self::recent::{Attempt, Ended};

/// Counts what has passed. One for the process.
#[derive(Debug)]
pub struct Ledger {
    pub started: Instant,
    pub started_at: SystemTime,
    counts: Mutex<Counts>,
}

impl Ledger {
    pub fn new() -> Ledger {
        Ledger {
            started: Instant::now(),
            started_at: SystemTime::now(),
            counts: Mutex::default(),
        }
    }

    /// Counts a request that has ended, and its attempts in their order.
    pub fn add<'r>(&self, ended: Ended, attempts: impl Iterator<Item = Attempt<'r>>) {
        // What falls out of the list is freed without the lock.
        let _oldest = {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts.add(ended, attempts)
        };
    }

    /// Returns a copy of all counts, of one moment.
    pub fn counts(&self) -> Counts {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.clone()
    }
}
