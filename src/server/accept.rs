//! The accept thread: new connections, and those that wait without a worker.
//!
//! It polls the listener and all parked connections; one that has something to read goes to the
//! pool. It blocks nowhere else. Running out of descriptors makes it shed the connection that has
//! been idle longest, or pause, and go on.

use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::admission::Admission;
use super::connection::{
    self, Buffers, CloseReason, Connection, ConnectionFate, Served, WritePolicy,
};
use super::handler::Handler;
use super::limits::{
    BODY_READ_TIMEOUT, DRAIN_TIMEOUT, HEAD_TIMEOUT, IDLE_TIMEOUT, MAX_INCOMPLETE_HEAD_BYTES,
    QUEUE_TIMEOUT, head_timeout_error,
};
use super::reject::reject;
use super::workers::pool::Workers;
use crate::http1::error::HttpError;
use crate::net::socket::ReadTimeout;
use crate::net::wait;

/// How long accepting pauses when the system has no descriptor or memory for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections accepted in a row before those that wait are looked at again.
const ACCEPT_BATCH: usize = 64;

/// A connection without a worker.
struct WaitingConnection {
    connection: Box<Connection>,
    state: WaitState,
    /// When it is closed, or refused, if nothing comes.
    deadline: Instant,
    /// Since when it has been waiting: whoever waits longest gives way first.
    since: Instant,
    /// A poll has seen that nothing had arrived on it.
    is_seen_quiet: bool,
}

/// What a parked connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitState {
    /// Its next request.
    Idle,
    /// The rest of a head.
    ReadingHead,
    /// The client to have read the last answer: what it still sends is dropped, since closing a
    /// socket with unread bytes resets the connection and can destroy the answer.
    Draining { drained: usize },
}

pub(super) struct Acceptor<H: Handler> {
    /// `None` once the server stops.
    listener: Option<TcpListener>,
    waker: UnixStream,
    workers: Arc<Workers<H>>,
    admission: Arc<Admission>,
    handler: Arc<H>,
    waiting: Vec<WaitingConnection>,
    /// Bytes of incomplete heads that the parked connections hold.
    head_bytes: usize,
    /// What serves the few requests that need no worker.
    buffers: Buffers,
    context: Option<Box<H::Context>>,
    /// Accepting is paused until then.
    paused_until: Option<Instant>,
}

impl<H: Handler> Acceptor<H> {
    pub(super) fn new(listener: TcpListener, waker: UnixStream, workers: Arc<Workers<H>>) -> Self {
        Acceptor {
            listener: Some(listener),
            waker,
            admission: Arc::clone(&workers.admission),
            handler: Arc::clone(&workers.handler),
            workers,
            buffers: Buffers::default(),
            context: None,
            waiting: Vec::new(),
            head_bytes: 0,
            paused_until: None,
        }
    }

    /// The main loop of the accept thread. Ends with the process: when the server stops, those that
    /// are being served still come back here, to read their last answers.
    pub(super) fn run(mut self) {
        loop {
            if self.admission.is_stopping() {
                self.stop();
            }
            let ready = self.wait();
            self.serve_ready(&ready.waiting);
            self.take_back();
            if ready.listener {
                self.accept();
            }
            self.expire();
        }
    }

    /// Takes no more connections, and ends those without a request and those that still wait.
    fn stop(&mut self) {
        self.listener = None;
        let is_over =
            |waiting: &WaitingConnection| !matches!(waiting.state, WaitState::Draining { .. });
        while let Some(index) = self.waiting.iter().position(is_over) {
            self.remove(index)
                .connection
                .log_close(CloseReason::Stopping);
        }
        while let Some((connection, since)) = self.admission.take_overdue(Instant::now()) {
            let error = HttpError::shutting_down("the proxy is stopping");
            self.reject(connection, error, since);
        }
    }

