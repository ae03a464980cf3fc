//! Resolves names and opens TCP connections. Both stop if the client disconnects.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::address::localhost_addresses;
use crate::net::socket::detect_vanished_peer;
use crate::net::wait::{self, CallContext, WaitError};

/// How often a thread that waits for the resolver checks the client.
const CLIENT_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// A host and a port, not resolved. Its text is that of CONNECT (RFC 9112 section 3.2.3).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// IPv6 without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Endpoint {
    /// An IPv6 `host` may have its brackets.
    pub(super) fn new(host: &str, port: u16) -> Endpoint {
        Endpoint {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoint { host, port } = self;
        if host.contains(':') {
            write!(formatter, "[{host}]:{port}")
        } else {
            write!(formatter, "{host}:{port}")
        }
    }
}

/// Resolves `endpoint`.
///
/// # Errors
/// The name does not resolve, the deadline passes, or the client disconnects.
pub(super) fn resolve(
    endpoint: &Endpoint,
    deadline: Instant,
    call: CallContext<'_>,
) -> Result<Vec<SocketAddr>, WaitError> {
    let Endpoint { host, port } = endpoint;
    if let Ok(address) = host.parse() {
        return Ok(vec![SocketAddr::new(address, *port)]);
    }
    if let Some(addresses) = localhost_addresses(host, *port) {
        return Ok(addresses);
    }
    call.before_blocking();
    // The system's resolver cannot be interrupted: its thread goes on after a deadline or disconnect.
    let (sender, receiver) = mpsc::sync_channel(1);
    let (name, port) = (host.clone(), *port);
    let look_up = move || {
        let addresses = (name.as_str(), port)
            .to_socket_addrs()
            .map(Iterator::collect::<Vec<_>>);
        // Fails if nothing waits for the addresses any more.
        let _ = sender.send(addresses);
    };
    thread::Builder::new()
        .name("resolver".into())
        .spawn(look_up)
        .map_err(WaitError::Io)?;
    loop {
        match receiver.recv_timeout(CLIENT_CHECK_INTERVAL) {
            Ok(Ok(addresses)) if !addresses.is_empty() => return Ok(addresses),
            Ok(_) | Err(RecvTimeoutError::Disconnected) => return Err(not_found()),
            Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                return Err(WaitError::TimedOut);
            }
            Err(RecvTimeoutError::Timeout) if call.has_client_closed() => {
                return Err(WaitError::ClientClosed);
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn not_found() -> WaitError {
    WaitError::Io(io::Error::other("the name does not resolve"))
}

/// How long an attempt to connect is alone before the next address is tried beside it (RFC 8305
/// section 5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// How long the upstream may leave data unacknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Connects to the first of `addresses` that accepts. The next one is tried while the last one has not
/// answered yet, families in turn; none is abandoned before one has accepted (RFC 8305).
///
/// # Errors
/// The error of the last address that failed, the deadline passes, or the client disconnects.
pub(super) fn connect_any(
    addresses: &[SocketAddr],
    deadline: Instant,
    call: CallContext<'_>,
) -> Result<TcpStream, WaitError> {
    let mut waiting = families_in_turn(addresses).into_iter();
    let mut pending: Vec<TcpStream> = Vec::new();
    let mut last_error = not_found();
    let mut next_at = Instant::now();
    loop {
        let now = Instant::now();
        if (pending.is_empty() || now >= next_at)
            && let Some(address) = waiting.next()
        {
            match begin_connect(address) {
                Ok(socket) => pending.push(socket),
                Err(error) => last_error = WaitError::Io(error),
            }
            next_at = now + NEXT_ADDRESS_AFTER;
            continue;
        }
        if pending.is_empty() {
            return Err(last_error);
        }
        let until = match waiting.len() {
            0 => deadline,
            _ => next_at.min(deadline),
        };
        let ready = match wait::wait_for_any(&pending, until, call) {
            Ok(ready) => ready,
            Err(WaitError::TimedOut) if until < deadline => continue,
            Err(error) => return Err(error),
        };
        let socket = pending.swap_remove(ready);
        match socket.take_error() {
            Ok(None) => {
                socket.set_nonblocking(false).map_err(WaitError::Io)?;
                return Ok(socket);
            }
            Ok(Some(error)) | Err(error) => last_error = WaitError::Io(error),
        }
        next_at = now;
    }
}

/// The addresses in the resolver's order, but one of each family after the other.
fn families_in_turn(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_first = |address: &&SocketAddr| address.is_ipv6() == addresses[0].is_ipv6();
    let (mut first, mut second) = (
        addresses.iter().filter(is_first),
        addresses.iter().filter(|address| !is_first(address)),
    );
    let mut in_turn = Vec::with_capacity(addresses.len());
    while in_turn.len() < addresses.len() {
        in_turn.extend(first.next());
        in_turn.extend(second.next());
    }
    in_turn
}

/// Begins to connect. The socket becomes writable when that has succeeded or failed.
fn begin_connect(address: SocketAddr) -> io::Result<TcpStream> {
    use socket2::{Domain, Protocol, Socket, Type};
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    detect_vanished_peer(&socket, UNACKNOWLEDGED)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

const EINPROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();

#[cfg(test)]
mod tests;
