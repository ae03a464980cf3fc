//! The sockets under ureq: our own transport, so that a wait for the upstream also sees the client.
//!
//! ureq's own TCP transport blocks in a read until the upstream speaks, whoever has left meanwhile.
//! This one waits in [`crate::net::socket`], which watches the client too; it tells why a call was given
//! up; and it can look without waiting, so that an answer's pieces gather while more is there.
//!
//! Written against ureq 3.5's `unversioned::transport`, which may change in a minor version.

use std::fmt;
use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, NextTimeout, Transport,
};

use super::buffers::TransportBuffers;
use super::connect::{connect_any, resolve};
use crate::net::socket::{self, ReadTimeout};
use crate::net::wait::{self, WaitError, WaitOptions};

/// What a worker and its upstream connections tell each other. One call at a time.
#[derive(Debug, Default)]
pub(super) struct CallState {
    /// The client that waits for the answer of this call, or waited for the last one's.
    client: Mutex<Weak<TcpStream>>,
    /// The socket of the connection that was made last, as long as there is one.
    upstream: Mutex<Weak<TcpStream>>,
    /// Whether reads wait: [`Mode`].
    mode: AtomicU8,
    /// What ended the call, as far as the sockets know: [`Fault`].
    stop_reason: AtomicU8,
    /// Reads of the call so far.
    reads: AtomicU32,
    /// Bytes that arrived since the call began; [`HEAD_IS_WHOLE`] once the answer's head is here.
    head_bytes: AtomicU32,
}

/// No more bytes are counted.
const HEAD_IS_WHOLE: u32 = u32::MAX;
/// What may arrive before an answer's head is whole, in bytes: handshakes, interim answers (1xx) and
/// the head. Otherwise interim answers without end would hold a worker for ever.
const MAX_BEFORE_BODY: u32 = 256 * 1024;

/// After so many reads the client is looked at. None of them waits for longer than [`BLIND_WAIT`]
/// without a look, so a client that left is seen within a second. It is also how much an answer may
/// bring before it is work for a thread of its own, and before what has come of it goes out, however
/// little that is: of an answer whose chunks are mostly extensions.
const READS_PER_LOOK: u32 = 8;

/// Whether a read of the answer waits for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum ReadMode {
    Wait,
    Look,
}

/// Why the sockets gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum StopReason {
    None,
    ClientClosed,
    TimedOut,
}

