//! The one place where a thread waits for one socket, used for both sides; the waits that many share
//! are in [`crate::server`], in its lanes.
//!
//! While a worker waits for one side it watches the other: a client that leaves ends the wait for
//! its upstream ([`Stall::WatchedLeft`]), so that nobody pays for an answer that nobody reads.
//!
//! A wait is a plain read that blocks for a moment, one system call, and a `poll` of both sockets
//! where it takes longer. A thread on which others depend ([`Turn`]) lets somebody else take its
//! place before it waits.
//!
//! Out of scope: what the bytes mean. Called by the workers, on sockets that they own for the moment.

use std::cell::RefCell;
use std::io;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// Why a read or write could not go on.
#[derive(Debug)]
pub enum WaitError {
    /// Nothing moved until the deadline.
    TimedOut,
    /// The watched socket's peer closed while we waited for this one.
    ClientClosed,
    /// The socket itself failed.
    Io(io::Error),
}

impl From<Errno> for WaitError {
    fn from(errno: Errno) -> Self {
        WaitError::Io(errno.into())
    }
}

/// What the calling thread does for others beside its own work, and cannot do while it waits.
pub trait Leadership {
    /// Whether it is at it.
    fn is_leading_now(&self) -> bool;

    /// Lets somebody else do it from now on. Nothing happens where it is not held.
    fn hand_over(&self);
}

thread_local! {
    static LEADERSHIP: RefCell<Option<Rc<dyn Leadership>>> = const { RefCell::new(None) };
}

/// Makes `turn` the calling thread's own, for as long as the thread lives.
pub fn set_leadership(turn: Rc<dyn Leadership>) {
    LEADERSHIP.with_borrow_mut(|own| *own = Some(turn));
}

/// Whether others depend on the calling thread, so that it should not wait for anybody.
pub fn is_leading() -> bool {
    LEADERSHIP.with_borrow(|turn| turn.as_ref().is_some_and(|turn| turn.is_leading_now()))
}

/// To be called before the calling thread waits, or works for long.
pub fn before_blocking() {
    if let Some(turn) = LEADERSHIP.with_borrow(Clone::clone) {
        turn.hand_over();
    }
}

/// Tells whose leaving ends a wait, if anybody's does. Asked where there is one: most reads and writes
/// need not wait.
pub type Watched<'w> = &'w dyn Fn() -> Option<Arc<TcpStream>>;

/// A wait that nobody's leaving ends.
pub const UNWATCHED: Watched<'static> = &|| None;

/// How one read waits.
#[derive(Clone, Copy)]
pub struct WaitOptions<'w> {
    /// How long at most.
    pub longest: Duration,
    pub watched: Watched<'w>,
}

/// How long a plain read of a socket blocks before both sides are watched.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadTimeout {
    /// Zero: not at all.
    blocks_for: Duration,
}

impl ReadTimeout {
    /// For a `socket` whose reads shall block for `blocks_for` before both sides are watched. That
    /// is also how much later than at once a client that left is noticed, and how far a read may
    /// overshoot its deadline.
    ///
    /// # Errors
    /// The socket refuses its read timeout.
    pub fn blocking(socket: &TcpStream, blocks_for: Duration) -> io::Result<ReadTimeout> {
        socket.set_read_timeout(Some(blocks_for))?;
        Ok(ReadTimeout { blocks_for })
    }
}

