//! Which lanes are used, and with which kits.

use super::*;
use crate::server::Limits;
use crate::server::tests::{Greeter, connection, limits, shared_with};

/// Four lanes, for two processors, which nobody leads.
fn pool() -> Arc<Pool<Greeter>> {
    let roomy = Limits {
        workers: 4,
        ..limits()
    };
    let shared = Arc::new(shared_with(roomy));
    Arc::new(Pool::with_lanes(4, shared, Arc::new(Greeter)))
}

#[test]
fn the_lanes_of_a_processor_use_the_kits_of_its_shelf_first_and_give_them_back() {
    let pool = pool();
    for lane in [0, 1, 2, 3, 0] {
        let own = lane % 2;
        for kit in [1, 2] {
            pool.shelves.put(Box::new(kit), None, kit - 1);
        }
        let turn = LaneTurn::new(Arc::clone(&pool), 0);
        turn.take(lane);
        let worker = Worker {
            pool: &pool,
            turn: &turn,
            thread: 0,
            buffers: Buffers::default(),
        };
        let kits: Vec<_> = (0..3).map(|_| worker.kit_or(None)).collect();
        assert_eq!(kits, [own + 1, 2 - own, 0].map(Box::new), "lane {lane}");
        pool.shelves.put(Box::new(8), None, own + 1);
        worker.shelve(Some(Box::new(7)));
        let back = [(); 2].map(|()| pool.shelves.take(own));
        assert_eq!(back, [7, 8].map(|kit| Some(Box::new(kit))), "lane {lane}");
    }
}

#[test]
fn as_many_connections_keep_their_kits_as_requests_may_be_in_flight_in_whichever_lane() {
    let pool = pool();
    let turn = LaneTurn::new(Arc::clone(&pool), 0);
    turn.take(0);
    let mut clients = vec![];
    let spare: Vec<_> = (1..6)
        .map(|kit| {
            let (connection, client) = connection(&pool.shared);
            clients.push(client);
            turn.enter_lane_with(&connection.client.socket);
            turn.put_idle(connection, Box::new(kit), true).ok().unwrap()
        })
        .collect();
    assert_eq!(spare, [None, None, None, None, Some(Box::new(5))]);
}
