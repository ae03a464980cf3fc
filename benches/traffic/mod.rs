//! The soak's clients: each thread requests one kind of response again and again and checks it.
//! Blocking and slow on purpose: the soak tests endurance, not speed.

mod client;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use client::Client;

/// How many wrong responses are reported in full.
const EXAMPLES: usize = 8;

/// What a client requests, and so which response is correct.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    /// A small response on a persistent connection.
    Small,
    /// The same for a request with a body.
    Post,
    /// 1 MiB.
    Large,
    /// A stream with all its events and the last chunk.
    Stream,
    /// A stream that the client closes after a few events.
    Leaver,
    /// The upstream closes short of its Content-Length: the proxy must close the client's connection.
    BrokenLength,
    /// The upstream closes a stream without the last chunk: an error event, and no last chunk.
    BrokenStream,
    /// The upstream closes without a response: 502.
    BrokenHead,
}

impl Kind {
    pub const ALL: [Self; 8] = [
        Self::Small,
        Self::Post,
        Self::Large,
        Self::Stream,
        Self::Leaver,
        Self::BrokenLength,
        Self::BrokenStream,
        Self::BrokenHead,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Post => "post",
            Self::Large => "large",
            Self::Stream => "stream",
            Self::Leaver => "client leaves",
            Self::BrokenLength => "short body",
            Self::BrokenStream => "broken stream",
            Self::BrokenHead => "no response",
        }
    }

    /// The number of threads, and their pause after each response: about 2,000 small responses a
    /// second, which is a load but leaves processor time for the streams.
    fn share(self) -> (usize, Duration) {
        match self {
            Self::Small => (8, Duration::from_millis(5)),
            Self::Post => (4, Duration::from_millis(8)),
            Self::Large => (2, Duration::from_millis(30)),
            Self::Stream => (40, Duration::from_millis(10)),
            Self::Leaver => (10, Duration::from_millis(20)),
            Self::BrokenLength | Self::BrokenStream | Self::BrokenHead => {
                (2, Duration::from_millis(30))
            }
        }
    }
}

/// The clients' results.
#[derive(Default)]
pub struct Counts {
    sent: [AtomicU64; Kind::ALL.len()],
    right: [AtomicU64; Kind::ALL.len()],
    /// Guards the first few wrong responses.
    examples: Mutex<Vec<String>>,
}

impl Counts {
    /// All requests that were started.
    pub fn sent(&self) -> u64 {
        self.sent
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    /// Requests of this kind, and how many of them got the correct response.
    pub fn of(&self, kind: Kind) -> (u64, u64) {
        let load = |counts: &[AtomicU64]| counts[kind as usize].load(Ordering::Relaxed);
        (load(&self.sent), load(&self.right))
    }

    pub fn examples(&self) -> Vec<String> {
        self.examples.lock().expect("no client panics").clone()
    }

    fn record(&self, kind: Kind, outcome: Result<(), String>) {
        let Err(problem) = outcome else {
            self.right[kind as usize].fetch_add(1, Ordering::Relaxed);
            return;
        };
        let mut examples = self.examples.lock().expect("no client panics");
        if examples.len() < EXAMPLES {
            examples.push(format!("{}: {problem}", kind.name()));
        }
    }
}

/// Starts all clients. They end soon after `stopping` is set, once their request is complete.
pub fn start(
    proxy: SocketAddr,
    counts: &Arc<Counts>,
    stopping: &Arc<AtomicBool>,
) -> Vec<JoinHandle<()>> {
    let mut threads = vec![];
    for kind in Kind::ALL {
        let (clients, pause) = kind.share();
        for _ in 0..clients {
            let (counts, stopping) = (Arc::clone(counts), Arc::clone(stopping));
            threads.push(thread::spawn(move || {
                let mut client = Client::new(proxy, kind);
                while !stopping.load(Ordering::Relaxed) {
                    counts.sent[kind as usize].fetch_add(1, Ordering::Relaxed);
                    counts.record(kind, client.exchange());
                    thread::sleep(pause);
                }
            }));
        }
    }
    threads
}

/// How many access lines the proxy has logged, by their `end=` value.
#[derive(Clone, Default)]
pub struct AccessLines(BTreeMap<String, u64>);

impl AccessLines {
    /// Counts `line` if it is an access line.
    pub fn count(&mut self, line: &str) {
        let end = line.split_once(" end=").map(|(_, rest)| rest);
        if let Some(end) = end.and_then(|rest| rest.split(' ').next()) {
            *self.0.entry(end.to_owned()).or_default() += 1;
        }
    }

    pub fn all(&self) -> u64 {
        self.0.values().sum()
    }

    pub fn of(&self, end: &str) -> u64 {
        self.0.get(end).copied().unwrap_or(0)
    }
}

impl fmt::Display for AccessLines {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (index, (end, count)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{end} {count}")?;
        }
        Ok(())
    }
}
