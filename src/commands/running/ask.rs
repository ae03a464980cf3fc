//! Asks the running proxy for one of its pages.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ureq::Agent;

use crate::config::address::connectable;
use crate::config::options::Options;

/// The maximum time for connecting and the response together.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What was answered, by whatever listens there.
pub struct Answer {
    /// The page that was asked for, as messages name it.
    pub url: String,
    pub status: u16,
    pub body: Vec<u8>,
}

/// Why there is no answer.
enum NoAnswer {
    /// Nothing accepts the connection.
    NotThere(String),
    /// It does not respond as it should.
    Ill(String),
}

/// Asks the proxy that listens on the host and port of the options for the page at `path`, of which up to
/// `max_body` bytes are read.
///
/// # Errors
/// Why there is no answer, as one line.
pub fn ask(options: &Options, path: &str, max_body: u64) -> Result<Answer, String> {
    let deadline = Instant::now() + TIMEOUT;
    let ask_at = |ip| {
        let address = connectable(SocketAddr::new(ip, options.port));
        ask_at(address, path, max_body, deadline)
    };
    let first = ask_at(options.host.first());
    let is_there = !matches!(first, Err(NoAnswer::NotThere(_)));
    match options.host.second() {
        // Perhaps it listens on the other loopback address alone.
        Some(second) if !is_there => ask_at(second).or(first),
        _ => first,
    }
    .map_err(|(NoAnswer::NotThere(problem) | NoAnswer::Ill(problem))| problem)
}

fn ask_at(
    address: SocketAddr,
    path: &str,
    max_body: u64,
    deadline: Instant,
) -> Result<Answer, NoAnswer> {
    // ureq takes a proxy from the environment by default.
    let config = Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .timeout_global(Some(deadline.saturating_duration_since(Instant::now())))
        .build();
    let url = format!("http://{address}{path}");
    let response = Agent::new_with_config(config).get(&url).call();
    let mut response = response.map_err(|error| no_answer(address, &error))?;
    let status = response.status().as_u16();
    let body = match status {
        200 => response
            .body_mut()
            .with_config()
            .limit(max_body)
            .read_to_vec()
            .map_err(|error| no_answer(address, &error))?,
        // Nothing of an error is shown.
        _ => Vec::new(),
    };
    Ok(Answer { url, status, body })
}

/// Returns why there is no answer. Nothing is quoted that came from the other side: any program may
/// listen there.
fn no_answer(address: SocketAddr, error: &ureq::Error) -> NoAnswer {
    let problem =
        |why: &str| format!("no healthy flow-proxy on http://{address}: {why}; is it running?");
    match error {
        ureq::Error::Timeout(_) => {
            let seconds = TIMEOUT.as_secs();
            NoAnswer::Ill(problem(&format!("no response within {seconds} s")))
        }
        ureq::Error::Io(error) => {
            let why = error.raw_os_error().map(io::Error::from_raw_os_error);
            let why = why.map_or("the connection was closed".to_owned(), |why| {
                why.to_string()
            });
            NoAnswer::NotThere(problem(&why))
        }
        _ => NoAnswer::Ill(problem("what listens there sends no valid response")),
    }
}
