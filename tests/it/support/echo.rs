//! An upstream whose responses show which request they belong to.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::{RawClient, RawUpstream};

/// Starts an upstream that answers `/…/MS/ID` after so many milliseconds with the id, in the head
/// and in the body. An odd id comes in two pieces.
pub fn start_echo() -> RawUpstream {
    RawUpstream::start(|connection| {
        while let Some(request) = connection.read_request() {
            let words: Vec<&str> = request.target.rsplit('/').take(2).collect();
            let [id, milliseconds] = words[..] else {
                return;
            };
            thread::sleep(Duration::from_millis(milliseconds.parse().unwrap()));
            let head = format!(
                "HTTP/1.1 200 OK\r\nX-Id: {id}\r\nContent-Length: {}\r\n\r\n",
                id.len()
            );
            let is_sent = if id.ends_with(['1', '3', '5', '7', '9']) {
                connection.send(head) && connection.send(id)
            } else {
                connection.send(head + id)
            };
            if !is_sent {
                return;
            }
        }
    })
}

pub fn assert_echo(client: &mut RawClient, id: &str) {
    let response = client.read_response();
    assert_eq!((response.status, response.text().as_str()), (200, id));
    assert_eq!(response.header("x-id"), Some(id));
}

/// Measures quick requests on a kept connection, one after the other; the shortest is first.
pub fn measure_many(address: SocketAddr, count: usize) -> Vec<Duration> {
    let mut client = RawClient::connect(address);
    let durations = (0..count).map(|turn| {
        let begun = Instant::now();
        let id = format!("good-{turn}");
        client.send_request("GET", &format!("/v1/0/{id}"), &[], b"");
        assert_echo(&mut client, &id);
        begun.elapsed()
    });
    let mut durations: Vec<_> = durations.collect();
    durations.sort();
    durations
}
