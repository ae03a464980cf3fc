//! The soak's clients: each thread asks for one kind of answer again and again, and compares what
//! comes with what is due. Blocking and slow on purpose: endurance is the matter, not speed.

mod client;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use client::Client;

/// How many wrong answers of the run are told in full.
const EXAMPLES: usize = 8;

/// What a client asks for, and so what it is due.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    /// A small answer on a connection that is kept.
    Small,
    /// The same for a request with a body.
    Post,
    /// 1 MiB.
    Large,
    /// All the events and the last chunk.
    Stream,
    /// The client leaves after a few events.
    Leaver,
    /// The upstream ends short of its Content-Length: the client's connection must, too.
    BrokenLength,
    /// The upstream ends a stream without the last chunk: an error event, and no last chunk.
    BrokenStream,
    /// The upstream ends without an answer: 502.
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
            Self::BrokenHead => "no answer",
        }
    }

    /// How many threads ask for it, and the pause after each answer: some 2,000 small answers a
    /// second, which is a load but leaves room for the others.
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

/// What the clients have seen.
#[derive(Default)]
pub struct Counts {
    asked: [AtomicU64; Kind::ALL.len()],
    right: [AtomicU64; Kind::ALL.len()],
    /// Guards the first few wrong answers.
    examples: Mutex<Vec<String>>,
}

impl Counts {
    /// All requests that were begun.
    pub fn asked(&self) -> u64 {
        self.asked
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    /// Requests of this kind, and how many of them ended as they should.
    pub fn of(&self, kind: Kind) -> (u64, u64) {
        let load = |counts: &[AtomicU64]| counts[kind as usize].load(Ordering::Relaxed);
        (load(&self.asked), load(&self.right))
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

/// Starts all clients; they end soon after `stopping` is set, with no request in flight.
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
                    counts.asked[kind as usize].fetch_add(1, Ordering::Relaxed);
                    counts.record(kind, client.ask());
                    thread::sleep(pause);
                }
            }));
        }
    }
    threads
}

/// The proxy's access lines, by what they say of the end.
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
