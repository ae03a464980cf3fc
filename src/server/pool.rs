//! The worker threads, and who gets one.
//!
//! A connection has a worker only while it has a request: between requests, and while its head is
//! incomplete, it is parked with the acceptor ([`super::acceptor`]), which costs a descriptor and no
//! thread. So idle and slow clients give way to the others all the time, and nobody's idle
//! connection is closed for it.
//!
//! The worker that was busy last is the one that serves next: its upstream connection and its
//! caches are the warmest, and the rest of the pool stays asleep.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::connection::{self, After, CloseReason, Connection, Kit, Stay};
use super::{Handler, Limits, WORKER_IDLE};

/// The stack of a worker. Its deepest work is a TLS handshake; debug builds need more for it.
const STACK_SIZE: usize = if cfg!(debug_assertions) {
    1 << 20
} else {
    256 << 10
};

/// From so many requests in flight on, a thread that waits looks before it sleeps. Measured on two
/// processors: with 8 in flight looking costs a sixth of the throughput, from 32 on it costs
/// nothing, and with 200 in flight it brings a tenth and takes a third off the 99th percentile.
const CROWD: usize = 24;

/// What the acceptor, the workers and the owner of the server share.
pub(crate) struct Shared {
    pub(super) limits: Limits,
    pool: Mutex<Pool>,
    /// One for each worker, all used with `pool`.
    wake: Vec<Condvar>,
    /// Told when a worker becomes idle; used with `pool`.
    became_idle: Condvar,
    /// How many connections wait for a worker: `Pool::pending`'s length, readable without the lock.
    waiting: AtomicUsize,
    /// How many workers have a connection, readable without the lock.
    busy: AtomicUsize,
    /// Connections that workers hand back to the acceptor.
    returned: Mutex<Vec<After>>,
    /// Wakes the acceptor's poll; a byte is written only when `woken` was false.
    waker: UnixStream,
    woken: AtomicBool,
    stopping: AtomicBool,
    aborting: AtomicBool,
    open: Arc<AtomicUsize>,
}

/// Guarded by one mutex, held for a few instructions.
struct Pool {
    /// Workers without work; the last one was busy most recently.
    idle: Vec<usize>,
    /// The connection handed to a worker that was idle.
    slots: Vec<Option<Connection>>,
    /// Connections with something to read that found no idle worker, and since when.
    pending: VecDeque<(Connection, Instant)>,
    /// What each worker serves, so that it can be cut off.
    serving: Vec<Option<Arc<TcpStream>>>,
}

