//! The state of one call to the upstream, shared by the connection and the transports below it.
//!
//! ureq passes no context to a transport, so the client to watch and the reason why a call stopped are
//! kept here. One call at a time. Only the thread that makes the call uses its state.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::net::wait::{self, WaitError};

/// The client to watch, and what has happened in the call. Atomics and locks are only needed because
/// ureq's traits require `Sync`.
#[derive(Debug, Default)]
pub(super) struct CallState {
    /// The client of the current call, or of the last one.
    client: Mutex<Weak<TcpStream>>,
    /// The socket of the newest connection, while it is open.
    upstream: Mutex<Weak<TcpStream>>,
    /// A [`ReadMode`].
    read_mode: AtomicU8,
    /// A [`StopReason`].
    stop_reason: AtomicU8,
    /// Whether something has been sent on the newest connection since [`CallState::begin_request`].
    has_sent: AtomicBool,
    /// The number of reads in the call.
    reads: AtomicU32,
    /// Bytes received in the call; [`HEAD_RECEIVED`] once the head of the response is complete.
    head_bytes: AtomicU32,
}

/// The value of `head_bytes` when nothing more is counted.
const HEAD_RECEIVED: u32 = u32::MAX;
/// The most bytes before the head of a response is complete: handshakes, interim responses (1xx) and
/// the head itself. Without a limit, endless interim responses would occupy a worker for ever.
const MAX_BYTES_BEFORE_BODY: u32 = 256 * 1024;

/// The number of reads after which the client is checked.
///
/// A read blocks for at most 100 ms before it watches the client too, so a client that disconnects is
/// noticed within a second. It is also how much a response may bring before the event loop is handed
/// over, and before its data is passed on, even if the chunks are mostly extensions.
const READS_PER_CLIENT_CHECK: u32 = 8;

/// Whether a read of the response waits for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum ReadMode {
    Blocking,
    NonBlocking,
}

/// Why the call stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum StopReason {
    /// It has not stopped, or its socket failed.
    None,
    ClientClosed,
    TimedOut,
}

impl CallState {
    /// Sets the client that is watched from now on.
    pub(super) fn set_client(&self, client: Weak<TcpStream>) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }

    /// Returns the client to watch, if it is still there.
    pub(super) fn client(&self) -> Option<Arc<TcpStream>> {
        self.client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .upgrade()
    }

    /// Whether the client has disconnected.
    pub(super) fn has_client_closed(&self) -> bool {
        self.client()
            .is_some_and(|client| wait::peer_closed(&client))
    }

    /// Sets the socket of a new connection.
    pub(super) fn set_upstream(&self, socket: Weak<TcpStream>) {
        *self.upstream.lock().unwrap_or_else(PoisonError::into_inner) = socket;
    }

    /// Returns the socket of the newest connection.
    pub(super) fn upstream(&self) -> Weak<TcpStream> {
        Weak::clone(&self.upstream.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Begins a call: resets everything but the client and the socket.
    pub(super) fn begin(&self) {
        self.set_read_mode(ReadMode::Blocking);
        self.set_stop_reason(StopReason::None);
        self.head_bytes.store(0, Ordering::Relaxed);
        self.reads.store(0, Ordering::Relaxed);
    }

    /// Notes that the request is sent from now on: what was sent before belongs to a handshake.
    pub(super) fn begin_request(&self) {
        self.has_sent.store(false, Ordering::Relaxed);
    }

    pub(super) fn set_sent(&self) {
        self.has_sent.store(true, Ordering::Relaxed);
    }

    /// Whether the request, or its beginning, has been sent. The upstream may work on it from then on.
    pub(super) fn has_sent(&self) -> bool {
        self.has_sent.load(Ordering::Relaxed)
    }

    pub(super) fn set_read_mode(&self, mode: ReadMode) {
        self.read_mode.store(mode as u8, Ordering::Relaxed);
    }

    pub(super) fn is_non_blocking(&self) -> bool {
        self.read_mode.load(Ordering::Relaxed) == ReadMode::NonBlocking as u8
    }

    /// Notes that the head of the final response is complete.
    pub(super) fn set_head_received(&self) {
        self.head_bytes.store(HEAD_RECEIVED, Ordering::Relaxed);
    }

    pub(super) fn is_head_received(&self) -> bool {
        self.head_bytes.load(Ordering::Relaxed) == HEAD_RECEIVED
    }

    /// Counts a read that returned `length` bytes.
    ///
    /// # Errors
    /// Too many bytes came before the head was complete, or the client has disconnected.
    pub(super) fn count_read(&self, length: usize) -> Result<(), ureq::Error> {
        self.count_head_bytes(length)?;
        let reads = self.reads.load(Ordering::Relaxed).wrapping_add(1);
        self.reads.store(reads, Ordering::Relaxed);
        if reads.is_multiple_of(READS_PER_CLIENT_CHECK) {
            wait::before_blocking();
            // A response whose pieces come quickly never waits, so no wait notices the client.
            if self.has_client_closed() {
                return Err(self.stop(WaitError::ClientClosed));
            }
        }
        Ok(())
    }

    fn count_head_bytes(&self, length: usize) -> Result<(), ureq::Error> {
        let before = self.head_bytes.load(Ordering::Relaxed);
        if before == HEAD_RECEIVED {
            return Ok(());
        }
        let total = u32::try_from(length).map_or(MAX_BYTES_BEFORE_BODY, |length| before + length);
        self.head_bytes.store(total, Ordering::Relaxed);
        if total > MAX_BYTES_BEFORE_BODY {
            let message = "over 256 KiB came before the head of a response was complete";
            return Err(ureq::Error::Io(io::Error::other(message)));
        }
        // While bytes keep coming there is no wait that would notice the client.
        if before > 0 && self.has_client_closed() {
            return Err(self.stop(WaitError::ClientClosed));
        }
        Ok(())
    }

    /// Whether the received data must be passed on now, before another non-blocking read.
    pub(super) fn must_pass_on(&self) -> bool {
        let reads = self.reads.load(Ordering::Relaxed);
        reads % READS_PER_CLIENT_CHECK == READS_PER_CLIENT_CHECK - 1
    }

    pub(super) fn stop_reason(&self) -> StopReason {
        match self.stop_reason.load(Ordering::Relaxed) {
            reason if reason == StopReason::ClientClosed as u8 => StopReason::ClientClosed,
            reason if reason == StopReason::TimedOut as u8 => StopReason::TimedOut,
            _ => StopReason::None,
        }
    }

    /// Forgets why a wait stopped: the call goes on.
    pub(super) fn clear_stop_reason(&self) {
        self.set_stop_reason(StopReason::None);
    }

    fn set_stop_reason(&self, reason: StopReason) {
        self.stop_reason.store(reason as u8, Ordering::Relaxed);
    }

    /// Stores why the call stopped, and returns it as an error for ureq.
    pub(super) fn stop(&self, error: WaitError) -> ureq::Error {
        let (reason, error) = match error {
            WaitError::TimedOut => (StopReason::TimedOut, io::ErrorKind::TimedOut.into()),
            WaitError::ClientClosed => (
                StopReason::ClientClosed,
                io::Error::other("the client disconnected"),
            ),
            WaitError::Io(error) => return ureq::Error::Io(error),
        };
        self.set_stop_reason(reason);
        ureq::Error::Io(error)
    }
}
