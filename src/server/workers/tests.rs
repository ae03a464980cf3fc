//! Which contexts the workers use, and what they hold while a request waits.

use std::sync::Arc;

use super::leader::Leader;
use super::pool::Workers;
use super::worker::Worker;
use crate::server::limits::Limits;
use crate::server::tests::{Greeter, admission, admission_with, connection, limits};

/// Workers with four permits and four event loops, which no thread leads.
fn workers(greeter: Greeter) -> Arc<Workers<Greeter>> {
    let four_permits = Limits {
        workers: 4,
        ..limits()
    };
    let admission = Arc::new(admission_with(four_permits));
    Arc::new(Workers::with_event_loops(4, admission, Arc::new(greeter)))
}

/// The leader of the first event loop.
fn leader(workers: &Arc<Workers<Greeter>>) -> Leader<Greeter> {
    let leader = Leader::new(Arc::clone(workers), 0);
    leader.lead(0);
    leader
}

#[test]
fn a_spare_context_is_used_before_a_new_one_is_made() {
    let workers = workers(Greeter::default());
    let leader = leader(&workers);
    let worker = Worker::new(&workers, &leader, 0);
    worker.put_context(Some(Box::new(7)));
    let contexts: Vec<_> = (0..2).map(|_| *worker.context_or(None)).collect();
    assert_eq!(contexts, [7, 0]);
}

#[test]
fn idle_connections_keep_no_more_contexts_than_there_are_permits() {
    let workers = workers(Greeter::default());
    let leader = leader(&workers);
    let mut clients = vec![];
    let spare: Vec<_> = (1..6)
        .map(|context| {
            let (connection, client) = connection(&workers.admission);
            clients.push(client);
            leader.take_slot(&connection.client.socket);
            leader.put_idle(connection, Box::new(context)).ok().unwrap()
        })
        .collect();
    assert_eq!(spare, [None, None, None, None, Some(Box::new(5))]);
}

#[test]
fn a_request_that_waits_in_the_event_loop_takes_its_permit_along() {
    let (upstream, _peer) = connection(&admission());
    let workers = workers(Greeter {
        upstream: Arc::downgrade(&upstream.client.socket),
        ..Greeter::default()
    });
    let leader = leader(&workers);
    let mut worker = Worker::new(&workers, &leader, 0);
    let (connection, _client) = connection(&workers.admission);
    leader.take_slot(&connection.client.socket);
    worker.has_permit = true;
    worker.put_awaiting_upstream(connection, Box::new(0));
    assert!(!worker.has_permit && workers.event_loops[0].connections() == 1);
}
