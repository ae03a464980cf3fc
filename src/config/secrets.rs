//! Reads `secrets.json` into the configurations that requests are signed with.
//!
//! Owns where the secrets come from, who else can get at them (`exposure`), their format (`json`, `entry`), and the types that keep
//! them out of output: only `Secret::expose`, [`Credential::authorization`] and [`Configuration::token`]
//! return a secret, and no error quotes a value of the file. Out of scope: which configuration a request gets, and noticing that
//! the file has changed. Called by the main thread and by the reload thread.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::file::{self, Pipes, ReadError};
use super::jwt::{self, Claims};
use super::shown::{holds_client_secret, may_hold_secret, shown_path};
mod entry;
mod exposure;
mod json;

/// What precedes the token in the Authorization header (RFC 6750 section 2.1).
const SCHEME: &str = "Bearer ";

/// Where the secrets come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretsSource {
    /// The file at this path.
    File(PathBuf),
    /// A variable that holds the array itself.
    Array(SecretsArray),
}

/// A secrets array that was given in a variable.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretsArray {
    place: String,
    text: Zeroizing<Vec<u8>>,
}

impl SecretsArray {
    /// `place` is what messages call the variable.
    pub fn new(place: String, text: &OsStr) -> SecretsArray {
        let text = Zeroizing::new(text.as_bytes().to_vec());
        SecretsArray { place, text }
    }
}

impl SecretsSource {
    /// Returns the source, and leaves one that has its name and no secrets.
    pub fn take(&mut self) -> SecretsSource {
        let named = match self {
            SecretsSource::File(path) => SecretsSource::File(path.clone()),
            SecretsSource::Array(array) => {
                SecretsSource::Array(SecretsArray::new(array.place.clone(), OsStr::new("")))
            }
        };
        std::mem::replace(self, named)
    }
}

impl fmt::Debug for SecretsArray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretsArray([redacted])")
    }
}

impl fmt::Display for SecretsSource {
    /// Writes what messages call the source.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretsSource::File(path) => f.write_str(&shown_path(path)),
            SecretsSource::Array(array) => f.write_str(&array.place),
        }
    }
}

/// Reads the secrets; a file that is a pipe, as `pipes` says.
///
/// # Errors
///
/// All problems at once. Each begins with the source; none quotes a value.
pub fn load(source: &SecretsSource, pipes: Pipes) -> Result<Loaded, SecretsErrors> {
    match source {
        SecretsSource::File(path) => load_file(path, pipes),
        SecretsSource::Array(array) => load_text(&array.text, &array.place, false),
    }
}

/// Reads the secrets file again. Never blocks on a pipe.
///
/// # Errors
///
/// As [`load`]; also that the file is no regular file, or leads out of the directory `within`.
pub fn load_again(path: &Path, within: Option<&Path>) -> Result<Loaded, SecretsErrors> {
    match within {
        Some(directory) if !file::leads_into(path, directory) => {
            let place = shown_path(path);
            let problem = "leads out of the directory whose .env file is in use";
            Err(SecretsErrors(vec![format!("{place}: {problem}")]))
        }
        _ => load_file(path, Pipes::Reject),
    }
}

fn load_file(path: &Path, pipes: Pipes) -> Result<Loaded, SecretsErrors> {
    let place = shown_path(path);
    let contents = file::read(path, pipes).map_err(|error| {
        let problem = match error {
            ReadError::Missing => missing(path),
            other => other.to_string(),
        };
        SecretsErrors(vec![format!("{place}: {problem}")])
    })?;
    let mut loaded = load_text(&contents.bytes, &place, contents.metadata.is_file())?;
    let warnings = exposure::warnings(path, &contents.metadata);
    let warnings = warnings.map(|warning| format!("{place} {warning}"));
    loaded.warnings.splice(0..0, warnings);
    Ok(loaded)
}

/// Returns that there is no such file, and what to do.
fn missing(path: &Path) -> String {
    if may_hold_secret(&path.to_string_lossy()) {
        return "no such file. The variable FLOW_PROXY_SECRETS may hold the array itself"
            .to_owned();
    }
    let place = shown_path(path);
    format!("no such file. Copy secrets.json.template to {place} and put your credentials in")
}

fn load_text(text: &[u8], place: &str, is_watchable: bool) -> Result<Loaded, SecretsErrors> {
    let in_place = |line: String| format!("{place}: {line}");
    let (configurations, mut warnings) = parse(text)
        .map_err(|SecretsErrors(lines)| SecretsErrors(lines.into_iter().map(in_place).collect()))?;
    warnings.extend(ambiguous_names(&configurations));
    Ok(Loaded {
        configurations,
        warnings: warnings.into_iter().map(in_place).collect(),
        is_watchable,
    })
}

