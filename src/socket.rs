//! The one place where a thread waits for a socket, used for both sides.
//!
//! While a worker waits for one side it watches the other: a client that leaves ends the wait for
//! its upstream ([`Stall::WatchedLeft`]), so that nobody pays for an answer that nobody reads.
//!
//! Waiting is what costs in a thread-pool proxy: each wait is a sleep and a wake-up. So it is done in
//! three steps ([`Patience`]). In a crowd, a reader that has been lucky lately looks a few times and
//! yields the processor in between: the peer's bytes are there by then. Then it blocks in a plain
//! read for a moment, one system call. Only a wait that takes longer is a `poll` of both sockets.
//!
//! Out of scope: what the bytes mean. Called by the workers, on sockets that they own for the moment.

use std::io;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// Why a read or write could not go on.
#[derive(Debug)]
pub enum Stall {
    /// Nothing moved until the deadline.
    TimedOut,
    /// The watched socket's peer closed while we waited for this one.
    WatchedLeft,
    /// The socket itself failed.
    Io(io::Error),
}

impl From<Errno> for Stall {
    fn from(errno: Errno) -> Self {
        Stall::Io(errno.into())
    }
}

/// How one read waits.
#[derive(Debug, Clone, Copy)]
pub struct Wait<'s> {
    /// How long at most.
    pub longest: Duration,
    /// Whose leaving ends the wait.
    pub watched: Option<&'s TcpStream>,
    /// Whether so many threads take turns that looking before a sleep is worth it.
    pub in_crowd: bool,
}

/// How a reader waits for one socket.
///
/// The looks are adaptive: a reader whose looks found nothing skips them for its next waits, twice
/// as many each time, so that a stream that really waits soon costs no extra looks.
#[derive(Debug, Default)]
pub struct Patience {
    /// How long a plain read of the socket blocks; zero: not at all.
    blocks_for: Duration,
    /// Waits that go to sleep at once before the next one looks again.
    skip: u32,
    /// How long `skip` was made the last time that looking found nothing.
    last_skip: u32,
}

/// Looks before a sleep. Eight were measured as the knee: more found hardly anything more.
const LOOKS: u32 = 8;
/// The most waits in a row that a reader without luck goes to sleep at once.
const MAX_SKIP: u32 = 64;

impl Patience {
    /// For a `socket` whose reads shall block for `blocks_for` before both sides are watched. That
    /// is also how much later than at once a client that left is noticed, and how far a read may
    /// overshoot its deadline.
    ///
    /// # Errors
    /// The socket refuses its read timeout.
    pub fn blocking(socket: &TcpStream, blocks_for: Duration) -> io::Result<Patience> {
        socket.set_read_timeout(Some(blocks_for))?;
        Ok(Patience {
            blocks_for,
            ..Patience::default()
        })
    }

    fn looks(&mut self) -> u32 {
        if self.skip > 0 {
            self.skip -= 1;
            return 0;
        }
        LOOKS
    }

    fn found(&mut self) {
        self.last_skip = 0;
    }

    fn found_nothing(&mut self) {
        self.last_skip = (self.last_skip * 2 + 1).min(MAX_SKIP);
        self.skip = self.last_skip;
    }
}

