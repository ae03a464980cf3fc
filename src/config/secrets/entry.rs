//! Checks one entry of the secrets array. No message quotes a value.

use super::json::{Element, Json};
use crate::config::shown::{holds_client_secret, holds_token};
use crate::config::suggest::distance;

/// The longest name of a configuration: every access line of the log contains one.
const MAX_NAME_CHARS: usize = 100;

/// What the values of `secrets.json.template` end with.
const TEMPLATE_END: &str = "-replace-me";

/// The fields of an entry. All others are ignored.
const FIELDS: [&str; 6] = [
    "name",
    "clientId",
    "clientSecret",
    "tenant",
    "agent",
    "appToAccess",
];

/// The most edits between a field's name and what stands in its place.
const MAX_MISTYPED: usize = 2;

/// A valid entry.
pub(super) struct Entry<'a> {
    pub(super) name: String,
    pub(super) client_id: &'a str,
    pub(super) client_secret: &'a str,
    pub(super) tenant: &'a str,
}

/// Reads entry `number`, which counts from 1. Returns `None` after adding to `problems`. Adds to
/// `warnings` what is probably wrong.
pub(super) fn read<'a>(
    number: usize,
    Element(entry): &'a Element,
    problems: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Option<Entry<'a>> {
    let fields = match entry {
        Ok(fields) => fields,
        Err(kind) => {
            problems.push(format!("entry {number}: must be an object, not {kind}"));
            return None;
        }
    };
    let mut text = |field: &str, need: Need| {
        let text = field_text(fields, field, need).unwrap_or_else(|problem| {
            problems.push(format!("entry {number}: {field} {problem}"));
            None
        })?;
        let doubt = doubt(text).filter(|_| need == Need::Required);
        warnings.extend(doubt.map(|doubt| format!("entry {number}: {field} {doubt}")));
        Some(text)
    };
    let name = text("name", Need::Name);
    let client_id = text("clientId", Need::Required);
    let client_secret = text("clientSecret", Need::Required);
    let tenant = text("tenant", Need::Required);
    // Flow's other clients use these fields. The proxy only checks them.
    text("agent", Need::Optional);
    text("appToAccess", Need::Optional);
    if let (Some(name), Some(secret)) = (name, client_secret)
        && is_secret(name, secret)
    {
        problems.push(format!(
            "entry {number}: name holds the clientSecret or a token, and every log line would show it"
        ));
        return None;
    }

    Some(Entry {
        name: name.map_or_else(|| format!("config-{number}"), str::to_owned),
        client_id: client_id?,
        client_secret: client_secret?,
        tenant: tenant?,
    })
}

fn is_secret(name: &str, secret: &str) -> bool {
    name == secret || holds_client_secret(name.as_bytes(), secret) || holds_token(name.as_bytes())
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
        (None, Need::Required) => return Err(missing(fields, field)),
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

/// Returns that a field is missing, and which field of the entry is probably meant to be it. Only what
/// is close to the field's name is quoted, so that it cannot be a secret.
fn missing(fields: &[(String, Json)], field: &str) -> String {
    let is_word = |key: &str| {
        let is_char = |byte: u8| byte.is_ascii_alphanumeric() || b"_- ".contains(&byte);
        key.len() <= 2 * field.len() && key.bytes().all(is_char)
    };
    let is_value = |key: &str| {
        let mut values = fields.iter().map(|(_, value)| value);
        values.any(|value| matches!(value, Json::Text(text) if text.as_str() == key))
    };
    let unknown = fields.iter().map(|(key, _)| key.as_str());
    let unknown = unknown.filter(|key| !FIELDS.contains(key) && is_word(key) && !is_value(key));
    match unknown.min_by_key(|key| distance(key, field)) {
        Some(key) if distance(key, field) <= MAX_MISTYPED => {
            format!("is missing; {key}: did you mean {field}?")
        }
        _ => "is missing".to_owned(),
    }
}

/// Returns what makes a valid value doubtful.
fn doubt(text: &str) -> Option<&'static str> {
    if text.trim() != text {
        return Some("begins or ends with a blank or a line end: is that part of it?");
    }
    let is_template = text.ends_with(TEMPLATE_END);
    is_template.then_some("is still the template's: put your own in")
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
