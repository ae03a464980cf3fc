//! An upstream on a plain socket, scripted for each connection: for what a well-behaved server
//! cannot do. It breaks off, falls silent, lies, and sends pieces on command.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::headers::{take_head, take_line};
use super::{OK, SeenRequest, Upstream};

/// No script waits longer than this for a byte: threads end even where a test fails.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// The running upstream; ends on drop.
pub struct RawUpstream {
    upstream: Upstream,
    connections: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl RawUpstream {
    /// Runs `script` for each connection, each in a thread of its own.
    pub fn start(script: impl Fn(&mut UpstreamConnection) + Send + Sync + 'static) -> RawUpstream {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
        let address = listener
            .local_addr()
            .expect("a bound listener has an address");
        let upstream = Upstream::at(address);
        let connections = Arc::new(AtomicUsize::new(0));
        let stopping = Arc::new(AtomicBool::new(false));
        let script = Arc::new(script);
        let acceptor = {
            let (connections, upstream, stopping) = (
                Arc::clone(&connections),
                upstream.clone(),
                Arc::clone(&stopping),
            );
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    if stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    let number = connections.fetch_add(1, Ordering::SeqCst) + 1;
                    let mut connection = UpstreamConnection::new(stream, number, upstream.clone());
                    let script = Arc::clone(&script);
                    std::thread::spawn(move || script(&mut connection));
                }
            })
        };
        RawUpstream {
            upstream,
            connections,
            stopping,
            acceptor: Some(acceptor),
        }
    }

    /// Answers every request on every connection with these bytes, and keeps it open.
    pub fn always(response: impl Into<Vec<u8>>) -> RawUpstream {
        let response = response.into();
        RawUpstream::start(move |connection| {
            while connection.read_request().is_some() && connection.send(&response) {}
        })
    }

    /// Reads one request on each connection, sends these bytes and closes.
    pub fn once(response: impl Into<Vec<u8>>) -> RawUpstream {
        let response = response.into();
        RawUpstream::start(move |connection| {
            if connection.read_request().is_some() {
                connection.send(&response);
            }
        })
    }

    /// Answers `ok`, except for targets that end in `exception`: runs `script` for them and closes.
    pub fn ok_except(
        exception: &'static str,
        script: impl Fn(&mut UpstreamConnection) + Send + Sync + 'static,
    ) -> RawUpstream {
        RawUpstream::start(move |connection| {
            while let Some(request) = connection.read_request() {
                if request.target.ends_with(exception) {
                    script(connection);
                    return;
                }
                connection.send(OK);
            }
        })
    }

    /// Reads one request, then sends what the test commands, piece by piece. Dropping the
    /// [`Commands`] closes the connection.
    pub fn on_command() -> (RawUpstream, Commands) {
        let (pieces, receiver) = channel::<Vec<u8>>();
        let (closed, closed_receiver) = channel();
        let receiver: Mutex<Receiver<Vec<u8>>> = Mutex::new(receiver);
        let upstream = RawUpstream::start(move |connection| {
            if connection.read_request().is_none() {
                return;
            }
            let watcher = connection.watch_for_close(&closed);
            let pieces = receiver.lock().expect("one stream at a time");
            while let Ok(piece) = pieces.recv() {
                if !connection.send(&piece) {
                    break;
                }
            }
            drop(pieces);
            connection.close();
            let _ = watcher.join();
        });
        (
            upstream,
            Commands {
                pieces,
                closed: closed_receiver,
            },
        )
    }

    /// Counts the connections accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Deref for RawUpstream {
    type Target = Upstream;

    fn deref(&self) -> &Upstream {
        &self.upstream
    }
}

impl Drop for RawUpstream {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address()); // wakes the acceptor
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// The test's end of [`RawUpstream::on_command`].
pub struct Commands {
    pieces: Sender<Vec<u8>>,
    closed: Receiver<Instant>,
}

impl Commands {
    pub fn send(&self, piece: impl AsRef<[u8]>) {
        self.pieces
            .send(piece.as_ref().to_vec())
            .expect("the upstream's script still runs");
    }

    /// Waits until the proxy has closed the upstream connection; returns when that was.
    pub fn wait_for_close(&self, deadline: Duration) -> Instant {
        self.closed
            .recv_timeout(deadline)
            .expect("the proxy closes its upstream connection")
    }
}

/// One accepted connection, in the hands of its script; closed on drop.
pub struct UpstreamConnection {
    stream: TcpStream,
    buffered: Vec<u8>,
    upstream: Upstream,
    /// The position of this connection, counted from 1.
    pub number: usize,
    has_served: bool,
}

