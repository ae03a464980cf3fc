//! A client on a plain socket: sends any bytes, reads responses strictly, and tells how each body
//! was framed and whether it really ended.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::headers::{take_head, take_line};
use super::response::{Ended, Framing, Head, Response, framing_of, parse_head};
use super::{ProxyProcess, SOON};

/// Sends a GET on a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> Response {
    RawClient::connect(address).request("GET", path, &[], b"")
}

/// Sends a POST on a connection of its own.
pub fn post(address: SocketAddr, path: &str, body: &[u8]) -> Response {
    RawClient::connect(address).request("POST", path, &[], body)
}

/// Sends these bytes, which the proxy may not all read, on a new connection; reads the response.
pub fn send_and_read(proxy: &ProxyProcess, bytes: impl AsRef<[u8]>) -> (RawClient, Response) {
    let mut client = RawClient::connect(proxy.address());
    client.try_send(bytes);
    let response = client.read_response();
    (client, response)
}

/// One client connection.
pub struct RawClient {
    stream: TcpStream,
    address: SocketAddr,
    /// Read from the socket, not yet taken.
    buffered: Vec<u8>,
    socket_ended: bool,
    body: Body,
}

/// The body that is being read.
struct Body {
    framing: Framing,
    decoded: Vec<u8>,
    chunk: Chunk,
    ended: Option<Ended>,
}

/// What comes next in a chunked body.
enum Chunk {
    Size,
    Data { left: usize },
    DataEnd,
    Trailers,
}

impl RawClient {
    pub fn connect(address: SocketAddr) -> RawClient {
        let stream = TcpStream::connect(address).expect("the proxy accepts connections");
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_write_timeout(Some(SOON)).expect("not zero");
        RawClient {
            stream,
            address,
            buffered: Vec::new(),
            socket_ended: false,
            body: Body::new(Framing::None),
        }
    }

    /// Returns the `address:port` of this side.
    pub fn local_address(&self) -> String {
        self.stream
            .local_addr()
            .expect("a connected socket")
            .to_string()
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream
            .write_all(bytes.as_ref())
            .expect("the proxy takes our bytes");
    }

    /// Sends bytes where the proxy may close before it has read all; `false` where it has.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends as [`try_send`](Self::try_send); `false` also when the bytes cannot be sent in time.
    pub fn try_send_within(&mut self, bytes: &[u8], deadline: Duration) -> bool {
        self.stream
            .set_write_timeout(Some(deadline))
            .expect("not zero");
        let sent = self.try_send(bytes);
        self.stream.set_write_timeout(Some(SOON)).expect("not zero");
        sent
    }

