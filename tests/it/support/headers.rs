//! Heads of messages, read from a buffer, and the headers in them.

/// Returns the values of a header, in order.
pub fn values<'a>(headers: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    let same = headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
    same.map(|(_, value)| value.as_str()).collect()
}

/// Returns the value of a header that must not be repeated.
pub fn single_value<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let values = values(headers, name);
    assert!(values.len() <= 1, "{name} is repeated: {headers:?}");
    values.first().copied()
}

/// Takes a whole head without its empty line, as Latin-1. `None` where its end has not come yet.
pub fn take_head(buffered: &mut Vec<u8>) -> Option<String> {
    let end = buffered.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = buffered[..end].iter().map(|&byte| char::from(byte));
    let head = head.collect();
    buffered.drain(..end + 4);
    Some(head)
}

/// Takes a line without its CRLF. `None` where its end has not come yet.
pub fn take_line(buffered: &mut Vec<u8>) -> Option<String> {
    let end = buffered.windows(2).position(|two| two == b"\r\n")?;
    let line = String::from_utf8_lossy(&buffered[..end]).into_owned();
    buffered.drain(..end + 2);
    Some(line)
}
