//! Which source of an option's value wins: command line, environment, `.env`, default.
//!
//! Owns the precedence and the warnings about variables that have no effect. Pure.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::conflicts::conflicts;
use super::dotenv::{self, Variable};
use super::dotenv_trust::{self, SecretsOrigin};
use super::log_file;
use super::options::{LISTS, NEVER_IN_DOTENV, OPTIONS, OptionSpec, PREFIX, SECRETS_FILE};
use super::variables::{SECRETS, unknown_variable};
use crate::config::options::{Options, SSL_CERT_FILE};
use crate::config::proxy_variables::{ProxyVariables, is_proxy_variable};
use crate::config::secrets::{SecretsArray, SecretsSource};
use crate::config::shown::shown;

/// An option in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The option's name without its dashes, such as `log-level`; or a variable's, where no option
    /// belongs to it.
    pub name: &'static str,
    /// Its value as the option takes it, on one line; `none` where it has no value.
    pub value: String,
    /// Where the value comes from.
    pub source: Source,
}

/// Where a value comes from, highest precedence first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    CommandLine,
    /// The environment variable of this name.
    Environment(&'static str),
    DotEnv,
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::CommandLine => "command line",
            Source::Environment(name) => name,
            Source::DotEnv => ".env",
            Source::Default => "default",
        })
    }
}

/// An environment variable. Its value is wiped when dropped: it may be the secrets.
type Environment = (String, Zeroizing<Vec<u8>>);

/// The values of all sources, not yet checked.
pub(super) struct Layers {
    /// By the option's long name.
    command_line: Vec<(&'static str, OsString)>,
    /// By variable; only variables that this program may read and that are not empty.
    environment: Vec<Environment>,
    /// By variable; empty values included.
    dotenv: dotenv::Variables,
    dotenv_path: PathBuf,
    /// What messages call the `.env` file.
    dotenv_name: String,
}

impl Layers {
    pub(super) fn new(
        command_line: Vec<(&'static str, OsString)>,
        environment: impl Iterator<Item = (OsString, OsString)>,
        dotenv: dotenv::Variables,
        dotenv_path: &Path,
    ) -> Layers {
        Layers {
            command_line,
            environment: environment.filter_map(own_variable).collect(),
            dotenv,
            dotenv_path: dotenv_path.to_owned(),
            dotenv_name: dotenv_path.display().to_string(),
        }
    }

    /// Returns the options in force and the source of each, in the order of the help. Adds a line to
    /// `errors` for each value that is in force and not allowed.
    pub(super) fn resolve(&self, errors: &mut Vec<String>) -> (Options, Vec<Setting>) {
        let mut options = Options::default();
        let mut settings = Vec::new();
        let secrets = self.secrets();
        for spec in OPTIONS {
            match self.apply(spec, &mut options) {
                Ok(source) => settings.push(Setting {
                    name: spec.long,
                    value: shown(&(spec.show)(&options)),
                    source,
                }),
                Err(error) => errors.push(error),
            }
        }
        let place_of = |long: &str| {
            let spec = OPTIONS.iter().find(|spec| spec.long == long)?;
            self.find(spec).map(|(_, place, _)| place)
        };
        let secrets_place = secrets.as_ref().map(|(_, place, _)| place.as_str());
        let origin = self.secrets_origin(&options, secrets_place);
        match dotenv_trust::check(&self.dotenv, &self.dotenv_path, &origin) {
            Ok(directory) => options.secrets_within = directory,
            Err(problems) => errors.extend(problems),
        }
        errors.extend(conflicts(&options, secrets_place, place_of));
        let log_place = place_of("log-file").unwrap_or_else(|| "--log-file".to_owned());
        if let Some((array, place, source)) = secrets {
            options.secrets = SecretsSource::Array(SecretsArray::new(place, array));
            let file = settings.iter_mut().find(|one| one.name == SECRETS_FILE);
            if let Some(setting) = file {
                setting.value = "none".to_owned();
                setting.source = source;
            }
        }
        if let Some(path) = self.variable(SSL_CERT_FILE) {
            options.ssl_cert_file = Some(path.into());
            settings.push(Setting {
                name: SSL_CERT_FILE,
                value: shown(&path.to_string_lossy()),
                source: Source::Environment(SSL_CERT_FILE),
            });
        }
        errors.extend(log_file::problem(&options, &self.dotenv_path, &log_place));
        options.proxy_variables = self.proxy_variables();
        (options, settings)
    }

    /// Returns the secrets that a variable holds in the place of a file, what messages call the
    /// variable's place, and its source.
    fn secrets(&self) -> Option<(&OsStr, String, Source)> {
        if let Some(array) = self.variable(SECRETS) {
            return Some((array, SECRETS.to_owned(), Source::Environment(SECRETS)));
        }
        let array = &self.in_dotenv(SECRETS)?.value;
        let place = format!("{}: {SECRETS}", self.dotenv_name);
        (!array.is_empty()).then_some((OsStr::new(array.as_str()), place, Source::DotEnv))
    }

    /// Returns whether the secrets can come from the directory of `.env`. `place` is that of a variable
    /// that holds them.
    fn secrets_origin<'o>(&self, options: &'o Options, place: Option<&str>) -> SecretsOrigin<'o> {
        let spec = OPTIONS.iter().find(|spec| spec.long == SECRETS_FILE);
        let named = spec.and_then(|spec| self.find(spec));
        match (place, named, &options.secrets) {
            (Some(place), ..) => SecretsOrigin::Elsewhere(place.to_owned()),
            (_, None | Some((_, _, Source::DotEnv)), SecretsSource::File(path)) => {
                SecretsOrigin::File(path)
            }
            (_, Some((_, place, _)), _) => SecretsOrigin::Elsewhere(place),
            (_, None, SecretsSource::Array(_)) => SecretsOrigin::Elsewhere(SECRETS.to_owned()),
        }
    }

