//! Values that are allowed each by itself and not together.

use std::net::Ipv4Addr;

use super::options::SECRETS_FILE;
use crate::config::options::Options;
use crate::config::shown::quoted;

/// Returns a line for each value that another one forbids. `secrets_place` is what messages call the
/// variable that holds the secrets, if one does. `place_of` returns the same for an option's value;
/// `None` where the default is in force.
pub(super) fn conflicts(
    options: &Options,
    secrets_place: Option<&str>,
    place_of: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let mut problems = Vec::new();
    let target = &options.target;
    let target_place = place_of("target-url").unwrap_or_else(|| "--target-url".to_owned());
    if target.sends_in_clear() && !options.allow_http_target {
        problems.push(format!("{target_place}: {}", target.clear_text_problem()));
    }
    if is_own_address(options) {
        let (url, port) = (quoted(&target.to_string()), options.port);
        problems.push(format!(
            "{target_place}: {url} is this proxy itself, which listens on port {port}: requests \
             would go in circles; give the URL of Flow, or another --port"
        ));
    }
    if let Some(place) = secrets_place
        && let Some(file) = place_of(SECRETS_FILE)
    {
        problems.push(format!(
            "{place}: holds the secrets in the place of a file, and {file} names a file: give one \
             of the two"
        ));
    }
    problems
}

/// Whether the target is where this proxy listens.
fn is_own_address(options: &Options) -> bool {
    let target = &options.target;
    if options.port == 0 || target.port != options.port {
        return false;
    }
    let of_name = target.is_loopback().then_some(Ipv4Addr::LOCALHOST.into());
    let address = target.address().or(of_name);
    address.is_some_and(|address| options.host.is_reached_at(address))
}