    fn wait(&mut self) -> Ready {
        let now = Instant::now();
        let is_accepting = self.is_accepting(now);
        let mut fds = Vec::with_capacity(self.waiting.len() + 2);
        fds.push(PollFd::new(&self.waker, PollFlags::IN));
        let listener = self.listener.as_ref().filter(|_| is_accepting);
        if let Some(listener) = listener {
            fds.push(PollFd::new(listener, PollFlags::IN));
        }
        let others = fds.len();
        for waiting in &self.waiting {
            fds.push(PollFd::new(
                &*waiting.connection.client.socket,
                PollFlags::IN,
            ));
        }
        let timeout = wait::timespec(self.next_deadline(now).saturating_duration_since(now));
        if let Err(error) = poll(&mut fds, Some(&timeout))
            && error != rustix::io::Errno::INTR
        {
            log::error!("The acceptor cannot poll: {error}");
            std::thread::sleep(ACCEPT_PAUSE);
            return Ready {
                listener: false,
                waiting: Vec::new(),
            };
        }
        let listener = listener.is_some() && !fds[1].revents().is_empty();
        let mut ready = Vec::new();
        let events: Vec<_> = fds[others..].iter().map(PollFd::revents).collect();
        for (index, (waiting, events)) in self.waiting.iter_mut().zip(events).enumerate() {
            waiting.is_seen_quiet = events.is_empty();
            if !waiting.is_seen_quiet {
                ready.push(index);
            }
        }
        Ready {
            listener,
            waiting: ready,
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
        let waiting = self.waiting.iter().map(|waiting| waiting.deadline).min();
        let overdue = self
            .admission
            .waiting_since()
            .map(|since| since + QUEUE_TIMEOUT);
        let deadlines = [
            waiting,
            overdue,
            self.paused_until,
            Some(now + QUEUE_TIMEOUT),
        ];
        deadlines.into_iter().flatten().min().unwrap_or(now)
    }

    /// Parks what the workers handed back.
    fn take_back(&mut self) {
        let mut bytes = [0; 64];
        // What the waker says is in the list; its bytes are only taken away.
        let _ = self.waker.read(&mut bytes);
        for fate in self.admission.take_returned() {
            self.take_back_one(fate);
        }
    }

    fn take_back_one(&mut self, fate: ConnectionFate) {
        match fate {
            ConnectionFate::Idle(connection) | ConnectionFate::Park(connection) => {
                self.add(connection)
            }
            ConnectionFate::Drain(connection) => self.drain(connection),
            ConnectionFate::Requeue(connection) => self.workers.enqueue(connection),
            ConnectionFate::Closed(connection, reason) => connection.log_close(reason),
        }
    }

    fn add(&mut self, connection: Box<Connection>) {
        let since = Instant::now();
        let (state, deadline) = match connection.head_since {
            Some(started) => (WaitState::ReadingHead, started + HEAD_TIMEOUT),
            None => (WaitState::Idle, since + IDLE_TIMEOUT),
        };
        self.head_bytes += connection.client.input.bytes().len();
        self.waiting.push(WaitingConnection {
            connection,
            state,
            deadline,
            since,
            is_seen_quiet: false,
        });
        while self.head_bytes > MAX_INCOMPLETE_HEAD_BYTES && self.shed_one(Shed::ReadingHead) {}
    }

    /// Takes a connection out. Moves the last one to its place.
    fn remove(&mut self, index: usize) -> WaitingConnection {
        let waiting = self.waiting.swap_remove(index);
        if !matches!(waiting.state, WaitState::Draining { .. }) {
            self.head_bytes -= waiting.connection.client.input.bytes().len();
        }
        waiting
    }

    fn drain(&mut self, mut connection: Box<Connection>) {
        let since = Instant::now();
        connection.forget_request();
        if connection
            .client
            .socket
            .shutdown(std::net::Shutdown::Write)
            .is_err()
        {
            return connection.log_close(CloseReason::ClientClosed);
        }
        let state = WaitState::Draining { drained: 0 };
        self.waiting.push(WaitingConnection {
            connection,
            state,
            deadline: since + DRAIN_TIMEOUT,
            since,
            is_seen_quiet: false,
        });
    }

    /// Gives the connections that have something to read to the pool.
    fn serve_ready(&mut self, ready: &[usize]) {
        let mut connections = Vec::with_capacity(ready.len());
        // From the back, so that taking one out moves none that is still to come.
        for &index in ready.iter().rev() {
            let waiting = &mut self.waiting[index];
            let WaitState::Draining { drained } = &mut waiting.state else {
                connections.push(self.remove(index).connection);
                continue;
            };
            if let Some(reason) = waiting.connection.drain(drained) {
                self.remove(index).connection.log_close(reason);
            }
        }
        for connection in connections.into_iter().rev() {
            self.serve_or_dispatch(connection);
        }
    }

    /// When all workers are busy, a request that needs none is answered here.
    fn serve_or_dispatch(&mut self, connection: Box<Connection>) {
        let Some(mut connection) = self.workers.dispatch(connection) else {
            return;
        };
        if connection.needs_permit(&*self.handler) {
            return self.workers.enqueue(connection);
        }
        let (handler, admission) = (Arc::clone(&self.handler), Arc::clone(&self.admission));
        let context = self.context.take();
        let context = context.unwrap_or_else(|| Box::new(handler.new_context()));
        let buffers = &mut self.buffers;
        let served = catch_unwind(AssertUnwindSafe(|| {
            let services = (&*handler, &*admission);
            connection::serve(
                connection,
                context,
                WritePolicy::NeverWait,
                buffers,
                services,
            )
        }));
        // It may not wait, so it does not; a panic the hook has logged.
        if let Ok(Served::Done(fate, context)) = served {
            self.context = Some(context);
            self.take_back_one(fate);
        }
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPT_BATCH {
            let Some(listener) = &self.listener else {
                return;
            };
            match listener.accept() {
                Ok((socket, peer)) => {
                    let read_timeout = match prepare(&socket) {
                        Ok(read_timeout) => read_timeout,
                        Err(error) => {
                            log::debug!("{peer}: {error}");
                            continue;
                        }
                    };
                    let open = self.admission.open_guard();
                    self.add(Connection::new(socket, peer, read_timeout, open));
                    if self.admission.open_connections() >= self.admission.limits.max_connections
                        && !self.shed_one(Shed::Longest)
                    {
                        return self.pause("all connections are in use");
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => match error.raw_os_error() {
                    // The client left before it was accepted, or a signal came.
                    Some(errno::ECONNABORTED | errno::EINTR) => {}
                    _ if self.shed_one(Shed::Longest) => {}
                    _ => return self.pause(&error.to_string()),
                },
            }
        }
    }

    fn pause(&mut self, why: &str) {
        log::warn!(
            "Accepting no connections for {} ms: {why}",
            ACCEPT_PAUSE.as_millis()
        );
        self.paused_until = Some(Instant::now() + ACCEPT_PAUSE);
    }

    /// Closes a connection that has waited long. False: there is none that may be closed.
    fn shed_one(&mut self, which: Shed) -> bool {
        let order = |waiting: &WaitingConnection| match (waiting.state, which) {
            (WaitState::ReadingHead, Shed::ReadingHead) => {
                Some((0, waiting.connection.head_since.unwrap_or(waiting.since)))
            }
            (_, Shed::ReadingHead) => None,
            (WaitState::Draining { .. }, Shed::Longest) => Some((0, waiting.since)),
            // Its request may be here already.
            _ if !waiting.is_seen_quiet => None,
            (WaitState::Idle, Shed::Longest) => Some((1, waiting.since)),
            (WaitState::ReadingHead, Shed::Longest) => {
                Some((2, waiting.connection.head_since.unwrap_or(waiting.since)))
            }
        };
        let candidates = self.waiting.iter().enumerate();
        let oldest = candidates
            .filter_map(|(index, waiting)| order(waiting).map(|order| (order, index)))
            .min();
        match oldest {
            Some((_, index)) => {
                self.remove(index)
                    .connection
                    .log_close(CloseReason::GaveWay);
                true
            }
            None => false,
        }
    }

    /// Ends what has waited too long.
    fn expire(&mut self) {
        let now = Instant::now();
        let mut index = 0;
        while index < self.waiting.len() {
            if self.waiting[index].deadline > now {
                index += 1;
                continue;
            }
            let waiting = self.remove(index);
            match waiting.state {
                WaitState::ReadingHead => {
                    let since = waiting.connection.head_since.unwrap_or(waiting.since);
                    self.reject(waiting.connection, head_timeout_error(), since);
                }
                WaitState::Idle => waiting.connection.log_close(CloseReason::IdleTooLong),
                WaitState::Draining { .. } => {
                    waiting.connection.log_close(CloseReason::LastAnswerSent)
                }
            }
        }
        self.workers.drop_idle_contexts();
        let Some(overdue) = now.checked_sub(QUEUE_TIMEOUT) else {
            return;
        };
        while let Some((connection, since)) = self.admission.take_overdue(overdue) {
            let message = format!(
                "all {} workers have been busy for {} s: try again, or raise --workers",
                self.admission.limits.workers,
                QUEUE_TIMEOUT.as_secs()
            );
            let error = HttpError::overloaded(message);
            self.reject(connection, error, since);
        }
    }

    fn reject(&mut self, mut connection: Box<Connection>, error: HttpError, since: Instant) {
        // The request line, if it is here, says in which dialect the answer is to be.
        // Nothing, an end or an error: what is here already must do.
        connection.client.read_head();
        if let ConnectionFate::Drain(connection) = reject(connection, &*self.handler, error, since)
        {
            self.drain(connection);
        }
    }
}

/// Who is to give way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shed {
    /// Whoever has been idle longest, else whose head is incomplete longest.
    Longest,
    /// Whose head is incomplete longest.
    ReadingHead,
}

struct Ready {
    listener: bool,
    /// Indices into `Acceptor::parked`, rising.
    waiting: Vec<usize>,
}

/// Bytes of an answer that wait in the kernel unsent. A client that reads slowly but steadily shows
/// as progress whenever so much has moved, and one that does not read holds no more than this.
#[cfg(target_os = "linux")]
const MAX_UNSENT: u32 = 128 * 1024;

fn prepare(socket: &TcpStream) -> io::Result<ReadTimeout> {
    // Linux does not hand the listener's mode on, other systems do.
    #[cfg(not(target_os = "linux"))]
    socket.set_nonblocking(false)?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(socket).set_tcp_notsent_lowat(MAX_UNSENT)?;
    socket.set_nodelay(true)?;
    ReadTimeout::set(socket, BODY_READ_TIMEOUT)
}

/// The two errors of `accept` that say nothing about the next one.
mod errno {
    use rustix::io::Errno;
    pub const ECONNABORTED: i32 = Errno::CONNABORTED.raw_os_error();
    pub const EINTR: i32 = Errno::INTR.raw_os_error();
}
