//! The worker threads, and what they work on.
//!
//! A connection has a worker only while it has a request: between requests, and while its head is
//! incomplete, it is parked with the acceptor ([`super::accept`]) or, for a moment, in a lane
//! ([`super::event_loops`]). So idle and slow clients give way to the others all the time, and nobody's
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

use super::Handler;
use super::admission::Shared;
use super::client::Arrived;
use super::connection::{self, After, Buffers, CloseReason, Connection, Served, Stay};
use super::contexts::Contexts;
use super::event_loops::Lanes;
use super::event_loops::event_loop::Next;
use super::leadership::LaneTurn;
use crate::net::socket::{self, Turn};

/// The stack of a worker. Its deepest work is a TLS handshake; debug builds need more for it.
const STACK_SIZE: usize = if cfg!(debug_assertions) {
    1 << 20
} else {
    256 << 10
};

/// The threads and what they share. One for the server.
pub(super) struct Pool<H: Handler> {
    pub(super) shared: Arc<Shared>,
    pub(super) handler: Arc<H>,
    pub(super) lanes: Lanes<H>,
    /// Spare kits: what requests need while they are in flight.
    shelves: Contexts<H::Kit>,
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

impl<H: Handler> Pool<H> {
    /// With a lane or two for each processor, if the system has such a thing.
    pub(super) fn new(shared: Arc<Shared>, handler: Arc<H>) -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let most = Lanes::<H>::count_for(processors, shared.limits.max_connections);
        Pool::with_lanes(most, shared, handler)
    }