impl UpstreamConnection {
    fn new(stream: TcpStream, number: usize, upstream: Upstream) -> UpstreamConnection {
        stream
            .set_read_timeout(Some(READ_TIMEOUT))
            .expect("a valid timeout");
        stream.set_nodelay(true).expect("a TCP socket");
        UpstreamConnection {
            stream,
            buffered: Vec::new(),
            upstream,
            number,
            has_served: false,
        }
    }

    /// Tells whether something was sent on this connection.
    pub fn has_served(&self) -> bool {
        self.has_served
    }

    /// Returns `address:port` of this end.
    pub fn local_address(&self) -> String {
        let address = self.stream.local_addr();
        address.expect("a connected socket").to_string()
    }

    /// Reads one whole request and records it. `None` at the connection's end.
    pub fn read_request(&mut self) -> Option<SeenRequest> {
        let mut request = self.read_request_head()?;
        let chunked = request.header("transfer-encoding").is_some();
        let length = request
            .header("content-length")
            .map_or(0, |text| text.parse().unwrap_or(0));
        request.body = if chunked {
            self.read_chunked()?
        } else {
            self.read_bytes(length)?
        };
        self.upstream.record(request.clone());
        Some(request)
    }

    /// Reads the head of a request; records nothing.
    pub fn read_request_head(&mut self) -> Option<SeenRequest> {
        let head = loop {
            if let Some(head) = take_head(&mut self.buffered) {
                break head;
            }
            self.read_more()?;
        };
        let mut lines = head.split("\r\n");
        let mut request_line = lines.next()?.splitn(3, ' ').map(str::to_owned);
        Some(SeenRequest {
            method: request_line.next()?,
            target: request_line.next()?,
            version: request_line.next()?,
            headers: lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect(),
            body: vec![],
        })
    }

    /// Waits for the first byte of the next request; `false` at the connection's end.
    pub fn wait_for_byte(&mut self) -> bool {
        !self.buffered.is_empty() || self.read_more().is_some()
    }

    /// Sends bytes; `false` where the proxy has closed.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.has_served = true;
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Reads and drops bytes until the proxy closes; `false` after `deadline`.
    pub fn wait_for_close(&mut self, deadline: Duration) -> bool {
        let started = Instant::now();
        let mut piece = vec![0; 64 * 1024];
        loop {
            let Some(left) = deadline
                .checked_sub(started.elapsed())
                .filter(|d| !d.is_zero())
            else {
                return false;
            };
            self.stream.set_read_timeout(Some(left)).expect("not zero");
            match self.stream.read(&mut piece) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return true, // reset: closed as well
            }
        }
    }

    pub fn close(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Lets the connection end with a reset.
    pub fn reset_at_end(&self) {
        let socket = socket2::SockRef::from(&self.stream);
        let now = Some(Duration::ZERO);
        socket.set_linger(now).expect("a TCP socket");
    }

    /// Reports on `closed` when the proxy closes, while this thread goes on sending.
    fn watch_for_close(&self, closed: &Sender<Instant>) -> JoinHandle<()> {
        let mut stream = self.stream.try_clone().expect("a duplicate descriptor");
        let closed = closed.clone();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(1..) = stream.read(&mut piece) {}
            let _ = closed.send(Instant::now());
        })
    }

    fn read_chunked(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.take_line()?;
            let size = usize::from_str_radix(&line, 16).expect("a bare chunk size");
            if size == 0 {
                while !self.take_line()?.is_empty() {} // trailers
                return Some(body);
            }
            body.extend_from_slice(&self.read_bytes(size)?);
            assert_eq!(self.take_line()?, "", "CRLF after a chunk");
        }
    }

    fn take_line(&mut self) -> Option<String> {
        loop {
            if let Some(line) = take_line(&mut self.buffered) {
                return Some(line);
            }
            self.read_more()?;
        }
    }

    /// Reads this many bytes. `None` at the connection's end.
    pub fn read_bytes(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffered.len() < length {
            self.read_more()?;
        }
        let rest = self.buffered.split_off(length);
        Some(std::mem::replace(&mut self.buffered, rest))
    }

    fn read_more(&mut self) -> Option<()> {
        let mut piece = vec![0; 64 * 1024];
        match self.stream.read(&mut piece) {
            Ok(length @ 1..) => {
                self.buffered.extend_from_slice(&piece[..length]);
                Some(())
            }
            _ => None,
        }
    }
}