/// Reads what is there now; `Ok(None)` where nothing is. `Ok(Some(0))` is the end of the stream.
pub fn try_read(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((_, length)) => return Ok(Some(length)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Reads at least one byte, or the end of the stream (`Ok(0)`).
///
/// For a caller that has reason to think that nothing is there yet: only a thread that has a
/// [`Turn`] to lose looks before it waits. [`read_now`] is for the others.
pub fn read(
    socket: &TcpStream,
    buffer: &mut [u8],
    read_timeout: ReadTimeout,
    how: WaitOptions<'_>,
) -> Result<usize, WaitError> {
    if is_leading() {
        if let Some(length) = try_read(socket, buffer).map_err(WaitError::Io)? {
            return Ok(length);
        }
        before_blocking();
    }
    let mut left = how.longest;
    if !read_timeout.blocks_for.is_zero() && !left.is_zero() {
        match recv(socket, &mut *buffer, RecvFlags::empty()) {
            Ok((_, length)) => return Ok(length),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        left = left.saturating_sub(read_timeout.blocks_for);
    }
    let deadline = Instant::now() + left;
    let watched = (how.watched)();
    loop {
        wait(socket, PollFlags::IN, deadline, watched.as_deref())?;
        if let Some(length) = try_read(socket, buffer).map_err(WaitError::Io)? {
            return Ok(length);
        }
    }
}

/// Writes all of `bytes`; gives up when the peer takes nothing for `stall`.
pub fn write_all(
    socket: &TcpStream,
    mut bytes: &[u8],
    stall: Duration,
    watched: Watched<'_>,
) -> Result<(), WaitError> {
    while !bytes.is_empty() {
        match send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(Errno::AGAIN) => {
                let deadline = Instant::now() + stall;
                wait(socket, PollFlags::OUT, deadline, watched().as_deref())?;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Writes what fits now, without waiting. For farewells that may be lost.
pub fn try_write(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    Ok(send(
        socket,
        bytes,
        SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
    )?)
}

/// Waits until `socket` is ready for `interest`, or says why not.
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
        // A plain array of one or two: this is the wait of every request, it allocates nothing.
        let (socket_events, watched_events) = match watched {
            Some(other) => {
                let mut both = [first, PollFd::new(other, LEFT)];
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
                // Bytes that wait are a pipelined request, not a client that left.
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

/// What `poll` is asked about a peer that may leave: Linux tells it apart from bytes that arrive.
#[cfg(target_os = "linux")]
const LEFT: PollFlags = PollFlags::RDHUP;
#[cfg(not(target_os = "linux"))]
const LEFT: PollFlags = PollFlags::IN;

/// Whether the peer has closed its sending side, or all of the connection. Never blocks.
pub fn peer_closed(socket: &TcpStream) -> bool {
    let mut look = [PollFd::new(socket, LEFT)];
    match poll(&mut look, Some(&Timespec::default())) {
        Ok(_) => {}
        Err(_) => return false,
    }
    let events = look[0].revents();
    if events.intersects(PollFlags::ERR | PollFlags::HUP) {
        return true;
    }
    if cfg!(target_os = "linux") {
        return events.intersects(LEFT);
    }
    let mut byte = [0];
    let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
    matches!(recv(socket, &mut byte, flags), Ok((_, 0)))
}

/// Looks at what is there now and leaves it there. Returns how many bytes of `buffer` it filled.
pub fn peek(socket: &TcpStream, buffer: &mut [u8]) -> usize {
    let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
    recv(socket, buffer, flags).map_or(0, |(_, length)| length)
}

/// Whether an idle connection is still usable: open, and nothing unasked for has arrived.
pub fn is_idle_and_open(socket: &TcpStream) -> bool {
    let mut byte = [0];
    let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
    matches!(recv(socket, &mut byte, flags), Err(Errno::AGAIN))
}

fn poll_until(fds: &mut [PollFd<'_>], left: Duration) -> Result<(), WaitError> {
    let timeout = timespec(left);
    match poll(fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// A `Duration` as `poll` takes it. More than the type can say is as good as for ever.
pub fn timespec(duration: Duration) -> Timespec {
    Timespec::try_from(duration).unwrap_or(Timespec {
        tv_sec: i64::from(i32::MAX),
        tv_nsec: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::io::Write;
    use std::net::{Shutdown, TcpListener};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        (near, far)
    }

    const SOON: Duration = Duration::from_secs(5);

    fn alone(longest: Duration) -> WaitOptions<'static> {
        WaitOptions {
            longest,
            watched: UNWATCHED,
        }
    }

    fn watching(watched: Watched<'_>) -> WaitOptions<'_> {
        WaitOptions {
            watched,
            ..alone(SOON)
        }
    }

    /// As [`pair`], the near end to be watched.
    fn watched_pair() -> (impl Fn() -> Option<Arc<TcpStream>>, TcpStream) {
        let (near, far) = pair();
        let near = Arc::new(near);
        (move || Some(Arc::clone(&near)), far)
    }

    #[test]
    fn a_read_returns_what_arrives() {
        let (near, mut far) = pair();
        far.write_all(b"hello").unwrap();
        let mut buffer = [0; 16];
        let length = read(&near, &mut buffer, ReadTimeout::default(), alone(SOON)).unwrap();
        assert_eq!(&buffer[..length], b"hello");
    }

    #[test]
    fn a_read_gives_up_at_its_deadline() {
        let (near, _far) = pair();
        let (begun, longest) = (Instant::now(), Duration::from_millis(30));
        let result = read(&near, &mut [0; 4], ReadTimeout::default(), alone(longest));
        assert!(matches!(result, Err(WaitError::TimedOut)));
        assert!(begun.elapsed() >= longest);
    }

    #[test]
    fn a_read_that_blocks_first_keeps_its_deadline_and_its_watch() {
        let (near, mut far) = pair();
        near.set_nonblocking(false).unwrap();
        let read_timeout = ReadTimeout::blocking(&near, Duration::from_millis(20)).unwrap();
        let (begun, longest) = (Instant::now(), Duration::from_millis(60));
        let result = read(&near, &mut [0; 4], read_timeout, alone(longest));
        assert!(matches!(result, Err(WaitError::TimedOut)));
        assert!(begun.elapsed() >= longest);
        let (client, client_far) = watched_pair();
        drop(client_far);
        let result = read(&near, &mut [0; 4], read_timeout, watching(&client));
        assert!(matches!(result, Err(WaitError::ClientClosed)));
        far.write_all(b"late").unwrap();
        let length = read(&near, &mut [0; 4], read_timeout, alone(SOON)).unwrap();
        assert_eq!(length, 4);
    }

    #[test]
    fn a_wait_ends_when_the_watched_peer_leaves() {
        let (near, _far) = pair();
        let (client, client_far) = watched_pair();
        drop(client_far);
        let result = read(
            &near,
            &mut [0; 4],
            ReadTimeout::default(),
            watching(&client),
        );
        assert!(matches!(result, Err(WaitError::ClientClosed)));
    }

    #[test]
    fn bytes_from_the_watched_peer_do_not_end_the_wait() {
        let (near, mut far) = pair();
        let (client, mut client_far) = watched_pair();
        client_far.write_all(b"a pipelined request").unwrap();
        far.write_all(b"answer").unwrap();
        let mut buffer = [0; 16];
        let length = read(
            &near,
            &mut buffer,
            ReadTimeout::default(),
            watching(&client),
        )
        .unwrap();
        assert_eq!(length, 6);
    }

    #[test]
    fn a_peer_that_shuts_down_its_sending_side_counts_as_gone() {
        let (near, far) = pair();
        assert!(!peer_closed(&near));
        far.shutdown(Shutdown::Write).unwrap();
        let deadline = Instant::now() + SOON;
        while !peer_closed(&near) {
            assert!(Instant::now() < deadline, "the close was never seen");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_write_gives_up_on_a_peer_that_reads_nothing() {
        let (near, _far) = pair();
        let flood = vec![0; 64 << 20];
        let result = write_all(&near, &flood, Duration::from_millis(30), UNWATCHED);
        assert!(matches!(result, Err(WaitError::TimedOut)));
    }

    /// Counts how often it was given up.
    #[derive(Default)]
    struct CountedLeadership {
        is_leading_now: Cell<bool>,
        given_up: Cell<u32>,
    }

    impl Leadership for CountedLeadership {
        fn is_leading_now(&self) -> bool {
            self.is_leading_now.get()
        }

        fn hand_over(&self) {
            if self.is_leading_now.replace(false) {
                self.given_up.set(self.given_up.get() + 1);
            }
        }
    }

    #[test]
    fn a_turn_is_given_up_before_a_wait_and_kept_where_bytes_are_there() {
        let turn = Rc::new(CountedLeadership::default());
        turn.is_leading_now.set(true);
        set_leadership(Rc::<CountedLeadership>::clone(&turn));
        let (near, mut far) = pair();
        far.write_all(b"hello").unwrap();
        wait(&near, PollFlags::IN, Instant::now(), None).unwrap();
        let length = read(&near, &mut [0; 16], ReadTimeout::default(), alone(SOON)).unwrap();
        assert_eq!((length, turn.is_leading_now()), (5, true));
        let result = read(
            &near,
            &mut [0; 16],
            ReadTimeout::default(),
            alone(Duration::from_millis(1)),
        );
        assert!(matches!(result, Err(WaitError::TimedOut)));
        assert_eq!((turn.given_up.get(), is_leading()), (1, false));
    }
}
