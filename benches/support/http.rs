//! The little HTTP/1.1 that the bench's own two ends speak with each other and with the fronts.
//! Both ends are trusted here: this is no parser for hostile input. No I/O.

/// Where the head ends: the index after the empty line.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// The value of the field Content-Length, in bytes.
pub fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"\r\ncontent-length:";
    let at = head
        .windows(NAME.len())
        .position(|window| window.eq_ignore_ascii_case(NAME))?;
    let digits = head[at + NAME.len()..].trim_ascii_start();
    let digits = digits.split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The status of an answer's head; 0 where there is none.
pub fn status(head: &[u8]) -> u16 {
    head.get(9..12)
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// A number that follows `name` in a request target or an event: `find_number(b"?n=12", b"n=")`.
pub fn find_number(bytes: &[u8], name: &[u8]) -> Option<u64> {
    let at = find(bytes, name)? + name.len();
    let digits = bytes[at..].split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}
