//! The client's side: an HTTP/1.1 server on blocking threads. Knows nothing of the target.
//!
//! The accept thread (`accept`) keeps connections that wait without a worker. One with something to
//! read joins an event loop (`event_loops`), which one of the worker threads (`workers`) leads. The
//! thread reads the request (`serve`) and calls the [`Handler`] with an [`Exchange`]. The connection
//! stays there while requests follow each other, then it returns to the accept thread. `admission`
//! limits the requests in flight. Messages are parsed in [`crate::http1`].

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

mod accept;
mod admission;
mod connection;
mod event_loops;
mod exchange;
mod handler;
mod limits;
mod reject;
mod serve;
#[cfg(test)]
mod tests;
mod waiting;
mod workers;

pub use self::admission::ServerLoad;
pub use self::connection::client::ClientError;
pub use self::exchange::Exchange;
pub use self::handler::{Handler, OwnResponse, Progress, RejectedRequest};
pub use self::limits::Limits;

use self::accept::Acceptor;
use self::admission::Admission;
use self::limits::MIN_UNACKNOWLEDGED;
use self::workers::pool::Workers;
use self::workers::worker;
use crate::net::listener;
use crate::net::socket::detect_vanished_peer;

/// Bound listeners that are not yet served.
#[derive(Debug)]
pub struct Server {
    /// Not empty.
    listeners: Vec<TcpListener>,
    /// The bound address of each listener.
    addresses: Vec<SocketAddr>,
}

/// A running server.
pub struct Running {
    admission: Arc<Admission>,
    /// [`Workers::abort_requests`], without the type of the handler.
    abort_requests: Box<dyn Fn() + Send + Sync>,
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// Binds `address`; port 0 means any free port.
    ///
    /// # Errors
    /// The error of the operating system: address in use, no permission, no such address.
    pub fn bind(address: SocketAddr) -> io::Result<Server> {
        let mut server = Server {
            listeners: Vec::new(),
            addresses: Vec::new(),
        };
        server.bind_also(address)?;
        Ok(server)
    }

    /// Binds a further address.
    ///
    /// # Errors
    /// As [`Server::bind`].
    pub fn bind_also(&mut self, address: SocketAddr) -> io::Result<()> {
        let listener = listener::bind(address)?;
        self.addresses.push(listener.local_addr()?);
        self.listeners.push(listener);
        Ok(())
    }

    /// Returns the address that was bound first.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Starts the threads and serves until [`Running::stop`].
    ///
    /// # Errors
    /// The system does not allow that many threads. Some may have been started, so the process should
    /// end.
    pub fn start<H: Handler>(self, handler: Arc<H>, limits: Limits) -> io::Result<Running> {
        self.start_with(limits, |admission| Workers::new(admission, handler))
    }

    fn start_with<H: Handler>(
        self,
        limits: Limits,
        make_workers: impl FnOnce(Arc<Admission>) -> Workers<H>,
    ) -> io::Result<Running> {
        // For the sockets that it accepts.
        let unacknowledged = limits.client_timeout.max(MIN_UNACKNOWLEDGED);
        for listener in &self.listeners {
            detect_vanished_peer(&socket2::SockRef::from(listener), unacknowledged)?;
        }
        let (waker, wakes) = UnixStream::pair()?;
        waker.set_nonblocking(true)?;
        wakes.set_nonblocking(true)?;
        let admission = Arc::new(Admission::new(limits, waker));
        let workers = Arc::new(make_workers(Arc::clone(&admission)));
        worker::start_all(&workers)?;
        let acceptor = Acceptor::new(self.listeners, wakes, Arc::clone(&workers));
        thread::Builder::new()
            .name("accept".into())
            .spawn(move || acceptor.run())?;
        Ok(Running {
            admission,
            abort_requests: Box::new(move || workers.abort_requests()),
            addresses: self.addresses,
        })
    }
}

impl Running {
    /// Returns the address that was bound first.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Returns all bound addresses.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Stops accepting and closes idle connections. Requests in flight go on.
    pub fn stop(&self) {
        self.admission.stop();
    }

    /// Waits until no request is in flight. False: `timeout` has passed first.
    pub fn wait_until_idle(&self, timeout: Duration) -> bool {
        self.admission.wait_until_idle(timeout)
    }

    /// Aborts all requests in flight.
    pub fn abort(&self) {
        self.admission.set_aborting();
        (self.abort_requests)();
    }
}
