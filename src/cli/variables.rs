//! The variables that begin with this program's prefix and set no option, and which of them are
//! typing mistakes. Pure.

use super::options::{OPTIONS, PREFIX};
use crate::config::shown::shown;
use crate::config::suggest::nearest;

/// The variable that may hold the secrets themselves, in the place of a file.
pub(super) const SECRETS: &str = "FLOW_PROXY_SECRETS";

/// What other programs read: clients of a proxy that wants keys, and the scripts in `deploy/`.
const OF_OTHERS: [&str; 6] = [
    "FLOW_PROXY_KEY",
    "FLOW_PROXY_BIN",
    "FLOW_PROXY_DIR",
    "FLOW_PROXY_GID",
    "FLOW_PROXY_KEEP_PAUSE",
    "FLOW_PROXY_UID",
];

/// Returns the warning about a variable that has this program's prefix and no meaning.
pub(super) fn unknown_variable(name: &str) -> Option<String> {
    let suffix = name.strip_prefix(PREFIX)?;
    let is_option = OPTIONS.iter().any(|spec| spec.env == name);
    if is_option || name == SECRETS || OF_OTHERS.contains(&name) || is_of_kubernetes(suffix) {
        return None;
    }
    let options = OPTIONS.iter().map(|spec| spec.env);
    let known = options.chain([SECRETS]);
    let hint = nearest(suffix, known.map(|name| &name[PREFIX.len()..]))?;
    let name = shown(name);
    Some(format!(
        "{name}: unknown variable, ignored; did you mean {PREFIX}{hint}?"
    ))
}

/// Whether Kubernetes makes the variable for a Service whose name is, or begins with, `flow-proxy`:
/// `SERVICE_HOST`, `SERVICE_PORT…`, and for each port `PORT_8899_TCP…`.
fn is_of_kubernetes(suffix: &str) -> bool {
    let is_port = |rest: &str| {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let protocols = ["_TCP", "_UDP", "_SCTP"];
        digits > 0
            && protocols
                .iter()
                .any(|name| rest[digits..].starts_with(name))
    };
    suffix.ends_with("SERVICE_HOST")
        || suffix.contains("SERVICE_PORT")
        || suffix
            .match_indices("PORT_")
            .any(|(at, word)| is_port(&suffix[at + word.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_other_programs_are_known() {
        for name in [
            "FLOW_PROXY_KEY",
            "FLOW_PROXY_SECRETS",
            "FLOW_PROXY_SERVICE_HOST",
            "FLOW_PROXY_SERVICE_PORT",
            "FLOW_PROXY_SERVICE_PORT_HTTP",
            "FLOW_PROXY_PORT_8899_TCP",
            "FLOW_PROXY_PORT_8899_TCP_ADDR",
            "FLOW_PROXY_CANARY_SERVICE_HOST",
            "FLOW_PROXY_CANARY_PORT_80_TCP_PROTO",
            "OTHER",
        ] {
            assert_eq!(unknown_variable(name), None, "{name}");
        }
    }

    #[test]
    fn typing_mistakes_get_the_nearest_name() {
        for (name, nearest) in [
            ("PROT", "PORT"),
            ("SECRETS_FIL", "SECRETS_FILE"),
            ("SECRTES", "SECRETS"),
            ("PORT_X", "PORT"),
        ] {
            let warning = unknown_variable(&format!("{PREFIX}{name}"));
            let expected = format!("did you mean {PREFIX}{nearest}?");
            assert!(
                warning.is_some_and(|text| text.ends_with(&expected)),
                "{name}"
            );
        }
    }
}
