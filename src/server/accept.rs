//! The accept thread: takes new connections and keeps those that wait without a worker.
//!
//! It polls the listeners and all [`WaitingConnections`], and blocks nowhere else. A connection that has
//! something to read goes to the workers. When there are too many connections, or the system has no
//! descriptor left, the one that has waited longest is closed, or accepting pauses.

use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::admission::Admission;
use super::connection::{CloseReason, Connection, ConnectionFate, head_timeout_error};
use super::exchange::WritePolicy;
use super::handler::Handler;
use super::limits::{BODY_READ_TIMEOUT, QUEUE_TIMEOUT};
use super::reject::reject;
use super::serve::{Buffers, Served, Serving, needs_permit, serve};
use super::waiting::{Shed, WaitState, WaitingConnections};
use super::workers::pool::Workers;
use crate::http1::error::HttpError;
use crate::net::socket::ReadTimeout;
use crate::net::wait::{self, NoLeadership};

/// How long accepting pauses when the system has no descriptor or memory for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections accepted in a row before the waiting ones are polled again.
const ACCEPT_BATCH: usize = 64;
/// Bytes of a response that the kernel may hold unsent for a connection. Small, so that a slow but
/// steady reader shows as progress, and a client that does not read holds little memory.
#[cfg(target_os = "linux")]
const MAX_UNSENT: u32 = 128 * 1024;

/// The state of the accept thread.
pub(super) struct Acceptor<H: Handler> {
    /// Empty once the server stops.
    listeners: Vec<TcpListener>,
    /// Becomes readable when other threads need this one.
    wakes: UnixStream,
    workers: Arc<Workers<H>>,
    admission: Arc<Admission>,
    handler: Arc<H>,
    waiting: WaitingConnections,
    /// For the requests that this thread serves, which need no permit.
    buffers: Buffers,
    context: Option<Box<H::Context>>,
    /// Until when accepting is paused.
    paused_until: Option<Instant>,
}

/// What a poll has found.
#[derive(Default)]
struct Ready {
    /// Whether a listener has a connection.
    listeners: bool,
    /// Indices into `Acceptor::waiting`, ascending.
    waiting: Vec<usize>,
}

impl<H: Handler> Acceptor<H> {
    pub(super) fn new(
        listeners: Vec<TcpListener>,
        wakes: UnixStream,
        workers: Arc<Workers<H>>,
    ) -> Self {
        Acceptor {
            listeners,
            wakes,
            admission: Arc::clone(&workers.admission),
            handler: Arc::clone(&workers.handler),
            workers,
            waiting: WaitingConnections::default(),
            buffers: Buffers::default(),
            context: None,
            paused_until: None,
        }
    }

    /// The main loop of the accept thread. Ends with the process: after a stop, connections still come
    /// back here until their clients have read the last response.
    pub(super) fn run(mut self) {
        loop {
            if self.admission.is_stopping() {
                self.stop();
            }
            let ready = self.wait();
            self.serve_ready(&ready.waiting);
            self.take_returned();
            if ready.listeners {
                self.accept();
            }
            self.expire();
        }
    }

    /// Accepts no more connections, and ends those without a request and those that queue.
    fn stop(&mut self) {
        self.listeners.clear();
        while let Some(waiting) = self.waiting.remove_not_draining() {
            waiting.connection.log_close(CloseReason::Stopping);
        }
        while let Some((connection, since)) = self.admission.take_overdue(Instant::now()) {
            let error = HttpError::shutting_down("the proxy is stopping");
            self.reject(connection, error, since);
        }
    }

