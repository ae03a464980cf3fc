//! Values from outside, as messages show them: on one line, cut, and without secrets. Pure.

use std::fmt::Write;
use std::path::Path;

/// The most characters of a value that a message quotes.
const MAX_CHARS: usize = 64;

/// The shortest clientSecret that is looked for in a text, in bytes.
const MIN_SECRET: usize = 8;

/// What stands in a message for a value that may hold a secret.
pub const NOT_SHOWN: &str = "the value (not shown, it may hold a secret)";

/// Whether a value may be the secrets or a token, given in the wrong place. In any case: host names are
/// kept in lower case.
pub fn may_hold_secret(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    ["{", "clientsecret", "eyj"]
        .iter()
        .any(|part| value.contains(part))
}

/// Whether `text` holds a token: the header of a JWT is a JSON object, in base64url.
pub fn holds_token(text: &[u8]) -> bool {
    memchr::memchr_iter(b'J', text).any(|at| text[..at].ends_with(b"ey"))
}

/// Whether `text` holds this clientSecret. One that is short stands in many a text by chance.
pub fn holds_client_secret(text: &[u8], secret: &str) -> bool {
    (MIN_SECRET..=text.len()).contains(&secret.len())
        && memchr::memmem::find(text, secret.as_bytes()).is_some()
}

/// Returns `value` in single quotes, as [`shown`] writes it.
pub fn quoted(value: &str) -> String {
    if may_hold_secret(value) {
        return NOT_SHOWN.to_owned();
    }
    format!("'{}'", shown(value))
}

/// Returns `value` on one line, cut after 64 characters, and [`NOT_SHOWN`] where it may hold a secret.
pub fn shown(value: &str) -> String {
    if may_hold_secret(value) {
        return NOT_SHOWN.to_owned();
    }
    match value.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => printable(&value[..end]) + "…",
        None => printable(value),
    }
}

/// Returns a path as [`shown`] writes it: what was given for a file need not be a path.
pub fn shown_path(path: &Path) -> String {
    shown(&path.to_string_lossy())
}

/// Escapes control characters and those that break lines or change the direction of text, so that
/// `value` stays on one line and cannot control a terminal.
pub fn printable(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for char in value.chars() {
        if is_hazardous(char) {
            text.extend(char.escape_default());
        } else {
            text.push(char);
        }
    }
    text
}

/// Whether the character can do something to a terminal beside standing there: it is a control
/// character, separates lines or paragraphs, or changes the direction of text.
pub fn is_hazardous(char: char) -> bool {
    let is_format = matches!(char,
        '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}');
    char.is_control() || is_format
}

/// Appends a hazardous character as a JSON string has it.
pub fn push_json_escape(hazardous: char, json: &mut String) {
    // RFC 8259 section 7. All of them are in the Basic Multilingual Plane: one unit of UTF-16.
    let _ = write!(json, "\\u{:04x}", u32::from(hazardous));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_values_stay_on_one_line() {
        assert_eq!(quoted("a\nb\x1b[31m'é"), r"'a\nb\u{1b}[31m'é'");
    }

    #[test]
    fn quoted_values_are_cut_after_64_characters() {
        assert_eq!(quoted(&"é".repeat(64)), format!("'{}'", "é".repeat(64)));
        assert_eq!(quoted(&"é".repeat(65)), format!("'{}…'", "é".repeat(64)));
        assert_eq!(shown(&"x".repeat(65)), format!("{}…", "x".repeat(64)));
    }

    #[test]
    fn what_may_hold_a_secret_is_not_shown_at_all() {
        for value in [
            "[{\"clientId\":\"hush\"}]",
            "clientSecret=hush",
            "CLIENTSECRET hush",
            "Bearer eyJhush",
            "eyjhush",
        ] {
            assert_eq!(quoted(value), NOT_SHOWN);
            assert_eq!(shown_path(Path::new(value)), NOT_SHOWN);
        }
    }
}
