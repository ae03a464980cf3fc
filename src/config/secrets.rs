//! Reads `secrets.json` into the configurations that requests are signed with.
//!
//! Owns the format of the file, its checks, and the types that keep secrets out of output: only
//! `Secret::expose`, [`Credential::authorization`] and [`Configuration::token`] return a secret, and no
//! error quotes a value of the file. Out of scope: which configuration a request gets, and noticing that
//! the file has changed. Called by the main thread and by the reload thread.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use http::HeaderValue;

use super::jwt::{self, Claims};
use json::Json;

mod json;

/// The largest secrets file. An entry has some hundred bytes; the limit keeps a wrong path (a core dump,
/// `/dev/zero`) from filling the memory.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// The longest name of a configuration: every access line of the log contains one.
const MAX_NAME_CHARS: usize = 100;

/// What precedes the token in the Authorization header (RFC 6750 section 2.1).
const SCHEME: &str = "Bearer ";

/// Reads the secrets file.
///
/// # Errors
///
/// All problems at once. Each begins with the path; none quotes a value.
pub fn load(path: &Path) -> Result<Loaded, SecretsErrors> {
    let in_file = |problem: &str| format!("{}: {problem}", path.display());
    let (bytes, permissions_warning) =
        read(path).map_err(|problem| SecretsErrors(vec![in_file(&problem)]))?;
    let configurations = parse(&bytes).map_err(|SecretsErrors(problems)| {
        SecretsErrors(problems.iter().map(|problem| in_file(problem)).collect())
    })?;
    let warnings = permissions_warning
        .into_iter()
        .chain(
            ambiguous_names(&configurations)
                .iter()
                .map(|warning| in_file(warning)),
        )
        .collect();
    Ok(Loaded {
        configurations,
        warnings,
    })
}

/// Reads the contents of a secrets file: a JSON array of objects in UTF-8, with or without a byte order
/// mark.
///
/// # Errors
///
/// All problems at once, each with the entry (counted from 1) and the field. None quotes a value.
pub fn parse(bytes: &[u8]) -> Result<Vec<Configuration>, SecretsErrors> {
    let one = |problem: String| SecretsErrors(vec![problem]);
    let entries = match json::parse(bytes).map_err(one)? {
        Json::Array(entries) => entries,
        other => {
            return Err(one(format!(
                "must hold a JSON array of objects, not {}",
                other.kind()
            )));
        }
    };
    if entries.is_empty() {
        return Err(one(
            "the array is empty: at least one configuration is needed".into(),
        ));
    }

    let mut problems = Vec::new();
    let mut configurations = Vec::with_capacity(entries.len());
    let mut known: HashSet<Arc<Credential>> = HashSet::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let Some((name, credential)) = parse_entry(index + 1, &entry, &mut problems) else {
            continue;
        };
        let credential = match known.get(&credential) {
            Some(same) => Arc::clone(same),
            None => {
                let new = Arc::new(credential);
                known.insert(Arc::clone(&new));
                new
            }
        };
        configurations.push(Configuration {
            name: name.into(),
            credential,
        });
    }
    if problems.is_empty() {
        Ok(configurations)
    } else {
        Err(SecretsErrors(problems))
    }
}

/// What a secrets file holds.
#[derive(Debug)]
pub struct Loaded {
    /// In file order, one for each entry of the array.
    pub configurations: Vec<Configuration>,
    /// What is unsafe or ambiguous but no error, one line each. No line holds a secret.
    pub warnings: Vec<String>,
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
        let header = self.credential.authorization.to_str();
        let header = header.expect("made of base64url, which is visible ASCII");
        &header[SCHEME.len()..]
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
    authorization: HeaderValue,
}

impl Credential {
    /// Signs the token with [`jwt::sign_hs256`].
    pub fn new(client_id: &str, client_secret: &str, tenant: &str) -> Self {
        let token = jwt::sign_hs256(Claims {
            client_id,
            client_secret,
            tenant,
        });
        let mut authorization = HeaderValue::try_from(format!("{SCHEME}{token}"))
            .expect("made of base64url, which a header may hold");
        authorization.set_sensitive(true);
        Self {
            client_id: Secret::new(client_id),
            client_secret: Secret::new(client_secret),
            tenant: tenant.to_owned(),
            authorization,
        }
    }

