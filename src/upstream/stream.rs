//! A stream of bytes to the upstream: TCP, or TLS over another stream. Every wait for the upstream also
//! watches the client, and a thread that leads an event loop hands it over before it waits.
//!
//! Called by the worker that serves the request. An operation may do without waiting, so that the pieces
//! of a response are collected while more are available.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::tls::TlsStream;
use crate::net::socket::{self, ReadTimeout};
use crate::net::wait::{self, CallContext, WaitError};

/// How long a read waits for the upstream alone before it watches the client too, which costs another
/// system call. Tokens usually come faster.
const UNWATCHED_WAIT: Duration = Duration::from_millis(100);
/// The most bytes before the head of a response is complete: interim responses (1xx) and the head itself.
/// Without a limit, endless interim responses would occupy a worker for ever.
const MAX_BYTES_BEFORE_BODY: usize = 256 * 1024;
/// The number of reads after which the client is checked.
///
/// A read blocks for at most 100 ms before it watches the client too, so a client that disconnects is
/// noticed within a second. It is also how much a response may bring before the event loop is handed
/// over, and before its data is passed on, even if the chunks are mostly extensions.
const READS_PER_CLIENT_CHECK: u32 = 8;

/// A stream to the target, or to a proxy on the way to it.
pub(super) enum Stream {
    Plain(Tcp),
    Tls(Box<TlsStream>),
}

/// How long one operation may wait.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wait {
    Never,
    For(Duration),
    Until(Instant),
}

impl Wait {
    /// How long to wait from now on; `None`: not at all.
    fn left(self) -> Option<Duration> {
        match self {
            Wait::Never => None,
            Wait::For(duration) => Some(duration),
            Wait::Until(deadline) => Some(deadline.saturating_duration_since(Instant::now())),
        }
    }
}

impl Stream {
    /// Reads what has arrived; `Some(0)` is the end of the stream. `None`: nothing has arrived, or with
    /// [`Wait::Never`] it is time to pass on what was read.
    ///
    /// # Errors
    /// The time has passed, the client disconnects, or the stream fails.
    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        wait: Wait,
        call: CallContext<'_>,
    ) -> Result<Option<usize>, WaitError> {
        match self {
            Stream::Plain(tcp) => tcp.read(buffer, wait, call),
            Stream::Tls(tls) => tls.read(buffer, wait, call),
        }
    }

    /// Writes as much of `pieces` as is taken at once; none of them: what was written before. Returns how
    /// much; `None`: nothing was taken in the time. An upstream that has closed takes everything, since its
    /// response may have arrived all the same; if there is none, the next read fails.
    ///
    /// # Errors
    /// The client disconnects, or TLS fails.
    pub(super) fn write(
        &mut self,
        pieces: &[IoSlice<'_>],
        wait: Wait,
        call: CallContext<'_>,
    ) -> Result<Option<usize>, WaitError> {
        match self {
            Stream::Plain(tcp) => tcp.write(pieces, wait, call),
            Stream::Tls(tls) => tls.write(pieces, wait, call),
        }
    }

    /// Whether the stream is open and has no received bytes: they would be read as the next response.
    pub(super) fn is_idle_and_open(&mut self) -> bool {
        match self {
            Stream::Plain(tcp) => !tcp.drops_output && socket::is_idle_and_open(&tcp.socket),
            Stream::Tls(tls) => tls.is_idle_and_open(),
        }
    }

    /// The TCP connection below.
    pub(super) fn tcp(&mut self) -> &mut Tcp {
        match self {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => tls.below.tcp(),
        }
    }
}

/// A TCP connection to the target or a proxy.
pub(super) struct Tcp {
    socket: Arc<TcpStream>,
    /// How long connecting took.
    connected_in: Duration,
    read_timeout: ReadTimeout,
    /// Whether the last read took everything that had arrived.
    is_drained: bool,
    /// Reads since the exchange began.
    reads: u32,
    /// Bytes received since the exchange began; `None`: the head of its response is complete.
    bytes_before_body: Option<usize>,
    /// Bytes that the socket took; the number may wrap.
    taken: u64,
    /// The upstream takes no more: what is written is dropped.
    drops_output: bool,
}

impl Tcp {
    /// # Errors
    /// The error of the operating system.
    pub(super) fn new(socket: TcpStream, connected_in: Duration) -> io::Result<Tcp> {
        Ok(Tcp {
            connected_in,
            read_timeout: ReadTimeout::set(&socket, UNWATCHED_WAIT)?,
            socket: Arc::new(socket),
            is_drained: false,
            reads: 0,
            bytes_before_body: Some(0),
            taken: 0,
            drops_output: false,
        })
    }

    pub(super) fn socket(&self) -> &Arc<TcpStream> {
        &self.socket
    }

    /// How long connecting took, without resolving, a proxy's tunnel and TLS.
    pub(super) fn connected_in(&self) -> Duration {
        self.connected_in
    }

    /// Begins an exchange.
    pub(super) fn begin_exchange(&mut self) {
        self.is_drained = false;
        self.reads = 0;
        self.bytes_before_body = Some(0);
    }

