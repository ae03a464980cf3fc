//! All event loops, and which of them a connection comes into: the one with the fewest connections.
//!
//! Called by all threads that put a connection into an event loop; holds no lock.

use std::ops::Deref;

use crate::server::handler::Handler;

pub(super) mod event_loop;
mod poller;

use self::event_loop::EventLoop;

/// Event loops for each processor.
const PER_PROCESSOR: usize = 1;
/// Fewer connections than this find too little to do in an event loop of their own.
const WORTH_A_LOOP: usize = 16;
/// One event loop handles some 10,000 requests a second, more than any upstream answers.
const MAX_LOOPS: usize = 32;

/// The event loops of the server.
pub(super) struct EventLoops<H: Handler>(Vec<EventLoop<H>>);

impl<H: Handler> EventLoops<H> {
    /// How many are of use on a machine with `processors`, for at most `connections`.
    pub(super) fn count_for(processors: usize, connections: usize) -> usize {
        (processors * PER_PROCESSOR)
            .min(connections / WORTH_A_LOOP)
            .clamp(1, MAX_LOOPS)
    }

    /// `most` of them, as far as the system allows.
    pub(super) fn new(most: usize) -> Self {
        EventLoops((0..most).map_while(|_| EventLoop::new().ok()).collect())
    }

    /// How many connections they have.
    pub(super) fn population(&self) -> usize {
        self.0.iter().map(EventLoop::population).sum()
    }

    /// The number of the event loop with the fewest connections.
    pub(super) fn emptiest(&self) -> Option<usize> {
        (0..self.0.len()).min_by_key(|&number| self.0[number].population())
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
            assert!(event_loops[emptiest].adopt(connection).is_ok());
        }
        let populations: Vec<_> = event_loops.iter().map(EventLoop::population).collect();
        assert_eq!(populations, [3, 2, 2]);
    }

    #[test]
    fn there_are_event_loops_for_the_processors_and_no_more_than_connections_need() {
        let count = EventLoops::<Greeter>::count_for;
        let few = WORTH_A_LOOP;
        assert_eq!(
            [count(1, 4096), count(2, 4096), count(64, 4096)],
            [PER_PROCESSOR, 2 * PER_PROCESSOR, MAX_LOOPS]
        );
        assert_eq!([count(8, 3 * few), count(8, 1)], [3, 1]);
    }
}
