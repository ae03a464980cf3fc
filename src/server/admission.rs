//! What the acceptor, the workers and the owner of the server share: who may be in flight, who waits
//! for that, and what goes back to the acceptor.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::connection::{Connection, ConnectionFate};
use super::limits::Limits;

/// See the module's documentation.
pub(crate) struct Admission {
    /// Requests in flight: at most `limits.workers`.
    in_flight: Busy<AtomicUsize>,
    pub(super) limits: Limits,
    /// Connections with a request that could not be admitted, and since when.
    pending: Mutex<VecDeque<(Box<Connection>, Instant)>>,
    /// Their number, readable without the lock.
    waiting: AtomicUsize,
    /// Told when a request is over while the server stops; used with `pending`.
    became_idle: Condvar,
    /// Connections that workers hand back to the acceptor.
    returned: Mutex<Vec<ConnectionFate>>,
    /// Wakes the acceptor's poll; a byte is written only when `woken` was false.
    waker: UnixStream,
    woken: AtomicBool,
    stopping: AtomicBool,
    aborting: AtomicBool,
    open: Arc<AtomicUsize>,
}

/// What each request writes to, by itself in its cache lines: all else here is mostly read.
#[repr(align(128))]
struct Busy<T>(T);

/// Counts a connection as open until it is dropped.
pub(crate) struct OpenGuard(Arc<AtomicUsize>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Admission {
    pub(super) fn new(limits: Limits, waker: UnixStream) -> Self {
        Admission {
            in_flight: Busy(AtomicUsize::new(0)),
            limits,
            pending: Mutex::default(),
            waiting: AtomicUsize::new(0),
            became_idle: Condvar::new(),
            returned: Mutex::default(),
            waker,
            woken: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            aborting: AtomicBool::new(false),
            open: Arc::default(),
        }
    }

    /// Whether connections wait for their turn, so that nobody should keep a thread without need.
    pub(super) fn is_pressed(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Whether another request could be in flight.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight.0.load(Ordering::SeqCst) < self.limits.workers
    }

    /// Admits a request to be in flight, unless all are taken or others have waited for longer.
    pub(super) fn try_admit(&self) -> bool {
        !self.is_pressed() && self.take_permit()
    }

    fn take_permit(&self) -> bool {
        let step = |count: usize| (count < self.limits.workers).then_some(count + 1);
        self.in_flight
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, step)
            .is_ok()
    }

    /// A request that was admitted is over. Returns the connection that is admitted in its place.
    pub(super) fn release(&self) -> Option<Box<Connection>> {
        self.in_flight.0.fetch_sub(1, Ordering::SeqCst);
        self.tell_idle();
        self.admit_next()
    }

    /// To be called when what [`Shared::wait_until_idle`] waits for may have come.
    fn tell_idle(&self) {
        // In one order with the counts: either this sees that the server stops, or whoever stops it
        // sees the count.
        if self.stopping.load(Ordering::SeqCst) {
            // Whoever waits for the end looks under this lock, so that it cannot miss it.
            drop(self.lock());
            self.became_idle.notify_all();
        }
    }

    /// Lets `connection` wait until it is admitted. To be followed by [`Shared::admit_next`].
    pub(super) fn enqueue(&self, connection: Box<Connection>) {
        let mut pending = self.lock();
        pending.push_back((connection, Instant::now()));
        self.waiting.store(pending.len(), Ordering::SeqCst);
    }

    /// Admits the connection that has waited longest, if there is one and room for it.
    ///
    /// Whoever makes room looks for those that wait, and whoever lets one wait looks for room
    /// afterwards: so it cannot be that there is room and somebody waits.
    pub(super) fn admit_next(&self) -> Option<Box<Connection>> {
        while self.is_pressed() && self.take_permit() {
            let mut pending = self.lock();
            if let Some((connection, _)) = pending.pop_front() {
                self.waiting.store(pending.len(), Ordering::SeqCst);
                return Some(connection);
            }
            drop(pending);
            self.in_flight.0.fetch_sub(1, Ordering::SeqCst);
            self.tell_idle();
        }
        None
    }

    /// Takes the connection that has waited since before `before`, if there is one, and since when.
    pub(super) fn take_overdue(&self, before: Instant) -> Option<(Box<Connection>, Instant)> {
        let mut pending = self.lock();
        if pending.front().is_none_or(|(_, since)| *since > before) {
            return None;
        }
        let overdue = pending.pop_front()?;
        self.waiting.store(pending.len(), Ordering::SeqCst);
        drop(pending);
        self.tell_idle();
        Some(overdue)
    }

    /// Since when the connection that waits longest has waited.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        if !self.is_pressed() {
            return None;
        }
        self.lock().front().map(|(_, since)| *since)
    }

    /// Hands a connection back to the acceptor.
    pub(super) fn hand_back(&self, fate: ConnectionFate) {
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
            use std::io::Write;
            // A full pipe wakes the acceptor just as well.
            let _ = (&self.waker).write(&[1]);
        }
    }

    /// Requests in flight go on, no new one is taken.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.wake_acceptor();
    }

    pub(super) fn set_aborting(&self) {
        self.aborting.store(true, Ordering::SeqCst);
    }

    /// Waits until no request is in flight. False: the time was not enough.
    pub(super) fn wait_until_idle(&self, timeout: Duration) -> bool {
        let is_busy = |pending: &mut VecDeque<_>| {
            self.in_flight.0.load(Ordering::SeqCst) > 0 || !pending.is_empty()
        };
        let (_pending, result) = self
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

    pub(super) fn open_connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn open_guard(&self) -> OpenGuard {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenGuard(Arc::clone(&self.open))
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Box<Connection>, Instant)>> {
        // Nothing that can panic runs under this lock, so a poisoned one is whole.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
