//! The client of many event streams at once: measures when the first event arrives, how regular the
//! following ones are, and how late each is after it was sent. Runs in its own process (`roles`).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::histogram::Histogram;
use super::http;
use super::poller::Poller;

#[derive(Clone)]
pub struct Streams {
    pub address: SocketAddr,
    pub streams: usize,
    pub events: u64,
    /// The time over which the streams are opened, evenly.
    pub ramp: Duration,
}

pub struct StreamsResult {
    /// Streams that delivered all events and the last chunk.
    pub whole: u64,
    pub first_p50_ns: u64,
    pub first_p99_ns: u64,
    pub gap_p50_ns: u64,
    pub gap_p99_ns: u64,
    /// From the upstream's sending of an event to its arrival here.
    pub delay_p50_ns: u64,
    pub delay_p99_ns: u64,
}

/// How long after their expected end streams are given up.
const TIMEOUT: Duration = Duration::from_secs(10);
const THREADS: usize = 2;

pub fn run(plan: &Streams) -> io::Result<StreamsResult> {
    let begin = Instant::now();
    let handles: Vec<_> = (0..THREADS)
        .map(|index| {
            let plan = plan.clone();
            thread::spawn(move || Client::new(&plan, index, begin)?.run())
        })
        .collect();
    let (mut first, mut gap, mut delay) = (Histogram::new(), Histogram::new(), Histogram::new());
    let mut whole = 0;
    for handle in handles {
        let part = handle.join().expect("a stream thread does not panic")?;
        first.merge(&part.first);
        gap.merge(&part.gap);
        delay.merge(&part.delay);
        whole += part.whole;
    }
    Ok(StreamsResult {
        whole,
        first_p50_ns: first.quantile_ns(0.50),
        first_p99_ns: first.quantile_ns(0.99),
        gap_p50_ns: gap.quantile_ns(0.50),
        gap_p99_ns: gap.quantile_ns(0.99),
        delay_p50_ns: delay.quantile_ns(0.50),
        delay_p99_ns: delay.quantile_ns(0.99),
    })
}

struct Client {
    poller: Poller,
    /// When this thread opens its streams; the next one is last.
    openings: Vec<Instant>,
    give_up_at: Instant,
    address: SocketAddr,
    events: u64,
    streams: Vec<Option<Stream>>,
    counts: Counts,
}

struct Counts {
    whole: u64,
    first: Histogram,
    gap: Histogram,
    delay: Histogram,
}

struct Stream {
    socket: TcpStream,
    sent_at: Instant,
    last_event_at: Option<Instant>,
    events: u64,
    /// The bytes since the last whole event.
    rest: Vec<u8>,
}

impl Client {
    fn new(plan: &Streams, index: usize, begin: Instant) -> io::Result<Self> {
        let step = plan.ramp / plan.streams.max(1) as u32;
        let mut openings: Vec<_> = (index..plan.streams)
            .step_by(THREADS)
            .map(|number| begin + step * number as u32)
            .collect();
        openings.reverse();
        let length = super::upstream::EVENT_GAP * plan.events as u32;
        Ok(Self {
            poller: Poller::new()?,
            give_up_at: begin + plan.ramp + length + TIMEOUT,
            openings,
            address: plan.address,
            events: plan.events,
            streams: vec![],
            counts: Counts {
                whole: 0,
                first: Histogram::new(),
                gap: Histogram::new(),
                delay: Histogram::new(),
            },
        })
    }

    fn run(mut self) -> io::Result<Counts> {
        let mut keys = vec![];
        let mut open = 0;
        while (open > 0 || !self.openings.is_empty()) && Instant::now() < self.give_up_at {
            while let Some(at) = self.openings.last().copied() {
                if at > Instant::now() {
                    break;
                }
                self.openings.pop();
                self.open()?;
                open += 1;
            }
            let until = self.openings.last().copied().unwrap_or(self.give_up_at);
            let timeout = until.saturating_duration_since(Instant::now());
            self.poller.wait(Some(timeout), &mut keys)?;
            for key in &keys {
                let index = *key as usize;
                if self.is_over(index) {
                    self.streams[index] = None;
                    open -= 1;
                }
            }
        }
        Ok(self.counts)
    }

    fn open(&mut self) -> io::Result<()> {
        let sent_at = Instant::now();
        let mut socket = TcpStream::connect(self.address)?;
        socket.set_nodelay(true)?;
        let (events, address) = (self.events, self.address);
        // In one write, as the relay expects it.
        let request = format!(
            "GET /sse?events={events} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n\r\n"
        );
        socket.write_all(request.as_bytes())?;
        let key = self.streams.len() as u64;
        self.poller.registry().add(&socket, key)?;
        self.streams.push(Some(Stream {
            socket,
            sent_at,
            last_event_at: None,
            events: 0,
            rest: vec![],
        }));
        Ok(())
    }

    /// Reads once. True: the stream has ended, completely or not.
    fn is_over(&mut self, index: usize) -> bool {
        let Some(stream) = &mut self.streams[index] else {
            return false;
        };
        let mut buffer = [0; 16 << 10];
        let count = match stream.socket.read(&mut buffer) {
            Ok(0) | Err(_) => return true,
            Ok(count) => count,
        };
        stream.rest.extend_from_slice(&buffer[..count]);
        stream.count_events(&mut self.counts);
        if !stream.rest.ends_with(b"0\r\n\r\n") {
            return false;
        }
        if stream.events == self.events {
            self.counts.whole += 1;
        }
        true
    }
}

impl Stream {
    fn count_events(&mut self, counts: &mut Counts) {
        let now = Instant::now();
        let wall_ns = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64);
        while let Some(end) = http::find(&self.rest, b"\n\n") {
            if let Some(sent_ns) = http::find_number(&self.rest[..end], b"\"t\":") {
                let late = Duration::from_nanos(wall_ns.saturating_sub(sent_ns));
                counts.delay.record(late);
                match self.last_event_at {
                    None => counts.first.record(now - self.sent_at),
                    Some(last) => counts.gap.record(now - last),
                }
                self.last_event_at = Some(now);
                self.events += 1;
            }
            self.rest.drain(..end + 2);
        }
    }
}
