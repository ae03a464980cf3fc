use super::*;
use crate::net::buffer::READ_BUFFER_BYTES;
use crate::server::tests::{admission, connection};
use std::io::Write;
use std::time::Duration;

/// Takes in what `client` has sent; whoever does has its buffer back then.
fn take_in(connection: &mut Connection) -> ReadOutcome {
    let mut buffers = Buffers::default();
    let arrived = connection.take_in(&mut buffers);
    assert_eq!(buffers.spare.len(), READ_BUFFER_BYTES, "{arrived:?}");
    arrived
}

#[test]
fn a_connection_that_waits_keeps_what_it_has_received_and_no_buffer() {
    let admission = admission();
    let (mut connection, mut client) = connection(&admission);
    assert_eq!(take_in(&mut connection), ReadOutcome::Nothing);
    assert_eq!(connection.client.input.bytes(), b"");

    client.write_all(b"GET /").unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while take_in(&mut connection) == ReadOutcome::Nothing {
        assert!(Instant::now() < deadline, "it does not come");
    }
    assert_eq!(connection.client.input.bytes(), b"GET /");
}

#[test]
fn a_client_that_left_is_told_from_one_that_says_nothing() {
    let admission = admission();
    let (mut connection, client) = connection(&admission);
    drop(client);
    let deadline = Instant::now() + Duration::from_secs(5);
    while take_in(&mut connection) != ReadOutcome::End {
        assert!(Instant::now() < deadline, "the end does not come");
    }
}
