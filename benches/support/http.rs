//! The subset of HTTP/1.1 that the load clients and the stand-in upstream use. Its input is trusted:
//! this is no parser for hostile bytes. No I/O.

/// The index after the empty line that ends the head.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// The value of Content-Length, in bytes.
pub fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"\r\ncontent-length:";
    let at = head
        .windows(NAME.len())
        .position(|window| window.eq_ignore_ascii_case(NAME))?;
    let digits = head[at + NAME.len()..].trim_ascii_start();
    let digits = digits.split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The status of a response's head; 0 if there is none.
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

/// The number that follows `name`: `find_number(b"?n=12", b"n=")` is 12.
pub fn find_number(bytes: &[u8], name: &[u8]) -> Option<u64> {
    let at = find(bytes, name)? + name.len();
    let digits = bytes[at..].split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}
