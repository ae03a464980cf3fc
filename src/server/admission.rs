//! Who may be in flight: the permits, the queue for a permit, and the stop of the server.
//!
//! Also carries the connections that workers return to the accept thread, and counts open connections.
//! Called by the accept thread, the worker threads and the owner of the server.

use std::collections::VecDeque;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::connection::{Connection, ConnectionFate, OpenGuard};
use super::limits::Limits;

/// Decides which requests are in flight. One for the server.
///
/// Counts and flags are written SeqCst: [`Admission::admit_next`] and `notify_if_stopping` need all
/// threads to agree on the order of these writes.
pub(crate) struct Admission {
    /// Taken permits, one for each request in flight: at most [`Limits::workers`].
    in_flight: OwnCacheLines<AtomicUsize>,
    pub(super) limits: Limits,
    /// Guards the connections with a request that wait for a permit, the oldest first.
    queue: Mutex<VecDeque<Queued>>,
    /// The length of `queue`, readable without the lock.
    queued: AtomicUsize,
    /// Notified when a request ends while the server stops. Used with `queue`.
    became_idle: Condvar,
    /// Connections that workers return to the accept thread.
    returned: Mutex<Vec<ConnectionFate>>,
    /// Wakes the accept thread. A byte is written only if `woken` was false.
    waker: UnixStream,
    woken: AtomicBool,
    stopping: AtomicBool,
    aborting: AtomicBool,
    open: Arc<AtomicUsize>,
}

/// How busy the server is.
#[derive(Debug, Clone, Copy)]
pub struct ServerLoad {
    /// Requests in flight.
    pub in_flight: usize,
    /// The most requests in flight.
    pub workers: usize,
    /// Open connections of clients.
    pub connections: usize,
}

/// A connection in the queue, and since when.
type Queued = (Box<Connection>, Instant);

/// Shares no cache line with its neighbours: every request writes it, while they are mostly read. Two
/// lines of 64 bytes, since some processors fetch lines in pairs.
#[repr(align(128))]
struct OwnCacheLines<T>(T);

impl Admission {
    pub(super) fn new(limits: Limits, waker: UnixStream) -> Self {
        Admission {
            in_flight: OwnCacheLines(AtomicUsize::new(0)),
            limits,
            queue: Mutex::default(),
            queued: AtomicUsize::new(0),
            became_idle: Condvar::new(),
            returned: Mutex::default(),
            waker,
            woken: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            aborting: AtomicBool::new(false),
            open: Arc::default(),
        }
    }

    /// Whether connections wait for a permit, so that no thread should keep one without need.
    pub(super) fn has_queue(&self) -> bool {
        self.queued.load(Ordering::SeqCst) > 0
    }

    /// Whether a permit is free.
    pub(super) fn has_free_permit(&self) -> bool {
        self.in_flight.0.load(Ordering::SeqCst) < self.limits.workers
    }

    /// Takes a permit for a request. False: all are taken, or connections wait in the queue.
    pub(super) fn try_admit(&self) -> bool {
        !self.has_queue() && self.take_permit()
    }

    fn take_permit(&self) -> bool {
        let step = |count: usize| (count < self.limits.workers).then_some(count + 1);
        self.in_flight
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, step)
            .is_ok()
    }

    /// Gives back the permit of a request that has ended. Returns the connection that is admitted in its
    /// place, if one waits.
    pub(super) fn release(&self) -> Option<Box<Connection>> {
        self.in_flight.0.fetch_sub(1, Ordering::SeqCst);
        self.notify_if_stopping();
        self.admit_next()
    }

    /// Wakes [`Admission::wait_until_idle`]. Call this after a permit was given back or the queue became
    /// shorter.
    fn notify_if_stopping(&self) {
        // Either this sees that the server stops, or `wait_until_idle` sees the new count.
        if self.stopping.load(Ordering::SeqCst) {
            // `wait_until_idle` looks under this lock, so it cannot miss the notification.
            drop(self.lock());
            self.became_idle.notify_all();
        }
    }

    /// Puts `connection` at the end of the queue. Call [`Admission::admit_next`] afterwards.
    pub(super) fn enqueue(&self, connection: Box<Connection>) {
        let mut queue = self.lock();
        queue.push_back((connection, Instant::now()));
        self.queued.store(queue.len(), Ordering::SeqCst);
    }

    /// Takes a permit for the connection that has waited longest, if there are both.
    ///
    /// Called after a permit was given back and after a connection was queued, so no connection waits
    /// while a permit is free.
    pub(super) fn admit_next(&self) -> Option<Box<Connection>> {
        while self.has_queue() && self.take_permit() {
            let mut queue = self.lock();
            if let Some((connection, _)) = queue.pop_front() {
                self.queued.store(queue.len(), Ordering::SeqCst);
                return Some(connection);
            }
            drop(queue);
            self.in_flight.0.fetch_sub(1, Ordering::SeqCst);
            self.notify_if_stopping();
        }
        None
    }

    /// Takes the connection that has waited longest out of the queue, if it has waited since `before` or
    /// longer.
    pub(super) fn take_overdue(&self, before: Instant) -> Option<Queued> {
        let mut queue = self.lock();
        if queue.front().is_none_or(|(_, since)| *since > before) {
            return None;
        }
        let overdue = queue.pop_front()?;
        self.queued.store(queue.len(), Ordering::SeqCst);
        drop(queue);
        self.notify_if_stopping();
        Some(overdue)
    }

    /// Since when the connection that has waited longest is in the queue.
    pub(super) fn queued_since(&self) -> Option<Instant> {
        if !self.has_queue() {
            return None;
        }
        self.lock().front().map(|(_, since)| *since)
    }

    /// Returns a connection to the accept thread.
    pub(super) fn return_to_acceptor(&self, fate: ConnectionFate) {
        self.returned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(fate);
        self.wake_acceptor();
    }

    pub(super) fn take_returned(&self) -> Vec<ConnectionFate> {
        self.woken.store(false, Ordering::SeqCst);
        std::mem::take(&mut *self.returned.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn wake_acceptor(&self) {
        if !self.woken.swap(true, Ordering::SeqCst) {
            // Fails only on a full buffer, which wakes the accept thread as well.
            let _ = (&self.waker).write(&[1]);
        }
    }

    /// Stops the server: requests in flight go on, no further one is admitted.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.wake_acceptor();
    }

    pub(super) fn set_aborting(&self) {
        self.aborting.store(true, Ordering::SeqCst);
    }

    /// Waits until no request is in flight or queued. False: `timeout` has passed first.
    pub(super) fn wait_until_idle(&self, timeout: Duration) -> bool {
        let is_busy = |queue: &mut VecDeque<Queued>| {
            self.in_flight.0.load(Ordering::SeqCst) > 0 || !queue.is_empty()
        };
        let (_queue, result) = self
            .became_idle
            .wait_timeout_while(self.lock(), timeout, is_busy)
            .unwrap_or_else(PoisonError::into_inner);
        !result.timed_out()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(super) fn is_aborting(&self) -> bool {
        self.aborting.load(Ordering::Relaxed)
    }

    pub(super) fn load(&self) -> ServerLoad {
        ServerLoad {
            in_flight: self.in_flight.0.load(Ordering::Relaxed),
            workers: self.limits.workers,
            connections: self.open_connections(),
        }
    }

    pub(super) fn open_connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn open_guard(&self) -> OpenGuard {
        OpenGuard::new(&self.open)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Queued>> {
        // Nothing that can panic runs under this lock, so a poisoned one is whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
