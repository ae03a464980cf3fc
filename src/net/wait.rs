//! Waiting for one socket while watching another, and the right to lead an event loop.
//!
//! A worker that waits for the upstream also watches the client. A client that disconnects ends the wait
//! ([`WaitError::ClientClosed`]), so that the upstream stops generating tokens that no client will read.
//! A thread that leads an event loop hands it over before it waits. Everything that may wait is passed a
//! [`CallContext`], which knows both.
//!
//! Called by the worker threads, on sockets that they own at that moment. An event loop waits for many
//! connections at once; it has a poller of its own, in `server`.

use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// Why a read or write could not go on.
#[derive(Debug)]
pub enum WaitError {
    /// The socket was not ready before the deadline.
    TimedOut,
    /// The watched client disconnected.
    ClientClosed,
    /// The socket failed.
    Io(io::Error),
}

impl From<Errno> for WaitError {
    fn from(errno: Errno) -> Self {
        WaitError::Io(errno.into())
    }
}

/// The calling thread's right to lead an event loop. A leader that blocks holds up every connection of
/// its event loop.
pub trait Leadership {
    fn is_leading(&self) -> bool;

    /// Hands the event loop to another thread. Does nothing if the thread leads none.
    fn hand_over(&self);
}

/// The leadership of a thread that never leads an event loop.
pub struct NoLeadership;

impl Leadership for NoLeadership {
    fn is_leading(&self) -> bool {
        false
    }

    fn hand_over(&self) {}
}

/// What a call needs that may wait: the leadership of its thread, and the client whose disconnect ends
/// the wait.
#[derive(Clone, Copy)]
pub struct CallContext<'a> {
    leadership: &'a dyn Leadership,
    client: Option<&'a TcpStream>,
}

impl<'a> CallContext<'a> {
    /// The context of a thread that leads no event loop and watches no client.
    pub const UNWATCHED: CallContext<'static> = CallContext {
        leadership: &NoLeadership,
        client: None,
    };

    pub fn new(leadership: &'a dyn Leadership, client: &'a TcpStream) -> CallContext<'a> {
        CallContext {
            leadership,
            client: Some(client),
        }
    }

    /// The same context without a client to watch.
    #[must_use]
    pub fn unwatched(self) -> CallContext<'a> {
        CallContext {
            client: None,
            ..self
        }
    }

    /// Whether the calling thread leads an event loop, so that it should not block.
    pub fn is_leading(&self) -> bool {
        self.leadership.is_leading()
    }

    /// Hands the event loop, if the calling thread leads one, to another thread. Call this before
    /// blocking and before any long computation.
    pub fn before_blocking(&self) {
        self.leadership.hand_over();
    }

    /// Whether the watched client has disconnected.
    pub fn has_client_closed(&self) -> bool {
        self.client.is_some_and(peer_closed)
    }

    /// Waits for the client to disconnect, for `longest` at most.
    ///
    /// # Errors
    /// It has.
    pub fn sleep(&self, longest: Duration) -> Result<(), WaitError> {
        self.before_blocking();
        let started = Instant::now();
        if self
            .client
            .is_some_and(|client| closes_within(client, longest))
        {
            return Err(WaitError::ClientClosed);
        }
        // Off Linux, bytes that arrived end the watching, and would end every further one at once.
        std::thread::sleep(longest.saturating_sub(started.elapsed()));
        Ok(())
    }
}

/// Waits until `socket` is ready for `interest`, while `call`'s client stays. Looks once even if `deadline`
/// has passed.
///
/// # Errors
/// The deadline has passed, the watched client has disconnected, or the socket has failed.
pub fn wait(
    socket: &TcpStream,
    interest: PollFlags,
    deadline: Instant,
    call: CallContext<'_>,
) -> Result<(), WaitError> {
    let mut watched = call.client;
    if Instant::now() < deadline {
        call.before_blocking();
    }
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let first = PollFd::new(socket, interest);
        // Arrays of one or two instead of a vector: every request waits here.
        let (socket_events, watched_events) = match watched {
            Some(client) => {
                let mut both = [first, PollFd::new(client, CLOSED)];
                poll_until(&mut both, left)?;
                (both[0].revents(), both[1].revents())
            }
            None => {
                let mut one = [first];
                poll_until(&mut one, left)?;
                (one[0].revents(), PollFlags::empty())
            }
        };
        if !watched_events.is_empty() {
            match watched.map(peer_closed) {
                Some(true) => return Err(WaitError::ClientClosed),
                // Bytes that arrived are a pipelined request, not a disconnect.
                _ => watched = None,
            }
        }
        if !socket_events.is_empty() {
            return Ok(());
        }
        if left.is_zero() {
            return Err(WaitError::TimedOut);
        }
    }
}

/// Waits until one of `sockets`, which are being connected, has succeeded or failed. Returns its index.
/// Looks once even if `deadline` has passed.
///
/// # Errors
/// As [`wait()`].
pub fn wait_for_any(
    sockets: &[TcpStream],
    deadline: Instant,
    call: CallContext<'_>,
) -> Result<usize, WaitError> {
    let mut watched = call.client;
    call.before_blocking();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let connecting = sockets
            .iter()
            .map(|socket| PollFd::new(socket, PollFlags::OUT));
        let client = watched.map(|client| PollFd::new(client, CLOSED));
        let mut fds: Vec<_> = connecting.chain(client).collect();
        poll_until(&mut fds, left)?;
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        match fds.iter().position(is_ready) {
            Some(index) if index < sockets.len() => return Ok(index),
            Some(_) if watched.is_some_and(peer_closed) => return Err(WaitError::ClientClosed),
            // Bytes that arrived are a pipelined request, not a disconnect.
            Some(_) => watched = None,
            None if left.is_zero() => return Err(WaitError::TimedOut),
            None => {}
        }
    }
}

/// What `poll` reports when a peer closes. Only Linux distinguishes it from bytes that arrive.
#[cfg(target_os = "linux")]
const CLOSED: PollFlags = PollFlags::RDHUP;
#[cfg(not(target_os = "linux"))]
const CLOSED: PollFlags = PollFlags::IN;

/// Whether the peer has closed its sending side or the whole connection. Never blocks.
pub fn peer_closed(socket: &TcpStream) -> bool {
    let mut fds = [PollFd::new(socket, CLOSED)];
    if poll(&mut fds, Some(&Timespec::default())).is_err() {
        return false;
    }
    let events = fds[0].revents();
    if events.intersects(PollFlags::ERR | PollFlags::HUP) {
        return true;
    }
    if cfg!(target_os = "linux") {
        return events.intersects(CLOSED);
    }
    let mut byte = [0];
    let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
    matches!(recv(socket, &mut byte, flags), Ok((_, 0)))
}

/// Waits for `socket`'s peer to close, for `longest` at most. True: it has.
fn closes_within(socket: &TcpStream, longest: Duration) -> bool {
    let mut fds = [PollFd::new(socket, CLOSED)];
    // An error is as good as an end: the caller looks again.
    if poll_until(&mut fds, longest).is_err() {
        return true;
    }
    !fds[0].revents().is_empty() && peer_closed(socket)
}

fn poll_until(fds: &mut [PollFd<'_>], left: Duration) -> Result<(), WaitError> {
    let timeout = timespec(left);
    match poll(fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Converts `duration` for `poll`. One that the type cannot express becomes 68 years.
pub fn timespec(duration: Duration) -> Timespec {
    Timespec::try_from(duration).unwrap_or(Timespec {
        tv_sec: i64::from(i32::MAX),
        tv_nsec: 0,
    })
}
