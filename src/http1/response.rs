//! Parses the upstream's response: its head, and the end of its body. Bytes in, decisions out, no I/O.
//!
//! Error messages complete a sentence about the upstream: "its head is malformed".

use http::{Method, StatusCode};

use super::body::BodyLength;
use super::headers::{HeaderBlock, KnownHeader};

/// The most header lines in a head.
const MAX_HEADER_LINES: usize = 256;
const MALFORMED: &str = "its head is malformed";

/// The head of a final response.
#[derive(Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    /// The header lines. At most one of Content-Length and Transfer-Encoding is left, once.
    pub fields: HeaderBlock,
    /// Where the body ends.
    pub body_length: BodyLength,
    /// Whether another request may follow on the connection (RFC 9112 section 9.3).
    pub persists: bool,
}

/// What [`parse`] found at the start of the received bytes.
#[derive(Debug)]
pub enum Parsed {
    /// An incomplete head.
    NotYet,
    /// An interim response (1xx), and its length in bytes. Another response follows.
    Interim(usize),
    /// The head of the final response, and its length in bytes.
    Final(usize, ResponseHead),
}

/// Parses the head of a response to a request with `method` from the start of `bytes`. The header lines
/// of a final response reuse the memory of `spare`.
///
/// # Errors
/// What is wrong with the head. A head that the client could understand differently is rejected too.
pub fn parse(
    bytes: &[u8],
    method: &Method,
    spare: &mut HeaderBlock,
) -> Result<Parsed, &'static str> {
    // Without space for header lines, only the status line is parsed.
    let mut head = httparse::Response::new(&mut []);
    match head.parse(bytes) {
        Ok(httparse::Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => {}
        Ok(httparse::Status::Partial) => return Ok(Parsed::NotYet),
        Err(_) => return Err(MALFORMED),
    }
    let start = status_line_end(bytes).ok_or(MALFORMED)?;
    let length = match spare.parse::<MAX_HEADER_LINES>(&bytes[start..]) {
        Ok(Some(length)) => start + length,
        Ok(None) => return Ok(Parsed::NotYet),
        Err(httparse::Error::TooManyHeaders) => return Err("its head has over 256 fields"),
        Err(_) => return Err(MALFORMED),
    };
    let status = head.code.and_then(|code| StatusCode::from_u16(code).ok());
    let Some(status) = status else {
        return Err("its status code is not one");
    };
    if status == StatusCode::SWITCHING_PROTOCOLS {
        // RFC 9110 section 15.2.2: only after an Upgrade header, which is never forwarded.
        return Err("it switches protocols without having been asked to");
    }
    if status.is_informational() {
        return Ok(Parsed::Interim(length));
    }
    let is_http_11 = head.version == Some(1);
    let mut fields = std::mem::take(spare);
    let body_length = body_length(method, status, is_http_11, &mut fields)?;
    let options = fields.connection();
    if options.too_many {
        return Err("its Connection has too many options");
    }
    let persists = is_http_11 && body_length != BodyLength::UntilClose && !options.close;
    Ok(Parsed::Final(
        length,
        ResponseHead {
            status,
            fields,
            body_length,
            persists,
        },
    ))
}

/// Returns the index after the status line, before which httparse accepts empty lines.
fn status_line_end(bytes: &[u8]) -> Option<usize> {
    let start = bytes.iter().position(|byte| !b"\r\n".contains(byte))?;
    Some(start + memchr::memchr(b'\n', &bytes[start..])? + 1)
}

/// RFC 9112 section 6.3. Rejects what the client could understand differently, and leaves at most one
/// Content-Length.
fn body_length(
    method: &Method,
    status: StatusCode,
    is_http_11: bool,
    fields: &mut HeaderBlock,
) -> Result<BodyLength, &'static str> {
    let has_body = method != Method::HEAD
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED;
    let mut codings = fields.values(KnownHeader::TransferEncoding);
    if let Some(coding) = codings.next() {
        // RFC 9112 section 6.1: HTTP/1.0 has no transfer codings.
        let is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        if !is_chunked || codings.next().is_some() || !is_http_11 {
            return Err("its transfer coding is not just chunked");
        }
        drop(codings);
        // RFC 9112 section 6.3: Transfer-Encoding overrides Content-Length.
        fields.remove(KnownHeader::ContentLength);
        return Ok(if has_body {
            BodyLength::Chunked
        } else {
            BodyLength::None
        });
    }
    drop(codings);
    let length = content_length(fields)?;
    if status == StatusCode::NO_CONTENT {
        // RFC 9110 section 8.6: a 204 has no Content-Length.
        fields.remove(KnownHeader::ContentLength);
    }
    Ok(match length {
        _ if !has_body => BodyLength::None,
        Some(length) => BodyLength::Known(length),
        None => BodyLength::UntilClose,
    })
}

/// Returns the length on which all Content-Length headers agree, if there is one. Leaves one line
/// without leading zeros, which some clients understand as octal.
fn content_length(fields: &mut HeaderBlock) -> Result<Option<u64>, &'static str> {
    let mut length = None;
    let mut is_plain = true;
    let values = fields.values(KnownHeader::ContentLength);
    for value in values.flat_map(|value| value.split(|&byte| byte == b',')) {
        let digits = value.trim_ascii();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err("its Content-Length is not a number");
        }
        let text = std::str::from_utf8(digits).unwrap_or_default();
        let Ok(number) = text.parse::<u64>() else {
            return Err("its Content-Length is too large");
        };
        if length.is_some_and(|length| length != number) {
            return Err("its Content-Lengths differ");
        }
        let has_zeros = digits.len() > 1 && digits[0] == b'0';
        is_plain = is_plain && length.is_none() && !has_zeros;
        length = Some(number);
    }
    if let Some(length) = length.filter(|_| !is_plain) {
        fields.merge(KnownHeader::ContentLength, &length.to_string());
    }
    Ok(length)
}

#[cfg(test)]
mod tests;
