//! Peers that vanish without a word are noticed by the kernel's probes (contract section 4). What Linux
//! tells of a socket's timers is looked at, since no test can make a peer vanish without root.

use std::net::SocketAddr;

use crate::support::{ProxyProcess, RawClient, RawUpstream, SOON, SSE_HEAD, wait_for};

/// The kernel's word for a timer that sends keepalive probes.
const KEEPALIVE: &str = "02";
/// Silence after which the first probe is sent, in the kernel's hundredths of a second.
const PROBE_AFTER: u64 = 1500;

/// Returns kind and time left of the timer of the connection whose addresses end so.
fn timer_of(local_end: &str, remote_end: &str) -> Option<(String, u64)> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (local, remote, state) = (columns.get(1)?, columns.get(2)?, columns.get(3)?);
        let is_established = *state == "01";
        let (kind, left) = columns.get(5)?.split_once(':')?;
        let is_wanted = local.ends_with(local_end) && remote.ends_with(remote_end);
        (is_established && is_wanted).then_some(())?;
        Some((kind.to_owned(), u64::from_str_radix(left, 16).ok()?))
    })
}

fn port(address: SocketAddr) -> String {
    format!(":{:04X}", address.port())
}

#[test]
fn both_sides_are_probed_after_15_s_of_silence() {
    let (upstream, commands) = RawUpstream::on_command();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let mut client = RawClient::connect(proxy.address());
    client.send_request("GET", "/v1/x", &[], b"");
    commands.send(SSE_HEAD);
    client.read_head();
    let (own, theirs) = (port(proxy.address()), port(upstream.address()));
    for (local, remote) in [(own.as_str(), ""), ("", theirs.as_str())] {
        let left = wait_for("the keepalive timer", SOON, || {
            let (kind, left) = timer_of(local, remote)?;
            (kind == KEEPALIVE).then_some(left)
        });
        assert!(left <= PROBE_AFTER, "{local} {remote}: {left}");
    }
    commands.send("0\r\n\r\n");
    client.read_body_to_end();
}
