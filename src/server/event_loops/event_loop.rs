//! A lane: connections whose next bytes one thread awaits for all of them.
//!
//! A thread for each request in flight costs two thread switches each time that it waits, which is
//! more than all the rest of a short request. So the short waits are shared: for the next request of
//! a connection that has just had one, and for the first byte of an answer. A lane is led by one of
//! the pool's threads, which takes one event after the other and works on it as any thread does.
//! Before it waits for anybody itself it gives the lane to another thread ([`crate::net::socket::Turn`])
//! and goes on as a thread of its one request.
//!
//! What takes longer is not for a lane: an idle connection goes back to the acceptor after
//! [`HOT`], and a request whose answer has not begun after [`SHORT_WAIT`] gets a thread.
//!
//! Called by the thread that leads the lane; [`Lane::adopt`], [`Lane::population`] and
//! [`Lane::cut_off`] by all threads.

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::poller::{Poller, Side, Token};
use crate::server::connection::Connection;
use crate::server::handler::Handler;
use crate::server::workers::leader::NoSlot;

/// How often the lane looks for what has waited long. Waits are counted in these.
const TICK: Duration = Duration::from_millis(10);
/// A connection without a request stays for so many ticks.
const HOT: u64 = 2;
/// A request waits for the first byte of its answer for so many ticks before it gets a thread, which
/// watches its client too.
const SHORT_WAIT: u64 = 10;

/// See the module's documentation. Two of them share no cache line (nor a pair of lines, which some
/// processors fetch together): what one thread writes would be what the other one waits for.
#[repr(align(128))]
pub(crate) struct EventLoop<H: Handler> {
    poller: Poller,
    /// Its connections, readable without the lock.
    population: AtomicUsize,
    state: Mutex<State<H>>,
}

/// Guarded by one mutex, held for a few instructions; only the thread that leads needs it often.
struct State<H: Handler> {
    slots: Vec<Slot<H>>,
    /// Indices of entries without a connection.
    free: Vec<usize>,
    /// What was reported and nobody has looked at yet.
    events: VecDeque<Token>,
    tick: u64,
    next_tick: Instant,
    /// The server stops: nobody stays.
    is_stopping: bool,
}

/// A place for a connection.
struct Slot<H: Handler> {
    /// Tells the events of this connection from those of one that had the place before.
    generation: u32,
    slot_index: SlotState<H>,
    client: Option<Arc<TcpStream>>,
    /// The upstream connection that is watched for it.
    upstream: Weak<TcpStream>,
    /// The tick when it began to wait.
    since: u64,
    /// The client has sent something since.
    has_input: bool,
}

enum SlotState<H: Handler> {
    Free,
    /// It is being worked on.
    Taken,
    /// It waits for its next request, with what the last one needed.
    Idle(Box<Connection>, Option<Box<H::Context>>),
    /// It waits for the upstream.
    Waiting(Box<Connection>, Box<H::Context>),
}

/// What the leader does next. A number is the place of the connection, which is taken.
pub(crate) enum Work<H: Handler> {
    /// The client has sent something.
    Serve(usize, Box<Connection>, Option<Box<H::Context>>),
    /// The upstream has sent something, or has been silent for a while.
    Resume(usize, Box<Connection>, Box<H::Context>),
    /// It has had no request for a while.
    Expire(usize, Box<Connection>, Option<Box<H::Context>>),
}