impl CallState {
    /// From now on `client` waits for the answers.
    pub(super) fn set_client(&self, client: Weak<TcpStream>) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }

    /// A call begins.
    pub(super) fn begin(&self) {
        self.mode.store(ReadMode::Wait as u8, Ordering::Relaxed);
        self.stop_reason
            .store(StopReason::None as u8, Ordering::Relaxed);
        self.head_bytes.store(0, Ordering::Relaxed);
        self.reads.store(0, Ordering::Relaxed);
    }

    /// The head of the final answer is here.
    pub(super) fn head_is_whole(&self) {
        self.head_bytes.store(HEAD_IS_WHOLE, Ordering::Relaxed);
    }

    fn has_head(&self) -> bool {
        self.head_bytes.load(Ordering::Relaxed) == HEAD_IS_WHOLE
    }

    /// Takes note of bytes that arrived before the head was whole. A client that left is looked for
    /// here too: as long as something arrives there is no wait that would see it.
    fn count_head(&self, arrived: usize) -> Result<(), ureq::Error> {
        let before = self.head_bytes.load(Ordering::Relaxed);
        if before == HEAD_IS_WHOLE {
            return Ok(());
        }
        let total = u32::try_from(arrived).map_or(MAX_BEFORE_BODY, |arrived| before + arrived);
        self.head_bytes.store(total, Ordering::Relaxed);
        if total > MAX_BEFORE_BODY {
            let what = "over 256 KiB came before the head of an answer was whole";
            return Err(ureq::Error::Io(io::Error::other(what)));
        }
        if before > 0
            && self
                .client()
                .is_some_and(|client| wait::peer_closed(&client))
        {
            return Err(self.failed_wait(WaitError::ClientClosed));
        }
        Ok(())
    }

    /// Takes note of a read that brought something. An answer whose pieces come quickly never waits
    /// long enough for the wait to see that the client has shut its side down, so it is looked at
    /// now and then.
    fn count_read(&self) -> Result<(), ureq::Error> {
        let reads = self.reads.load(Ordering::Relaxed).wrapping_add(1);
        self.reads.store(reads, Ordering::Relaxed);
        let is_time = reads.is_multiple_of(READS_PER_LOOK);
        if is_time {
            wait::before_blocking();
        }
        if is_time
            && self
                .client()
                .is_some_and(|client| wait::peer_closed(&client))
        {
            return Err(self.failed_wait(WaitError::ClientClosed));
        }
        Ok(())
    }

    pub(super) fn set_mode(&self, mode: ReadMode) {
        self.mode.store(mode as u8, Ordering::Relaxed);
    }

    pub(super) fn stop_reason(&self) -> StopReason {
        match self.stop_reason.load(Ordering::Relaxed) {
            stop_reason if stop_reason == StopReason::ClientClosed as u8 => {
                StopReason::ClientClosed
            }
            stop_reason if stop_reason == StopReason::TimedOut as u8 => StopReason::TimedOut,
            _ => StopReason::None,
        }
    }

    /// Whether it is time to send on what has come, instead of looking for more.
    fn has_looked_often(&self) -> bool {
        let reads = self.reads.load(Ordering::Relaxed);
        reads % READS_PER_LOOK == READS_PER_LOOK - 1
    }

    fn looks_only(&self) -> bool {
        self.mode.load(Ordering::Relaxed) == ReadMode::Look as u8
    }

    /// The socket on which the answer comes.
    pub(super) fn upstream(&self) -> Weak<TcpStream> {
        Weak::clone(&self.upstream.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn client(&self) -> Option<Arc<TcpStream>> {
        self.client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .upgrade()
    }

    /// Notes why a socket gave up, and says it in ureq's terms.
    pub(super) fn failed_wait(&self, stall: WaitError) -> ureq::Error {
        let (stop_reason, error) = match stall {
            WaitError::TimedOut => (StopReason::TimedOut, io::ErrorKind::TimedOut.into()),
            WaitError::ClientClosed => (
                StopReason::ClientClosed,
                io::Error::other("the client left"),
            ),
            WaitError::Io(error) => return ureq::Error::Io(error),
        };
        self.stop_reason.store(stop_reason as u8, Ordering::Relaxed);
        ureq::Error::Io(error)
    }
}

/// ureq's connectors want the addresses beforehand. This resolver leaves it to
/// [`TcpTransport::connect`], which can be cancelled.
#[derive(Debug)]
pub(super) struct LateResolver;

impl Resolver for LateResolver {
    fn resolve(
        &self,
        _uri: &Uri,
        _config: &Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}

/// Makes TCP connections that can be cancelled.
#[derive(Debug)]
pub(super) struct Tcp {
    pub(super) call: Arc<CallState>,
}

impl<In: Transport> Connector<In> for Tcp {
    type Out = Either<In, TcpTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        if chained.is_some() {
            // A SOCKS or CONNECT proxy has made the connection.
            return Ok(chained.map(Either::A));
        }
        TcpTransport::connect(details.uri, details, &self.call).map(|made| Some(Either::B(made)))
    }
}

impl TcpTransport {
    /// Connects to the host of `uri`: the target, or a proxy before it.
    pub(super) fn connect(
        uri: &Uri,
        details: &ConnectionDetails,
        call: &Arc<CallState>,
    ) -> Result<TcpTransport, ureq::Error> {
        let deadline = Instant::now() + longest(details.timeout);
        let addresses = resolve(uri, deadline, call)?;
        let socket = Arc::new(connect_any(&addresses, deadline, call)?);
        *call.upstream.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&socket);
        let (input, output) = (
            details.config.input_buffer_size(),
            details.config.output_buffer_size(),
        );
        Ok(TcpTransport {
            call: Arc::clone(call),
            buffers: TransportBuffers::new(input, output),
            read_timeout: ReadTimeout::set(&socket, BLIND_WAIT).map_err(ureq::Error::Io)?,
            socket,
            is_emptied: false,
            writes: Writes::Taken,
        })
    }
}

