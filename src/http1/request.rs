//! The head of a request: bytes in, [`RequestHead`] or a error out. No I/O.
//!
//! Strict where a lax proxy smuggles (RFC 9112 section 11.2): whatever two implementations could
//! read in two ways is refused, and the connection is closed. Field lines are parsed by httparse;
//! what it lets through and we must not (bare LF) is looked for here.

use http::{Method, Version};

use super::body::RequestFraming;
use super::error::HttpError;
use super::headers::{HeaderBlock, KnownHeader, MAX_OPTIONS};

/// The longest request line, in bytes. nginx allows 8 KiB; long queries exist.
pub const MAX_REQUEST_LINE: usize = 16 * 1024;
/// The longest head, in bytes, request line included. Cookies and long tokens fit well.
pub const MAX_HEAD: usize = 64 * 1024;
/// The most field lines in a head.
pub const MAX_FIELDS: usize = 128;

/// A request's head, whole and well-formed.
#[derive(Debug, PartialEq, Eq)]
pub struct RequestHead {
    pub method: Method,
    /// The request target as it was sent: origin-form, absolute-form, authority-form or `*`.
    pub target: Box<[u8]>,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    pub fields: HeaderBlock,
    pub framing: RequestFraming,
    pub expects_continue: bool,
    /// Whether the client lets the connection live on (RFC 9112 section 9.3).
    pub persistence: Persistence,
}

/// What the client wants to become of the connection after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    KeepAlive,
    Close,
}

/// Finds the end of the head that starts at `bytes[0]`: the index after its empty line.
///
/// `from` is how much of `bytes` an earlier call has already seen, so that a head that comes in
/// small pieces is not searched anew each time. Line ends are checked on the way: a client that
/// sends bare LF would otherwise wait for an answer that never comes.
///
/// # Errors
/// What can be refused before the head is whole: bare CR or LF, or a limit that is exceeded.
pub fn find_end(bytes: &[u8], from: usize) -> Result<Option<usize>, HttpError> {
    // The last three bytes may be the beginning of the end; and not in the middle of a CRLF.
    let mut index = from.saturating_sub(3);
    if index > 0 && bytes.get(index) == Some(&b'\n') {
        index -= 1;
    }
    while let Some(offset) = memchr::memchr2(b'\r', b'\n', &bytes[index..]) {
        let at = index + offset;
        if bytes[at] == b'\n' {
            // RFC 9112 section 2.2 lets a recipient take a bare LF for a line end. Not every front
            // does, and that difference is what smuggling is made of.
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
    // A short head has no long line.
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

/// Parses a request head from the start of `bytes`. `Ok(None)`: it is not all there yet.
///
/// The index that comes with the head is where the body starts.
///
/// # Errors
/// A [`HttpError`], after which the connection cannot be used for another request.
pub fn parse_head(bytes: &[u8]) -> Result<Option<(usize, RequestHead)>, HttpError> {
    let Some(end) = find_end(bytes, 0)? else {
        return Ok(None);
    };
    parse_whole(&bytes[..end], HeaderBlock::default()).map(|head| Some((end, head)))
}

/// Parses a head that [`find_end`] found to be whole. Its fields are put where `spare` ones were.
///
/// # Errors
/// As [`parse_head`].
pub fn parse_whole(head: &[u8], spare: HeaderBlock) -> Result<RequestHead, HttpError> {
    let line_end = memchr::memchr(b'\r', head).unwrap_or(head.len());
    let (method, target, version) = request_line(&head[..line_end])?;
    let fields = field_lines(&head[line_end + 2..], spare)?;
    let framing = RequestFraming::of(version, &fields)?;
    let expects_continue = expectation(version, &fields)?;
    check_host(version, &fields)?;
    let persistence = match method {
        // A front that takes the tunnel for open would send its bytes as the next request.
        Method::CONNECT => Persistence::Close,
        _ => persistence(version, &fields)?,
    };
    Ok(RequestHead {
        method,
        target,
        version,
        fields,
        framing,
        expects_continue,
        persistence,
    })
}

/// RFC 9112 section 3: method SP request-target SP HTTP-version.
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
        // RFC 9110 section 2.5: a higher minor version is read as the highest that one knows.
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
    // A TLS handshake record (RFC 8446 section 5.1) starts with type 22 and version 3.x.
    if line.starts_with(&[22, 3]) {
        "this port speaks plain HTTP: use http:// in the base URL, not https://"
    } else {
        "the request line is not 'METHOD target HTTP/1.1'"
    }
}

/// As many as nearly all heads have. Room for more would be four kilobytes of stack to fill, which
/// each worker touches, and caches are what a worker runs out of.
const FEW_FIELDS: usize = 32;

fn field_lines(head: &[u8], mut spare: HeaderBlock) -> Result<HeaderBlock, HttpError> {
    match parse_lines::<FEW_FIELDS>(head, &mut spare) {
        Err(httparse::Error::TooManyHeaders) => parse_lines::<MAX_FIELDS>(head, &mut spare),
        parsed => parsed,
    }
    .map_err(|error| match error {
        httparse::Error::TooManyHeaders => {
            HttpError::headers_too_large("more than 128 header fields")
        }
        _ => HttpError::bad_request("a malformed header field line"),
    })
}

#[inline(never)]
fn parse_lines<const MOST: usize>(
    head: &[u8],
    spare: &mut HeaderBlock,
) -> Result<HeaderBlock, httparse::Error> {
    let mut parsed = [httparse::EMPTY_HEADER; MOST];
    // What its names and values may consist of is what RFC 9110 section 5.6.2 and 5.5 say.
    match httparse::parse_headers(head, &mut parsed)? {
        httparse::Status::Complete((_, lines)) => Ok(std::mem::take(spare).reparse(head, lines)),
        // It ends in the middle of a field.
        httparse::Status::Partial => Err(httparse::Error::HeaderName),
    }
}

/// RFC 9112 section 3.2: exactly one Host in HTTP/1.1, and a valid one.
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

/// What can stand in `uri-host [ ":" port ]` (RFC 3986 section 3.2.2), userinfo left out.
fn is_host_byte(byte: u8) -> bool {
    let is_other = matches!(
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
    is_other || byte.is_ascii_alphanumeric()
}

fn expectation(version: Version, fields: &HeaderBlock) -> Result<bool, HttpError> {
    let mut expects = false;
    for value in fields.values(KnownHeader::Expect) {
        // RFC 9110 section 10.1.1: 100-continue is the only expectation there is.
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
    let asked = fields.connection();
    if asked.are_too_many {
        return Err(HttpError::headers_too_large(format!(
            "more than {MAX_OPTIONS} options in Connection"
        )));
    }
    let persists = !asked.closes && (version != Version::HTTP_10 || asked.keeps_alive);
    Ok(if persists {
        Persistence::KeepAlive
    } else {
        Persistence::Close
    })
}

impl RequestFraming {
    /// RFC 9112 section 6.3, with everything ambiguous refused.
    fn of(version: Version, fields: &HeaderBlock) -> Result<Self, HttpError> {
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
            return Ok(RequestFraming::Chunked);
        }
        let Some(digits) = length else {
            return Ok(RequestFraming::None);
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
            Some(length) => Ok(RequestFraming::Length(length)),
            None => bad("Content-Length is larger than any body"),
        }
    }
}

#[cfg(test)]
mod tests;