    fn proxy_variables(&self) -> ProxyVariables {
        let environment = self.environment.iter();
        let environment = environment.filter(|(name, _)| is_proxy_variable(name));
        let dotenv = self.dotenv.iter();
        let dotenv = dotenv.filter(|variable| is_proxy_variable(&variable.name));
        ProxyVariables {
            environment: environment
                .map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into_owned()))
                .collect(),
            dotenv: dotenv
                .map(|variable| (variable.name.clone(), variable.value.to_string()))
                .collect(),
        }
    }

    /// Returns the value of an environment variable.
    fn variable(&self, name: &str) -> Option<&OsStr> {
        let found = self.environment.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| OsStr::from_bytes(value))
    }

    /// Returns the line of `.env` that sets a variable: the last of two, as in shells.
    fn in_dotenv(&self, name: &str) -> Option<&Variable> {
        self.dotenv.iter().rfind(|variable| variable.name == name)
    }

    /// Sets the option from the first source that has a value. Only that value is checked.
    fn apply(&self, spec: &OptionSpec, options: &mut Options) -> Result<Source, String> {
        let Some((value, place, source)) = self.find(spec) else {
            return Ok(Source::Default);
        };
        let text = value.to_str().ok_or("the value is not UTF-8".to_owned());
        text.and_then(|text| (spec.set)(options, text))
            .map_err(|error| format!("{place}: {error}"))?;
        Ok(source)
    }

    /// Returns the value in force, what messages call its place, and its source; `None` where the
    /// default is in force.
    fn find(&self, spec: &OptionSpec) -> Option<(Cow<'_, OsStr>, String, Source)> {
        let (long, env) = (spec.long, spec.env);
        if let Some(value) = self.given(long) {
            return Some((value, format!("--{long}"), Source::CommandLine));
        }
        if let Some(value) = self.variable(env) {
            return Some((value.into(), env.to_owned(), Source::Environment(env)));
        }
        let value = &self.in_dotenv(env)?.value;
        if value.is_empty() || NEVER_IN_DOTENV.contains(&env) {
            return None;
        }
        let place = format!("{}: {env}", self.dotenv_name);
        Some((OsStr::new(value.as_str()).into(), place, Source::DotEnv))
    }

    /// Returns the value on the command line. The last of two counts, as in shells; of a list all count.
    fn given(&self, long: &str) -> Option<Cow<'_, OsStr>> {
        let values = self.command_line.iter().filter(|(name, _)| *name == long);
        let mut values = values.map(|(_, value)| value.as_os_str());
        if LISTS.contains(&long) {
            let all: Vec<_> = values.collect();
            return (!all.is_empty()).then(|| all.join(OsStr::new(",")).into());
        }
        values.next_back().map(Cow::from)
    }

    /// Returns a line for each variable that has no effect and is probably meant to have one.
    pub(super) fn warnings(&self) -> Vec<String> {
        let place = format!("{}: ", self.dotenv_name);
        let environment = self.environment.iter().map(|(name, _)| ("", name));
        let set = || self.dotenv.iter().filter(|one| !one.value.is_empty());
        let dotenv = set().map(|variable| (place.as_str(), &variable.name));
        let mut warnings: Vec<String> = environment
            .chain(dotenv)
            .filter_map(|(place, name)| Some(format!("{place}{}", unknown_variable(name)?)))
            .collect();
        for Variable { name, .. } in set() {
            if NEVER_IN_DOTENV.contains(&name.as_str()) {
                warnings.push(format!(
                    "{place}{name} has no effect here: set it in the environment, or give the option"
                ));
            }
        }
        warnings
    }
}

/// Returns the variable if this program may read it. An empty one counts as unset, but where it says
/// that there is no proxy.
fn own_variable((name, value): (OsString, OsString)) -> Option<Environment> {
    let name = name.to_string_lossy();
    let is_own = name.starts_with(PREFIX) || name == SSL_CERT_FILE;
    let counts = is_proxy_variable(&name) || (is_own && !value.is_empty());
    counts.then(|| (name.into_owned(), Zeroizing::new(value.into_vec())))
}
