//! The slots of an event loop: which connection waits for what, and which events are not yet handled.
//!
//! Does no I/O. Called by [`event_loop`](super::event_loop), under its lock.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::token::{EventSource, Token};
use crate::server::connection::Connection;
use crate::server::handler::Handler;

/// How often the event loop looks for connections that have waited for long. Waits are counted in ticks.
pub(super) const TICK: Duration = Duration::from_millis(10);
/// Ticks that an idle connection stays before it returns to the accept thread.
const IDLE_TICKS: u64 = 2;
/// Ticks that a request waits for the upstream before it gets a thread, which watches its client too.
const UPSTREAM_TICKS: u64 = 10;

/// All slots of an event loop.
pub(super) struct Slots<H: Handler> {
    list: Vec<Slot<H>>,
    /// Indices of the free slots.
    free: Vec<usize>,
    /// Events that are not yet handled.
    events: VecDeque<Token>,
    tick: u64,
    next_tick: Instant,
    /// The server stops, so idle connections leave.
    is_stopping: bool,
}

/// A place for a connection.
pub(super) struct Slot<H: Handler> {
    /// Distinguishes events of this connection from those of earlier ones in the same slot.
    generation: u32,
    state: SlotState<H>,
    client: Option<Arc<TcpStream>>,
    /// The upstream connection that is watched for it.
    pub(super) upstream: Weak<TcpStream>,
    /// The tick in which it began to wait.
    since: u64,
    /// The client has sent something since then.
    has_input: bool,
}

pub(super) enum SlotState<H: Handler> {
    Free,
    /// A thread works on the connection.
    Busy,
    /// The connection waits for its next request, perhaps with the context of the last one.
    Idle(Box<Connection>, Option<Box<H::Context>>),
    AwaitingUpstream(Box<Connection>, Box<H::Context>),
}

/// What the leader does next. The first value is the connection's slot, which is busy now.
pub(crate) enum Work<H: Handler> {
    /// The client has sent something.
    Serve(usize, Box<Connection>, Option<Box<H::Context>>),
    /// The upstream has sent something, or has been silent for [`UPSTREAM_TICKS`].
    Resume(usize, Box<Connection>, Box<H::Context>),
    /// The connection has been idle for [`IDLE_TICKS`].
    Expire(usize, Box<Connection>, Option<Box<H::Context>>),
}

impl<H: Handler> Slot<H> {
    fn is_overdue(&self, tick: u64, is_stopping: bool) -> bool {
        match self.state {
            SlotState::Idle(..) => is_stopping || self.since + IDLE_TICKS <= tick,
            SlotState::AwaitingUpstream(..) => self.since + UPSTREAM_TICKS <= tick,
            SlotState::Free | SlotState::Busy => false,
        }
    }
}

