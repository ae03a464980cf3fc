//! The client's side: an HTTP/1.1 server on blocking threads. Knows nothing of Flow.
//!
//! The accept thread (`accept`) holds connections that wait for a request. One that has something to
//! read comes into an event loop (`event_loops`), which one of the `workers` leads: it reads the request
//! (`connection`) and calls the [`Handler`] with an [`Exchange`]. The connection stays there while
//! requests follow each other, then it goes back to the accept thread. `admission` bounds the requests
//! in flight. Parsing is done in [`crate::http1`].

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
pub mod limits;
mod reject;
#[cfg(test)]
mod tests;
mod workers;

pub use exchange::{ClientError, Exchange};
pub use handler::{Handler, OwnResponse, Progress, RejectedRequest};
pub use limits::Limits;

use crate::net::listener;
use accept::Acceptor;
use admission::Admission;
use workers::pool::Workers;

/// A bound listener, not yet serving.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

/// A serving server.
pub struct Running {
    admission: Arc<Admission>,
    cut_off: Box<dyn Fn() + Send + Sync>,
    address: SocketAddr,
}

impl Server {
    /// Binds `address`; port 0 is any free one.
    ///
    /// # Errors
    /// What the system says: address in use, no permission, no such address.
    pub fn bind(address: SocketAddr) -> io::Result<Server> {
        let listener = listener::bind(address)?;
        let address = listener.local_addr()?;
        Ok(Server { listener, address })
    }

    /// The address that was bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts the threads and serves until [`Running::stop`].
    ///
    /// # Errors
    /// The system does not allow that many threads.
    pub fn start<H: Handler>(self, handler: Arc<H>, limits: Limits) -> io::Result<Running> {
        self.start_with(limits, |admission| Workers::new(admission, handler))
    }

    fn start_with<H: Handler>(
        self,
        limits: Limits,
        workers: impl FnOnce(Arc<Admission>) -> Workers<H>,
    ) -> io::Result<Running> {
        let (waker, wakes) = UnixStream::pair()?;
        waker.set_nonblocking(true)?;
        wakes.set_nonblocking(true)?;
        let admission = Arc::new(Admission::new(limits, waker));
        let workers = Arc::new(workers(Arc::clone(&admission)));
        workers.start()?;
        let acceptor = Acceptor::new(self.listener, wakes, Arc::clone(&workers));
        thread::Builder::new()
            .name("accept".into())
            .spawn(move || acceptor.run())?;
        Ok(Running {
            admission,
            cut_off: Box::new(move || workers.cut_off()),
            address: self.address,
        })
    }
}

impl Running {
    /// The address that was bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting and closes idle connections; requests in flight go on.
    pub fn stop(&self) {
        self.admission.stop();
    }

    /// Waits until no request is in flight. False: `timeout` has passed before.
    pub fn wait_until_idle(&self, timeout: Duration) -> bool {
        self.admission.wait_until_idle(timeout)
    }

    /// Cuts off all requests in flight.
    pub fn abort(&self) {
        self.admission.set_aborting();
        (self.cut_off)();
    }
}