impl<H: Handler> EventLoop<H> {
    /// # Errors
    /// The system has no descriptor for it, or no such thing.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(EventLoop {
            poller: Poller::new()?,
            population: AtomicUsize::new(0),
            state: Mutex::new(State {
                slots: Vec::new(),
                free: Vec::new(),
                events: VecDeque::new(),
                tick: 0,
                next_tick: Instant::now() + TICK,
                is_stopping: false,
            }),
        })
    }

    /// Takes in a connection that has something to read, or will have.
    ///
    /// # Errors
    /// The system cannot watch its socket.
    pub(crate) fn adopt(
        &self,
        connection: Box<Connection>,
    ) -> Result<(), (io::Error, Box<Connection>)> {
        let client = Arc::clone(&connection.client.socket);
        match self.enter(SlotState::Idle(connection, None), &client) {
            Ok(_) => Ok(()),
            Err((error, SlotState::Idle(connection, _))) => Err((error, connection)),
            Err(_) => unreachable!("what was put in comes back"),
        }
    }

    /// As [`Lane::adopt`], of a connection that the leader works on already.
    ///
    /// # Errors
    /// The system cannot watch its socket.
    pub(crate) fn adopt_taken(&self, client: &Arc<TcpStream>) -> io::Result<usize> {
        self.enter(SlotState::Taken, client)
            .map_err(|(error, _)| error)
    }

    fn enter(
        &self,
        slot_index: SlotState<H>,
        client: &Arc<TcpStream>,
    ) -> Result<usize, (io::Error, SlotState<H>)> {
        let mut state = self.lock();
        let was_empty = state.is_empty();
        let (index, token) = state.enter(slot_index, client);
        // Under the lock: what is not watched in the end, nobody may have seen.
        if let Err(error) = self.poller.add(&**client, token) {
            return Err((error, state.leave(index)));
        }
        // Counted before anybody can take it out again.
        self.population.fetch_add(1, Ordering::Relaxed);
        drop(state);
        if was_empty {
            // Whoever leads may be waiting without looking at the clock.
            self.poller.wake();
        }
        Ok(index)
    }

    /// Waits for what is to be done next. `reported` is room for what it hears.
    pub(crate) fn next(
        &self,
        reported: &mut Vec<Token>,
        is_stopping: impl Fn() -> bool,
    ) -> Work<H> {
        let mut state = self.lock();
        loop {
            if let Some(next) = state.next_event() {
                return next;
            }
            let timeout = state.timeout();
            drop(state);
            if let Err(error) = self.poller.wait(timeout, reported) {
                log::error!("A lane cannot wait: {error}");
                std::thread::sleep(TICK);
            }
            let now = Instant::now();
            state = self.lock();
            state.events.extend(reported.iter());
            if now >= state.next_tick {
                state.sweep(now, is_stopping());
            }
        }
    }

    /// The connection in `index` waits for its next request, for which it keeps `kit`.
    pub(crate) fn put_idle(
        &self,
        index: usize,
        connection: Box<Connection>,
        context: Option<Box<H::Context>>,
    ) {
        let mut state = self.lock();
        if context.is_none()
            && let Some(upstream) = std::mem::take(&mut state.slots[index].upstream).upgrade()
        {
            self.poller.remove(&*upstream);
        }
        if connection.client.has_input {
            // Nobody will report what came before the last read.
            let token = Token::new(index, state.slots[index].generation, Side::Client);
            state.events.push_back(token);
        }
        state.put(index, SlotState::Idle(connection, context));
    }

    /// The connection in `index` waits until its upstream has sent something.
    ///
    /// # Errors
    /// It has no connection to the upstream, or the system cannot watch it.
    pub(crate) fn put_waiting(
        &self,
        index: usize,
        connection: Box<Connection>,
        context: Box<H::Context>,
        handler: &H,
    ) -> Result<(), NoSlot<H>> {
        let Some(awaited) = handler.upstream_socket(&context) else {
            return Err((connection, context));
        };
        let mut state = self.lock();
        let slot = &mut state.slots[index];
        if !slot.upstream.ptr_eq(awaited) {
            let Some(upstream) = awaited.upgrade() else {
                return Err((connection, context));
            };
            let token = Token::new(index, slot.generation, Side::Upstream);
            if let Err(error) = self.poller.add(&*upstream, token) {
                log::warn!("A lane cannot watch an upstream connection: {error}");
                return Err((connection, context));
            }
            slot.upstream = Weak::clone(awaited);
        }
        state.put(index, SlotState::Waiting(connection, context));
        Ok(())
    }

    /// Lets the connection in `index` go; neither side of it is watched any more. Returns its
    /// client's socket.
    pub(crate) fn forget(&self, index: usize) -> Option<Arc<TcpStream>> {
        let (client, upstream) = {
            let slot = &mut self.lock().slots[index];
            (slot.client.take(), std::mem::take(&mut slot.upstream))
        };
        for socket in client.iter().chain(&upstream.upgrade()) {
            self.poller.remove(&**socket);
        }
        self.population.fetch_sub(1, Ordering::Relaxed);
        self.lock().leave(index);
        client
    }

    /// Lets all requests in flight see a client that left.
    pub(crate) fn cut_off(&self) {
        for slot in &self.lock().slots {
            if let (Some(client), SlotState::Taken | SlotState::Waiting(..)) =
                (&slot.client, &slot.slot_index)
            {
                // An error means that it is closed already.
                let _ = client.shutdown(Shutdown::Read);
            }
        }
    }

    /// How many connections it has.
    pub(crate) fn population(&self) -> usize {
        self.population.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State<H>> {
        // Nothing that can panic runs under this lock, so a poisoned one is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H: Handler> Slot<H> {
    /// Whether it has waited for longer than is for a lane.
    fn is_overdue(&self, tick: u64, is_stopping: bool) -> bool {
        match self.slot_index {
            SlotState::Idle(..) => is_stopping || self.since + HOT <= tick,
            SlotState::Waiting(..) => self.since + SHORT_WAIT <= tick,
            SlotState::Free | SlotState::Taken => false,
        }
    }
}

impl<H: Handler> State<H> {
    fn enter(&mut self, slot_index: SlotState<H>, client: &Arc<TcpStream>) -> (usize, Token) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                slot_index: SlotState::Free,
                client: None,
                upstream: Weak::new(),
                since: 0,
                has_input: false,
            });
            self.slots.len() - 1
        });
        let since = self.tick;
        let slot = &mut self.slots[index];
        slot.slot_index = slot_index;
        slot.client = Some(Arc::clone(client));
        slot.since = since;
        slot.has_input = false;
        (index, Token::new(index, slot.generation, Side::Client))
    }

    fn leave(&mut self, index: usize) -> SlotState<H> {
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        slot.client = None;
        self.free.push(index);
        std::mem::replace(&mut slot.slot_index, SlotState::Free)
    }

    fn put(&mut self, index: usize, slot_index: SlotState<H>) {
        let slot = &mut self.slots[index];
        slot.slot_index = slot_index;
        slot.since = self.tick;
        slot.has_input = false;
    }

    fn is_empty(&self) -> bool {
        self.slots.len() == self.free.len()
    }

    fn next_event(&mut self) -> Option<Work<H>> {
        while let Some(token) = self.events.pop_front() {
            let index = token.index();
            let Some(slot) = self.slots.get_mut(index) else {
                continue;
            };
            let is_early =
                token.side() == Side::Overdue && !slot.is_overdue(self.tick, self.is_stopping);
            if slot.generation != token.generation() || is_early {
                continue;
            }
            let slot_index = std::mem::replace(&mut slot.slot_index, SlotState::Taken);
            match (slot_index, token.side()) {
                (SlotState::Idle(connection, context), Side::Client) => {
                    return Some(Work::Serve(index, connection, context));
                }
                (SlotState::Idle(connection, context), Side::Overdue) => {
                    return Some(Work::Expire(index, connection, context));
                }
                (SlotState::Waiting(mut connection, context), Side::Upstream | Side::Overdue) => {
                    connection.client.has_input |= slot.has_input;
                    return Some(Work::Resume(index, connection, context));
                }
                // A pipelined request, or a client that leaves: whoever waits for long looks.
                (slot_index @ SlotState::Waiting(..), Side::Client) => {
                    slot.has_input = true;
                    slot.slot_index = slot_index;
                }
                // An idle upstream connection that was closed or has spoken: whoever wants to use
                // it next looks at it once more.
                (slot_index, _) => slot.slot_index = slot_index,
            }
        }
        None
    }

    /// How long to wait for events; `None`: nothing has to be looked for meanwhile.
    fn timeout(&self) -> Option<Duration> {
        (!self.is_empty()).then(|| self.next_tick.saturating_duration_since(Instant::now()))
    }

    /// Makes what has waited for long an event.
    fn sweep(&mut self, now: Instant, is_stopping: bool) {
        self.tick += 1;
        self.next_tick = now + TICK;
        self.is_stopping = is_stopping;
        for (index, slot) in self.slots.iter().enumerate() {
            if slot.is_overdue(self.tick, is_stopping) {
                let token = Token::new(index, slot.generation, Side::Overdue);
                self.events.push_back(token);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::{Greeter, admission, connection};
    use std::io::Write;
    use std::sync::mpsc;
    use std::thread;

    fn next(event_loop: &EventLoop<Greeter>) -> Work<Greeter> {
        event_loop.next(&mut vec![], || false)
    }

    #[test]
    fn a_connection_that_says_nothing_is_handed_back_also_from_a_lane_that_was_empty() {
        let event_loop = Arc::new(EventLoop::<Greeter>::new().unwrap());
        let admission = admission();
        for _ in 0..2 {
            let leader = Arc::clone(&event_loop);
            let (sender, receiver) = mpsc::channel();
            thread::spawn(move || sender.send(next(&leader)));
            // Long enough for it to wait without a limit, as a rule.
            thread::sleep(Duration::from_millis(30));
            let (connection, _client) = connection(&admission);
            assert!(event_loop.adopt(connection).is_ok());
            let heard = receiver.recv_timeout(Duration::from_secs(5));
            let Ok(Work::Expire(slot_index, connection, _)) = heard else {
                panic!("nothing, or something else");
            };
            assert!(event_loop.forget(slot_index).is_some());
            drop(connection);
            assert_eq!(
                (event_loop.population(), admission.open_connections()),
                (0, 0)
            );
        }
    }

    #[test]
    fn who_speaks_is_served_and_again_after_having_been_idle() {
        let event_loop = EventLoop::<Greeter>::new().unwrap();
        let admission = admission();
        let (quiet, _quiet_client) = connection(&admission);
        assert!(event_loop.adopt(quiet).is_ok());
        let (first, mut client) = connection(&admission);
        assert!(event_loop.adopt(first).is_ok());
        for _ in 0..3 {
            client.write_all(b"x").unwrap();
            let (slot_index, connection) = loop {
                match next(&event_loop) {
                    Work::Serve(slot_index, connection, _) => break (slot_index, connection),
                    // The quiet one, if this takes long.
                    Work::Expire(slot_index, ..) => drop(event_loop.forget(slot_index)),
                    Work::Resume(..) => panic!("nobody waits"),
                }
            };
            assert_eq!(
                *connection.client.peer,
                client.local_addr().unwrap().to_string()
            );
            event_loop.put_idle(slot_index, connection, Some(Box::new(0)));
        }
    }

    #[test]
    fn what_is_reported_about_a_connection_that_left_is_not_the_next_ones() {
        let event_loop = EventLoop::<Greeter>::new().unwrap();
        let admission = admission();
        let (first, mut client) = connection(&admission);
        assert!(event_loop.adopt(first).is_ok());
        client.write_all(b"x").unwrap();
        let Work::Serve(slot_index, ..) = next(&event_loop) else {
            panic!("something else");
        };
        // Its key is heard of once more, behind its back.
        let token = Token::new(
            slot_index,
            event_loop.lock().slots[slot_index].generation,
            Side::Client,
        );
        event_loop.lock().events.push_back(token);
        event_loop.forget(slot_index);
        let (second, _second_client) = connection(&admission);
        assert!(event_loop.adopt(second).is_ok());
        assert_eq!(event_loop.lock().slots.len(), 1, "the place is used again");
        assert!(event_loop.lock().next_event().is_none());
    }
}
