//! Resolves names and opens TCP connections. Both stop if the client disconnects.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use ureq::http::Uri;

use super::call_state::CallState;
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

/// Connects to the first address that accepts. Each address gets an equal share of the time left.
///
/// # Errors
/// The error of the last address, or the client disconnects.
pub(super) fn connect_any(
    addresses: &[SocketAddr],
    deadline: Instant,
    call: &CallState,
) -> Result<TcpStream, ureq::Error> {
    let mut last_error = ureq::Error::HostNotFound;
    for (index, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        match connect(*address, Instant::now() + left / share, call) {
            Ok(socket) => return Ok(socket),
            Err(WaitError::ClientClosed) => return Err(call.stop(WaitError::ClientClosed)),
            Err(WaitError::TimedOut) => {
                last_error = ureq::Error::Io(io::ErrorKind::TimedOut.into())
            }
            Err(WaitError::Io(error)) => last_error = ureq::Error::Io(error),
        }
    }
    Err(last_error)
}

fn connect(
    address: SocketAddr,
    deadline: Instant,
    call: &CallState,
) -> Result<TcpStream, WaitError> {
    use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).map_err(WaitError::Io)?;
    socket.set_nonblocking(true).map_err(WaitError::Io)?;
    socket.set_tcp_nodelay(true).map_err(WaitError::Io)?;
    // Detects a peer that vanished, and keeps middleboxes from dropping a connection that is silent
    // while the model thinks.
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60));
    socket
        .set_tcp_keepalive(&keepalive)
        .map_err(WaitError::Io)?;
    match socket.connect(&address.into()) {
        Ok(()) => {
            socket.set_nonblocking(false).map_err(WaitError::Io)?;
            return Ok(socket.into());
        }
        Err(error) if error.raw_os_error() == Some(EINPROGRESS) => {}
        Err(error) => return Err(WaitError::Io(error)),
    }
    let stream = TcpStream::from(socket);
    wait::wait(&stream, PollFlags::OUT, deadline, call.client().as_deref())?;
    match stream.take_error() {
        Ok(None) => {
            stream.set_nonblocking(false).map_err(WaitError::Io)?;
            Ok(stream)
        }
        Ok(Some(error)) | Err(error) => Err(WaitError::Io(error)),
    }
}

const EINPROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();
