//! All event loops. A connection joins the one with the fewest connections.
//!
//! Called by the worker threads and the accept thread. Holds no lock.

use std::ops::Deref;

use crate::server::handler::Handler;

pub(super) mod event_loop;
mod poller;
pub(super) mod slots;
mod token;

use self::event_loop::EventLoop;

/// Event loops per processor.
const PER_PROCESSOR: usize = 1;
/// Connections that an event loop of its own is worth: fewer give it too little to do.
const CONNECTIONS_PER_LOOP: usize = 16;
/// One event loop handles some 10,000 requests per second (own bench), so this many serve any upstream.
const MAX_LOOPS: usize = 32;

/// The event loops of the server.
pub(super) struct EventLoops<H: Handler>(Vec<EventLoop<H>>);

impl<H: Handler> EventLoops<H> {
    /// How many event loops a machine with `processors` can use for at most `connections`.
    pub(super) fn count_for(processors: usize, connections: usize) -> usize {
        (processors * PER_PROCESSOR)
            .min(connections / CONNECTIONS_PER_LOOP)
            .clamp(1, MAX_LOOPS)
    }

    /// Makes `most` event loops, or as many as the system allows; none on systems other than Linux.
    pub(super) fn new(most: usize) -> Self {
        EventLoops((0..most).map_while(|_| EventLoop::new().ok()).collect())
    }

    /// How many connections they have in all.
    pub(super) fn connections(&self) -> usize {
        self.0.iter().map(EventLoop::connections).sum()
    }

    /// The index of the event loop with the fewest connections. `None`: there is no event loop.
    pub(super) fn emptiest(&self) -> Option<usize> {
        (0..self.0.len()).min_by_key(|&index| self.0[index].connections())
    }
}

impl<H: Handler> Deref for EventLoops<H> {
    type Target = [EventLoop<H>];

    fn deref(&self) -> &[EventLoop<H>] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::{Greeter, admission, connection};

    #[test]
    fn connections_are_spread_evenly() {
        let (event_loops, admission) = (EventLoops::<Greeter>::new(3), admission());
        for _ in 0..7 {
            let (connection, _client) = connection(&admission);
            let emptiest = event_loops.emptiest().unwrap();
            assert!(event_loops[emptiest].add(connection).is_ok());
        }
        let counts: Vec<_> = event_loops.iter().map(EventLoop::connections).collect();
        assert_eq!(counts, [3, 2, 2]);
    }

    #[test]
    fn event_loops_are_counted_by_processors_and_limited_by_connections() {
        let count = EventLoops::<Greeter>::count_for;
        let few = CONNECTIONS_PER_LOOP;
        assert_eq!(
            [count(1, 4096), count(2, 4096), count(64, 4096)],
            [PER_PROCESSOR, 2 * PER_PROCESSOR, MAX_LOOPS]
        );
        assert_eq!([count(8, 3 * few), count(8, 1)], [3, 1]);
    }
}
