//! How messages show a value that a client sent. Pure.

use crate::config::shown::{NOT_SHOWN, may_hold_secret};

/// The most bytes that are shown.
const MAX_BYTES: usize = 64;

/// Returns the beginning of `value`, as printable ASCII without quotes, and [`NOT_SHOWN`] where it may hold a
/// secret.
pub fn shown(value: &[u8]) -> String {
    if may_hold_secret(&String::from_utf8_lossy(value)) {
        return NOT_SHOWN.to_owned();
    }
    let value = value.iter().take(MAX_BYTES).map(|&byte| match byte {
        b' '..=b'~' if byte != b'\'' => byte as char,
        _ => '?',
    });
    value.collect()
}
