//! The command `health`: asks the running proxy whether it serves.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ureq::Agent;

use super::report::Failure;
use crate::config::address::connectable;
use crate::config::options::Options;

/// The maximum time for connecting and the response together.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks the proxy that listens on the host and port of the options for `/-/health`.
pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let deadline = Instant::now() + TIMEOUT;
    let ask_at = |ip| ask(connectable(SocketAddr::new(ip, options.port)), deadline);
    let first = ask_at(options.host.first());
    let is_there = !matches!(first, Err(Unhealthy::NotThere(_)));
    match options.host.second() {
        // Perhaps it listens on the other loopback address alone.
        Some(second) if !is_there => ask_at(second).or(first),
        _ => first,
    }
    .map_err(|(Unhealthy::NotThere(problem) | Unhealthy::Ill(problem))| Failure::Running(problem))
}

/// Why a proxy does not count as healthy.
enum Unhealthy {
    /// Nothing accepts the connection.
    NotThere(String),
    /// It does not respond as it should.
    Ill(String),
}

fn ask(address: SocketAddr, deadline: Instant) -> Result<(), Unhealthy> {
    // ureq takes a proxy from the environment by default.
    let config = Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .timeout_global(Some(deadline.saturating_duration_since(Instant::now())))
        .build();
    let response = Agent::new_with_config(config)
        .get(format!("http://{address}/-/health"))
        .call()
        .map_err(|error| {
            let problem = |why: &str| {
                format!("no healthy flow-proxy on http://{address}: {why}; is it running?")
            };
            match error {
                ureq::Error::Timeout(_) => {
                    let seconds = TIMEOUT.as_secs();
                    Unhealthy::Ill(problem(&format!("no response within {seconds} s")))
                }
                error => Unhealthy::NotThere(problem(&error.to_string())),
            }
        })?;
    match response.status().as_u16() {
        200 => Ok(()),
        status => Err(Unhealthy::Ill(format!(
            "http://{address}/-/health answered {status}, not 200"
        ))),
    }
}
