//! The last hour, by minute of the clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Minutes that are kept.
const KEPT: usize = 60;

/// What ended in one minute.
#[derive(Debug, Clone, Copy, Default)]
pub struct Minute {
    /// Minutes since 1970, UTC.
    pub number: u64,
    pub requests: u64,
    pub errors: u64,
    pub failed_over: u64,
    pub output_tokens: u64,
}

/// The last hour. A clock that jumps leaves minutes out, and counts none twice.
#[derive(Debug, Clone)]
pub struct Minutes([Minute; KEPT]);

impl Default for Minutes {
    fn default() -> Self {
        Minutes([Minute::default(); KEPT])
    }
}

impl Minutes {
    /// The minute of `at`.
    pub fn at(&mut self, at: SystemTime) -> &mut Minute {
        let number = number(at);
        let minute = &mut self.0[(number % KEPT as u64) as usize];
        if minute.number != number {
            *minute = Minute {
                number,
                ..Minute::default()
            };
        }
        minute
    }

    /// The sixty minutes up to `now`, the oldest first.
    pub fn until(&self, now: SystemTime) -> impl Iterator<Item = Minute> {
        let last = number(now).max(KEPT as u64);
        (last + 1 - KEPT as u64..=last).map(|number| {
            let minute = self.0[(number % KEPT as u64) as usize];
            if minute.number == number {
                return minute;
            }
            Minute {
                number,
                ..Minute::default()
            }
        })
    }
}

fn number(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 60
}
