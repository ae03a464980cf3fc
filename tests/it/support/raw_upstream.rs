//! An upstream on a plain socket, scripted for each connection: for what a well-behaved server
//! cannot do. It breaks off, falls silent, lies, and sends pieces on command.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::verified_client_id;

/// No script waits longer than this for a byte: threads end even where a test fails.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A request as the upstream saw it.
#[derive(Debug, Clone)]
pub struct SeenRequest {
    pub method: String,
    pub target: String,
    pub version: String,
    /// In the order in which they came. Bytes above 127 are read as Latin-1.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl SeenRequest {
    /// The values of a header, in order.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let same = self
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a header that must not be repeated.
    pub fn header(&self, name: &str) -> Option<&str> {
        let values = self.values(name);
        assert!(values.len() <= 1, "{name} is repeated: {:?}", self.headers);
        values.first().copied()
    }

    /// The names of all headers in lower case, in order.
    pub fn header_names(&self) -> Vec<String> {
        self.headers
            .iter()
            .map(|(name, _)| name.to_ascii_lowercase())
            .collect()
    }

    /// The client id of the only and correctly signed Authorization.
    pub fn verified_client_id(&self) -> Option<String> {
        verified_client_id(self.header("authorization")?)
    }

    /// The same, or `unsigned`.
    pub fn client_id(&self) -> String {
        self.verified_client_id()
            .unwrap_or_else(|| "unsigned".to_owned())
    }
}

/// The running upstream; ends on drop.
pub struct RawUpstream {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<SeenRequest>>>,
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
        let connections = Arc::new(AtomicUsize::new(0));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stopping = Arc::new(AtomicBool::new(false));
        let script = Arc::new(script);
        let acceptor = {
            let (connections, seen, stopping) = (
                Arc::clone(&connections),
                Arc::clone(&seen),
                Arc::clone(&stopping),
            );
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    if stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    let number = connections.fetch_add(1, Ordering::SeqCst) + 1;
                    let mut connection = UpstreamConnection::new(stream, number, Arc::clone(&seen));
                    let script = Arc::clone(&script);
                    std::thread::spawn(move || script(&mut connection));
                }
            })
        };
        RawUpstream {
            address,
            connections,
            seen,
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

    /// Reads one request, then sends what the test commands, piece by piece. Dropping the
    /// [`Commands`] closes the connection.
    pub fn on_command() -> (RawUpstream, Commands) {
        let (pieces, receiver) = channel::<Vec<u8>>();
        let (closed, closed_receiver) = channel();
        let receiver: Mutex<Receiver<Vec<u8>>> = Mutex::new(receiver);
        let closed: Mutex<Sender<Instant>> = Mutex::new(closed);
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

    /// The target URL for the proxy, with Flow's path.
    pub fn url(&self) -> String {
        format!("http://{}/flow-llm-proxy", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> Vec<SeenRequest> {
        self.seen.lock().expect("no panic under this lock").clone()
    }

    /// The client ids of all requests, in the order in which they came.
    pub fn client_ids(&self) -> Vec<String> {
        self.requests().iter().map(SeenRequest::client_id).collect()
    }

    /// The only request that was seen.
    pub fn request(&self) -> SeenRequest {
        let mut requests = self.requests();
        assert_eq!(
            requests.len(),
            1,
            "requests seen by the upstream: {requests:?}"
        );
        requests.remove(0)
    }
}

impl Drop for RawUpstream {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // wakes the acceptor
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
    seen: Arc<Mutex<Vec<SeenRequest>>>,
    /// Counting from 1.
    pub number: usize,
}

impl UpstreamConnection {
    fn new(
        stream: TcpStream,
        number: usize,
        seen: Arc<Mutex<Vec<SeenRequest>>>,
    ) -> UpstreamConnection {
        stream
            .set_read_timeout(Some(READ_TIMEOUT))
            .expect("a valid timeout");
        stream.set_nodelay(true).expect("a TCP socket");
        UpstreamConnection {
            stream,
            buffered: Vec::new(),
            seen,
            number,
        }
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
            self.take(length)?
        };
        self.seen
            .lock()
            .expect("no panic under this lock")
            .push(request.clone());
        Some(request)
    }

    /// Reads the head of a request; records nothing.
    pub fn read_request_head(&mut self) -> Option<SeenRequest> {
        let end = loop {
            if let Some(at) = self
                .buffered
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
            {
                break at;
            }
            self.read_more()?;
        };
        let head: String = self.buffered[..end]
            .iter()
            .map(|&byte| char::from(byte))
            .collect();
        self.buffered.drain(..end + 4);
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

    /// Waits for the first byte of the next request. `false` at the connection's end.
    pub fn wait_for_byte(&mut self) -> bool {
        !self.buffered.is_empty() || self.read_more().is_some()
    }

    /// `false` when the proxy has gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Reads and drops bytes until the proxy closes. `false` after `deadline`.
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

    /// Reports on `closed` when the proxy closes, while this thread goes on sending.
    fn watch_for_close(&self, closed: &Mutex<Sender<Instant>>) -> JoinHandle<()> {
        let mut stream = self.stream.try_clone().expect("a duplicate descriptor");
        let closed = closed.lock().expect("no panic under this lock").clone();
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
            body.extend_from_slice(&self.take(size)?);
            assert_eq!(self.take_line()?, "", "CRLF after a chunk");
        }
    }

    fn take_line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffered.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffered[..end]).into_owned();
                self.buffered.drain(..end + 2);
                return Some(line);
            }
            self.read_more()?;
        }
    }

    fn take(&mut self, length: usize) -> Option<Vec<u8>> {
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