/// Reads a JSON array of objects in UTF-8, with or without a byte order mark. Returns the
/// configurations, and a warning for each value that is probably wrong.
///
/// # Errors
///
/// All problems at once, each with the entry (counted from 1) and the field. None quotes a value.
fn parse(text: &[u8]) -> Result<(Vec<Configuration>, Vec<String>), SecretsErrors> {
    let one = |problem: String| SecretsErrors(vec![problem]);
    let entries = json::parse(text).map_err(one)?;
    if entries.is_empty() {
        return Err(one(
            "the array is empty: at least one configuration is needed".into(),
        ));
    }

    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let mut configurations = Vec::with_capacity(entries.len());
    let mut known: HashSet<Arc<Credential>> = HashSet::new();
    for (index, entry) in entries.iter().enumerate() {
        let Some(entry) = entry::read(index + 1, entry, &mut problems, &mut warnings) else {
            continue;
        };
        let credential = Credential::new(entry.client_id, entry.client_secret, entry.tenant);
        let credential = match known.get(&credential) {
            Some(same) => Arc::clone(same),
            None => {
                let new = Arc::new(credential);
                known.insert(Arc::clone(&new));
                new
            }
        };
        configurations.push(Configuration {
            name: entry.name.into(),
            credential,
        });
    }
    if problems.is_empty() {
        Ok((configurations, warnings))
    } else {
        Err(SecretsErrors(problems))
    }
}

/// What a secrets file holds.
#[derive(Debug)]
pub struct Loaded {
    /// In file order, one for each entry of the array.
    pub configurations: Vec<Configuration>,
    /// What is unsafe or probably wrong but no error, one line each. No line holds a secret.
    pub warnings: Vec<String>,
    /// Whether they come from a regular file, which can be read again.
    pub is_watchable: bool,
}

/// One entry of the file, and one turn of the round-robin.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// What the log calls it. Never empty; no control characters, no quotes.
    pub name: Arc<str>,
    /// Shared by all entries of the same identity: repeating an entry gives it more weight.
    pub credential: Arc<Credential>,
}

impl Configuration {
    /// Returns the JWT, for the command `token`. It holds the secret: never log it.
    pub fn token(&self) -> &str {
        &self.credential.authorization()[SCHEME.len()..]
    }
}

/// Returns the names as messages list them: `'a', 'b'`.
pub fn quoted_names(configurations: &[Configuration]) -> String {
    let names: Vec<_> = configurations
        .iter()
        .map(|configuration| format!("'{}'", configuration.name))
        .collect();
    names.join(", ")
}

/// The identity of a client of Flow, with its finished Authorization value.
///
/// Equal when clientId, clientSecret and tenant are equal.
#[derive(Clone)]
pub struct Credential {
    /// Not a secret by itself, but half of the pair: it stays out of the log as well.
    pub client_id: Secret,
    client_secret: Secret,
    tenant: String,
    authorization: Secret,
}

impl Credential {
    /// Signs the token with [`jwt::sign_hs256`].
    pub fn new(client_id: &str, client_secret: &str, tenant: &str) -> Self {
        let claims = Claims {
            client_id,
            client_secret,
            tenant,
        };
        Self {
            client_id: Secret::new(client_id),
            client_secret: Secret::new(client_secret),
            tenant: tenant.to_owned(),
            authorization: Secret(jwt::sign_hs256(SCHEME, claims)),
        }
    }

    /// Returns the value of the Authorization header, in visible ASCII. The caller must make sure that it
    /// is neither logged nor displayed.
    pub fn authorization(&self) -> &str {
        self.authorization.expose()
    }

    /// Whether `text` holds the clientSecret.
    pub fn has_secret_in(&self, text: &[u8]) -> bool {
        holds_client_secret(text, self.client_secret.expose())
    }

    fn identity(&self) -> (&str, &str, &str) {
        (
            self.client_id.expose(),
            self.client_secret.expose(),
            &self.tenant,
        )
    }
}

impl PartialEq for Credential {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Credential {}

impl Hash for Credential {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential([redacted])")
    }
}

/// A text that cannot be printed by accident: its Debug output is `[redacted]`, and it has no Display. It
/// is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }

    /// Returns the secret. The caller must make sure that it is neither logged nor displayed.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// All problems of a secrets file. Display writes one line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretsErrors(Vec<String>);

impl SecretsErrors {
    /// Returns the problems in the order of the file. Never empty.
    pub fn problems(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for SecretsErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for SecretsErrors {}

/// Returns a warning for each name of more than one credential. Entries that repeat name and credential
/// are a weight, not a mistake.
fn ambiguous_names(configurations: &[Configuration]) -> Vec<String> {
    let mut by_name: BTreeMap<&str, HashSet<&Credential>> = BTreeMap::new();
    for configuration in configurations {
        by_name
            .entry(&configuration.name)
            .or_default()
            .insert(&configuration.credential);
    }
    by_name
        .iter()
        .filter(|(_, credentials)| credentials.len() > 1)
        .map(|(name, credentials)| {
            let count = credentials.len();
            format!(
                "{count} different credentials are called '{name}': the log cannot tell them apart"
            )
        })
        .collect()
}

#[cfg(test)]
mod tests;
