//! Parses the head of a request: bytes in, [`RequestHead`] or an error out. No I/O.
//!
//! Strict against request smuggling (RFC 9112 section 11.2): a head that two implementations could
//! understand differently is rejected, and its connection is closed. Header lines are parsed by
//! httparse; a bare LF, which it accepts, is rejected here.

use http::{Method, Version};

use super::body::BodyLength;
use super::error::HttpError;
use super::headers::{HeaderBlock, KnownHeader, MAX_OPTIONS};

/// The longest request line, in bytes. nginx allows 8 KiB, but there are longer queries.
const MAX_REQUEST_LINE: usize = 16 * 1024;
/// The longest head, in bytes, request line included. Leaves room for cookies and long tokens.
const MAX_HEAD: usize = 64 * 1024;
/// The most header lines in a head.
const MAX_HEADER_LINES: usize = 128;

/// The complete, valid head of a request.
#[derive(Debug, PartialEq, Eq)]
pub struct RequestHead {
    pub method: Method,
    /// The request target as received: origin-form, absolute-form, authority-form or `*` (RFC 9112
    /// section 3.2).
    pub target: Box<[u8]>,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// The header lines.
    pub fields: HeaderBlock,
    /// Where the body ends: never with the connection.
    pub body_length: BodyLength,
    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110 section 10.1.1).
    pub expects_continue: bool,
    /// Whether the client lets another request follow on the connection.
    pub persistence: Persistence,
}

/// What happens to the connection after the response (RFC 9112 section 9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// Another request may follow.
    KeepAlive,
    /// The connection is closed.
    Close,
}

/// Parses the head at the start of `bytes`. Returns it with the index of the body's first byte, or
/// `None` if it is incomplete. Its header lines reuse the memory of a `spare` block.
///
/// `searched` is the number of bytes that an earlier call has searched for the end of the head.
///
/// # Errors
/// As [`find_end`], and `bad_request`, `headers_too_large`, `expectation_failed`, `not_implemented` or
/// `version_not_supported`. The connection cannot be used for another request afterwards.
pub fn parse_head(
    bytes: &[u8],
    searched: usize,
    spare: &mut Vec<HeaderBlock>,
) -> Result<Option<(usize, RequestHead)>, HttpError> {
    let Some(end) = find_end(bytes, searched)? else {
        return Ok(None);
    };
    let head = parse_whole(&bytes[..end], spare.pop().unwrap_or_default())?;
    Ok(Some((end, head)))
}

/// Returns the index after the empty line of the head that starts at `bytes[0]`, or `None` if the head
/// is incomplete.
///
/// `from` is the number of bytes that an earlier call has searched, so that a head that arrives in
/// small pieces is searched once. Line ends are checked here already: a client that sends bare LF
/// would otherwise wait for a response that never comes.
///
/// # Errors
/// `bad_request` for a bare CR or LF, `uri_too_long` and `headers_too_large` for a head above the
/// limits, even if it is incomplete.
pub fn find_end(bytes: &[u8], from: usize) -> Result<Option<usize>, HttpError> {
    // The last three bytes may belong to the empty line. Do not start in the middle of a CRLF.
    let mut index = from.saturating_sub(3);
    if index > 0 && bytes.get(index) == Some(&b'\n') {
        index -= 1;
    }
    while let Some(offset) = memchr::memchr2(b'\r', b'\n', &bytes[index..]) {
        let at = index + offset;
        if bytes[at] == b'\n' {
            // RFC 9112 section 2.2 allows a bare LF as line end. Not every server in front of this
            // one accepts it, and smuggling uses such differences.
            return Err(HttpError::bad_request(
                "a line ends with a bare LF, not CRLF",
            ));
        }
        match bytes.get(at + 1) {
            None => break,
            Some(b'\n') => {}
            Some(_) => return Err(HttpError::bad_request("a bare CR in the head")),
        }
        if bytes[at + 2..].starts_with(b"\r\n") {
            check_size(&bytes[..at + 4])?;
            return Ok(Some(at + 4));
        }
        index = at + 2;
    }
    check_size(bytes)?;
    Ok(None)
}

fn check_size(head: &[u8]) -> Result<(), HttpError> {
    // A short head needs no search for a long line.
    if head.len() > MAX_REQUEST_LINE && !head[..MAX_REQUEST_LINE + 1].contains(&b'\r') {
        return Err(HttpError::uri_too_long("the request line is over 16 KiB"));
    }
    if head.len() > MAX_HEAD {
        return Err(HttpError::headers_too_large(
            "the request head is over 64 KiB",
        ));
    }
    Ok(())
}

/// Parses a complete head. Its header lines reuse the memory of `fields`.
fn parse_whole(head: &[u8], mut fields: HeaderBlock) -> Result<RequestHead, HttpError> {
    let line_end = memchr::memchr(b'\r', head).unwrap_or(head.len());
    let (method, target, version) = request_line(&head[..line_end])?;
    match fields.parse::<MAX_HEADER_LINES>(&head[line_end + 2..]) {
        Ok(Some(_)) => {}
        Err(httparse::Error::TooManyHeaders) => {
            return Err(HttpError::headers_too_large("more than 128 header fields"));
        }
        // `None`: the head ends in the middle of a line.
        Ok(None) | Err(_) => return Err(HttpError::bad_request("a malformed header field line")),
    }
    let body_length = body_length(version, &fields)?;
    let expects_continue = expectation(version, &fields)?;
    check_host(version, &fields)?;
    let persistence = match method {
        // A client that believes the tunnel to be open would send its bytes as the next request.
        Method::CONNECT => Persistence::Close,
        _ => persistence(version, &fields)?,
    };
    Ok(RequestHead {
        method,
        target,
        version,
        fields,
        body_length,
        expects_continue,
        persistence,
    })
}