    /// Notes that the head of the final response is complete.
    pub(super) fn end_head(&mut self) {
        self.bytes_before_body = None;
    }

    /// Drops what is still written: the response has come before the request was sent.
    pub(super) fn drop_output(&mut self) {
        self.drops_output = true;
    }

    /// A number that changes with every byte that the socket takes.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether the upstream has taken less than the whole request.
    pub(super) fn drops_output(&self) -> bool {
        self.drops_output
    }

    fn read(
        &mut self,
        buffer: &mut [u8],
        wait: Wait,
        call: CallContext<'_>,
    ) -> Result<Option<usize>, WaitError> {
        let length = if let Some(timeout) = wait.left() {
            socket::read(&self.socket, buffer, self.read_timeout, timeout, call)?
        } else {
            // A read that did not fill its buffer has drained the socket.
            if std::mem::take(&mut self.is_drained) || self.must_pass_on() {
                return Ok(None);
            }
            match socket::try_read(&self.socket, buffer).map_err(WaitError::Io)? {
                Some(length) => length,
                None => return Ok(None),
            }
        };
        self.count_read(length, call)?;
        self.is_drained = length > 0 && length < buffer.len();
        Ok(Some(length))
    }

    /// Counts a read that returned `length` bytes.
    ///
    /// # Errors
    /// Too many bytes came before the head was complete, or the client has disconnected.
    fn count_read(&mut self, length: usize, call: CallContext<'_>) -> Result<(), WaitError> {
        self.reads = self.reads.wrapping_add(1);
        let mut is_check_due = self.reads.is_multiple_of(READS_PER_CLIENT_CHECK);
        if is_check_due {
            call.before_blocking();
        }
        if let Some(bytes) = &mut self.bytes_before_body {
            // While bytes keep coming there is no wait that would notice the client.
            is_check_due |= *bytes > 0;
            *bytes += length;
            if *bytes > MAX_BYTES_BEFORE_BODY {
                let message = "over 256 KiB came before the head of a response was complete";
                return Err(WaitError::Io(io::Error::other(message)));
            }
        }
        if is_check_due && call.has_client_closed() {
            return Err(WaitError::ClientClosed);
        }
        Ok(())
    }

    /// Whether the received data must be passed on now, before another read that does not wait.
    fn must_pass_on(&self) -> bool {
        self.reads % READS_PER_CLIENT_CHECK == READS_PER_CLIENT_CHECK - 1
    }

    fn write(
        &mut self,
        pieces: &[IoSlice<'_>],
        wait: Wait,
        call: CallContext<'_>,
    ) -> Result<Option<usize>, WaitError> {
        let all = pieces.iter().map(|piece| piece.len()).sum();
        if self.drops_output || all == 0 {
            return Ok(Some(all));
        }
        let deadline = wait.left().map(|timeout| Instant::now() + timeout);
        let error = loop {
            match (socket::try_write_vectored(&self.socket, pieces), deadline) {
                (Ok(Some(length)), _) => {
                    self.taken = self.taken.wrapping_add(length as u64);
                    return Ok(Some(length));
                }
                (Ok(None), None) => return Ok(None),
                (Ok(None), Some(deadline)) => {
                    match wait::wait(&self.socket, PollFlags::OUT, deadline, call) {
                        Ok(()) => {}
                        Err(WaitError::TimedOut) => return Ok(None),
                        Err(WaitError::ClientClosed) => return Err(WaitError::ClientClosed),
                        Err(WaitError::Io(error)) => break error,
                    }
                }
                (Err(error), _) => break error,
            }
        };
        // An upstream that rejects a body early closes its receiving side.
        log::debug!("the upstream takes no more of a request: {error}");
        self.drops_output = true;
        Ok(Some(all))
    }
}

/// A stream as `std::io` knows it, for operations that wait in the same way.
pub(super) struct StreamIo<'a> {
    stream: &'a mut Stream,
    wait: Wait,
    call: CallContext<'a>,
    /// Why the last operation failed, which an `io::Error` cannot tell.
    failure: Option<WaitError>,
}

impl<'a> StreamIo<'a> {
    pub(super) fn new(stream: &'a mut Stream, wait: Wait, call: CallContext<'a>) -> StreamIo<'a> {
        StreamIo {
            stream,
            wait,
            call,
            failure: None,
        }
    }

    /// Says why an operation has failed that returned `error`.
    pub(super) fn failure(&mut self, error: io::Error) -> WaitError {
        self.failure.take().unwrap_or(WaitError::Io(error))
    }

    fn result(&mut self, result: Result<Option<usize>, WaitError>) -> io::Result<usize> {
        match result {
            Ok(Some(length)) => Ok(length),
            Ok(None) => Err(io::ErrorKind::WouldBlock.into()),
            Err(failure) => {
                self.failure = Some(failure);
                Err(io::Error::other("the stream has failed"))
            }
        }
    }
}

impl Read for StreamIo<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer, self.wait, self.call);
        self.result(read)
    }
}

impl Write for StreamIo<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = self.stream.write(pieces, self.wait, self.call);
        self.result(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_vectored(&[]).map(drop)
    }
}
