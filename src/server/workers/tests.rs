//! Which contexts the workers use, and what they hold while a request waits.

use super::*;
use crate::server::Limits;
use crate::server::tests::{Greeter, connection, limits, shared_with};

/// Workers with four event loops, which no thread leads.
fn pool(greeter: Greeter) -> Arc<Pool<Greeter>> {
    let roomy = Limits {
        workers: 4,
        ..limits()
    };
    let shared = Arc::new(shared_with(roomy));
    Arc::new(Pool::with_lanes(4, shared, Arc::new(greeter)))
}

/// A worker thread of `pool` that leads `lane`.
fn leader(pool: &Arc<Pool<Greeter>>, lane: usize) -> LaneTurn<Greeter> {
    let turn = LaneTurn::new(Arc::clone(pool), 0);
    turn.take(lane);
    turn
}

fn worker<'p>(pool: &'p Arc<Pool<Greeter>>, turn: &'p LaneTurn<Greeter>) -> Worker<'p, Greeter> {
    Worker {
        pool,
        turn,
        thread: 0,
        buffers: Buffers::default(),
        is_admitted: false,
    }
}

#[test]
fn a_spare_context_is_used_before_a_new_one_is_made() {
    let pool = pool(Greeter::default());
    let turn = leader(&pool, 0);
    let worker = worker(&pool, &turn);
    worker.shelve(Some(Box::new(7)));
    let contexts: Vec<_> = (0..2).map(|_| *worker.kit_or(None)).collect();
    assert_eq!(contexts, [7, 0]);
}

#[test]
fn as_many_connections_keep_their_kits_as_requests_may_be_in_flight_in_whichever_lane() {
    let pool = pool(Greeter::default());
    let turn = leader(&pool, 0);
    let mut clients = vec![];
    let spare: Vec<_> = (1..6)
        .map(|kit| {
            let (connection, client) = connection(&pool.shared);
            clients.push(client);
            turn.enter_lane_with(&connection.client.socket);
            turn.put_idle(connection, Box::new(kit)).ok().unwrap()
        })
        .collect();
    assert_eq!(spare, [None, None, None, None, Some(Box::new(5))]);
}

#[test]
fn a_request_that_waits_in_the_lane_is_no_longer_what_the_thread_works_on() {
    let (upstream, _peer) = connection(&crate::server::tests::shared());
    let pool = pool(Greeter {
        upstream: Arc::downgrade(&upstream.client.socket),
        ..Greeter::default()
    });
    let turn = leader(&pool, 0);
    let mut worker = worker(&pool, &turn);
    let (connection, _client) = connection(&pool.shared);
    turn.enter_lane_with(&connection.client.socket);
    worker.is_admitted = true;
    worker.let_wait(connection, Box::new(0));
    assert!(!worker.is_admitted && pool.lanes[0].population() == 1);
}