/// Parses `method SP request-target SP HTTP-version` (RFC 9112 section 3).
fn request_line(line: &[u8]) -> Result<(Method, Box<[u8]>, Version), HttpError> {
    let bad = |what| HttpError::bad_request(what);
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(bad(not_http(line)));
    };
    let method = Method::from_bytes(method).map_err(|_| bad(not_http(line)))?;
    if target.is_empty() || !target.iter().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad(
            "the request target has characters that must be percent-encoded",
        ));
    }
    let version = match version {
        b"HTTP/1.0" => Version::HTTP_10,
        // RFC 9110 section 2.5: a higher minor version is treated as the highest known one.
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => Version::HTTP_11,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(HttpError::version_not_supported(
                "only HTTP/1.0 and HTTP/1.1",
            ));
        }
        _ => return Err(bad(not_http(line))),
    };
    Ok((method, target.into(), version))
}

fn not_http(line: &[u8]) -> &'static str {
    // RFC 8446 section 5.1: a TLS handshake starts with record type 22 and version 3.x.
    if line.starts_with(&[22, 3]) {
        "this port speaks plain HTTP: use http:// in the base URL, not https://"
    } else {
        "the request line is not 'METHOD target HTTP/1.1'"
    }
}

/// RFC 9112 section 3.2: HTTP/1.1 has exactly one Host header, and its value is valid.
fn check_host(version: Version, fields: &HeaderBlock) -> Result<(), HttpError> {
    let bad = |what| Err(HttpError::bad_request(what));
    let mut hosts = fields.values(KnownHeader::Host);
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => bad("more than one Host field"),
        (None, None) if version == Version::HTTP_11 => bad("HTTP/1.1 without a Host field"),
        (Some(host), None) if !host.iter().all(|&byte| is_host_byte(byte)) => {
            bad("the Host field is not a host and port")
        }
        _ => Ok(()),
    }
}

/// Whether `byte` may be part of `uri-host [ ":" port ]` (RFC 3986 section 3.2.2), without userinfo.
fn is_host_byte(byte: u8) -> bool {
    let is_punctuation = matches!(
        byte,
        b'-' | b'.'
            | b'_'
            | b'~'
            | b'%'
            | b'!'
            | b'$'
            | b'&'
            | b'\''
            | b'('
            | b')'
            | b'*'
            | b'+'
            | b';'
            | b'='
            | b':'
            | b'['
            | b']'
    );
    is_punctuation || byte.is_ascii_alphanumeric()
}

/// Whether the client waits for `100 Continue`. HTTP/1.0 has no expectations.
fn expectation(version: Version, fields: &HeaderBlock) -> Result<bool, HttpError> {
    let mut expects = false;
    for value in fields.values(KnownHeader::Expect) {
        // RFC 9110 section 10.1.1 defines no other expectation.
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(HttpError::expectation_failed(
                "the only expectation known here is 100-continue",
            ));
        }
        expects = true;
    }
    Ok(expects && version == Version::HTTP_11)
}

/// RFC 9112 section 9.3.
fn persistence(version: Version, fields: &HeaderBlock) -> Result<Persistence, HttpError> {
    let options = fields.connection();
    if options.too_many {
        return Err(HttpError::headers_too_large(format!(
            "more than {MAX_OPTIONS} options in Connection"
        )));
    }
    let persists = !options.close && (version != Version::HTTP_10 || options.keep_alive);
    Ok(if persists {
        Persistence::KeepAlive
    } else {
        Persistence::Close
    })
}

/// RFC 9112 section 6.3, without its leniency: everything ambiguous is rejected.
fn body_length(version: Version, fields: &HeaderBlock) -> Result<BodyLength, HttpError> {
    let bad = |what| Err(HttpError::bad_request(what));
    let mut codings = fields.values(KnownHeader::TransferEncoding);
    let mut lengths = fields.values(KnownHeader::ContentLength);
    let coding = codings.next();
    let length = lengths.next();
    if coding.is_some() && length.is_some() {
        // RFC 9112 section 6.1: "might indicate an attempt to perform request smuggling".
        return bad("Transfer-Encoding together with Content-Length");
    }
    if let Some(coding) = coding {
        if version == Version::HTTP_10 {
            return bad("Transfer-Encoding in HTTP/1.0");
        }
        if codings.next().is_some() {
            return bad("more than one Transfer-Encoding");
        }
        if !coding.eq_ignore_ascii_case(b"chunked") {
            return Err(HttpError::not_implemented(
                "the only transfer coding known here is chunked",
            ));
        }
        return Ok(BodyLength::Chunked);
    }
    let Some(digits) = length else {
        return Ok(BodyLength::None);
    };
    if lengths.next().is_some() {
        return bad("more than one Content-Length");
    }
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return bad("Content-Length is not a number");
    }
    match std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok())
    {
        Some(length) => Ok(BodyLength::Known(length)),
        None => bad("Content-Length is larger than any body"),
    }
}

#[cfg(test)]
mod tests;