    /// With `most` lanes, if the system allows.
    pub(super) fn with_lanes(most: usize, shared: Arc<Shared>, handler: Arc<H>) -> Self {
        let workers = shared.limits.workers;
        let lanes = Lanes::new(most.min(workers));
        let threads = workers + lanes.len();
        Pool {
            shared,
            handler,
            shelves: Contexts::new(),
            threads: Mutex::new(Threads {
                idle: Vec::with_capacity(threads),
                given: (0..threads).map(|_| None).collect(),
                waiting: (0..lanes.len()).map(Task::Lead).collect(),
                serving: (0..threads).map(|_| None).collect(),
            }),
            wake: (0..threads).map(|_| Condvar::new()).collect(),
            lanes,
        }
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// The system allows no further thread; the process is to end.
    pub(super) fn start(self: &Arc<Self>) -> io::Result<()> {
        let threads = self.wake.len();
        for index in 0..threads {
            let pool = Arc::clone(self);
            let started = thread::Builder::new()
                .name(format!("worker-{}", index + 1))
                .stack_size(STACK_SIZE)
                .spawn(move || pool.work(index));
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
    pub(super) fn dispatch(&self, connection: Box<Connection>) -> Option<Box<Connection>> {
        let is_for_a_lane = self.shared.has_room()
            && !self.shared.is_pressed()
            && self.shelves.count() > self.lanes.population();
        let connection = if is_for_a_lane {
            self.adopt(connection).err()?
        } else {
            connection
        };
        if self.shared.admit() {
            self.give(Task::Serve(connection));
            return None;
        }
        Some(connection)
    }

    /// Lets `connection`, which has a request, wait for its turn.
    pub(super) fn enqueue(&self, connection: Box<Connection>) {
        self.shared.enqueue(connection);
        // Somebody may have finished meanwhile.
        if let Some(connection) = self.shared.admit_next() {
            self.give(Task::Serve(connection));
        }
    }

    /// Puts `connection` into a lane.
    ///
    /// # Errors
    /// No lane can have it.
    fn adopt(&self, connection: Box<Connection>) -> Result<(), Box<Connection>> {
        let Some(lane) = self.lanes.emptiest() else {
            return Err(connection);
        };
        self.lanes[lane]
            .adopt(connection)
            .map_err(|(error, connection)| {
                log::debug!("no lane for {}: {error}", connection.client.peer);
                connection
            })
    }

    /// Gives `lane` to another thread.
    pub(super) fn give_lane(&self, lane: usize) {
        self.give(Task::Lead(lane));
    }

    fn give(&self, task: Task) {
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
    pub(super) fn set_serving(&self, thread: usize, client: Option<Arc<TcpStream>>) {
        self.lock().serving[thread].clone_from(&client);
        if let Some(client) = client.filter(|_| self.shared.is_aborting()) {
            // Whoever cuts all off may have looked before it was there.
            let _ = client.shutdown(Shutdown::Read);
        }
    }

    /// Cuts off all requests in flight: their handlers see a client that left, and can still tell
    /// it why.
    pub(super) fn cut_off(&self) {
        for lane in self.lanes.iter() {
            lane.cut_off();
        }
        for socket in self.lock().serving.iter().flatten() {
            // An error means that it is closed already.
            let _ = socket.shutdown(Shutdown::Read);
        }
    }

    /// Gives up kits that nobody has needed for long.
    pub(super) fn drop_cold_kits(&self) {
        self.shelves.drop_idle(Instant::now());
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
        let turn = Rc::new(LaneTurn::new(Arc::clone(self), thread));
        socket::take_turns(Rc::<LaneTurn<H>>::clone(&turn));
        loop {
            let task = self.next_task(thread);
            let mut worker = Worker {
                pool: self,
                turn: &turn,
                thread,
                // Threads without work hold no memory.
                buffers: Buffers::default(),
                is_admitted: false,
            };
            let work = AssertUnwindSafe(|| match task {
                Task::Lead(lane) => worker.lead(lane),
                Task::Serve(connection) => worker.serve_admitted(connection),
            });
            // What a handler does is caught closer by. A panic of our own, which the hook has
            // logged, costs a request; the thread and its lane go on.
            if catch_unwind(work).is_err() {
                turn.give_up();
                if worker.is_admitted
                    && let Some(connection) = self.shared.release()
                {
                    self.give(Task::Serve(connection));
                }
            }
        }
    }
}

/// A worker thread at work.
struct Worker<'p, H: Handler> {
    pool: &'p Arc<Pool<H>>,
    turn: &'p LaneTurn<H>,
    thread: usize,
    buffers: Buffers,
    /// What it works on is counted as in flight.
    is_admitted: bool,
}

impl<H: Handler> Worker<'_, H> {
    /// Works on what happens in a lane, for as long as nothing makes this thread wait. This is the
    /// main loop of a busy proxy.
    fn lead(&mut self, number: usize) {
        let lane = &self.pool.lanes[number];
        let shared = &self.pool.shared;
        self.turn.take(number);
        let mut reported = Vec::new();
        while self.turn.is_held() {
            match lane.next(&mut reported, || shared.is_stopping()) {
                Next::Serve(place, connection, kit) => {
                    self.turn.enter(place);
                    self.serve_if_admitted(connection, kit);
                }
                Next::Resume(place, connection, kit) => {
                    self.turn.enter(place);
                    self.is_admitted = true;
                    let served = self.serve(connection, Some(kit), Stay::WhileRequestsCome);
                    self.go_on(served);
                }
                Next::HandBack(place, connection, kit) => {
                    lane.forget(place);
                    self.shelve(kit);
                    shared.hand_back(After::Idle(connection));
                }
            }
        }
    }

    /// Serves a connection of the lane that has sent something, if it need not stand in line.
    fn serve_if_admitted(&mut self, mut connection: Box<Connection>, kit: Option<Box<H::Kit>>) {
        if self.pool.shared.admit() {
            self.is_admitted = true;
            let served = self.serve(connection, kit, Stay::WhileRequestsCome);
            return self.go_on(served);
        }
        match connection.take_in(&mut self.buffers) {
            Arrived::Something => self.serve_quick_or_enqueue(connection, kit),
            // What was reported has been read before: it is as idle as it was.
            Arrived::Nothing => {
                let kit = self.kit_or(kit);
                self.settle(Served::Done(After::Idle(connection), kit));
            }
            Arrived::End => {
                self.turn.leave_lane();
                self.shelve(kit);
                connection.log_close(CloseReason::ClientClosed);
            }
        }
    }

    /// A request that cannot be admitted stands in line, unless it is answered without waiting.
    fn serve_quick_or_enqueue(
        &mut self,
        mut connection: Box<Connection>,
        kit: Option<Box<H::Kit>>,
    ) {
        if connection.is_quick(&*self.pool.handler) {
            let served = self.serve(connection, kit, Stay::OneRequest);
            return self.settle(served);
        }
        self.turn.leave_lane();
        self.shelve(kit);
        self.pool.enqueue(connection);
    }

    /// Serves a connection that was admitted, and is in no lane.
    fn serve_admitted(&mut self, connection: Box<Connection>) {
        self.is_admitted = true;
        let client = Some(Arc::clone(&connection.client.socket));
        self.pool.set_serving(self.thread, client);
        let served = self.serve(connection, None, Stay::WhileRequestsCome);
        self.go_on(served);
    }

    /// Settles what has been served, and serves those that have waited for that.
    fn go_on(&mut self, mut served: Served<H>) {
        // One that waits is still in flight, and somebody else's when it goes on.
        while !matches!(served, Served::Waiting(..)) {
            self.settle(served);
            self.is_admitted = false;
            let Some(connection) = self.pool.shared.release() else {
                return;
            };
            self.is_admitted = true;
            self.turn.enter_lane_with(&connection.client.socket);
            if !self.turn.is_held() {
                let client = Some(Arc::clone(&connection.client.socket));
                self.pool.set_serving(self.thread, client);
            }
            served = self.serve(connection, None, Stay::WhileRequestsCome);
        }
        self.settle(served);
    }

    fn serve(
        &mut self,
        connection: Box<Connection>,
        kit: Option<Box<H::Kit>>,
        stay: Stay,
    ) -> Served<H> {
        let (pool, kit) = (self.pool, self.kit_or(kit));
        let buffers = &mut self.buffers;
        let context = (&*pool.handler, &*pool.shared);
        guarded(|| connection::serve(connection, kit, stay, buffers, context))
    }

    /// `kit`, else a spare one. A new one is made only where all are in use.
    fn kit_or(&self, kit: Option<Box<H::Kit>>) -> Box<H::Kit> {
        let pool = self.pool;
        kit.or_else(|| pool.shelves.take())
            .unwrap_or_else(|| Box::new(pool.handler.kit()))
    }

    fn shelve(&self, kit: Option<Box<H::Kit>>) {
        if let Some(kit) = kit {
            self.pool.shelves.put(kit);
        }
    }

    /// Puts the connection where it belongs now.
    fn settle(&mut self, served: Served<H>) {
        let (after, kit) = match served {
            Served::Waiting(connection, kit) => return self.let_wait(connection, kit),
            Served::Done(after, kit) => (after, kit),
            // The panic hook has logged it. The client sees a closed connection; nothing is used
            // again that the panic could have left half done.
            Served::Panicked => return self.turn.leave_lane(),
        };
        if let After::Idle(connection) = after {
            // It stays in the lane, or comes into one.
            return match self.turn.put_idle(connection, kit) {
                Ok(spare) => self.shelve(spare),
                Err((connection, kit)) => {
                    self.shelve(Some(kit));
                    if let Err(connection) = self.pool.adopt(connection) {
                        self.pool.shared.hand_back(After::Idle(connection));
                    }
                }
            };
        }
        self.turn.leave_lane();
        self.shelve(Some(kit));
        match after {
            After::Closed(connection, reason) => connection.log_close(reason),
            After::Requeue(connection) => self.pool.enqueue(connection),
            after => self.pool.shared.hand_back(after),
        }
    }

    /// The request waits for the upstream in the lane; where that cannot be, it goes on at once.
    fn let_wait(&mut self, connection: Box<Connection>, kit: Box<H::Kit>) {
        let put = self.turn.put_waiting(connection, kit, &*self.pool.handler);
        let Err((connection, kit)) = put else {
            self.is_admitted = false;
            return;
        };
        self.turn.give_up();
        let served = self.serve(connection, Some(kit), Stay::WhileRequestsCome);
        self.go_on(served);
    }
}

/// A panic ends one request, not the thread.
fn guarded<H: Handler>(serve: impl FnOnce() -> Served<H>) -> Served<H> {
    catch_unwind(AssertUnwindSafe(serve)).unwrap_or(Served::Panicked)
}

#[cfg(test)]
mod tests;
