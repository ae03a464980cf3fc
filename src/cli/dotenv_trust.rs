//! What a `.env` file may say. It may have come with a cloned repository: its author must not get the
//! user's secrets and prompts, let others in, or choose a file that is written.
//!
//! So options that decide this, and proxy variables, count only where the secrets come from the
//! directory of `.env`, too: then they belong to its author or to a user who put them there. Looks at
//! the file system, reads no file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::dotenv::Variable;
use super::options::{OPTIONS, SECRETS_FILE};
use crate::config::proxy_variables::is_proxy_variable;
use crate::config::shown::quoted;

/// Where the secrets come from, as far as `.env` is concerned.
pub(super) enum SecretsOrigin<'a> {
    /// The file that `.env` names, or the default one.
    File(&'a Path),
    /// What messages call another place: an option, a variable.
    Elsewhere(String),
}

/// Why the lines do not count.
struct Distrust {
    /// Continues a sentence.
    reason: String,
    /// Whether `.env` may name the secrets file nevertheless: it is not there yet.
    may_name_file: bool,
}

/// Returns a line for each variable in `.env` that may not stand there. A line that another source
/// overrides is no exception.
pub(super) fn untrusted(
    dotenv: &[Variable],
    dotenv_path: &Path,
    secrets: &SecretsOrigin<'_>,
) -> Vec<String> {
    let Err(distrust) = secrets_are_beside(dotenv_path, secrets) else {
        return Vec::new();
    };
    let (file, reason) = (dotenv_path.display(), &distrust.reason);
    let problem = |one: &Variable| {
        let Variable { name, line, .. } = one;
        let (what, hint) = match OPTIONS.iter().find(|spec| spec.env == name) {
            Some(spec) if spec.long == SECRETS_FILE && distrust.may_name_file => return None,
            Some(spec) if spec.needs_trust() => {
                (format!("--{} ({name})", spec.long), " or give the option")
            }
            None if is_proxy_variable(name) => (name.clone(), ""),
            _ => return None,
        };
        Some(format!(
            "{file}: line {line}: {what} may stand here only if the secrets come from a file in this \
             directory, and {reason}: set it in the environment{hint}"
        ))
    };
    let set = dotenv.iter().filter(|one| !one.value.is_empty());
    set.filter_map(problem).collect()
}

/// Checks that the secrets come from a file in the directory of `.env`, whatever links lead there.
fn secrets_are_beside(dotenv_path: &Path, secrets: &SecretsOrigin<'_>) -> Result<(), Distrust> {
    let distrust = |reason, may_name_file| Distrust {
        reason,
        may_name_file,
    };
    let path = match secrets {
        SecretsOrigin::File(path) => path,
        SecretsOrigin::Elsewhere(place) => {
            return Err(distrust(format!("they come from {place}"), false));
        }
    };
    let directory = fs::canonicalize(directory_of(dotenv_path));
    let is_inside = |found: io::Result<PathBuf>| match (&directory, found) {
        (Ok(directory), Ok(found)) => found.starts_with(directory),
        _ => false,
    };
    if is_inside(fs::canonicalize(path)) {
        return Ok(());
    }
    let shown = quoted(&path.to_string_lossy());
    let is_missing =
        fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    if is_missing && is_inside(fs::canonicalize(directory_of(path))) {
        return Err(distrust(format!("there is no {shown}"), true));
    }
    Err(distrust(format!("{shown} leads elsewhere"), false))
}

fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}