    /// Returns the value of the Authorization header. It is marked as sensitive, so that its Debug
    /// output does not show it.
    pub fn authorization(&self) -> &HeaderValue {
        &self.authorization
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

/// A text that cannot be printed by accident: its Debug output is `[redacted]`, and it has no Display.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    fn new(text: &str) -> Self {
        Self(text.into())
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

/// Reads the file. Also returns a warning if other users can read it.
fn read(path: &Path) -> Result<(Vec<u8>, Option<String>), String> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!(
            "no such file. Copy secrets.json.template to {} and put your credentials in",
            path.display()
        ),
        _ => format!("cannot be read: {error}"),
    };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err("is a directory, not a file".into());
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("is larger than {} MiB", MAX_FILE_BYTES >> 20));
    }

    // The mode of a pipe (`<(pass show flow)`) says nothing about who can read it.
    let exposed = metadata.is_file() && metadata.permissions().mode() & 0o077 != 0;
    let warning = exposed.then(|| {
        let path = path.display();
        format!("{path} can be read by other users of this machine: run chmod 600 {path}")
    });
    Ok((bytes, warning))
}

/// Reads entry `number`, which counts from 1: its name and credential. Returns `None` after adding to
/// `problems`.
fn parse_entry(
    number: usize,
    entry: &Json,
    problems: &mut Vec<String>,
) -> Option<(String, Credential)> {
    let Json::Object(fields) = entry else {
        problems.push(format!(
            "entry {number}: must be an object, not {}",
            entry.kind()
        ));
        return None;
    };
    let mut text = |field: &str, need: Need| {
        field_text(fields, field, need).unwrap_or_else(|problem| {
            problems.push(format!("entry {number}: {field} {problem}"));
            None
        })
    };
    let name = text("name", Need::Name);
    let client_id = text("clientId", Need::Required);
    let client_secret = text("clientSecret", Need::Required);
    let tenant = text("tenant", Need::Required);
    // Flow's other clients use these fields. The proxy only checks them.
    text("agent", Need::Optional);
    text("appToAccess", Need::Optional);

    let name = name.map_or_else(|| format!("config-{number}"), str::to_owned);
    Some((name, Credential::new(client_id?, client_secret?, tenant?)))
}

/// What a field must be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// A string that is not blank.
    Required,
    /// A string or nothing.
    Optional,
    /// A string that fits between single quotes in a log line, or nothing.
    Name,
}

/// Returns the text of a field. The error continues a sentence that begins with the field's name.
fn field_text<'a>(
    fields: &'a [(String, Json)],
    field: &str,
    need: Need,
) -> Result<Option<&'a str>, String> {
    let mut values = fields
        .iter()
        .filter(|(key, _)| key == field)
        .map(|(_, value)| value);
    let text = match (values.next(), need) {
        (Some(Json::Text(text)), _) => text.as_str(),
        (Some(other), _) => return Err(format!("must be a string, not {}", other.kind())),
        (None, Need::Required) => return Err("is missing".into()),
        (None, _) => return Ok(None),
    };
    if values.next().is_some() {
        return Err("is given more than once".into());
    }
    if need != Need::Optional && text.trim().is_empty() {
        return Err("is empty or blank".into());
    }
    if need == Need::Name {
        check_name(text)?;
    }
    Ok(Some(text))
}

fn check_name(name: &str) -> Result<(), String> {
    let breaks_log_lines =
        |c: char| c.is_control() || matches!(c, '\'' | '"' | '\u{2028}' | '\u{2029}');
    if name.contains(breaks_log_lines) {
        return Err("must hold no quotes and no control characters".into());
    }
    if name.chars().count() > MAX_NAME_CHARS {
        return Err(format!("is longer than {MAX_NAME_CHARS} characters"));
    }
    Ok(())
}

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
