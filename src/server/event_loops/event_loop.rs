//! An event loop: one thread waits on behalf of many connections.
//!
//! Giving every request its own thread costs two context switches per wait, more than the rest of a short
//! request. The thread that leads the loop handles each event itself and hands the loop to another thread
//! before it blocks (the Leader/Followers pattern, Schmidt et al. 2000).
//!
//! Only short waits happen here: for the next request of a connection, and for the first byte of a
//! response. A connection that is idle for longer returns to the accept thread, a request that waits for
//! longer gets a thread; see [`Work`].
//!
//! Called by the thread that leads the loop. [`EventLoop::add`], [`EventLoop::connections`] and
//! [`EventLoop::abort_requests`] are called by all threads.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Instant;

use super::poller::Poller;
use super::slots::{SlotState, Slots, TICK, Work};
use super::token::{EventSource, Token};
use crate::server::connection::Connection;
use crate::server::handler::Handler;

/// An event loop. Its cache lines are its own, in pairs, since some processors fetch two at once: threads
/// that lead different loops do not slow each other down.
#[repr(align(128))]
pub(crate) struct EventLoop<H: Handler> {
    poller: Poller,
    /// How many connections it has, readable without the lock.
    connections: AtomicUsize,
    /// Held for a few instructions and the registration of a socket. Seldom contended: mostly the leader
    /// needs it.
    slots: Mutex<Slots<H>>,
}

/// A connection and its context, returned because it has no slot.
pub(crate) type NoSlot<H> = (Box<Connection>, Box<<H as Handler>::Context>);

