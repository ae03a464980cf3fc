//! One blocking client and its connection: sends a request, reads the response to its end and says
//! what is wrong with it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::Kind;
use crate::support::http;
use crate::support::upstream::{BROKEN_BODY_BYTES, BROKEN_EVENTS, LARGE_BODY_BYTES, SMALL_BODY};

/// Longer than any pause of a correct response.
const TIMEOUT: Duration = Duration::from_secs(30);
const STREAM_EVENTS: u64 = 50;
/// A client of [`Kind::Leaver`] closes after this many events.
const LEAVE_AFTER: u64 = 3;

pub struct Client {
    proxy: SocketAddr,
    kind: Kind,
    connection: Option<TcpStream>,
}

/// A response, complete or not.
struct Response {
    status: u16,
    body: Vec<u8>,
    end: End,
}

#[derive(Debug, PartialEq)]
enum End {
    /// All of Content-Length, or the last chunk, has arrived.
    Whole,
    /// The connection was closed before.
    Short,
    /// The client closed the connection itself.
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

    /// Sends one request and checks its response.
    pub fn exchange(&mut self) -> Result<(), String> {
        let response = self.send_and_read().map_err(|error| error.to_string())?;
        if response.end != End::Whole {
            self.connection = None;
        }
        self.judge(&response)
    }

    fn send_and_read(&mut self) -> io::Result<Response> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let fresh = TcpStream::connect(self.proxy)?;
                fresh.set_nodelay(true)?;
                fresh.set_read_timeout(Some(TIMEOUT))?;
                fresh
            }
        };
        connection.write_all(self.request().as_bytes())?;
        let response = read_response(&mut connection, self.kind)?;
        self.connection = Some(connection);
        Ok(response)
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

    fn judge(&self, response: &Response) -> Result<(), String> {
        let body = &response.body;
        let (status, end, body_is_right) = match self.kind {
            Kind::Small | Kind::Post => (200, End::Whole, body == SMALL_BODY.as_bytes()),
            Kind::Large => (200, End::Whole, is_filler(body, LARGE_BODY_BYTES)),
            Kind::Stream => {
                let done = body.ends_with(b"data: [DONE]\n\n");
                (200, End::Whole, done && events(body) == STREAM_EVENTS)
            }
            Kind::Leaver => (200, End::Left, true),
            Kind::BrokenLength => (200, End::Short, is_filler(body, BROKEN_BODY_BYTES)),
            Kind::BrokenStream => {
                let has_error = http::find(body, b"event: error\ndata: {").is_some();
                (200, End::Short, has_error && events(body) == BROKEN_EVENTS)
            }
            Kind::BrokenHead => {
                let has_error = http::find(body, b"upstream_broke").is_some();
                (502, End::Whole, has_error)
            }
        };
        if (response.status, &response.end) == (status, &end) && body_is_right {
            return Ok(());
        }
        Err(format!(
            "status {} and a body of {} bytes that ended {:?}, expected were {status} and {end:?}",
            response.status,
            body.len(),
            response.end
        ))
    }
}

/// Whether `body` is `length` bytes of the upstream's filler.
fn is_filler(body: &[u8], length: usize) -> bool {
    body.len() == length && body.iter().all(|byte| *byte == b'x')
}

/// How many numbered events `body` holds; 0 if they are not in order.
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

fn read_response(connection: &mut TcpStream, kind: Kind) -> io::Result<Response> {
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
            // A reset ends a response early, as a close does.
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
            return Ok(Response { status, body, end });
        }
        raw.extend_from_slice(&buffer[..count]);
    }
}

/// The data of the complete chunks, and whether the last chunk is among them.
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
