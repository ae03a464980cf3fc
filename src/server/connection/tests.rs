use super::super::tests::{connection, shared};
use super::*;
use crate::net::buffer::INPUT_SIZE;
use std::io::Write;
use std::time::Duration;

/// Takes in what `client` has sent; whoever does has its buffer back then.
fn take_in(connection: &mut Connection) -> Arrived {
    let mut buffers = Buffers::default();
    let arrived = connection.take_in(&mut buffers);
    assert_eq!(buffers.spare.len(), INPUT_SIZE, "{arrived:?}");
    arrived
}

#[test]
fn a_connection_that_waits_keeps_what_it_has_received_and_no_buffer() {
    let shared = shared();
    let (mut connection, mut client) = connection(&shared);
    assert_eq!(take_in(&mut connection), Arrived::Nothing);
    assert_eq!(connection.client.input.bytes(), b"");

    client.write_all(b"GET /").unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while take_in(&mut connection) == Arrived::Nothing {
        assert!(Instant::now() < deadline, "it does not come");
    }
    assert_eq!(connection.client.input.bytes(), b"GET /");
}

#[test]
fn a_client_that_left_is_told_from_one_that_says_nothing() {
    let shared = shared();
    let (mut connection, client) = connection(&shared);
    drop(client);
    let deadline = Instant::now() + Duration::from_secs(5);
    while take_in(&mut connection) != Arrived::End {
        assert!(Instant::now() < deadline, "the end does not come");
    }
}
