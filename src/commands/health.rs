//! The command `health`: asks the running proxy whether it serves.

use std::net::SocketAddr;
use std::time::Duration;

use ureq::Agent;

use super::report::Failure;
use crate::config::address::connectable;
use crate::config::options::Options;

/// The maximum time for connecting and the response together.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks the proxy that listens on the host and port of the options for `/-/health`.
pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let address = connectable(SocketAddr::new(options.host, options.port));
    // ureq takes a proxy from the environment by default.
    let config = Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .timeout_global(Some(TIMEOUT))
        .build();
    let response = Agent::new_with_config(config)
        .get(format!("http://{address}/-/health"))
        .call()
        .map_err(|error| {
            let why = match error {
                ureq::Error::Timeout(_) => format!("no response within {} s", TIMEOUT.as_secs()),
                error => error.to_string(),
            };
            Failure::Running(format!(
                "no healthy flow-proxy on http://{address}: {why}; is it running?"
            ))
        })?;
    match response.status().as_u16() {
        200 => Ok(()),
        status => Err(Failure::Running(format!(
            "http://{address}/-/health answered {status}, not 200"
        ))),
    }
}
