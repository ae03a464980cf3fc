//! The command `health`: asks the running proxy whether it serves.

use serde::Deserialize;

use super::ask::{Answer, ask};
use crate::commands::report::Failure;
use crate::config::options::Options;

/// The most bytes of a page of health: an own one has some hundred.
const MAX_BODY: u64 = 4096;

/// Asks the proxy that listens on the host and port of the options for `/-/health`.
pub fn run(options: &Options) -> Result<(), Failure> {
    let answer = ask(options, "/-/health", MAX_BODY).map_err(Failure::Running)?;
    let Answer { url, status, body } = answer;
    if status != 200 {
        let problem = format!("{url} answered {status}, not 200");
        return Err(Failure::Running(problem));
    }
    if is_own_page(&body) {
        return Ok(());
    }
    Err(Failure::Running(format!(
        "{url} answered 200, but not as flow-proxy does: another program listens there"
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
