//! The load client: a closed loop on each of many connections, multiplexed by at most two threads so
//! that the client itself costs little. Runs in its own process (`roles`).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::histogram::Histogram;
use super::http;
use super::poller::{Poller, Registry};

/// What to request, on how many connections, and for how long.
#[derive(Clone)]
pub struct Load {
    pub address: SocketAddr,
    pub path: String,
    pub connections: usize,
    pub duration: Duration,
}

/// The outcome. Latencies are measured from sending the request to the response's last byte.
pub struct LoadResult {
    /// Responses with status 200.
    pub requests: u64,
    /// Responses with another status, and connections that failed.
    pub errors: u64,
    pub seconds: f64,
    pub body_bytes: u64,
    pub p50_ns: u64,
    pub p99_ns: u64,
}

/// The first sixth of the duration is not counted: connections are opened, caches filled.
const WARM_UP_SHARE: u32 = 6;
const BUFFER_BYTES: usize = 256 << 10;

pub fn run(load: &Load) -> io::Result<LoadResult> {
    let threads = load.connections.min(2);
    let handles: Vec<_> = (0..threads)
        .map(|index| {
            let mut share = load.clone();
            share.connections = (load.connections + index) / threads;
            thread::spawn(move || Client::open(&share)?.run())
        })
        .collect();
    let mut histogram = Histogram::new();
    let mut result = LoadResult {
        requests: 0,
        errors: 0,
        seconds: 0.0,
        body_bytes: 0,
        p50_ns: 0,
        p99_ns: 0,
    };
    for handle in handles {
        let part = handle.join().expect("a load thread does not panic")?;
        histogram.merge(&part.histogram);
        result.errors += part.errors;
        result.body_bytes += part.body_bytes;
        result.seconds = part.counted.as_secs_f64().max(result.seconds);
    }
    result.requests = histogram.total();
    result.p50_ns = histogram.quantile_ns(0.50);
    result.p99_ns = histogram.quantile_ns(0.99);
    Ok(result)
}

/// One thread's connections and counts.
struct Client {
    address: SocketAddr,
    request: Vec<u8>,
    poller: Poller,
    registry: Registry,
    connections: Vec<Connection>,
    duration: Duration,
    counts: Counts,
}

struct Counts {
    histogram: Histogram,
    errors: u64,
    body_bytes: u64,
    counted: Duration,
}

impl Counts {
    fn new() -> Self {
        Self {
            histogram: Histogram::new(),
            errors: 0,
            body_bytes: 0,
            counted: Duration::ZERO,
        }
    }
}

struct Connection {
    stream: TcpStream,
    sent_at: Instant,
    /// The response's bytes until its head is complete.
    head: Vec<u8>,
    /// Body bytes that have not arrived yet; `None` before the head is complete.
    left: Option<usize>,
}

/// What a read completed.
enum Step {
    More,
    /// A whole response: its status and its body's length in bytes.
    Done(u16, usize),
}

impl Client {
    fn open(load: &Load) -> io::Result<Self> {
        let poller = Poller::new()?;
        let mut client = Self {
            address: load.address,
            request: request(&load.path, load.address),
            registry: poller.registry(),
            poller,
            connections: vec![],
            duration: load.duration,
            counts: Counts::new(),
        };
        for key in 0..load.connections {
            let connection = client.connect(key as u64)?;
            client.connections.push(connection);
        }
        Ok(client)
    }

    fn connect(&self, key: u64) -> io::Result<Connection> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        self.registry.add(&stream, key)?;
        Ok(Connection {
            stream,
            sent_at: Instant::now(),
            head: vec![],
            left: None,
        })
    }

    /// The main loop: each connection sends its next request as soon as a response is complete.
    fn run(mut self) -> io::Result<Counts> {
        let begin = Instant::now();
        let warm_up = self.duration / WARM_UP_SHARE;
        let mut counted_from = None;
        for connection in &mut self.connections {
            connection.send(&self.request)?;
        }
        let mut keys = vec![];
        let mut buffer = vec![0; BUFFER_BYTES];
        // The timeout lets the bench end even if a proxy does not respond at all.
        while begin.elapsed() < self.duration {
            self.poller.wait(Some(Duration::from_secs(1)), &mut keys)?;
            for key in &keys {
                self.on_ready(*key, &mut buffer)?;
            }
            if counted_from.is_none() && begin.elapsed() >= warm_up {
                counted_from = Some(Instant::now());
                let errors = self.counts.errors;
                self.counts = Counts::new();
                self.counts.errors = errors;
            }
        }
        self.counts.counted = counted_from.unwrap_or(begin).elapsed();
        Ok(self.counts)
    }

    fn on_ready(&mut self, key: u64, buffer: &mut [u8]) -> io::Result<()> {
        let connection = &mut self.connections[key as usize];
        let step = connection.read(buffer);
        match step {
            Ok(Step::More) => return Ok(()),
            Ok(Step::Done(status, body_bytes)) => {
                // Errors are fast: they must not count as throughput.
                if status == 200 {
                    self.counts.histogram.record(connection.sent_at.elapsed());
                    self.counts.body_bytes += body_bytes as u64;
                } else {
                    self.counts.errors += 1;
                }
                if connection.send(&self.request).is_ok() {
                    return Ok(());
                }
            }
            Err(_) => self.counts.errors += 1,
        }
        let mut fresh = self.connect(key)?;
        fresh.send(&self.request)?;
        self.connections[key as usize] = fresh;
        Ok(())
    }
}

impl Connection {
    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.sent_at = Instant::now();
        self.stream.write_all(request)
    }

    /// Reads once. Does not block: the poller has reported bytes.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Step> {
        let count = self.stream.read(buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut arrived = count;
        if self.left.is_none() {
            self.head.extend_from_slice(&buffer[..count]);
            let Some(end) = http::head_end(&self.head) else {
                return Ok(Step::More);
            };
            let length = http::content_length(&self.head[..end]);
            self.left = Some(length.ok_or(io::ErrorKind::InvalidData)?);
            arrived = self.head.len() - end;
            self.head.truncate(end);
        }
        let left = self.left.unwrap_or(0).checked_sub(arrived);
        self.left = Some(left.ok_or(io::ErrorKind::InvalidData)?);
        if self.left != Some(0) {
            return Ok(Step::More);
        }
        let body_bytes = http::content_length(&self.head).unwrap_or(0);
        let status = http::status(&self.head);
        self.head.clear();
        self.left = None;
        Ok(Step::Done(status, body_bytes))
    }
}

/// A GET, or a POST of `N` bytes where the path says `body=N`.
fn request(path: &str, address: SocketAddr) -> Vec<u8> {
    let fields = format!("HTTP/1.1\r\nHost: {address}\r\nAccept: application/json\r\n");
    match http::find_number(path.as_bytes(), b"body=") {
        None => format!("GET {path} {fields}\r\n").into_bytes(),
        Some(length) => {
            let body = "x".repeat(length as usize);
            format!("POST {path} {fields}Content-Length: {length}\r\n\r\n{body}").into_bytes()
        }
    }
}