/// Reads what is there now; `Ok(None)` where nothing is. `Ok(Some(0))` is the end of the stream.
pub fn read_now(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
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
/// For a caller that has reason to think that nothing is there yet: looking comes after the first
/// time that the processor was given away, or not at all. [`read_now`] is for the others.
pub fn read(
    socket: &TcpStream,
    buffer: &mut [u8],
    patience: &mut Patience,
    how: Wait<'_>,
) -> Result<usize, Stall> {
    if how.in_crowd
        && let Some(length) = look(socket, buffer, patience)?
    {
        return Ok(length);
    }
    let mut left = how.longest;
    if !patience.blocks_for.is_zero() && !left.is_zero() {
        match recv(socket, &mut *buffer, RecvFlags::empty()) {
            Ok((_, length)) => return Ok(length),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        left = left.saturating_sub(patience.blocks_for);
    }
    let deadline = Instant::now() + left;
    loop {
        wait(socket, PollFlags::IN, deadline, how.watched)?;
        if let Some(length) = read_now(socket, buffer).map_err(Stall::Io)? {
            return Ok(length);
        }
    }
}

/// Looks a few times, if that has been worth it lately.
fn look(
    socket: &TcpStream,
    buffer: &mut [u8],
    patience: &mut Patience,
) -> Result<Option<usize>, Stall> {
    let looks = patience.looks();
    for _ in 0..looks {
        thread::yield_now();
        if let Some(length) = read_now(socket, buffer).map_err(Stall::Io)? {
            patience.found();
            return Ok(Some(length));
        }
    }
    if looks > 0 {
        patience.found_nothing();
    }
    Ok(None)
}

/// Writes all of `bytes`; gives up when the peer takes nothing for `stall`.
pub fn write_all(
    socket: &TcpStream,
    mut bytes: &[u8],
    stall: Duration,
    watched: Option<&TcpStream>,
) -> Result<(), Stall> {
    while !bytes.is_empty() {
        match send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(Errno::AGAIN) => wait(socket, PollFlags::OUT, Instant::now() + stall, watched)?,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Writes what fits now, without waiting. For farewells that may be lost.
pub fn write_now(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
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
) -> Result<(), Stall> {
    let mut watched = watched;
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
            match watched.map(peer_left) {
                Some(true) => return Err(Stall::WatchedLeft),
                // Bytes that wait are a pipelined request, not a client that left.
                _ => watched = None,
            }
        }
        if !socket_events.is_empty() {
            return Ok(());
        }
        if left.is_zero() {
            return Err(Stall::TimedOut);
        }
    }
}

/// What `poll` is asked about a peer that may leave: Linux tells it apart from bytes that arrive.
#[cfg(target_os = "linux")]
const LEFT: PollFlags = PollFlags::RDHUP;
#[cfg(not(target_os = "linux"))]
const LEFT: PollFlags = PollFlags::IN;

/// Whether the peer has closed its sending side, or all of the connection. Never blocks.
pub fn peer_left(socket: &TcpStream) -> bool {
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
pub fn peek_now(socket: &TcpStream, buffer: &mut [u8]) -> usize {
    let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
    recv(socket, buffer, flags).map_or(0, |(_, length)| length)
}

/// Whether an idle connection is still usable: open, and nothing unasked for has arrived.
pub fn is_quiet(socket: &TcpStream) -> bool {
    let mut byte = [0];
    let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
    matches!(recv(socket, &mut byte, flags), Err(Errno::AGAIN))
}

fn poll_until(fds: &mut [PollFd<'_>], left: Duration) -> Result<(), Stall> {
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

    fn alone(longest: Duration) -> Wait<'static> {
        Wait {
            longest,
            watched: None,
            in_crowd: false,
        }
    }

    fn watching(watched: &TcpStream, in_crowd: bool) -> Wait<'_> {
        Wait {
            watched: Some(watched),
            in_crowd,
            ..alone(SOON)
        }
    }

    #[test]
    fn a_read_returns_what_arrives() {
        let (near, mut far) = pair();
        far.write_all(b"hello").unwrap();
        let mut buffer = [0; 16];
        let length = read(&near, &mut buffer, &mut Patience::default(), alone(SOON)).unwrap();
        assert_eq!(&buffer[..length], b"hello");
    }

    #[test]
    fn a_read_gives_up_at_its_deadline() {
        let (near, _far) = pair();
        let (begun, longest) = (Instant::now(), Duration::from_millis(30));
        let result = read(&near, &mut [0; 4], &mut Patience::default(), alone(longest));
        assert!(matches!(result, Err(Stall::TimedOut)));
        assert!(begun.elapsed() >= longest);
    }

    #[test]
    fn a_read_that_blocks_first_keeps_its_deadline_and_its_watch() {
        let (near, mut far) = pair();
        near.set_nonblocking(false).unwrap();
        let mut patience = Patience::blocking(&near, Duration::from_millis(20)).unwrap();
        let (begun, longest) = (Instant::now(), Duration::from_millis(60));
        let result = read(&near, &mut [0; 4], &mut patience, alone(longest));
        assert!(matches!(result, Err(Stall::TimedOut)));
        assert!(begun.elapsed() >= longest);
        let (client, client_far) = pair();
        drop(client_far);
        let result = read(&near, &mut [0; 4], &mut patience, watching(&client, false));
        assert!(matches!(result, Err(Stall::WatchedLeft)));
        far.write_all(b"late").unwrap();
        let length = read(&near, &mut [0; 4], &mut patience, alone(SOON)).unwrap();
        assert_eq!(length, 4);
    }

    #[test]
    fn a_wait_ends_when_the_watched_peer_leaves() {
        let (near, _far) = pair();
        let (client, client_far) = pair();
        drop(client_far);
        let result = read(
            &near,
            &mut [0; 4],
            &mut Patience::default(),
            watching(&client, true),
        );
        assert!(matches!(result, Err(Stall::WatchedLeft)));
    }

    #[test]
    fn bytes_from_the_watched_peer_do_not_end_the_wait() {
        let (near, mut far) = pair();
        let (client, mut client_far) = pair();
        client_far.write_all(b"a pipelined request").unwrap();
        far.write_all(b"answer").unwrap();
        let mut buffer = [0; 16];
        let length = read(
            &near,
            &mut buffer,
            &mut Patience::default(),
            watching(&client, true),
        )
        .unwrap();
        assert_eq!(length, 6);
    }

    #[test]
    fn a_peer_that_shuts_down_its_sending_side_counts_as_gone() {
        let (near, far) = pair();
        assert!(!peer_left(&near));
        far.shutdown(Shutdown::Write).unwrap();
        let deadline = Instant::now() + SOON;
        while !peer_left(&near) {
            assert!(Instant::now() < deadline, "the close was never seen");
            thread::yield_now();
        }
    }

    #[test]
    fn a_write_gives_up_on_a_peer_that_reads_nothing() {
        let (near, _far) = pair();
        let flood = vec![0; 64 << 20];
        let result = write_all(&near, &flood, Duration::from_millis(30), None);
        assert!(matches!(result, Err(Stall::TimedOut)));
    }

    #[test]
    fn looking_in_vain_makes_a_reader_sleep_at_once_for_a_while() {
        let mut patience = Patience::default();
        assert_eq!(patience.looks(), LOOKS);
        patience.found_nothing();
        assert_eq!(patience.looks(), 0);
        assert_eq!(patience.looks(), LOOKS);
        patience.found_nothing();
        assert_eq!(
            [patience.looks(), patience.looks(), patience.looks()],
            [0; 3]
        );
        assert_eq!(patience.looks(), LOOKS);
        patience.found();
        assert_eq!(patience.looks(), LOOKS);
    }
}
