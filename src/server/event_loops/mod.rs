//! All lanes, and which of them a connection belongs into.
//!
//! A connection belongs into a lane of the processor that takes in what its client sends, for the same
//! reason for which there are shelves ([`super::contexts`]): who wakes whom stays on one processor. It
//! is looked at again now and then, since threads and queues change processors. Measured on two of them
//! with a load client on each: 1.1 instead of 0.95 times the rate of a blind relay with 8 connections,
//! 1.35 instead of 1.1 times with 32, and two thirds of the 99th percentile.
//!
//! Called by all threads that put a connection into a lane; holds no lock.

use std::ops::Deref;

use crate::server::Handler;

pub(super) mod event_loop;
mod poller;

use self::event_loop::Lane;

/// Measured on two processors: where all of them are busy, two lanes for each give the proxy the
/// share of their time that its work takes, and 128 connections more answers than one (1.38 instead of
/// 1.28 times a blind relay's); four for each take that away again …
const PER_PROCESSOR: usize = 2;
/// … and with few connections each finds too little to do. So the second ones are used once there are
/// this many connections for each lane; all of them then, since an odd one makes processors uneven.
const WORTH_A_LANE: usize = 16;
/// More than any upstream has answers for: a lane is good for some 10,000 requests a second.
const MAX_LANES: usize = 32;
/// The lane of a connection's processor is left out when it has more than twice as many connections as
/// the emptiest one, and so many: where all bytes come in on one processor the others are to work too.
const UNEVEN: usize = 4;

/// See the module's documentation.
pub(crate) struct Lanes<H: Handler>(Vec<Lane<H>>);

impl<H: Handler> Lanes<H> {
    /// How many are of use on a machine with so many processors, for so many connections.
    pub(crate) fn count_for(processors: usize, connections: usize) -> usize {
        (processors * PER_PROCESSOR)
            .min(connections / WORTH_A_LANE)
            .clamp(1, MAX_LANES)
    }

    /// `most` of them, as far as the system allows.
    pub(crate) fn new(most: usize) -> Self {
        Lanes((0..most).map_while(|_| Lane::new().ok()).collect())
    }

    /// For how many processors there are lanes: with the first lane of each, and a shelf.
    pub(crate) fn processors(&self) -> usize {
        self.0.len().div_ceil(PER_PROCESSOR).max(1)
    }

    /// How many connections they have.
    pub(crate) fn population(&self) -> usize {
        self.0.iter().map(Lane::population).sum()
    }

    /// Whether `lane` is not one of those of `processor`.
    pub(crate) fn is_far(&self, lane: usize, processor: usize) -> bool {
        lane % self.processors() != processor % self.processors()
    }

    /// The number of the lane for a connection that comes in on `processor`: the emptiest of those that
    /// are worth leading; the emptiest of that processor's, if it is not much fuller.
    pub(crate) fn choose(&self, processor: Option<usize>) -> Option<usize> {
        let (all, processors) = (self.0.len(), self.processors());
        let is_busy = self.population() >= all * WORTH_A_LANE;
        let open = 0..if is_busy { all } else { processors.min(all) };
        let population = |lane: &usize| self.0[*lane].population();
        let emptiest = open.clone().min_by_key(population)?;
        let near = processor.and_then(|processor| {
            let own = open.skip(processor % processors).step_by(processors);
            own.min_by_key(population)
        });
        let most = 2 * population(&emptiest) + UNEVEN;
        let near = near.filter(|near| population(near) <= most);
        Some(near.unwrap_or(emptiest))
    }

    /// Whether a connection in `lane` that comes in on `processor` belongs into another one.
    pub(crate) fn is_misplaced(&self, lane: usize, processor: usize) -> bool {
        let is_far = |lane| self.is_far(lane, processor);
        is_far(lane)
            && self
                .choose(Some(processor))
                .is_some_and(|other| !is_far(other))
    }
}

impl<H: Handler> Deref for Lanes<H> {
    type Target = [Lane<H>];

    fn deref(&self) -> &[Lane<H>] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::{Greeter, connection, shared};

    /// Four, for two processors.
    fn lanes() -> Lanes<Greeter> {
        Lanes::new(4)
    }

    /// Puts in connections, `count` of which have come in on each of `processors`. Returns how many
    /// each lane has then.
    fn adopt(lanes: &Lanes<Greeter>, count: usize, processors: &[Option<usize>]) -> Vec<usize> {
        let shared = shared();
        for processor in processors.iter().cycle().take(count * processors.len()) {
            let (connection, _client) = connection(&shared);
            let lane = lanes.choose(*processor).unwrap();
            assert!(lanes[lane].adopt(connection).is_ok());
        }
        lanes.iter().map(Lane::population).collect()
    }

    #[test]
    fn the_second_lanes_of_the_processors_are_used_all_at_once() {
        let (lanes, few) = (lanes(), 2 * WORTH_A_LANE);
        assert_eq!(adopt(&lanes, 2 * few, &[None]), [few, few, 0, 0]);
        assert_eq!(adopt(&lanes, 3, &[None]), [few, few, 2, 1]);
    }

    #[test]
    fn a_connection_comes_into_a_lane_of_the_processor_that_its_bytes_come_in_on() {
        let second = [Some(1), Some(3), Some(1), Some(1)];
        assert_eq!(adopt(&lanes(), 1, &second), [0, 4, 0, 0]);
        let (lanes, few) = (lanes(), 2 * WORTH_A_LANE);
        assert_eq!(adopt(&lanes, few, &[Some(0), Some(1)]), [few, few, 0, 0]);
        assert_eq!(adopt(&lanes, 2, &[Some(0)]), [few, few, 2, 0]);
    }

    #[test]
    fn lanes_do_not_become_very_uneven_where_all_bytes_come_in_on_one_processor() {
        let lanes = lanes();
        assert_eq!(adopt(&lanes, 5, &[Some(1)]), [0, 5, 0, 0]);
        assert_eq!(adopt(&lanes, 4, &[Some(1)]), [2, 7, 0, 0]);
        let many = adopt(&lanes, 2 * WORTH_A_LANE, &[Some(1)]);
        assert!(many[1] <= 2 * many[0] + UNEVEN + 1, "{many:?}");
    }

    #[test]
    fn who_is_misplaced_can_move_without_making_the_other_lane_much_fuller() {
        let lanes = lanes();
        adopt(&lanes, 3, &[Some(0)]);
        assert!(lanes.is_misplaced(0, 1) && !lanes.is_misplaced(0, 0));
        assert!(lanes.is_misplaced(2, 3) && !lanes.is_misplaced(1, 3));
        adopt(&lanes, 2, &[Some(0)]);
        assert!(
            !lanes.is_misplaced(1, 0),
            "there are five already, and none in the other"
        );
        assert!(lanes.is_misplaced(0, 1));
    }

    #[test]
    fn there_are_lanes_for_the_processors_and_not_more_than_connections_need() {
        let count = Lanes::<Greeter>::count_for;
        assert_eq!(
            [count(1, 4096), count(2, 4096), count(64, 4096)],
            [2, 4, 32]
        );
        assert_eq!([count(2, 3 * WORTH_A_LANE), count(8, 1)], [3, 1]);
        assert_eq!(
            [1, 2, 3, 4].map(|most| Lanes::<Greeter>::new(most).processors()),
            [1, 1, 2, 2]
        );
    }
}
