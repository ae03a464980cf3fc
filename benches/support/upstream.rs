//! The stand-in upstream: two epoll threads with prebuilt responses, so that it is never the
//! bottleneck. Runs in its own process (`roles`).
//!
//! | request target | response |
//! |---|---|
//! | `/sse?events=N` | N events, 20 ms apart, the first at once; each holds the time when it was sent |
//! | `/large` | 1 MiB with Content-Length |
//! | `/broken/length` | 64 KiB of a declared 1 MiB, then closes |
//! | `/broken/sse` | 5 events, then closes without the last chunk |
//! | `/broken/head` | closes without sending a byte |
//! | `/look/KIND` | a response that tells its usage, one of [`LOOKED_AT`] |
//! | `/unread/KIND` | the same bytes, said to have a content coding that flow-proxy does not read |
//! | any other | a small JSON document with Content-Length |

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::http;
use super::poller::{Poller, Registry};

pub const SMALL_BODY: &str = concat!(
    r#"{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"bench","#,
    r#""choices":[{"index":0,"message":{"role":"assistant","content":"Hello."},"#,
    r#""finish_reason":"stop"}],"usage":{"total_tokens":12}}"#
);
pub const LARGE_BODY_BYTES: usize = 1 << 20;
/// How much of a large body `/broken/length` sends.
pub const BROKEN_BODY_BYTES: usize = 64 << 10;
/// A short answer, 1 MiB of text, 1 MiB of numbers, and 40 KB of events that arrive together.
pub const LOOKED_AT: [&str; 4] = ["short", "text", "numbers", "events"];
/// How many events `/broken/sse` sends.
pub const BROKEN_EVENTS: u64 = 5;
pub const EVENT_GAP: Duration = Duration::from_millis(20);
/// How many events with a token `/look/events` has.
const LOOKED_AT_EVENTS: usize = 200;
const THREADS: usize = 2;

/// Serves `listener` until the process ends.
pub fn serve(listener: &TcpListener) -> io::Result<()> {
    let mut workers = vec![];
    for _ in 0..THREADS {
        let poller = Poller::new()?;
        let (sender, receiver) = channel();
        workers.push((poller.registry(), sender));
        thread::spawn(move || Worker::new(poller, receiver).run());
    }
    accept_all(listener, &workers)
}

fn accept_all(
    listener: &TcpListener,
    workers: &[(Registry, Sender<(u64, TcpStream)>)],
) -> io::Result<()> {
    for key in 0.. {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let (registry, sender) = &workers[key as usize % workers.len()];
        // The worker may see the event before the stream arrives: level-triggered, it is repeated.
        registry.add(&stream, key)?;
        if sender.send((key, stream)).is_err() {
            break;
        }
    }
    Ok(())
}

/// One epoll thread and its connections.
struct Worker {
    poller: Poller,
    registry: Registry,
    arrivals: Receiver<(u64, TcpStream)>,
    connections: HashMap<u64, Connection>,
    /// When the next event of each connection is due.
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    responses: Responses,
}

/// What happens to a connection after a step.
#[derive(PartialEq)]
enum Next {
    Stay,
    Close,
}

impl Worker {
    fn new(poller: Poller, arrivals: Receiver<(u64, TcpStream)>) -> Self {
        Self {
            registry: poller.registry(),
            poller,
            arrivals,
            connections: HashMap::new(),
            timers: BinaryHeap::new(),
            responses: Responses::new(),
        }
    }

    fn run(mut self) {
        let mut keys = vec![];
        loop {
            let timeout = self
                .timers
                .peek()
                .map(|Reverse((due, _))| due.saturating_duration_since(Instant::now()));
            if self.poller.wait(timeout, &mut keys).is_err() {
                return;
            }
            for key in &keys {
                self.on_ready(*key);
            }
            self.send_due_events();
        }
    }

