//! The command `health`: asks the running proxy whether it serves.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::Agent;

use super::report::Failure;
use crate::config::address::connectable;
use crate::config::options::Options;

/// The maximum time for connecting and the response together.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The most bytes of a page of health: an own one has some hundred.
const MAX_BODY: u64 = 4096;

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
        .call();
    let mut response = response.map_err(|error| no_response(address, &error))?;
    let status = response.status().as_u16();
    if status != 200 {
        return Err(Unhealthy::Ill(format!(
            "http://{address}/-/health answered {status}, not 200"
        )));
    }
    let body = response
        .body_mut()
        .with_config()
        .limit(MAX_BODY)
        .read_to_vec();
    let body = body.map_err(|error| no_response(address, &error))?;
    if is_own_page(&body) {
        return Ok(());
    }
    Err(Unhealthy::Ill(format!(
        "http://{address}/-/health answered 200, but not as flow-proxy does: another program listens \
         there"
    )))
}

/// What is read of the page of health.
#[derive(Deserialize)]
struct Page {
    status: String,
    version: String,
    configurations: Configurations,
}

#[derive(Deserialize)]
struct Configurations {
    available: u64,
    total: u64,
}

/// Whether the page is flow-proxy's own and says that all is well.
fn is_own_page(body: &[u8]) -> bool {
    serde_json::from_slice(body).is_ok_and(|page: Page| {
        let Configurations { available, total } = page.configurations;
        page.status == "ok" && !page.version.is_empty() && available <= total
    })
}

/// Returns why there is no response. Nothing is quoted that came from the other side: any program may
/// listen there.
fn no_response(address: SocketAddr, error: &ureq::Error) -> Unhealthy {
    let problem =
        |why: &str| format!("no healthy flow-proxy on http://{address}: {why}; is it running?");
    match error {
        ureq::Error::Timeout(_) => {
            let seconds = TIMEOUT.as_secs();
            Unhealthy::Ill(problem(&format!("no response within {seconds} s")))
        }
        ureq::Error::Io(error) => {
            let why = error.raw_os_error().map(io::Error::from_raw_os_error);
            let why = why.map_or("the connection was closed".to_owned(), |why| {
                why.to_string()
            });
            Unhealthy::NotThere(problem(&why))
        }
        _ => Unhealthy::Ill(problem("what listens there sends no valid response")),
    }
}
