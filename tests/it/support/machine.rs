//! What all tests of this process share: its descriptors, the processors, and the loopback ports.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

/// Raises this process's limit on descriptors to the hard one; returns what is in force.
pub fn raise_descriptor_limit() -> u64 {
    static RAISED: Once = Once::new();
    RAISED.call_once(|| {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        let _ = setrlimit(Resource::Nofile, raised);
    });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Waits until no other test holds the machine. For tests that keep all processors busy, or open
/// thousands of connections: beside each other, one would measure the delays of another.
pub fn hold_machine() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A loopback port on which nothing listens, and which no other test gets while this is held.
pub struct ClosedPort {
    address: SocketAddr,
    /// Bound, and never listening: connections are refused.
    _socket: Socket,
}

impl ClosedPort {
    pub fn hold() -> ClosedPort {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&any_port.into()).expect("a free loopback port");
        let address = socket.local_addr().expect("it is bound").as_socket();
        ClosedPort {
            address: address.expect("an IP address"),
            _socket: socket,
        }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns the target URL for the proxy, with Flow's path.
    pub fn url(&self) -> String {
        format!("http://{self}/flow-llm-proxy")
    }
}

impl fmt::Display for ClosedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}