impl<H: Handler> EventLoop<H> {
    /// # Errors
    /// The system has no descriptor left, or no epoll.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(EventLoop {
            poller: Poller::new()?,
            connections: AtomicUsize::new(0),
            slots: Mutex::new(Slots::new()),
        })
    }

    /// Adds an idle connection, on which something has arrived or may soon arrive.
    ///
    /// # Errors
    /// The system cannot watch its socket. Returns the connection.
    pub(crate) fn add(
        &self,
        connection: Box<Connection>,
    ) -> Result<(), (io::Error, Box<Connection>)> {
        let client = Arc::clone(&connection.client.socket);
        match self.add_in_state(SlotState::Idle(connection, None), &client) {
            Ok(_) => Ok(()),
            Err((error, SlotState::Idle(connection, _))) => Err((error, connection)),
            Err(_) => unreachable!("the same state comes back"),
        }
    }

    /// Adds a connection that the leader works on already. Returns its slot.
    ///
    /// # Errors
    /// The system cannot watch its socket.
    pub(crate) fn add_busy(&self, client: &Arc<TcpStream>) -> io::Result<usize> {
        self.add_in_state(SlotState::Busy, client)
            .map_err(|(error, _)| error)
    }

    fn add_in_state(
        &self,
        state: SlotState<H>,
        client: &Arc<TcpStream>,
    ) -> Result<usize, (io::Error, SlotState<H>)> {
        let mut slots = self.lock();
        let was_empty = slots.is_empty();
        let (index, token) = slots.add(state, client);
        // Under the lock, so that no thread sees a connection that is not watched in the end.
        if let Err(error) = self.poller.add(&**client, token) {
            return Err((error, slots.remove(index)));
        }
        // Under the lock, so that it is counted before the leader can remove it.
        self.connections.fetch_add(1, Ordering::Relaxed);
        drop(slots);
        if was_empty {
            // The leader of an empty loop waits without a timeout.
            self.poller.wake();
        }
        Ok(index)
    }

    /// Waits for the next work of the leader. `reported` is a buffer for events.
    pub(crate) fn next(
        &self,
        reported: &mut Vec<Token>,
        is_stopping: impl Fn() -> bool,
    ) -> Work<H> {
        let mut slots = self.lock();
        loop {
            if let Some(work) = slots.next_work() {
                return work;
            }
            let timeout = slots.timeout();
            drop(slots);
            if let Err(error) = self.poller.wait(timeout, reported) {
                log::error!("An event loop cannot wait: {error}");
                thread::sleep(TICK);
            }
            let now = Instant::now();
            slots = self.lock();
            reported.iter().for_each(|&token| slots.push_event(token));
            slots.sweep(now, &is_stopping);
        }
    }

    /// Lets the connection in `index` wait for its next request, for which it keeps `context`.
    pub(crate) fn put_idle(
        &self,
        index: usize,
        connection: Box<Connection>,
        context: Option<Box<H::Context>>,
    ) {
        let mut slots = self.lock();
        if context.is_none()
            && let Some(upstream) = std::mem::take(&mut slots.get_mut(index).upstream).upgrade()
        {
            self.poller.remove(&*upstream);
        }
        if connection.client.may_have_input {
            // The poller does not report again what arrived before the last read.
            let token = slots.token(index, EventSource::Client);
            slots.push_event(token);
        }
        slots.put(index, SlotState::Idle(connection, context));
    }

    /// Lets the request of the connection in `index` wait until its upstream sends something.
    ///
    /// # Errors
    /// It has no upstream connection, or the system cannot watch it.
    pub(crate) fn put_awaiting_upstream(
        &self,
        index: usize,
        connection: Box<Connection>,
        context: Box<H::Context>,
        handler: &H,
    ) -> Result<(), NoSlot<H>> {
        let Some(socket) = handler.upstream_socket(&context) else {
            return Err((connection, context));
        };
        let mut slots = self.lock();
        if !slots.get_mut(index).upstream.ptr_eq(socket) {
            let Some(upstream) = socket.upgrade() else {
                return Err((connection, context));
            };
            let token = slots.token(index, EventSource::Upstream);
            if let Err(error) = self.poller.add(&*upstream, token) {
                log::warn!("An event loop cannot watch an upstream connection: {error}");
                return Err((connection, context));
            }
            slots.get_mut(index).upstream = Weak::clone(socket);
        }
        slots.put(index, SlotState::AwaitingUpstream(connection, context));
        Ok(())
    }

    /// Frees the slot in `index` and stops watching both sockets. Returns the client's.
    pub(crate) fn remove(&self, index: usize) -> Option<Arc<TcpStream>> {
        let (client, upstream) = self.lock().take_sockets(index);
        for socket in client.iter().chain(&upstream) {
            self.poller.remove(&**socket);
        }
        self.connections.fetch_sub(1, Ordering::Relaxed);
        self.lock().remove(index);
        client
    }

    /// Shuts down the receiving side of all requests in flight, so that their handlers see a client that
    /// has disconnected.
    pub(crate) fn abort_requests(&self) {
        for client in self.lock().clients_in_flight() {
            // An error means that it is closed already.
            let _ = client.shutdown(Shutdown::Read);
        }
    }

    /// How many connections it has.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Slots<H>> {
        // Nothing that can panic runs under this lock, so a poisoned one is whole.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::{Greeter, admission, connection};
    use std::io::Write;
    use std::sync::mpsc;
    use std::time::Duration;

    fn next(event_loop: &EventLoop<Greeter>) -> Work<Greeter> {
        event_loop.next(&mut vec![], || false)
    }

    #[test]
    fn a_silent_connection_expires_even_if_it_joins_an_empty_event_loop() {
        let event_loop = Arc::new(EventLoop::<Greeter>::new().unwrap());
        let admission = admission();
        for _ in 0..2 {
            let led = Arc::clone(&event_loop);
            let (sender, receiver) = mpsc::channel();
            thread::spawn(move || sender.send(next(&led)));
            // Long enough, as a rule, for the leader to begin a wait without a timeout.
            thread::sleep(Duration::from_millis(30));
            let (connection, _client) = connection(&admission);
            assert!(event_loop.add(connection).is_ok());
            let work = receiver.recv_timeout(Duration::from_secs(5));
            let Ok(Work::Expire(slot, connection, _)) = work else {
                panic!("no work, or other work");
            };
            assert!(event_loop.remove(slot).is_some());
            drop(connection);
            let counts = (event_loop.connections(), admission.open_connections());
            assert_eq!(counts, (0, 0));
        }
    }

    #[test]
    fn a_connection_with_input_is_served_and_served_again_after_it_was_idle() {
        let event_loop = EventLoop::<Greeter>::new().unwrap();
        let admission = admission();
        let (silent, _silent_client) = connection(&admission);
        assert!(event_loop.add(silent).is_ok());
        let (first, mut client) = connection(&admission);
        assert!(event_loop.add(first).is_ok());
        for _ in 0..3 {
            client.write_all(b"x").unwrap();
            let (slot, connection) = loop {
                match next(&event_loop) {
                    Work::Serve(slot, connection, _) => break (slot, connection),
                    // The silent one, if this takes long.
                    Work::Expire(slot, ..) => drop(event_loop.remove(slot)),
                    Work::Resume(..) => panic!("no request waits for the upstream"),
                }
            };
            assert_eq!(
                *connection.client.peer,
                client.local_addr().unwrap().to_string()
            );
            event_loop.put_idle(slot, connection, Some(Box::new(0)));
        }
    }
}
