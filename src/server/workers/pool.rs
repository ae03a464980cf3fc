//! The worker threads, and what they work on.
//!
//! A connection has a worker only while it has a request: between requests, and while its head is
//! incomplete, it is parked with the acceptor ([`crate::server::accept`]) or, for a moment, in a lane
//! ([`crate::server::event_loops`]). So idle and slow clients give way to the others all the time, and nobody's
//! idle connection is closed for it.
//!
//! There are as many threads as there may be requests in flight, and one more for each lane. The
//! thread that was busy last is the one that works next: its caches are the warmest, and the rest
//! of the pool stays asleep.

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use super::contexts::Contexts;
use super::leader::Leader;
use crate::net::wait::{self, Leadership};
use crate::server::admission::Admission;
use crate::server::connection::client::ReadOutcome;
use crate::server::connection::{
    self, Buffers, CloseReason, Connection, ConnectionFate, Served, WritePolicy,
};
use crate::server::event_loops::EventLoops;
use crate::server::event_loops::event_loop::Work;
use crate::server::handler::Handler;

/// The stack of a worker. Its deepest work is a TLS handshake; debug builds need more for it.
const STACK_SIZE: usize = if cfg!(debug_assertions) {
    1 << 20
} else {
    256 << 10
};

/// The threads and what they share. One for the server.
pub(crate) struct Workers<H: Handler> {
    pub(crate) admission: Arc<Admission>,
    pub(crate) handler: Arc<H>,
    pub(crate) event_loops: EventLoops<H>,
    /// Spare kits: what requests need while they are in flight.
    contexts: Contexts<H::Context>,
    threads: Mutex<Threads>,
    /// One for each thread, all used with `threads`.
    wake: Vec<Condvar>,
}

/// Guarded by one mutex, held for a few instructions.
struct Threads {
    /// Threads without work; the last one was busy most recently.
    idle: Vec<usize>,
    /// What an idle thread was given to do.
    given: Vec<Option<Task>>,
    /// What waits for a thread: there is one for each task, but it may be on its way here.
    waiting: VecDeque<Task>,
    /// What each thread serves that leads no lane, so that it can be cut off.
    serving: Vec<Option<Arc<TcpStream>>>,
}

/// What a thread is there for.
enum Task {
    /// To lead a lane, as long as nothing makes it wait.
    Lead(usize),
    /// To serve a connection that was admitted.
    Serve(Box<Connection>),
}

