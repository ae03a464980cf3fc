//! Times by size, as Prometheus counts them.

use std::time::Duration;

/// Upper bounds of the time to the first byte, in seconds.
pub const FIRST_BYTE: [f64; 12] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0,
];
/// Upper bounds of a request's duration, in seconds.
pub const DURATION: [f64; 12] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];

/// How many times were at most as long as each bound.
#[derive(Debug, Clone)]
pub struct Histogram {
    pub bounds: &'static [f64; 12],
    /// Those between the bound before and this one; the last are longer than all bounds.
    counts: [u64; 13],
    sum: Duration,
}

impl Histogram {
    pub fn new(bounds: &'static [f64; 12]) -> Histogram {
        Histogram {
            bounds,
            counts: [0; 13],
            sum: Duration::ZERO,
        }
    }

    pub fn add(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        let index = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[index] += 1;
        self.sum = self.sum.saturating_add(time);
    }

    /// The cumulated count of each bound, the last being that of all times.
    pub fn cumulated(&self) -> [u64; 13] {
        let mut sum = 0;
        self.counts.map(|count| {
            sum += count;
            sum
        })
    }

    /// The sum of all times, in seconds.
    pub fn seconds(&self) -> f64 {
        self.sum.as_secs_f64()
    }
}