impl<H: Handler> Slots<H> {
    pub(super) fn new() -> Self {
        Slots {
            list: Vec::new(),
            free: Vec::new(),
            events: VecDeque::new(),
            tick: 0,
            next_tick: Instant::now() + TICK,
            is_stopping: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.len() == self.free.len()
    }

    pub(super) fn get_mut(&mut self, index: usize) -> &mut Slot<H> {
        &mut self.list[index]
    }

    /// Gives a connection a slot. Returns the index, and the token of its client's events.
    pub(super) fn add(&mut self, state: SlotState<H>, client: &Arc<TcpStream>) -> (usize, Token) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.list.push(Slot {
                generation: 0,
                state: SlotState::Free,
                client: None,
                upstream: Weak::new(),
                since: 0,
                has_input: false,
            });
            self.list.len() - 1
        });
        self.list[index].client = Some(Arc::clone(client));
        self.put(index, state);
        (index, self.token(index, EventSource::Client))
    }

    /// Frees a slot. Returns what it held.
    pub(super) fn remove(&mut self, index: usize) -> SlotState<H> {
        let slot = &mut self.list[index];
        slot.generation = slot.generation.wrapping_add(1);
        slot.client = None;
        self.free.push(index);
        std::mem::replace(&mut slot.state, SlotState::Free)
    }

    /// Takes the sockets out of a slot that is about to be freed: the client's and the upstream's.
    pub(super) fn take_sockets(
        &mut self,
        index: usize,
    ) -> (Option<Arc<TcpStream>>, Option<Arc<TcpStream>>) {
        let slot = &mut self.list[index];
        let upstream = std::mem::take(&mut slot.upstream);
        (slot.client.take(), upstream.upgrade())
    }

    /// Puts a connection into its slot, where it begins to wait.
    pub(super) fn put(&mut self, index: usize, state: SlotState<H>) {
        let slot = &mut self.list[index];
        slot.state = state;
        slot.since = self.tick;
        slot.has_input = false;
    }

    pub(super) fn token(&self, index: usize, source: EventSource) -> Token {
        Token::new(index, self.list[index].generation, source)
    }

    pub(super) fn push_event(&mut self, token: Token) {
        self.events.push_back(token);
    }

    /// The clients of all requests in flight.
    pub(super) fn clients_in_flight(&self) -> impl Iterator<Item = &Arc<TcpStream>> {
        let in_flight = |slot: &&Slot<H>| {
            matches!(
                slot.state,
                SlotState::Busy | SlotState::AwaitingUpstream(..)
            )
        };
        self.list
            .iter()
            .filter(in_flight)
            .filter_map(|slot| slot.client.as_ref())
    }

    /// Handles events until one of them is work for the leader. `None`: no event is left.
    pub(super) fn next_work(&mut self) -> Option<Work<H>> {
        while let Some(token) = self.events.pop_front() {
            let (index, source) = (token.index(), token.source());
            let Some(slot) = self.list.get_mut(index) else {
                continue;
            };
            let is_early =
                source == EventSource::Clock && !slot.is_overdue(self.tick, self.is_stopping);
            if slot.generation != token.generation() || is_early {
                continue;
            }
            let state = std::mem::replace(&mut slot.state, SlotState::Busy);
            match (state, source) {
                (SlotState::Idle(connection, context), EventSource::Client) => {
                    return Some(Work::Serve(index, connection, context));
                }
                (SlotState::Idle(connection, context), EventSource::Clock) => {
                    return Some(Work::Expire(index, connection, context));
                }
                (
                    SlotState::AwaitingUpstream(mut connection, context),
                    EventSource::Upstream | EventSource::Clock,
                ) => {
                    connection.client.may_have_input |= slot.has_input;
                    return Some(Work::Resume(index, connection, context));
                }
                // A pipelined request, or a client that disconnects: seen when the request resumes.
                (state @ SlotState::AwaitingUpstream(..), EventSource::Client) => {
                    slot.has_input = true;
                    slot.state = state;
                }
                // An idle upstream connection has closed or sent something: seen before its next use.
                (state, _) => slot.state = state,
            }
        }
        None
    }

    /// How long the leader may wait for events. `None`: no connection waits, so there is no limit.
    pub(super) fn timeout(&self) -> Option<Duration> {
        (!self.is_empty()).then(|| self.next_tick.saturating_duration_since(Instant::now()))
    }

    /// Makes an event of each connection that has waited for long, once per tick.
    pub(super) fn sweep(&mut self, now: Instant, is_stopping: impl FnOnce() -> bool) {
        if now < self.next_tick {
            return;
        }
        self.tick += 1;
        self.next_tick = now + TICK;
        self.is_stopping = is_stopping();
        for (index, slot) in self.list.iter().enumerate() {
            if slot.is_overdue(self.tick, self.is_stopping) {
                let token = Token::new(index, slot.generation, EventSource::Clock);
                self.events.push_back(token);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::{Greeter, admission, connection};

    #[test]
    fn an_event_of_a_removed_connection_is_not_taken_for_one_of_its_successor() {
        let admission = admission();
        let mut slots = Slots::<Greeter>::new();
        let add = |slots: &mut Slots<Greeter>| {
            let (connection, _) = connection(&admission);
            let client = Arc::clone(&connection.client.socket);
            slots.add(SlotState::Idle(connection, None), &client)
        };
        let (first, stale) = add(&mut slots);
        slots.remove(first);
        let (second, token) = add(&mut slots);
        assert_eq!(second, first, "the slot is used again");
        slots.push_event(stale);
        assert!(slots.next_work().is_none());
        slots.push_event(token);
        assert!(matches!(slots.next_work(), Some(Work::Serve(..))));
    }
}