/// How long the upstream is waited for before the client is watched too. Tokens come faster.
const BLIND_WAIT: Duration = Duration::from_millis(100);

/// How long a wait of ureq's may take.
fn longest(timeout: NextTimeout) -> Duration {
    /// As good as for ever, and not so far that a clock overflows.
    const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
    (*timeout.after).min(FAR)
}

/// A TCP connection to the upstream, or to a proxy before it.
pub(super) struct TcpTransport {
    socket: Arc<TcpStream>,
    call: Arc<CallState>,
    buffers: TransportBuffers,
    read_timeout: ReadTimeout,
    /// The last read left nothing in the socket, as far as is known.
    is_emptied: bool,
    writes: Writes,
}

/// Whether the upstream takes what is sent to it. If not, it may have answered all the same: what
/// is still to be sent is dropped, and reading tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writes {
    Taken,
    Refused,
    /// It has had its time, so its answer must be here already.
    TimedOut,
}

impl Transport for TcpTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        // rustls takes the error of a write for its own and offers the same record once more.
        match self.call.stop_reason() {
            StopReason::None if self.writes != Writes::Taken => return Ok(()),
            StopReason::None => {}
            StopReason::TimedOut => return Err(self.call.failed_wait(WaitError::TimedOut)),
            StopReason::ClientClosed => return Err(self.call.failed_wait(WaitError::ClientClosed)),
        }
        let stall = longest(timeout.for_write());
        let bytes = &self.buffers.output[..amount];
        match socket::write_all(&self.socket, bytes, stall, &|| self.call.client()) {
            Ok(()) => Ok(()),
            // It closed its receiving side, which an upstream does that refuses a body before it
            // has all of it: the answer is what counts, and reading tells if there is none.
            Err(WaitError::Io(_)) => {
                self.writes = Writes::Refused;
                Ok(())
            }
            // It reads no more, but has said something.
            Err(WaitError::TimedOut) if !socket::is_idle_and_open(&self.socket) => {
                self.writes = Writes::TimedOut;
                Ok(())
            }
            Err(stall) => Err(self.call.failed_wait(stall)),
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let TcpTransport {
            socket,
            call,
            buffers,
            read_timeout,
            is_emptied,
            writes,
        } = self;
        let space = buffers.space()?;
        let room = space.len();
        let arrived = if call.looks_only() {
            // A read that did not fill its buffer has emptied the socket.
            if std::mem::replace(is_emptied, false) || call.has_looked_often() {
                return Err(ureq::Error::Io(io::ErrorKind::WouldBlock.into()));
            }
            match socket::try_read(socket, space) {
                Ok(Some(arrived)) => Ok(arrived),
                Ok(None) => return Err(ureq::Error::Io(io::ErrorKind::WouldBlock.into())),
                Err(error) => Err(WaitError::Io(error)),
            }
        } else {
            let longest = match writes {
                Writes::TimedOut if !call.has_head() => Duration::ZERO,
                _ => longest(timeout.for_read()),
            };
            let how = WaitOptions {
                timeout: longest,
                watched: &|| call.client(),
            };
            socket::read(socket, space, *read_timeout, how)
        };
        let arrived = arrived.map_err(|stall| call.failed_wait(stall))?;
        call.count_head(arrived)?;
        call.count_read()?;
        *is_emptied = arrived > 0 && arrived < room;
        buffers.input_appended(arrived);
        Ok(arrived > 0)
    }

    fn is_open(&mut self) -> bool {
        self.writes == Writes::Taken && socket::is_idle_and_open(&self.socket)
    }
}

impl fmt::Debug for TcpTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TcpTransport")
            .field("socket", &self.socket)
            .finish()
    }
}
