//! `--limit-wait`: a request waits for the first credential to be available again, where all of them rest
//! because of a limit.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::proxy::balancer::Balancer;
use crate::server::{ClientError, Exchange};

/// How often a waiting request looks whether it may go on: a busy credential may be free at any moment.
const LOOK: Duration = Duration::from_millis(50);

/// Who may wait, and how long.
pub struct LimitWait {
    /// Since the request came; zero: no request waits.
    longest: Duration,
    /// Requests that may wait at once: a quarter of the workers.
    most: usize,
    waiting: AtomicUsize,
}

/// Counts a request as waiting until it is dropped.
struct Place<'w>(&'w AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl LimitWait {
    pub fn new(longest: Duration, workers: usize) -> LimitWait {
        LimitWait {
            longest,
            most: (workers / 4).max(1),
            waiting: AtomicUsize::new(0),
        }
    }

    pub fn is_on(&self) -> bool {
        !self.longest.is_zero()
    }

    /// Waits until a credential for `model` is available, if every one that may have it is limited and
    /// the first of them is free again in time. Returns whether it has waited. A reload and the stop end
    /// the wait too.
    ///
    /// # Errors
    /// The client disconnects.
    pub fn wait(
        &self,
        balancer: &Balancer,
        exchange: &Exchange<'_>,
        model: Option<&str>,
        started: Instant,
    ) -> Result<bool, ClientError> {
        let deadline = started + self.longest;
        let is_worth_it = |now: Instant| {
            let rest = balancer.first_limit_ends_in(model, now);
            rest.is_some_and(|rest| now + rest <= deadline)
        };
        if exchange.is_stopping() || !is_worth_it(Instant::now()) {
            return Ok(false);
        }
        let place = Place(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.most {
            return Ok(false);
        }
        let generation = balancer.generation();
        while is_worth_it(Instant::now())
            && !exchange.is_stopping()
            && balancer.generation() == generation
        {
            let waited = exchange.call().sleep(LOOK);
            waited.map_err(|_| ClientError::Closed)?;
        }
        drop(place);
        Ok(true)
    }
}