/// Counts a connection as open until it is dropped.
pub(crate) struct OpenGuard(Arc<AtomicUsize>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    pub(super) fn new(limits: Limits, waker: UnixStream) -> Self {
        let workers = limits.workers;
        Shared {
            pool: Mutex::new(Pool {
                idle: Vec::with_capacity(workers),
                slots: (0..workers).map(|_| None).collect(),
                pending: VecDeque::new(),
                serving: (0..workers).map(|_| None).collect(),
            }),
            wake: (0..workers).map(|_| Condvar::new()).collect(),
            became_idle: Condvar::new(),
            waiting: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            returned: Mutex::new(Vec::new()),
            waker,
            woken: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            aborting: AtomicBool::new(false),
            open: Arc::new(AtomicUsize::new(0)),
            limits,
        }
    }

    /// Starts the workers.
    ///
    /// # Errors
    /// The system allows no further thread; those that were started end.
    pub(super) fn start_workers<H: Handler>(self: &Arc<Self>, handler: &Arc<H>) -> io::Result<()> {
        for index in 0..self.limits.workers {
            let (shared, handler) = (Arc::clone(self), Arc::clone(handler));
            let started = thread::Builder::new()
                .name(format!("worker-{}", index + 1))
                .stack_size(STACK_SIZE)
                .spawn(move || work(index, &*handler, &shared));
            if let Err(error) = started {
                self.stop();
                return Err(io::Error::new(
                    error.kind(),
                    format!(
                        "only {index} of {} worker threads could be started ({error}): \
                         lower --workers or raise the limit on threads (ulimit -u, cgroup pids.max)",
                        self.limits.workers
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Whether connections wait for a worker, so that nobody should keep one without need.
    pub(super) fn is_pressed(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Whether so many requests are in flight that threads take turns on the processors.
    pub(super) fn is_crowded(&self) -> bool {
        self.busy.load(Ordering::Relaxed) >= CROWD
    }

    /// Whether a worker is free.
    pub(super) fn has_idle_worker(&self) -> bool {
        !self.lock().idle.is_empty()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(super) fn is_aborting(&self) -> bool {
        self.aborting.load(Ordering::Relaxed)
    }

    pub(super) fn open_connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn open_guard(&self) -> OpenGuard {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenGuard(Arc::clone(&self.open))
    }

    /// Gives `connection`, which has something to read, to the worker that was busy last, or lets
    /// it wait for the next one that is free.
    pub(super) fn dispatch(&self, connection: Connection) {
        let mut pool = self.lock();
        // Idle workers end when the server stops; the others still look at what is pending.
        let worker = if self.is_stopping() {
            None
        } else {
            pool.idle.pop()
        };
        self.count_busy(&pool);
        match worker {
            Some(worker) => {
                pool.serving[worker] = Some(Arc::clone(&connection.socket));
                pool.slots[worker] = Some(connection);
                drop(pool);
                self.wake[worker].notify_one();
            }
            None => {
                pool.pending.push_back((connection, Instant::now()));
                self.waiting.store(pool.pending.len(), Ordering::Relaxed);
            }
        }
    }

    /// Takes the connection that waits for a worker since before `before`, if there is one.
    pub(super) fn take_overdue(&self, before: Instant) -> Option<Connection> {
        let mut pool = self.lock();
        if pool
            .pending
            .front()
            .is_none_or(|(_, since)| *since > before)
        {
            return None;
        }
        let (connection, _) = pool.pending.pop_front()?;
        self.waiting.store(pool.pending.len(), Ordering::Relaxed);
        Some(connection)
    }

    /// Since when the connection that waits longest for a worker has waited.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        if !self.is_pressed() {
            return None;
        }
        self.lock().pending.front().map(|(_, since)| *since)
    }

    /// Hands a connection back to the acceptor.
    fn hand_back(&self, after: After) {
        self.returned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(after);
        self.wake_acceptor();
    }

    pub(super) fn take_returned(&self) -> Vec<After> {
        self.woken.store(false, Ordering::SeqCst);
        std::mem::take(&mut *self.returned.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn wake_acceptor(&self) {
        if !self.woken.swap(true, Ordering::SeqCst) {
            use std::io::Write;
            // A full pipe wakes the acceptor just as well.
            let _ = (&self.waker).write(&[1]);
        }
    }

    /// Lets the workers finish what they have and take nothing new.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.wake_acceptor();
        drop(self.lock());
        for worker in &self.wake {
            worker.notify_one();
        }
    }

    /// Waits until no request is in flight. False: the time was not enough.
    pub(super) fn wait_until_idle(&self, timeout: Duration) -> bool {
        let busy =
            |pool: &mut Pool| pool.serving.iter().any(Option::is_some) || !pool.pending.is_empty();
        let (_pool, result) = self
            .became_idle
            .wait_timeout_while(self.lock(), timeout, busy)
            .unwrap_or_else(PoisonError::into_inner);
        !result.timed_out()
    }

    /// Cuts off all requests in flight: their handlers see a client that left, and can still tell
    /// it why.
    pub(super) fn abort(&self) {
        self.aborting.store(true, Ordering::SeqCst);
        for socket in self.lock().serving.iter().flatten() {
            // An error means that it is closed already.
            let _ = socket.shutdown(std::net::Shutdown::Read);
        }
    }

    fn count_busy(&self, pool: &Pool) {
        let busy = self.limits.workers - pool.idle.len();
        self.busy.store(busy, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        // Nothing that can panic runs under this lock, so a poisoned one is whole.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next connection of this worker. `Err`: there is none, and why.
    ///
    /// A connection that the worker gives back goes to the acceptor when the worker is already in
    /// the list of idle ones: its next request is to find this worker, with its warm upstream.
    fn next(&self, worker: usize, before: Before) -> Result<Connection, NoWork> {
        let mut pool = self.lock();
        if let Before::Work(after) = before {
            pool.serving[worker] = None;
            let pending = pool.pending.pop_front();
            if let Some((connection, _)) = &pending {
                self.waiting.store(pool.pending.len(), Ordering::Relaxed);
                pool.serving[worker] = Some(Arc::clone(&connection.socket));
            } else if self.is_stopping() {
                self.became_idle.notify_all();
            } else {
                pool.idle.push(worker);
                self.count_busy(&pool);
            }
            drop(pool);
            if let Some(after) = after {
                self.hand_back(after);
            }
            if let Some((connection, _)) = pending {
                return Ok(connection);
            }
            pool = self.lock();
        }
        loop {
            if let Some(connection) = pool.slots[worker].take() {
                return Ok(connection);
            }
            if self.is_stopping() {
                return Err(NoWork::Stopping);
            }
            let (guard, result) = self.wake[worker]
                .wait_timeout(pool, WORKER_IDLE)
                .unwrap_or_else(PoisonError::into_inner);
            pool = guard;
            if result.timed_out() && pool.slots[worker].is_none() {
                return Err(NoWork::Idle);
            }
        }
    }
}

/// What a worker that asks for work did before.
enum Before {
    /// It served a connection, which may have to go back to the acceptor.
    Work(Option<After>),
    /// It asked already and is still in the list of idle workers.
    Idleness,
}

enum NoWork {
    /// For a while now; the worker stays in the list of idle ones.
    Idle,
    Stopping,
}

/// The life of a worker thread.
fn work<H: Handler>(index: usize, handler: &H, shared: &Shared) {
    // Made for the first connection: a worker that is never needed costs its thread alone.
    let mut kit = None;
    let mut before = Before::Work(None);
    loop {
        let connection = match shared.next(index, before) {
            Ok(connection) => connection,
            Err(NoWork::Idle) => {
                kit = None;
                before = Before::Idleness;
                continue;
            }
            Err(NoWork::Stopping) => return,
        };
        before = Before::Work(None);
        let kit_now = kit.get_or_insert_with(|| Kit::new(handler.worker()));
        let served = catch_unwind(AssertUnwindSafe(|| {
            connection::serve(
                connection,
                handler,
                kit_now,
                shared,
                Stay::WhileRequestsCome,
            )
        }));
        match served {
            Ok(After::Closed(connection, reason)) => connection.log_close(reason),
            Ok(After::Park(connection)) if shared.is_stopping() => {
                connection.log_close(CloseReason::Stopping);
            }
            Ok(After::Requeue(connection)) => shared.dispatch(connection),
            Ok(after) => before = Before::Work(Some(after)),
            Err(_) => {
                // The panic hook has logged it. The client sees a closed connection; the worker
                // goes on with nothing that the panic could have left half done.
                kit = None;
            }
        }
    }
}
