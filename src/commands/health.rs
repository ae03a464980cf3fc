//! The command `health`: asks the running proxy whether it serves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ureq::Agent;

/// Connecting and the response together may take no longer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks the proxy at `host`:`port` for `/-/health`.
///
/// # Errors
/// Why it is not healthy, in one line.
pub fn check_health(host: IpAddr, port: u16) -> Result<(), String> {
    // An unspecified address is one to listen on, not one to connect to.
    let host = match host {
        IpAddr::V4(v4) if v4.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(v6) if v6.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        host => host,
    };
    let address = SocketAddr::new(host, port);
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
            format!("no healthy flow-proxy on http://{address}: {why}; is it running?")
        })?;
    match response.status().as_u16() {
        200 => Ok(()),
        status => Err(format!(
            "http://{address}/-/health answered {status}, not 200"
        )),
    }
}
