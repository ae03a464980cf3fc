//! One blocking client and its connection: asks, reads to the end, and says how the answer differs
//! from what is due.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::Kind;
use crate::support::http;
use crate::support::upstream::{BROKEN_BODY_BYTES, BROKEN_EVENTS, LARGE_BODY_BYTES, SMALL_BODY};

/// No answer of the mix is silent for as long as this.
const PATIENCE: Duration = Duration::from_secs(30);
const STREAM_EVENTS: u64 = 50;
/// How many events a client that leaves waits for.
const LEAVE_AFTER: u64 = 3;

pub struct Client {
    proxy: SocketAddr,
    kind: Kind,
    connection: Option<TcpStream>,
}

/// An answer, as far as it came.
struct Answer {
    status: u16,
    body: Vec<u8>,
    end: End,
}

#[derive(Debug, PartialEq)]
enum End {
    /// Content-Length or the last chunk was reached.
    Whole,
    /// The connection ended before.
    Short,
    /// The client left, as it meant to.
    Left,
}

impl Client {
    pub fn new(proxy: SocketAddr, kind: Kind) -> Self {
        Self {
            proxy,
            kind,
            connection: None,
        }
    }

    /// Sends one request and judges its answer.
    pub fn ask(&mut self) -> Result<(), String> {
        let answer = self.exchange().map_err(|error| error.to_string())?;
        if answer.end != End::Whole {
            self.connection = None;
        }
        self.judge(&answer)
    }

    fn exchange(&mut self) -> io::Result<Answer> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let fresh = TcpStream::connect(self.proxy)?;
                fresh.set_nodelay(true)?;
                fresh.set_read_timeout(Some(PATIENCE))?;
                fresh
            }
        };
        connection.write_all(self.request().as_bytes())?;
        let answer = read_answer(&mut connection, self.kind)?;
        self.connection = Some(connection);
        Ok(answer)
    }

    fn request(&self) -> String {
        let host = self.proxy;
        let path = match self.kind {
            Kind::Small => "/v1/models",
            Kind::Large => "/large",
            Kind::Stream | Kind::Leaver => "/sse?events=50",
            Kind::BrokenLength => "/broken/length",
            Kind::BrokenStream => "/broken/sse",
            Kind::BrokenHead => "/broken/head",
            Kind::Post => {
                let body = r#"{"model":"bench","messages":[{"role":"user","content":"Hi"}]}"#;
                return format!(
                    "POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n\
                     Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
            }
        };
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
    }

    fn judge(&self, answer: &Answer) -> Result<(), String> {
        let body = &answer.body;
        let (status, end, body_is_due) = match self.kind {
            Kind::Small | Kind::Post => (200, End::Whole, body == SMALL_BODY.as_bytes()),
            Kind::Large => (200, End::Whole, is_filler(body, LARGE_BODY_BYTES)),
            Kind::Stream => {
                let done = body.ends_with(b"data: [DONE]\n\n");
                (200, End::Whole, done && events(body) == STREAM_EVENTS)
            }
            Kind::Leaver => (200, End::Left, true),
            Kind::BrokenLength => (200, End::Short, is_filler(body, BROKEN_BODY_BYTES)),
            Kind::BrokenStream => {
                let told = http::find(body, b"event: error\ndata: {").is_some();
                (200, End::Short, told && events(body) == BROKEN_EVENTS)
            }
            Kind::BrokenHead => {
                let told = http::find(body, b"upstream_broke").is_some();
                (502, End::Whole, told)
            }
        };
        if (answer.status, &answer.end) == (status, &end) && body_is_due {
            return Ok(());
        }
        Err(format!(
            "status {} and a body of {} bytes that ended {:?}, due were {status} and {end:?}",
            answer.status,
            body.len(),
            answer.end
        ))
    }
}

/// Whether `body` is the upstream's filler, all of `length` bytes of it.
fn is_filler(body: &[u8], length: usize) -> bool {
    body.len() == length && body.iter().all(|byte| *byte == b'x')
}

/// How many numbered events `body` holds, if they are in order.
fn events(body: &[u8]) -> u64 {
    let mut number = 0;
    for event in body.split(|byte| *byte == b'\n') {
        match http::find_number(event, b"\"n\":") {
            None => {}
            Some(found) if found == number => number += 1,
            Some(_) => return 0,
        }
    }
    number
}

fn read_answer(connection: &mut TcpStream, kind: Kind) -> io::Result<Answer> {
    let mut bytes = vec![];
    let mut buffer = [0; 64 << 10];
    let head_end = loop {
        let count = connection.read(&mut buffer)?;
        if count == 0 {
            return Err(io::Error::other("the connection ended before the head"));
        }
        bytes.extend_from_slice(&buffer[..count]);
        if let Some(end) = http::head_end(&bytes) {
            break end;
        }
    };
    let status = http::status(&bytes);
    let length = http::content_length(&bytes[..head_end]);
    let mut raw = bytes.split_off(head_end);
    loop {
        let (body, whole) = match length {
            Some(length) => (None, raw.len() >= length),
            None => {
                let (body, whole) = decode_chunks(&raw);
                (Some(body), whole)
            }
        };
        let leaves =
            kind == Kind::Leaver && body.as_deref().is_some_and(|b| events(b) >= LEAVE_AFTER);
        let count = if whole || leaves {
            0
        } else {
            // A reset instead of an end is a short answer, too.
            connection
                .read(&mut buffer)
                .or_else(|error| match error.kind() {
                    io::ErrorKind::ConnectionReset => Ok(0),
                    _ => Err(error),
                })?
        };
        if count == 0 {
            let end = match (whole, leaves) {
                (true, _) => End::Whole,
                (false, true) => End::Left,
                (false, false) => End::Short,
            };
            let body = body.unwrap_or(raw);
            return Ok(Answer { status, body, end });
        }
        raw.extend_from_slice(&buffer[..count]);
    }
}

/// The data of the chunks that are whole, and whether the last chunk is among them.
fn decode_chunks(mut raw: &[u8]) -> (Vec<u8>, bool) {
    let mut body = vec![];
    while let Some(line_end) = http::find(raw, b"\r\n") {
        let digits = String::from_utf8_lossy(&raw[..line_end]);
        let Ok(size) = usize::from_str_radix(&digits, 16) else {
            break;
        };
        let data = line_end + 2;
        let Some(next) = raw
            .get(data + size..)
            .and_then(|rest| rest.strip_prefix(b"\r\n"))
        else {
            break;
        };
        if size == 0 {
            return (body, true);
        }
        body.extend_from_slice(&raw[data..data + size]);
        raw = next;
    }
    (body, false)
}