    /// Sends a request with Host, these headers and, where there is a body, Content-Length.
    pub fn send_request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.send([head.as_bytes(), body].concat());
    }

    /// Sends a request as [`send_request`](Self::send_request), then reads the whole response.
    pub fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        self.send_request(method, target, headers, body);
        self.read_response_to(method)
    }

    /// Reads the whole response to a request with any method but HEAD.
    pub fn read_response(&mut self) -> Response {
        self.read_response_to("GET")
    }

    pub fn read_response_to(&mut self, method: &str) -> Response {
        let head = self.read_head_to(method);
        let (framing, body, ended) = self.read_body_to_end();
        Response {
            head,
            body,
            framing,
            ended,
        }
    }

    /// Reads a head and leaves its body for the methods below.
    pub fn read_head(&mut self) -> Head {
        self.read_head_to("GET")
    }

    fn read_head_to(&mut self, method: &str) -> Head {
        let started = Instant::now();
        let text = loop {
            if let Some(head) = take_head(&mut self.buffered) {
                break head;
            }
            assert!(
                !self.socket_ended,
                "closed before a head; got {:?}",
                self.buffered_text()
            );
            self.read_more(started, SOON);
        };
        let head = parse_head(&text);
        self.body = Body::new(framing_of(&head, method));
        head
    }

    /// Reads until the decoded body so far satisfies `enough`, and returns it; panics where the
    /// body ends, or time runs out, before.
    pub fn read_body_until(&mut self, what: &str, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let started = Instant::now();
        loop {
            self.body.decode(&mut self.buffered, self.socket_ended);
            if enough(&self.body.decoded) {
                return self.body.decoded.clone();
            }
            let so_far = String::from_utf8_lossy(&self.body.decoded);
            assert!(self.body.ended.is_none(), "ended before {what}: {so_far:?}");
            self.read_more(started, SOON);
        }
    }

    /// Reads the body to its end, which may be any; tells how it ended.
    pub fn read_body_to_end(&mut self) -> (Framing, Vec<u8>, Ended) {
        let started = Instant::now();
        loop {
            self.body.decode(&mut self.buffered, self.socket_ended);
            if let Some(ended) = self.body.ended {
                let body = std::mem::take(&mut self.body.decoded);
                return (self.body.framing, body, ended);
            }
            self.read_more(started, 2 * SOON);
        }
    }

    /// Tells whether the proxy closes this connection within `deadline`; it must send nothing more.
    pub fn closes_within(&mut self, deadline: Duration) -> bool {
        let started = Instant::now();
        while !self.socket_ended && started.elapsed() < deadline {
            self.try_read_more(deadline.saturating_sub(started.elapsed()));
            assert!(
                self.buffered.is_empty(),
                "unasked: {:?}",
                self.buffered_text()
            );
        }
        self.socket_ended
    }

    /// Tells whether bytes of a response, or the end, come within `deadline`.
    pub fn has_response_within(&mut self, deadline: Duration) -> bool {
        !self.buffered.is_empty() || self.try_read_more(deadline)
    }

    /// Waits until a response begins; `false` where the connection ends instead.
    pub fn is_answered(&mut self) -> bool {
        let started = Instant::now();
        while self.buffered.is_empty() && !self.socket_ended {
            self.read_more(started, SOON);
        }
        !self.buffered.is_empty()
    }

    /// Asserts that the proxy closes this connection and sends nothing more.
    pub fn assert_closed(&mut self) {
        assert!(
            self.closes_within(SOON),
            "the proxy keeps the connection open"
        );
    }

    /// Reads all bytes, undecoded, until the proxy closes or `deadline` passes.
    pub fn read_raw_to_close(&mut self, deadline: Duration) -> Vec<u8> {
        let started = Instant::now();
        while !self.socket_ended && started.elapsed() < deadline {
            self.try_read_more(deadline.saturating_sub(started.elapsed()));
        }
        std::mem::take(&mut self.buffered)
    }

    pub fn shut_down_sending(&self) {
        self.stream
            .shutdown(Shutdown::Write)
            .expect("a connected socket");
    }

    /// Ends the connection with a reset instead of a close.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .expect("a connected socket");
    }

    fn buffered_text(&self) -> String {
        String::from_utf8_lossy(&self.buffered).into_owned()
    }

    fn read_more(&mut self, started: Instant, deadline: Duration) {
        let left = deadline.saturating_sub(started.elapsed());
        assert!(
            self.try_read_more(left),
            "no answer in {deadline:?}; undecoded {:?}, body so far {:?}",
            self.buffered_text(),
            String::from_utf8_lossy(&self.body.decoded)
        );
    }

    /// `false` when nothing came in time.
    fn try_read_more(&mut self, deadline: Duration) -> bool {
        if deadline.is_zero() {
            return false;
        }
        self.stream
            .set_read_timeout(Some(deadline))
            .expect("not zero");
        let mut piece = vec![0; 64 * 1024];
        match self.stream.read(&mut piece) {
            Ok(0) => self.socket_ended = true,
            Ok(length) => self.buffered.extend_from_slice(&piece[..length]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return false;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.socket_ended = true, // reset
        }
        true
    }
}

impl Body {
    fn new(framing: Framing) -> Body {
        let ended = match framing {
            Framing::None | Framing::Length(0) => Some(Ended::Complete),
            _ => None,
        };
        Body {
            framing,
            decoded: Vec::new(),
            chunk: Chunk::Size,
            ended,
        }
    }

    /// Moves what belongs to this body from `buffered` to `decoded`.
    fn decode(&mut self, buffered: &mut Vec<u8>, socket_ended: bool) {
        if self.ended.is_some() {
            return;
        }
        match self.framing {
            Framing::None => {}
            Framing::Length(length) => {
                let wanted = (length - self.decoded.len()).min(buffered.len());
                self.decoded.extend(buffered.drain(..wanted));
                if self.decoded.len() == length {
                    self.ended = Some(Ended::Complete);
                } else if socket_ended {
                    self.ended = Some(Ended::Short);
                }
            }
            Framing::Chunked => {
                self.decode_chunks(buffered);
                if self.ended.is_none() && socket_ended {
                    self.ended = Some(Ended::WithoutLastChunk);
                }
            }
            Framing::UntilClose => {
                self.decoded.append(buffered);
                if socket_ended {
                    self.ended = Some(Ended::Complete);
                }
            }
        }
    }

    fn decode_chunks(&mut self, buffered: &mut Vec<u8>) {
        loop {
            match self.chunk {
                Chunk::Size => {
                    let Some(line) = take_line(buffered) else {
                        return;
                    };
                    let digits = !line.is_empty() && line.bytes().all(|b| b.is_ascii_hexdigit());
                    assert!(digits, "not a chunk size: {line:?}");
                    self.chunk = match usize::from_str_radix(&line, 16).expect("hex digits") {
                        0 => Chunk::Trailers,
                        left => Chunk::Data { left },
                    };
                }
                Chunk::Data { left } => {
                    let wanted = left.min(buffered.len());
                    self.decoded.extend(buffered.drain(..wanted));
                    if wanted < left {
                        self.chunk = Chunk::Data {
                            left: left - wanted,
                        };
                        return;
                    }
                    self.chunk = Chunk::DataEnd;
                }
                Chunk::DataEnd => {
                    let Some(line) = take_line(buffered) else {
                        return;
                    };
                    assert_eq!(line, "", "CRLF after a chunk");
                    self.chunk = Chunk::Size;
                }
                Chunk::Trailers => {
                    let Some(line) = take_line(buffered) else {
                        return;
                    };
                    if line.is_empty() {
                        self.ended = Some(Ended::Complete);
                        return;
                    }
                }
            }
        }
    }
}
