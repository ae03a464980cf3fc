//! Resolves names and opens TCP connections. Both stop if the client disconnects.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ureq::http::Uri;

use super::call_state::CallState;
use crate::config::address::localhost_addresses;
use crate::net::socket::detect_vanished_peer;
use crate::net::wait::{self, WaitError};

/// How often a thread that waits for the resolver checks the client.
const CLIENT_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Resolves the host of `uri`, with its port or the default port of its scheme.
///
/// # Errors
/// The name does not resolve, the deadline passes, or the client disconnects.
pub(super) fn resolve(
    uri: &Uri,
    deadline: Instant,
    call: &CallState,
) -> Result<Vec<SocketAddr>, ureq::Error> {
    let host = uri.host().unwrap_or_default();
    let default_port = if uri.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    let port = uri.port_u16().unwrap_or(default_port);
    let bare_host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare_host.parse() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    if let Some(addresses) = localhost_addresses(bare_host, port) {
        return Ok(addresses);
    }
    wait::before_blocking();
    // The system's resolver cannot be interrupted: its thread goes on after a deadline or disconnect.
    let (sender, receiver) = mpsc::sync_channel(1);
    let name = bare_host.to_owned();
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
        .map_err(ureq::Error::Io)?;
    loop {
        match receiver.recv_timeout(CLIENT_CHECK_INTERVAL) {
            Ok(Ok(addresses)) if addresses.is_empty() => return Err(ureq::Error::HostNotFound),
            Ok(addresses) => return addresses.map_err(|_| ureq::Error::HostNotFound),
            Err(_) if Instant::now() >= deadline => return Err(call.stop(WaitError::TimedOut)),
            Err(_) if call.has_client_closed() => return Err(call.stop(WaitError::ClientClosed)),
            Err(_) => {}
        }
    }
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
    call: &CallState,
) -> Result<TcpStream, ureq::Error> {
    let mut waiting = families_in_turn(addresses).into_iter();
    let mut pending: Vec<TcpStream> = Vec::new();
    let mut last_error = ureq::Error::HostNotFound;
    let mut next_at = Instant::now();
    loop {
        let now = Instant::now();
        if (pending.is_empty() || now >= next_at)
            && let Some(address) = waiting.next()
        {
            match begin_connect(address) {
                Ok(socket) => pending.push(socket),
                Err(error) => last_error = ureq::Error::Io(error),
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
        let client = call.client();
        let ready = match wait::wait_for_any(&pending, until, client.as_deref()) {
            Ok(ready) => ready,
            Err(WaitError::TimedOut) if until < deadline => continue,
            Err(error) => return Err(call.stop(error)),
        };
        let socket = pending.swap_remove(ready);
        match socket.take_error() {
            Ok(None) => {
                socket.set_nonblocking(false).map_err(ureq::Error::Io)?;
                return Ok(socket);
            }
            Ok(Some(error)) | Err(error) => last_error = ureq::Error::Io(error),
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
