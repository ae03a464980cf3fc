//! How messages show a value that a client sent. Pure.

/// The most bytes that are shown.
const MAX_BYTES: usize = 64;

/// Returns the beginning of `value`, as printable ASCII without quotes.
pub fn shown(value: &[u8]) -> String {
    let value = value.iter().take(MAX_BYTES).map(|&byte| match byte {
        b' '..=b'~' if byte != b'\'' => byte as char,
        _ => '?',
    });
    value.collect()
}
