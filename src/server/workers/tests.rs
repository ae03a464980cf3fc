//! Which lanes are used, and with which kits.

use super::*;
use crate::server::Limits;
use crate::server::tests::{Greeter, connection, limits, shared_with};

/// Four lanes, for two processors, which nobody leads.
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
fn the_lanes_of_a_processor_use_the_kits_of_its_shelf_first_and_give_them_back() {
    let pool = pool(Greeter::default());
    for lane in [0, 1, 2, 3, 0] {
        let own = lane % 2;
        for kit in [1, 2] {
            pool.shelves.put(Box::new(kit), None, kit - 1);
        }
        let turn = leader(&pool, lane);
        let worker = worker(&pool, &turn);
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
    let pool = pool(Greeter::default());
    let turn = leader(&pool, 0);
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

/// The processor on which what `connection`'s client has sent came in; it sends something.
#[cfg(target_os = "linux")]
fn processor_of(connection: &Connection, mut client: &TcpStream) -> usize {
    use std::io::Write;
    client.write_all(b"x").unwrap();
    let deadline = Instant::now() + std::time::Duration::from_secs(5);
    while socket::peek_now(&connection.client.socket, &mut [0]) == 0 {
        assert!(Instant::now() < deadline, "it does not come");
    }
    socket::incoming_processor(&connection.client.socket).unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_connection_that_belongs_into_another_lane_is_moved_after_a_few_looks() {
    let pool = pool(Greeter::default());
    let (mut connection, client) = connection(&pool.shared);
    let own = processor_of(&connection, &client) % 2;
    let mut looks_at = |lane| {
        let turn = leader(&pool, lane);
        let worker = worker(&pool, &turn);
        [(); 3].map(|()| worker.fit(&mut connection, &0))
    };
    assert_eq!(looks_at(own), [Fit::All; 3]);
    assert_eq!(looks_at(1 - own), [Fit::All, Fit::All, Fit::Nothing]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_kit_that_belongs_on_another_shelf_is_given_back_at_the_first_look() {
    // What the kits' connection to the upstream is, is another client's here.
    let shared = crate::server::tests::shared();
    let (upstream, peer) = connection(&shared);
    let own = processor_of(&upstream, &peer) % 2;
    let pool = pool(Greeter {
        upstream: Arc::downgrade(&upstream.client.socket),
        ..Greeter::default()
    });
    // So that the connection itself would not be moved to there.
    for _ in 0..5 {
        let (other, _client) = connection(&pool.shared);
        assert!(pool.lanes[own].adopt(other).is_ok());
    }
    let (mut connection, _client) = connection(&pool.shared);
    let mut look_at = |lane| {
        let turn = leader(&pool, lane);
        worker(&pool, &turn).fit(&mut connection, &0)
    };
    assert_eq!(
        (look_at(own), look_at(1 - own)),
        (Fit::All, Fit::Connection)
    );
}
