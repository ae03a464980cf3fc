//! Waiting for one socket while watching another, and the right to lead an event loop.
//!
//! A worker that waits for the upstream also watches the client: a client that disconnects ends the wait
//! ([`WaitError::ClientClosed`]), so that no tokens are generated for nobody. A thread that leads an
//! event loop hands it over before it waits ([`before_blocking`]).
//!
//! Called by the workers, on sockets that they own at that moment. The waits that many connections share
//! are in the server's event loops.

use std::cell::RefCell;
use std::io;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// Why a read or write could not go on.
#[derive(Debug)]
pub enum WaitError {
    /// Nothing moved until the deadline.
    TimedOut,
    /// The client disconnected while the other socket was waited for.
    ClientClosed,
    /// The socket itself failed.
    Io(io::Error),
}

impl From<Errno> for WaitError {
    fn from(errno: Errno) -> Self {
        WaitError::Io(errno.into())
    }
}

/// The calling thread's right to lead an event loop. Other connections wait while it blocks.
pub trait Leadership {
    fn is_leading(&self) -> bool;

    /// Hands the event loop to another thread; does nothing where the thread does not lead.
    fn hand_over(&self);
}

thread_local! {
    static LEADERSHIP: RefCell<Option<Rc<dyn Leadership>>> = const { RefCell::new(None) };
}

/// Sets what [`is_leading`] and [`before_blocking`] ask, for the rest of the thread's life.
pub fn set_leadership(leadership: Rc<dyn Leadership>) {
    LEADERSHIP.with_borrow_mut(|own| *own = Some(leadership));
}

/// Whether the calling thread leads an event loop, so that it should not block.
pub fn is_leading() -> bool {
    LEADERSHIP.with_borrow(|own| own.as_ref().is_some_and(|own| own.is_leading()))
}

/// Hands the event loop to another thread. Call this before blocking and before any long computation.
pub fn before_blocking() {
    if let Some(leadership) = LEADERSHIP.with_borrow(Clone::clone) {
        leadership.hand_over();
    }
}

/// Returns the client to watch during a wait, if there is one. Most reads and writes need not wait, so
/// it is asked only then.
pub type Watched<'w> = &'w dyn Fn() -> Option<Arc<TcpStream>>;

/// A wait that no client's departure ends.
pub const UNWATCHED: Watched<'static> = &|| None;

/// How one read waits.
#[derive(Clone, Copy)]
pub struct WaitOptions<'w> {
    pub timeout: Duration,
    pub watched: Watched<'w>,
}

/// Waits until `socket` is ready for `interest`.
///
/// # Errors
/// The deadline passed, the watched client closed, or the socket failed.
pub fn wait(
    socket: &TcpStream,
    interest: PollFlags,
    deadline: Instant,
    watched: Option<&TcpStream>,
) -> Result<(), WaitError> {
    let mut watched = watched;
    if Instant::now() < deadline {
        before_blocking();
    }
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let first = PollFd::new(socket, interest);
        // An array of one or two: every request waits here, and this allocates nothing.
        let (socket_events, watched_events) = match watched {
            Some(other) => {
                let mut both = [first, PollFd::new(other, CLOSED)];
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

/// What `poll` reports about a peer that closes: Linux tells it from bytes that arrive.
#[cfg(target_os = "linux")]
const CLOSED: PollFlags = PollFlags::RDHUP;
#[cfg(not(target_os = "linux"))]
const CLOSED: PollFlags = PollFlags::IN;

/// Whether the peer has closed its sending side or the whole connection. Never blocks.
pub fn peer_closed(socket: &TcpStream) -> bool {
    let mut look = [PollFd::new(socket, CLOSED)];
    match poll(&mut look, Some(&Timespec::default())) {
        Ok(_) => {}
        Err(_) => return false,
    }
    let events = look[0].revents();
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

fn poll_until(fds: &mut [PollFd<'_>], left: Duration) -> Result<(), WaitError> {
    let timeout = timespec(left);
    match poll(fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Converts a `Duration` for `poll`; one that the type cannot express becomes 68 years.
pub fn timespec(duration: Duration) -> Timespec {
    Timespec::try_from(duration).unwrap_or(Timespec {
        tv_sec: i64::from(i32::MAX),
        tv_nsec: 0,
    })
}
