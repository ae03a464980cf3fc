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
use super::options::{OPTIONS, OptionSpec, SECRETS_FILE};
use crate::config::file::leads_into;
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

/// Checks the variables in `.env` that may stand there only beside the secrets. Returns the directory that
/// the secrets file must not leave, if there are such variables.
///
/// # Errors
/// A line for each of them. One that another source overrides is no exception.
pub(super) fn check(
    dotenv: &[Variable],
    dotenv_path: &Path,
    secrets: &SecretsOrigin<'_>,
) -> Result<Option<PathBuf>, Vec<String>> {
    let set = dotenv.iter().filter(|one| !one.value.is_empty());
    let trusting: Vec<_> = set
        .filter_map(|one| Some((one, needs_trust(&one.name)?)))
        .collect();
    if trusting.is_empty() {
        return Ok(None);
    }
    let distrust = match secrets_are_beside(dotenv_path, secrets) {
        Ok(directory) => return Ok(Some(directory)),
        Err(distrust) => distrust,
    };
    let (file, reason) = (dotenv_path.display(), &distrust.reason);
    let problem = |(one, spec): (&Variable, Option<&OptionSpec>)| {
        let Variable { name, line, .. } = one;
        let (what, hint) = match spec {
            Some(spec) if spec.long == SECRETS_FILE && distrust.may_name_file => return None,
            Some(spec) => (format!("--{} ({name})", spec.long), " or give the option"),
            None => (name.clone(), ""),
        };
        Some(format!(
            "{file}: line {line}: {what} may stand here only if the secrets come from a file in this \
             directory, and {reason}: set it in the environment{hint}"
        ))
    };
    let problems: Vec<String> = trusting.into_iter().filter_map(problem).collect();
    if problems.is_empty() {
        Ok(None)
    } else {
        Err(problems)
    }
}

/// Returns the option that the variable sets, if there is one; `None` if it may stand in `.env` in any case.
fn needs_trust(name: &str) -> Option<Option<&'static OptionSpec>> {
    let spec = OPTIONS.iter().find(|spec| spec.env == name);
    let needs_trust = spec.map_or(is_proxy_variable(name), OptionSpec::needs_trust);
    needs_trust.then_some(spec)
}

/// Checks that the secrets come from a file in the directory of `.env`, whatever links lead there. Returns
/// that directory.
fn secrets_are_beside(
    dotenv_path: &Path,
    secrets: &SecretsOrigin<'_>,
) -> Result<PathBuf, Distrust> {
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
    let is_inside = |path: &Path| match &directory {
        Ok(directory) => leads_into(path, directory),
        Err(_) => false,
    };
    if is_inside(path)
        && let Ok(directory) = directory
    {
        return Ok(directory);
    }
    let shown = quoted(&path.to_string_lossy());
    let is_missing =
        fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    if is_missing && is_inside(directory_of(path)) {
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