    fn on_ready(&mut self, key: u64) {
        while !self.connections.contains_key(&key) {
            let Ok((arrived, stream)) = self.arrivals.try_recv() else {
                return;
            };
            self.connections.insert(arrived, Connection::new(stream));
        }
        let connection = self
            .connections
            .get_mut(&key)
            .expect("found or inserted above");
        let next = connection.step(key, &self.registry, &self.responses);
        if let Some(due) = connection.first_event_due.take() {
            self.timers.push(Reverse((due, key)));
        }
        if next == Next::Close {
            self.connections.remove(&key);
        }
    }

    fn send_due_events(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((due, key))) = self.timers.peek().copied() {
            if due > now {
                return;
            }
            self.timers.pop();
            let Some(connection) = self.connections.get_mut(&key) else {
                continue;
            };
            match connection.send_event(key, &self.registry) {
                Next::Close => drop(self.connections.remove(&key)),
                Next::Stay if connection.events_left > 0 => {
                    self.timers.push(Reverse((due + EVENT_GAP, key)));
                }
                Next::Stay => {}
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    /// What has not been sent yet: first the prebuilt bytes, then those made for this request.
    fixed: &'static [u8],
    made: Vec<u8>,
    events_left: u64,
    events_sent: u64,
    first_event_due: Option<Instant>,
    /// The response ends early: close once everything is sent.
    breaks_off: bool,
    waits_for_room: bool,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            input: vec![],
            fixed: &[],
            made: vec![],
            events_left: 0,
            events_sent: 0,
            first_event_due: None,
            breaks_off: false,
            waits_for_room: false,
        }
    }

    fn step(&mut self, key: u64, registry: &Registry, responses: &Responses) -> Next {
        if self.waits_for_room {
            return self.flush(key, registry);
        }
        let mut buffer = [0; 64 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Next::Close,
            Ok(count) => self.input.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Next::Stay,
            Err(_) => return Next::Close,
        }
        let Some(head_end) = http::head_end(&self.input) else {
            return Next::Stay;
        };
        let request_end = head_end + http::content_length(&self.input[..head_end]).unwrap_or(0);
        if self.input.len() < request_end {
            return Next::Stay;
        }
        let next = self.respond(responses);
        self.input.drain(..request_end);
        if next == Next::Close {
            return next;
        }
        self.flush(key, registry)
    }

    /// Chooses the response by the request target.
    fn respond(&mut self, responses: &Responses) -> Next {
        let line_end = http::find(&self.input, b"\r\n").unwrap_or(0);
        let line = &self.input[..line_end];
        let is_for = |path: &[u8]| http::find(line, path).is_some();
        if is_for(b" /broken/head") {
            return Next::Close;
        } else if is_for(b" /broken/length") {
            self.fixed = responses.broken;
            self.breaks_off = true;
        } else if is_for(b" /broken/sse") {
            self.start_stream(BROKEN_EVENTS, responses);
            self.breaks_off = true;
        } else if is_for(b" /sse") {
            let events = http::find_number(line, b"events=").unwrap_or(50);
            self.start_stream(events, responses);
        } else if is_for(b" /large") {
            self.fixed = responses.large;
        } else if let Some((_, response)) = responses.by_target.iter().find(|(it, _)| is_for(it)) {
            self.fixed = response;
        } else {
            self.fixed = responses.small;
        }
        Next::Stay
    }

    fn start_stream(&mut self, events: u64, responses: &Responses) {
        self.fixed = responses.stream_head;
        self.events_left = events;
        self.events_sent = 0;
        self.first_event_due = Some(Instant::now());
    }