    fn wait(&mut self) -> Ready {
        let now = Instant::now();
        let is_accepting = self.is_accepting(now);
        let mut fds = Vec::with_capacity(1 + self.listeners.len() + self.waiting.len());
        fds.push(PollFd::new(&self.wakes, PollFlags::IN));
        let listeners = self.listeners.iter().filter(|_| is_accepting);
        fds.extend(listeners.map(|listener| PollFd::new(listener, PollFlags::IN)));
        let first_waiting = fds.len();
        fds.extend(self.waiting.poll_fds());
        let timeout = wait::timespec(self.next_deadline(now).saturating_duration_since(now));
        if let Err(error) = poll(&mut fds, Some(&timeout))
            && error != Errno::INTR
        {
            log::error!("The accept thread cannot poll: {error}");
            thread::sleep(ACCEPT_PAUSE);
            return Ready::default();
        }
        let mut listeners = fds[1..first_waiting].iter();
        let listeners = listeners.any(|listener| !listener.revents().is_empty());
        let waiting = fds[first_waiting..].iter();
        let events: Vec<_> = waiting.map(PollFd::revents).collect();
        Ready {
            listeners,
            waiting: self.waiting.set_events(&events),
        }
    }

    fn is_accepting(&mut self, now: Instant) -> bool {
        if self.paused_until.is_some_and(|until| until > now) {
            return false;
        }
        self.paused_until = None;
        true
    }

    fn next_deadline(&self, now: Instant) -> Instant {
        let queued = self.admission.queued_since();
        let deadlines = [
            self.waiting.next_deadline(),
            queued.map(|since| since + QUEUE_TIMEOUT),
            self.paused_until,
            // A connection may join the queue during the poll.
            Some(now + QUEUE_TIMEOUT),
        ];
        deadlines.into_iter().flatten().min().unwrap_or(now)
    }

    /// Takes the connections that the workers have returned.
    fn take_returned(&mut self) {
        // The bytes have ended the poll and say no more than that.
        let _ = self.wakes.read(&mut [0; 64]);
        for fate in self.admission.take_returned() {
            self.take_back(fate);
        }
    }

    fn take_back(&mut self, fate: ConnectionFate) {
        match fate {
            ConnectionFate::Idle(connection) | ConnectionFate::AwaitHead(connection) => {
                self.add(connection);
            }
            ConnectionFate::Drain(connection) => self.drain(connection),
            ConnectionFate::Requeue(connection) => self.workers.enqueue(connection),
            ConnectionFate::Close(connection, reason) => connection.log_close(reason),
        }
    }

    fn add(&mut self, connection: Box<Connection>) {
        self.waiting.add(connection);
        while self.waiting.has_too_many_head_bytes() && self.shed_one(Shed::ReadingHead) {}
    }

    fn drain(&mut self, mut connection: Box<Connection>) {
        connection.drop_request();
        match connection.client.socket.shutdown(Shutdown::Write) {
            Ok(()) => self.waiting.add_draining(connection),
            Err(_) => connection.log_close(CloseReason::ClientClosed),
        }
    }

    /// Gives the connections on which a request, or a part of it, has arrived to the workers.
    fn serve_ready(&mut self, ready: &[usize]) {
        let mut connections = Vec::with_capacity(ready.len());
        // Backwards: a removal moves the last connection, so the indices still to come stay valid.
        for &index in ready.iter().rev() {
            let waiting = self.waiting.get_mut(index);
            let WaitState::Draining { drained } = &mut waiting.state else {
                connections.push(self.waiting.remove(index).connection);
                continue;
            };
            if let Some(reason) = waiting.connection.drain(drained) {
                let closed = self.waiting.remove(index);
                closed.connection.log_close(reason);
            }
        }
        for connection in connections.into_iter().rev() {
            self.dispatch(connection);
        }
    }

    /// Gives `connection` to the workers. While all permits are taken, a request that needs none is
    /// served here.
    fn dispatch(&mut self, connection: Box<Connection>) {
        let Some(mut connection) = self.workers.dispatch(connection) else {
            return;
        };
        if needs_permit(&mut connection, &*self.handler) {
            return self.workers.enqueue(connection);
        }
        let (handler, admission) = (&*self.handler, &*self.admission);
        let context = self.context.take();
        let context = context.unwrap_or_else(|| Box::new(handler.new_context()));
        let serving = Serving {
            handler,
            admission,
            leadership: &NoLeadership,
            write_policy: WritePolicy::NeverWait,
        };
        let buffers = &mut self.buffers;
        let served = catch_unwind(AssertUnwindSafe(|| {
            serve(connection, context, buffers, &serving)
        }));
        // With `NeverWait` no request waits for the upstream. The panic hook has logged a panic.
        if let Ok(Served::Done(fate, context)) = served {
            self.context = Some(context);
            self.take_back(fate);
        }
    }

