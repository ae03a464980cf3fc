//! Values that are allowed each by itself and not together.

use crate::config::options::Options;

/// Returns a line for each value that another one forbids. `place_of` returns what messages call the
/// place of an option's value; `None` where the default is in force.
pub(super) fn conflicts(
    options: &Options,
    place_of: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let mut problems = Vec::new();
    let target = &options.target;
    let target_place = place_of("target-url").unwrap_or_else(|| "--target-url".to_owned());
    if target.sends_in_clear() && !options.allow_http_target {
        problems.push(format!("{target_place}: {}", target.clear_text_problem()));
    }
    problems
}