impl<H: Handler> Workers<H> {
    /// With a lane or two for each processor, if the system has such a thing.
    pub(crate) fn new(admission: Arc<Admission>, handler: Arc<H>) -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let most = EventLoops::<H>::count_for(processors, admission.limits.max_connections);
        Workers::with_event_loops(most, admission, handler)
    }

    /// With `most` lanes, if the system allows.
    pub(crate) fn with_event_loops(
        most: usize,
        admission: Arc<Admission>,
        handler: Arc<H>,
    ) -> Self {
        let workers = admission.limits.workers;
        let event_loops = EventLoops::new(most.min(workers));
        let threads = workers + event_loops.len();
        Workers {
            admission,
            handler,
            contexts: Contexts::new(),
            threads: Mutex::new(Threads {
                idle: Vec::with_capacity(threads),
                given: (0..threads).map(|_| None).collect(),
                waiting: (0..event_loops.len()).map(Task::Lead).collect(),
                serving: (0..threads).map(|_| None).collect(),
            }),
            wake: (0..threads).map(|_| Condvar::new()).collect(),
            event_loops,
        }
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// The system allows no further thread; the process is to end.
    pub(crate) fn start(self: &Arc<Self>) -> io::Result<()> {
        let threads = self.wake.len();
        for index in 0..threads {
            let workers = Arc::clone(self);
            let started = thread::Builder::new()
                .name(format!("worker-{}", index + 1))
                .stack_size(STACK_SIZE)
                .spawn(move || workers.work(index));
            if let Err(error) = started {
                return Err(io::Error::new(
                    error.kind(),
                    format!(
                        "only {index} of {threads} worker threads could be started ({error}): \
                         lower --workers or raise the limit on threads (ulimit -u, cgroup pids.max)"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Sees to `connection`, which has something to read. Returned is one that cannot be admitted.
    ///
    /// Where there are no spare kits its request will wait for a connection to the upstream to be
    /// made: it gets a thread at once, so that many at the same time need not pass a lane on one by
    /// one.
    pub(crate) fn dispatch(&self, connection: Box<Connection>) -> Option<Box<Connection>> {
        let is_for_a_lane = self.admission.has_room()
            && !self.admission.is_pressed()
            && self.contexts.count() > self.event_loops.population();
        let connection = if is_for_a_lane {
            self.adopt(connection).err()?
        } else {
            connection
        };
        if self.admission.try_admit() {
            self.assign(Task::Serve(connection));
            return None;
        }
        Some(connection)
    }

    /// Lets `connection`, which has a request, wait for its turn.
    pub(crate) fn enqueue(&self, connection: Box<Connection>) {
        self.admission.enqueue(connection);
        // Somebody may have finished meanwhile.
        if let Some(connection) = self.admission.admit_next() {
            self.assign(Task::Serve(connection));
        }
    }

    /// Puts `connection` into a lane.
    ///
    /// # Errors
    /// No lane can have it.
    fn adopt(&self, connection: Box<Connection>) -> Result<(), Box<Connection>> {
        let Some(event_loop) = self.event_loops.emptiest() else {
            return Err(connection);
        };
        self.event_loops[event_loop]
            .adopt(connection)
            .map_err(|(error, connection)| {
                log::debug!("no lane for {}: {error}", connection.client.peer);
                connection
            })
    }

    /// Gives `lane` to another thread.
    pub(crate) fn hand_over_loop(&self, event_loop: usize) {
        self.assign(Task::Lead(event_loop));
    }

    fn assign(&self, task: Task) {
        let mut threads = self.lock();
        match threads.idle.pop() {
            Some(thread) => {
                threads.given[thread] = Some(task);
                drop(threads);
                self.wake[thread].notify_one();
            }
            None => threads.waiting.push_back(task),
        }
    }

    /// `thread` serves the client of this socket without a lane, if it is at one.
    pub(crate) fn set_serving(&self, thread: usize, client: Option<Arc<TcpStream>>) {
        self.lock().serving[thread].clone_from(&client);
        if let Some(client) = client.filter(|_| self.admission.is_aborting()) {
            // Whoever cuts all off may have looked before it was there.
            let _ = client.shutdown(Shutdown::Read);
        }
    }

    /// Cuts off all requests in flight: their handlers see a client that left, and can still tell
    /// it why.
    pub(crate) fn cut_off(&self) {
        for event_loop in self.event_loops.iter() {
            event_loop.cut_off();
        }
        for socket in self.lock().serving.iter().flatten() {
            // An error means that it is closed already.
            let _ = socket.shutdown(Shutdown::Read);
        }
    }

    /// Gives up kits that nobody has needed for long.
    pub(crate) fn drop_idle_contexts(&self) {
        self.contexts.drop_idle(Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, Threads> {
        // Nothing that can panic runs under this lock, so a poisoned one is whole.
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `thread` is to do next.
    fn next_task(&self, thread: usize) -> Task {
        let mut threads = self.lock();
        threads.serving[thread] = None;
        if let Some(task) = threads.waiting.pop_front() {
            return task;
        }
        threads.idle.push(thread);
        loop {
            if let Some(task) = threads.given[thread].take() {
                return task;
            }
            threads = self.wake[thread]
                .wait(threads)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The life of a worker thread.
    fn work(self: &Arc<Self>, thread: usize) {
        let leader = Rc::new(Leader::new(Arc::clone(self), thread));
        wait::set_leadership(Rc::<Leader<H>>::clone(&leader));
        loop {
            let task = self.next_task(thread);
            let mut worker = Worker {
                workers: self,
                leader: &leader,
                thread,
                // Threads without work hold no memory.
                buffers: Buffers::default(),
                is_admitted: false,
            };
            let work = AssertUnwindSafe(|| match task {
                Task::Lead(event_loop) => worker.lead(event_loop),
                Task::Serve(connection) => worker.serve_admitted(connection),
            });
            // What a handler does is caught closer by. A panic of our own, which the hook has
            // logged, costs a request; the thread and its lane go on.
            if catch_unwind(work).is_err() {
                leader.hand_over();
                if worker.is_admitted
                    && let Some(connection) = self.admission.release()
                {
                    self.assign(Task::Serve(connection));
                }
            }
        }
    }
}

/// A worker thread at work.
struct Worker<'p, H: Handler> {
    workers: &'p Arc<Workers<H>>,
    leader: &'p Leader<H>,
    thread: usize,
    buffers: Buffers,
    /// What it works on is counted as in flight.
    is_admitted: bool,
}

impl<H: Handler> Worker<'_, H> {
    /// Works on what happens in a lane, for as long as nothing makes this thread wait. This is the
    /// main loop of a busy proxy.
    fn lead(&mut self, number: usize) {
        let event_loop = &self.workers.event_loops[number];
        let admission = &self.workers.admission;
        self.leader.take(number);
        let mut reported = Vec::new();
        while self.leader.is_leading() {
            match event_loop.next(&mut reported, || admission.is_stopping()) {
                Work::Serve(slot_index, connection, context) => {
                    self.leader.enter(slot_index);
                    self.serve_if_admitted(connection, context);
                }
                Work::Resume(slot_index, connection, context) => {
                    self.leader.enter(slot_index);
                    self.is_admitted = true;
                    let served = self.serve(connection, Some(context), WritePolicy::MayWait);
                    self.go_on(served);
                }
                Work::Expire(slot_index, connection, context) => {
                    event_loop.forget(slot_index);
                    self.put_context(context);
                    admission.hand_back(ConnectionFate::Idle(connection));
                }
            }
        }
    }

    /// Serves a connection of the lane that has sent something, if it need not stand in line.
    fn serve_if_admitted(
        &mut self,
        mut connection: Box<Connection>,
        context: Option<Box<H::Context>>,
    ) {
        if self.workers.admission.try_admit() {
            self.is_admitted = true;
            let served = self.serve(connection, context, WritePolicy::MayWait);
            return self.go_on(served);
        }
        match connection.take_in(&mut self.buffers) {
            ReadOutcome::Something => self.serve_quick_or_enqueue(connection, context),
            // What was reported has been read before: it is as idle as it was.
            ReadOutcome::Nothing => {
                let context = self.context_or(context);
                self.settle(Served::Done(ConnectionFate::Idle(connection), context));
            }
            ReadOutcome::End => {
                self.leader.leave_lane();
                self.put_context(context);
                connection.log_close(CloseReason::ClientClosed);
            }
        }
    }

    /// A request that cannot be admitted stands in line, unless it is answered without waiting.
    fn serve_quick_or_enqueue(
        &mut self,
        mut connection: Box<Connection>,
        context: Option<Box<H::Context>>,
    ) {
        if !connection.needs_permit(&*self.workers.handler) {
            let served = self.serve(connection, context, WritePolicy::NeverWait);
            return self.settle(served);
        }
        self.leader.leave_lane();
        self.put_context(context);
        self.workers.enqueue(connection);
    }

    /// Serves a connection that was admitted, and is in no lane.
    fn serve_admitted(&mut self, connection: Box<Connection>) {
        self.is_admitted = true;
        let client = Some(Arc::clone(&connection.client.socket));
        self.workers.set_serving(self.thread, client);
        let served = self.serve(connection, None, WritePolicy::MayWait);
        self.go_on(served);
    }

    /// Settles what has been served, and serves those that have waited for that.
    fn go_on(&mut self, mut served: Served<H>) {
        // One that waits is still in flight, and somebody else's when it goes on.
        while !matches!(served, Served::Waiting(..)) {
            self.settle(served);
            self.is_admitted = false;
            let Some(connection) = self.workers.admission.release() else {
                return;
            };
            self.is_admitted = true;
            self.leader.enter_lane_with(&connection.client.socket);
            if !self.leader.is_leading() {
                let client = Some(Arc::clone(&connection.client.socket));
                self.workers.set_serving(self.thread, client);
            }
            served = self.serve(connection, None, WritePolicy::MayWait);
        }
        self.settle(served);
    }

    fn serve(
        &mut self,
        connection: Box<Connection>,
        context: Option<Box<H::Context>>,
        write_policy: WritePolicy,
    ) -> Served<H> {
        let (workers, context) = (self.workers, self.context_or(context));
        let buffers = &mut self.buffers;
        let services = (&*workers.handler, &*workers.admission);
        guarded(|| connection::serve(connection, context, write_policy, buffers, services))
    }

    /// `kit`, else a spare one. A new one is made only where all are in use.
    fn context_or(&self, context: Option<Box<H::Context>>) -> Box<H::Context> {
        let workers = self.workers;
        context
            .or_else(|| workers.contexts.take())
            .unwrap_or_else(|| Box::new(workers.handler.new_context()))
    }

    fn put_context(&self, context: Option<Box<H::Context>>) {
        if let Some(context) = context {
            self.workers.contexts.put(context);
        }
    }

    /// Puts the connection where it belongs now.
    fn settle(&mut self, served: Served<H>) {
        let (fate, context) = match served {
            Served::Waiting(connection, context) => return self.let_wait(connection, context),
            Served::Done(fate, context) => (fate, context),
            // The panic hook has logged it. The client sees a closed connection; nothing is used
            // again that the panic could have left half done.
            Served::Panicked => return self.leader.leave_lane(),
        };
        if let ConnectionFate::Idle(connection) = fate {
            // It stays in the lane, or comes into one.
            return match self.leader.put_idle(connection, context) {
                Ok(spare) => self.put_context(spare),
                Err((connection, context)) => {
                    self.put_context(Some(context));
                    if let Err(connection) = self.workers.adopt(connection) {
                        self.workers
                            .admission
                            .hand_back(ConnectionFate::Idle(connection));
                    }
                }
            };
        }
        self.leader.leave_lane();
        self.put_context(Some(context));
        match fate {
            ConnectionFate::Closed(connection, reason) => connection.log_close(reason),
            ConnectionFate::Requeue(connection) => self.workers.enqueue(connection),
            fate => self.workers.admission.hand_back(fate),
        }
    }

    /// The request waits for the upstream in the lane; where that cannot be, it goes on at once.
    fn let_wait(&mut self, connection: Box<Connection>, context: Box<H::Context>) {
        let put = self
            .leader
            .put_waiting(connection, context, &*self.workers.handler);
        let Err((connection, context)) = put else {
            self.is_admitted = false;
            return;
        };
        self.leader.hand_over();
        let served = self.serve(connection, Some(context), WritePolicy::MayWait);
        self.go_on(served);
    }
}

/// A panic ends one request, not the thread.
fn guarded<H: Handler>(serve: impl FnOnce() -> Served<H>) -> Served<H> {
    catch_unwind(AssertUnwindSafe(serve)).unwrap_or(Served::Panicked)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