    fn send_event(&mut self, key: u64, registry: &Registry) -> Next {
        let sent_at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        let number = self.events_sent;
        let event = format!(
            "data: {{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"n\":{number},\"t\":{sent_at},\
             \"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" token\"}}}}]}}\n\n"
        );
        let _ = write!(self.made, "{:x}\r\n{event}\r\n", event.len());
        self.events_sent += 1;
        self.events_left -= 1;
        if self.events_left == 0 && !self.breaks_off {
            self.made
                .extend_from_slice(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
        }
        self.flush(key, registry)
    }

    /// Sends as much as the socket takes; the poller reports when it takes more.
    fn flush(&mut self, key: u64, registry: &Registry) -> Next {
        while !self.fixed.is_empty() || !self.made.is_empty() {
            let from_fixed = !self.fixed.is_empty();
            let piece = if from_fixed { self.fixed } else { &self.made };
            match self.stream.write(piece) {
                Ok(count) if from_fixed => self.fixed = &self.fixed[count..],
                Ok(count) => drop(self.made.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.waits_for_room = true;
                    return closed_if_failed(registry.await_room(&self.stream, key));
                }
                Err(_) => return Next::Close,
            }
        }
        if self.breaks_off && self.events_left == 0 {
            return Next::Close;
        }
        if self.waits_for_room {
            self.waits_for_room = false;
            return closed_if_failed(registry.await_bytes(&self.stream, key));
        }
        Next::Stay
    }
}

fn closed_if_failed(result: io::Result<()>) -> Next {
    if result.is_ok() {
        Next::Stay
    } else {
        Next::Close
    }
}

/// The prebuilt responses, made once for each thread and never freed.
struct Responses {
    small: &'static [u8],
    large: &'static [u8],
    broken: &'static [u8],
    stream_head: &'static [u8],
    by_target: Vec<(Vec<u8>, &'static [u8])>,
}

impl Responses {
    fn new() -> Self {
        let head = |length: usize| {
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
            )
        };
        let small = head(SMALL_BODY.len()) + SMALL_BODY;
        let large = head(LARGE_BODY_BYTES) + &"x".repeat(LARGE_BODY_BYTES);
        let broken = head(LARGE_BODY_BYTES) + &"x".repeat(BROKEN_BODY_BYTES);
        Self {
            small: small.leak().as_bytes(),
            large: large.leak().as_bytes(),
            broken: broken.leak().as_bytes(),
            stream_head: b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n",
            by_target: by_target(),
        }
    }
}

/// The responses of `/look/KIND` and `/unread/KIND`.
fn by_target() -> Vec<(Vec<u8>, &'static [u8])> {
    let mut responses = vec![];
    for kind in LOOKED_AT {
        let (content_type, body) = match kind {
            "events" => ("text/event-stream", looked_at_events()),
            _ => ("application/json", looked_at_json(kind)),
        };
        let length = body.len();
        for (directory, coding) in [("look", ""), ("unread", "Content-Encoding: br\r\n")] {
            let response = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n{coding}\
                 Content-Length: {length}\r\n\r\n{body}"
            );
            let target = format!(" /{directory}/{kind}");
            responses.push((target.into_bytes(), response.leak().as_bytes()));
        }
    }
    responses
}

fn looked_at_json(kind: &str) -> String {
    const USAGE: &str = r#""usage":{"prompt_tokens":1200,"completion_tokens":340,"total_tokens":1540,"prompt_tokens_details":{"cached_tokens":1000}}"#;
    if kind == "numbers" {
        let number = |n: usize| format!("-0.{:08}", n * 7_919 % 100_000_000);
        let numbers: Vec<_> = (0..LARGE_BODY_BYTES / 12).map(number).collect();
        let numbers = numbers.join(",");
        return format!(
            r#"{{"object":"list","model":"bench","data":[{{"object":"embedding","index":0,"embedding":[{numbers}]}}],{USAGE}}}"#
        );
    }
    // As of a model that writes code: some lines, now and then a quote.
    let line = r#"    let answer = ask(the_model, \"What is it?\"); // and then it goes on\n"#;
    let text = match kind {
        "text" => line.repeat(LARGE_BODY_BYTES / line.len()),
        _ => line.repeat(4),
    };
    format!(
        r#"{{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"bench","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],{USAGE}}}"#
    )
}

fn looked_at_events() -> String {
    let event = |rest: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\
             \"created\":1700000000,\"model\":\"bench\",{rest}}}\n\n"
        )
    };
    let token = r#""choices":[{"index":0,"delta":{"content":" and so on"},"finish_reason":null}],"usage":null"#;
    let end = r#""choices":[],"usage":{"prompt_tokens":1200,"completion_tokens":200,"total_tokens":1400}"#;
    event(token).repeat(LOOKED_AT_EVENTS) + &event(end) + "data: [DONE]\n\n"
}
