//! Which contexts the workers use, and what they hold while a request waits.

use super::*;
use crate::server::Limits;
use crate::server::tests::{Greeter, admission_with, connection, limits};

/// Workers with four event loops, which no thread leads.
fn workers(greeter: Greeter) -> Arc<Workers<Greeter>> {
    let roomy = Limits {
        workers: 4,
        ..limits()
    };
    let admission = Arc::new(admission_with(roomy));
    Arc::new(Workers::with_event_loops(4, admission, Arc::new(greeter)))
}

/// A worker thread of `pool` that leads `lane`.
fn leader(workers: &Arc<Workers<Greeter>>, event_loop: usize) -> Leader<Greeter> {
    let leader = Leader::new(Arc::clone(workers), 0);
    leader.take(event_loop);
    leader
}

fn worker<'p>(
    workers: &'p Arc<Workers<Greeter>>,
    leader: &'p Leader<Greeter>,
) -> Worker<'p, Greeter> {
    Worker {
        workers,
        leader,
        thread: 0,
        buffers: Buffers::default(),
        is_admitted: false,
    }
}

#[test]
fn a_spare_context_is_used_before_a_new_one_is_made() {
    let workers = workers(Greeter::default());
    let leader = leader(&workers, 0);
    let worker = worker(&workers, &leader);
    worker.put_context(Some(Box::new(7)));
    let contexts: Vec<_> = (0..2).map(|_| *worker.context_or(None)).collect();
    assert_eq!(contexts, [7, 0]);
}

#[test]
fn as_many_connections_keep_their_kits_as_requests_may_be_in_flight_in_whichever_lane() {
    let workers = workers(Greeter::default());
    let leader = leader(&workers, 0);
    let mut clients = vec![];
    let spare: Vec<_> = (1..6)
        .map(|context| {
            let (connection, client) = connection(&workers.admission);
            clients.push(client);
            leader.enter_lane_with(&connection.client.socket);
            leader.put_idle(connection, Box::new(context)).ok().unwrap()
        })
        .collect();
    assert_eq!(spare, [None, None, None, None, Some(Box::new(5))]);
}

#[test]
fn a_request_that_waits_in_the_lane_is_no_longer_what_the_thread_works_on() {
    let (upstream, _peer) = connection(&crate::server::tests::admission());
    let workers = workers(Greeter {
        upstream: Arc::downgrade(&upstream.client.socket),
        ..Greeter::default()
    });
    let leader = leader(&workers, 0);
    let mut worker = worker(&workers, &leader);
    let (connection, _client) = connection(&workers.admission);
    leader.enter_lane_with(&connection.client.socket);
    worker.is_admitted = true;
    worker.let_wait(connection, Box::new(0));
    assert!(!worker.is_admitted && workers.event_loops[0].population() == 1);
}
