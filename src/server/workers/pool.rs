//! What the worker threads share, and which of them does what next.
//!
//! Called by the worker threads and the accept thread. Locks are held for a few instructions.

use std::collections::VecDeque;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use super::contexts::Contexts;
use crate::server::admission::Admission;
use crate::server::connection::Connection;
use crate::server::event_loops::EventLoops;
use crate::server::handler::Handler;

/// The shared state of the worker threads. One for the server.
pub(crate) struct Workers<H: Handler> {
    pub(crate) admission: Arc<Admission>,
    pub(crate) handler: Arc<H>,
    pub(super) event_loops: EventLoops<H>,
    pub(super) contexts: Contexts<H::Context>,
    threads: Mutex<Threads>,
    /// One for each thread, used with `threads`.
    wake: Vec<Condvar>,
}

/// What each thread does. Threads are numbers.
struct Threads {
    /// Threads without a task; the most recently used one is the last.
    idle: Vec<usize>,
    /// The task for which an idle thread is being woken.
    scheduled: Vec<Option<Task>>,
    /// Tasks for which no thread was idle. A thread for each of them is about to finish its own task.
    backlog: VecDeque<Task>,
    /// The client that each thread serves without leading an event loop, so that it can be aborted.
    serving: Vec<Option<Arc<TcpStream>>>,
}

/// What a thread is woken for.
pub(super) enum Task {
    /// Lead the event loop with this index.
    Lead(usize),
    /// Serve a connection that has been admitted.
    Serve(Box<Connection>),
}

impl<H: Handler> Workers<H> {
    /// Makes the state for as many event loops as this machine can use.
    pub(crate) fn new(admission: Arc<Admission>, handler: Arc<H>) -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let most = EventLoops::<H>::count_for(processors, admission.limits.max_connections);
        Workers::with_event_loops(most, admission, handler)
    }

    /// Makes the state for `most` event loops, or as many as the system allows.
    pub(crate) fn with_event_loops(
        most: usize,
        admission: Arc<Admission>,
        handler: Arc<H>,
    ) -> Self {
        let permits = admission.limits.workers;
        let event_loops = EventLoops::new(most.min(permits));
        let threads = permits + event_loops.len();
        Workers {
            admission,
            handler,
            contexts: Contexts::new(),
            threads: Mutex::new(Threads {
                idle: Vec::with_capacity(threads),
                scheduled: (0..threads).map(|_| None).collect(),
                backlog: (0..event_loops.len()).map(Task::Lead).collect(),
                serving: (0..threads).map(|_| None).collect(),
            }),
            wake: (0..threads).map(|_| Condvar::new()).collect(),
            event_loops,
        }
    }

    /// How many threads to start.
    pub(super) fn thread_count(&self) -> usize {
        self.wake.len()
    }

    /// Gives `connection`, on which something has arrived, to an event loop or a thread. Returns it if no
    /// permit is free.
    pub(crate) fn dispatch(&self, connection: Box<Connection>) -> Option<Box<Connection>> {
        // Without a spare context the request has to wait for a new upstream connection. It gets a thread
        // at once, so that many such requests do not pass an event loop from thread to thread.
        let is_for_event_loop = self.admission.has_free_permit()
            && !self.admission.has_queue()
            && self.contexts.count() > self.event_loops.connections();
        let connection = if is_for_event_loop {
            self.add_to_event_loop(connection).err()?
        } else {
            connection
        };
        if self.admission.try_admit() {
            self.schedule(Task::Serve(connection));
            return None;
        }
        Some(connection)
    }

    /// Lets `connection`, which has a request, wait for a permit.
    pub(crate) fn enqueue(&self, connection: Box<Connection>) {
        self.admission.enqueue(connection);
        // A permit may have been given back meanwhile.
        if let Some(connection) = self.admission.admit_next() {
            self.schedule(Task::Serve(connection));
        }
    }

    /// Puts `connection` into the event loop with the fewest connections.
    ///
    /// # Errors
    /// There is no event loop, or it cannot watch the socket. Returns the connection.
    pub(super) fn add_to_event_loop(
        &self,
        connection: Box<Connection>,
    ) -> Result<(), Box<Connection>> {
        let Some(index) = self.event_loops.emptiest() else {
            return Err(connection);
        };
        self.event_loops[index]
            .add(connection)
            .map_err(|(error, connection)| {
                let peer = &connection.client.peer;
                log::debug!("{peer}: cannot join an event loop: {error}");
                connection
            })
    }

    /// Gives `task` to the most recently used idle thread.
    pub(super) fn schedule(&self, task: Task) {
        let mut threads = self.lock();
        match threads.idle.pop() {
            Some(thread) => {
                threads.scheduled[thread] = Some(task);
                drop(threads);
                self.wake[thread].notify_one();
            }
            None => threads.backlog.push_back(task),
        }
    }

    /// Waits for the next task of `thread`.
    pub(super) fn next_task(&self, thread: usize) -> Task {
        let mut threads = self.lock();
        threads.serving[thread] = None;
        if let Some(task) = threads.backlog.pop_front() {
            return task;
        }
        threads.idle.push(thread);
        loop {
            if let Some(task) = threads.scheduled[thread].take() {
                return task;
            }
            threads = self.wake[thread]
                .wait(threads)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Records the client that `thread` serves without leading an event loop, if there is one.
    pub(super) fn set_serving(&self, thread: usize, client: Option<Arc<TcpStream>>) {
        self.lock().serving[thread].clone_from(&client);
        if let Some(client) = client.filter(|_| self.admission.is_aborting()) {
            // `abort_requests` may have read the list before this client was in it.
            let _ = client.shutdown(Shutdown::Read);
        }
    }

    /// Aborts all requests in flight: their handlers see a client that has disconnected, and can still
    /// send it the reason.
    pub(crate) fn abort_requests(&self) {
        for event_loop in self.event_loops.iter() {
            event_loop.abort_requests();
        }
        for socket in self.lock().serving.iter().flatten() {
            // An error means that it is closed already.
            let _ = socket.shutdown(Shutdown::Read);
        }
    }

    /// Drops the contexts that have been unused for long.
    pub(crate) fn drop_idle_contexts(&self) {
        self.contexts.drop_idle(Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, Threads> {
        // Nothing that can panic runs under this lock, so a poisoned one is whole.
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