    fn accept(&mut self) {
        for index in 0..self.listeners.len() {
            if let Err(why) = self.accept_from(index) {
                return self.pause(&why);
            }
        }
    }

    /// Accepts what waits at a listener. The error says why accepting must pause.
    fn accept_from(&mut self, index: usize) -> Result<(), String> {
        for _ in 0..ACCEPT_BATCH {
            match self.listeners[index].accept() {
                Ok((socket, peer)) => {
                    if let Err(error) = self.open(socket, peer) {
                        log::debug!("{peer}: {error}");
                        continue;
                    }
                    if self.admission.open_connections() >= self.admission.limits.max_connections
                        && !self.shed_one(Shed::Longest)
                    {
                        return Err("all connections are in use".to_owned());
                    }
                }
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::AGAIN) => return Ok(()),
                    // The client disconnected before it was accepted, or a signal arrived.
                    Some(Errno::CONNABORTED | Errno::INTR) => {}
                    _ if self.shed_one(Shed::Longest) => {}
                    _ => return Err(error.to_string()),
                },
            }
        }
        Ok(())
    }

    fn open(&mut self, socket: TcpStream, peer: SocketAddr) -> io::Result<()> {
        // Linux does not inherit the listener's non-blocking mode, other systems do.
        #[cfg(not(target_os = "linux"))]
        socket.set_nonblocking(false)?;
        #[cfg(target_os = "linux")]
        socket2::SockRef::from(&socket).set_tcp_notsent_lowat(MAX_UNSENT)?;
        socket.set_nodelay(true)?;
        let read_timeout = ReadTimeout::set(&socket, BODY_READ_TIMEOUT)?;
        let guard = self.admission.open_guard();
        self.add(Connection::new(socket, peer, read_timeout, guard));
        Ok(())
    }

    fn pause(&mut self, why: &str) {
        log::warn!(
            "Accepting no connections for {} ms: {why}",
            ACCEPT_PAUSE.as_millis()
        );
        self.paused_until = Some(Instant::now() + ACCEPT_PAUSE);
    }

    /// Closes one connection to make room. False: none may be closed.
    fn shed_one(&mut self, which: Shed) -> bool {
        let shed = self.waiting.remove_shed(which);
        if let Some(waiting) = &shed {
            waiting.connection.log_close(CloseReason::Shed);
        }
        shed.is_some()
    }

    /// Ends what has waited for too long.
    fn expire(&mut self) {
        let now = Instant::now();
        for waiting in self.waiting.remove_expired(now) {
            match waiting.state {
                WaitState::ReadingHead => {
                    let since = waiting.request_since();
                    self.reject(waiting.connection, head_timeout_error(), since);
                }
                WaitState::Idle => waiting.connection.log_close(CloseReason::IdleTimeout),
                WaitState::Draining { .. } => {
                    waiting.connection.log_close(CloseReason::DrainTimeout);
                }
            }
        }
        self.workers.drop_idle_contexts();
        let Some(overdue) = now.checked_sub(QUEUE_TIMEOUT) else {
            return;
        };
        while let Some((connection, since)) = self.admission.take_overdue(overdue) {
            let message = format!(
                "all {} workers have been busy for {} s: retry later, or raise --workers",
                self.admission.limits.workers,
                QUEUE_TIMEOUT.as_secs()
            );
            self.reject(connection, HttpError::overloaded(message), since);
        }
    }

    fn reject(&mut self, mut connection: Box<Connection>, error: HttpError, since: Instant) {
        // The request line, if it has arrived, decides the form of the response. The outcome of the read
        // does not matter.
        connection.client.read_head();
        let handler = &*self.handler;
        let fate = catch_unwind(AssertUnwindSafe(|| {
            reject(connection, handler, error, since)
        }));
        // The panic hook has logged a panic; the other connections are served all the same.
        if let Ok(ConnectionFate::Drain(connection)) = fate {
            self.drain(connection);
        }
    }
}
