//! What the black-box tests share: the built binary as a process, two stand-in upstreams and a
//! client on a plain socket. Nothing here uses the library: what a test says about the proxy it
//! has seen on a socket, in the log or in `/proc`.
//!
//! Everything binds port 0 and its own directory, so that all tests run in parallel. Nothing
//! sleeps for luck: waits are conditions with a deadline ([`wait_for`]).

pub mod attack;
mod clock;
pub mod echo;
mod fake_flow;
mod jwt;
mod log_lines;
mod machine;
mod proxy_process;
mod raw_client;
mod raw_upstream;
mod response;
mod temp_dir;

use std::time::{Duration, Instant};

pub use clock::http_date;
pub use fake_flow::{Answer, FakeFlow};
pub use jwt::{expected_token, verified_client_id};
pub use log_lines::AccessLine;
pub use machine::{ClosedPort, raise_descriptor_limit};
pub use proxy_process::{ProxyBuilder, ProxyProcess};
pub use raw_client::{RawClient, answer_to, get, post};
pub use raw_upstream::{Commands, RawUpstream, SeenRequest, UpstreamConnection};
pub use response::{Ended, Framing, Response};
pub use temp_dir::TempDir;

/// How long a condition may take that is expected at once: long enough for a busy machine, and
/// never waited for where the program is right.
pub const SOON: Duration = Duration::from_secs(15);

/// The largest body that the contract has held in memory for repeating: 2 MiB.
pub const HELD_BODY_LIMIT_BYTES: usize = 2 * 1024 * 1024;

/// Polls `look` until it returns something.
///
/// # Panics
/// When `deadline` has passed: the message says what was waited for.
pub fn wait_for<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            started.elapsed() < deadline,
            "waited {deadline:?} in vain for: {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// [`wait_for`] with a plain condition.
pub fn wait_until(what: &str, deadline: Duration, mut holds: impl FnMut() -> bool) {
    wait_for(what, deadline, || holds().then_some(()));
}

/// The n-th made-up credential, counting from 1: name `primary-<n>`, client id `client-<n>`.
pub fn credential(n: usize) -> serde_json::Value {
    serde_json::json!({
        "name": format!("primary-{n}"),
        "clientId": format!("client-{n}"),
        "clientSecret": format!("fake-secret-{n}-not-real"),
        "tenant": format!("tenant-{n}"),
    })
}

/// The first `count` made-up credentials.
pub fn credentials(count: usize) -> Vec<serde_json::Value> {
    (1..=count).map(credential).collect()
}

/// Bytes that do not repeat in any short period, so that a lost, doubled or swapped piece shows.
pub fn patterned_bytes(length: usize) -> Vec<u8> {
    let mut state: u32 = 0x9e37_79b9;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

/// `body` in chunked coding, in chunks of `chunk_bytes`, with the last chunk.
pub fn chunked(body: &[u8], chunk_bytes: usize) -> Vec<u8> {
    let mut coded = Vec::with_capacity(body.len() + body.len() / chunk_bytes * 8 + 16);
    for chunk in body.chunks(chunk_bytes) {
        coded.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        coded.extend_from_slice(chunk);
        coded.extend_from_slice(b"\r\n");
    }
    coded.extend_from_slice(b"0\r\n\r\n");
    coded
}
