//! A watch over a proxy under attack, and numbers to attack it with.

use std::time::Instant;

use super::{ProxyProcess, SOON, get, wait_until};

/// How many descriptors more than before the proxy may hold afterwards: idle upstream
/// connections, one for each worker that was busy at once.
const SPARE_DESCRIPTORS: usize = 4;

/// An attack in progress: compares the process afterwards with what it was before.
pub struct Attack<'a> {
    name: &'static str,
    proxy: &'a ProxyProcess,
    rss_before_kib: u64,
    /// `None` where they cannot be counted.
    descriptors_before: Option<usize>,
}

impl<'a> Attack<'a> {
    /// Notes what the process holds now, after a first request has warmed it up.
    pub fn begin(name: &'static str, proxy: &'a ProxyProcess) -> Attack<'a> {
        assert_eq!(get(proxy.address(), "/v1/models").status, 200, "{name}");
        proxy.reset_peak_rss();
        Attack {
            name,
            proxy,
            rss_before_kib: proxy.rss_kib(),
            descriptors_before: proxy.fd_count(),
        }
    }

    /// Asserts that the next request is served, that no thread panicked, that no client's connection is
    /// left, that memory grew by `growth_kib` at most, and the descriptors by those of `upstreams` idle
    /// connections.
    pub fn end(self, growth_kib: u64, upstreams: usize) {
        let peak = self.proxy.peak_rss_kib();
        println!(
            "attack {}: peak RSS {peak} KiB (before: {} KiB)",
            self.name, self.rss_before_kib
        );
        let asked = Instant::now();
        assert_eq!(get(self.proxy.address(), "/v1/models").status, 200);
        assert!(asked.elapsed() < SOON / 3, "{:?}", asked.elapsed());
        assert_no_bug(&self.proxy.log());
        assert!(
            peak <= self.rss_before_kib + growth_kib,
            "{}: grew from {} to {peak} KiB",
            self.name,
            self.rss_before_kib
        );
        wait_until("the clients' connections to be closed", SOON, || {
            self.proxy.client_count() == 0
        });
        let Some(before) = self.descriptors_before else {
            return;
        };
        let most = before + upstreams + SPARE_DESCRIPTORS;
        wait_until("the descriptors to be given back", SOON, || {
            self.proxy.fd_count().is_some_and(|count| count <= most)
        });
    }
}

/// Asserts that no thread of the proxy panicked.
pub fn assert_no_bug(log: &str) {
    let bug = log.lines().find(|line| line.contains("Bug:"));
    assert_eq!(bug, None);
}

/// Numbers that look random and are the same in each run (xorshift64*).
pub struct Numbers(u64);

impl Numbers {
    pub fn seeded(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}
