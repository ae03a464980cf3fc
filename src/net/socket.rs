//! Reads from and writes to a socket of either side, blocking or not.
//!
//! A blocking read is one system call that blocks for a moment, then a [`wait()`] that also watches the
//! client. Called by the worker threads and the accept thread, on sockets that they own at that moment.

use std::io::{self, IoSlice};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};

use super::wait::{CallContext, WaitError, wait};

/// After how much silence the kernel asks whether a peer is still there.
const PROBE_AFTER: Duration = Duration::from_secs(15);
/// How often it asks again.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// How many questions may stay unanswered.
const PROBES: u32 = 3;

/// Lets the kernel end the connection when the peer has vanished without a word: after half a minute of
/// silence, or when it has acknowledged nothing for `unacknowledged` (RFC 5482; Linux counts the time too
/// in which the peer's window stays closed). The probes also keep middleboxes from dropping a connection
/// that is silent while a model thinks. Accepted sockets inherit it from the listening one.
///
/// # Errors
/// The error of the operating system.
pub fn detect_vanished_peer(socket: &socket2::Socket, unacknowledged: Duration) -> io::Result<()> {
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_INTERVAL)
        .with_retries(PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(unacknowledged))?;
    #[cfg(not(target_os = "linux"))]
    let _ = unacknowledged;
    Ok(())
}

/// How long one `recv` of a socket blocks, before the client is watched too: its SO_RCVTIMEO.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadTimeout {
    /// Zero: the first `recv` is skipped.
    blocks_for: Duration,
}

impl ReadTimeout {
    /// Sets the timeout on `socket`. A client that disconnects is noticed this much later, and a read
    /// may exceed its own timeout by this much.
    ///
    /// # Errors
    /// The error of the operating system.
    pub fn set(socket: &TcpStream, blocks_for: Duration) -> io::Result<ReadTimeout> {
        socket.set_read_timeout(Some(blocks_for))?;
        Ok(ReadTimeout { blocks_for })
    }
}

/// Reads what has arrived, without waiting. `Ok(None)`: nothing has arrived. `Ok(Some(0))`: the stream
/// has ended.
///
/// # Errors
/// The error of the socket.
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
/// For a caller that expects nothing to have arrived yet: only a thread that leads an event loop tries
/// [`try_read`] before it waits.
///
/// # Errors
/// The timeout has passed, the watched client has disconnected, or the socket has failed.
pub fn read(
    socket: &TcpStream,
    buffer: &mut [u8],
    read_timeout: ReadTimeout,
    timeout: Duration,
    call: CallContext<'_>,
) -> Result<usize, WaitError> {
    if call.is_leading() {
        if let Some(length) = try_read(socket, buffer).map_err(WaitError::Io)? {
            return Ok(length);
        }
        call.before_blocking();
    }
    let mut left = timeout;
    if !read_timeout.blocks_for.is_zero() && !left.is_zero() {
        match recv(socket, &mut *buffer, RecvFlags::empty()) {
            Ok((_, length)) => return Ok(length),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        left = left.saturating_sub(read_timeout.blocks_for);
    }
    let deadline = Instant::now() + left;
    loop {
        wait(socket, PollFlags::IN, deadline, call)?;
        if let Some(length) = try_read(socket, buffer).map_err(WaitError::Io)? {
            return Ok(length);
        }
    }
}

/// Writes all of `bytes`. Gives up when the peer takes nothing for `stall`.
///
/// # Errors
/// The peer has stalled, the watched client has disconnected, or the socket has failed.
pub fn write_all(
    socket: &TcpStream,
    mut bytes: &[u8],
    stall: Duration,
    call: CallContext<'_>,
) -> Result<(), WaitError> {
    while !bytes.is_empty() {
        match send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(Errno::AGAIN) => {
                let deadline = Instant::now() + stall;
                wait(socket, PollFlags::OUT, deadline, call)?;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Writes as much as fits without waiting. For a last response that may be lost. Returns how much.
///
/// # Errors
/// The error of the socket; `WouldBlock` where nothing fits.
pub fn try_write(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    Ok(send(
        socket,
        bytes,
        SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
    )?)
}

/// Writes as much of `pieces` as fits, in one call. Returns how much; `None`: nothing fits.
///
/// # Errors
/// The error of the socket.
pub fn try_write_vectored(socket: &TcpStream, pieces: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    loop {
        match sendmsg(socket, pieces, &mut SendAncillaryBuffer::default(), flags) {
            Ok(length) => return Ok(Some(length)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Copies bytes that have arrived to `buffer` and leaves them in the socket. Returns how many; 0 also
/// for a stream that has ended or failed.
pub fn peek(socket: &TcpStream, buffer: &mut [u8]) -> usize {
    let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
    recv(socket, buffer, flags).map_or(0, |(_, length)| length)
}

/// Whether an idle connection is usable: it is open, and nothing has arrived on it.
pub fn is_idle_and_open(socket: &TcpStream) -> bool {
    let mut byte = [0];
    let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
    matches!(recv(socket, &mut byte, flags), Err(Errno::AGAIN))
}

#[cfg(test)]
mod tests;
