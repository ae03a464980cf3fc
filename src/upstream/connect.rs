//! Resolves names and opens TCP connections. Both stop if the client disconnects.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
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

/// Resolves one endpoint.
pub(super) struct Resolver {
    endpoint: Endpoint,
    /// The lookup that callers join. Not locked while it lasts.
    in_flight: Mutex<Weak<Lookup>>,
}

/// A question to the system's resolver, which may hang for long and cannot be interrupted: its thread goes
/// on after a deadline or disconnect. So only one is asked at a time, and all callers wait for it.
#[derive(Default)]
struct Lookup {
    /// `None`: the resolver has not answered yet.
    result: Mutex<Option<io::Result<Vec<SocketAddr>>>>,
    is_done: Condvar,
}

impl Resolver {
    pub(super) fn new(endpoint: Endpoint) -> Resolver {
        Resolver {
            endpoint,
            in_flight: Mutex::default(),
        }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns the endpoint's addresses.
    ///
    /// # Errors
    /// The name does not resolve, the deadline passes, or the client disconnects.
    pub(super) fn resolve(
        &self,
        deadline: Instant,
        call: CallContext<'_>,
    ) -> Result<Vec<SocketAddr>, WaitError> {
        let Endpoint { host, port } = &self.endpoint;
        if let Ok(address) = host.parse() {
            return Ok(vec![SocketAddr::new(address, *port)]);
        }
        if let Some(addresses) = localhost_addresses(host, *port) {
            return Ok(addresses);
        }
        call.before_blocking();
        let lookup = self.look_up().map_err(WaitError::Io)?;
        loop {
            if let Some(result) = lookup.result_within(CLIENT_CHECK_INTERVAL) {
                return result.map_err(WaitError::Io);
            }
            if Instant::now() >= deadline {
                return Err(WaitError::TimedOut);
            }
            if call.has_client_closed() {
                return Err(WaitError::ClientClosed);
            }
        }
    }

    /// Returns the lookup in flight, or begins one.
    fn look_up(&self) -> io::Result<Arc<Lookup>> {
        let mut in_flight = lock(&self.in_flight);
        if let Some(lookup) = in_flight.upgrade()
            && lock(&lookup.result).is_none()
        {
            return Ok(lookup);
        }
        let lookup = Arc::new(Lookup::default());
        let (asked, name, port) = (
            Arc::clone(&lookup),
            self.endpoint.host.clone(),
            self.endpoint.port,
        );
        thread::Builder::new()
            .name("resolver".into())
            .spawn(move || {
                let addresses = (name.as_str(), port).to_socket_addrs();
                *lock(&asked.result) = Some(addresses.map(Iterator::collect));
                asked.is_done.notify_all();
            })?;
        *in_flight = Arc::downgrade(&lookup);
        Ok(lookup)
    }
}

impl Lookup {
    /// Waits for the result, for `longest` at most.
    fn result_within(&self, longest: Duration) -> Option<io::Result<Vec<SocketAddr>>> {
        let result = lock(&self.result);
        let waited = self
            .is_done
            .wait_timeout_while(result, longest, |result| result.is_none());
        let (result, _) = waited.unwrap_or_else(PoisonError::into_inner);
        Some(match result.as_ref()? {
            Ok(addresses) if addresses.is_empty() => Err(not_found("it has no address")),
            Ok(addresses) => Ok(addresses.clone()),
            // A shortage of this process is no fault of the name.
            Err(error) => Err(match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => not_found(error),
            }),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_found(reason: impl fmt::Display) -> io::Error {
    io::Error::other(format!("the name does not resolve ({reason})"))
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
    let mut last_error = WaitError::Io(not_found("it has no address"));
    let mut next_at = Instant::now();
    loop {
        let now = Instant::now();
        if (pending.is_empty() || now >= next_at)
            && let Some(address) = waiting.next()
        {
            match begin_connect(address) {
                Ok(socket) => {
                    pending.push(socket);
                    next_at = now + NEXT_ADDRESS_AFTER;
                }
                // RFC 8305 section 5: nothing is waited for; the next one is due.
                Err(error) => {
                    last_error = WaitError::Io(error);
                    next_at = now;
                }
            }
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
