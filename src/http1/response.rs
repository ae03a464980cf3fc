//! Parses the upstream's response: its head, and the end of its body. Bytes in, decisions out, no I/O.
//!
//! Error messages complete a sentence about the upstream: "its head is malformed".

use http::{Method, StatusCode};

use super::body::{ChunkDecoder, Decoded};
use super::headers::{HeaderBlock, KnownHeader};

/// The most header lines in a head.
const MAX_HEADER_LINES: usize = 256;
/// Enough header lines for nearly all heads. An array for [`MAX_HEADER_LINES`] of them would take 4 KiB of
/// stack, which pushes other data out of the cache.
const FEW_HEADER_LINES: usize = 32;

/// The head of a final response.
#[derive(Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    /// The header lines. At most one of Content-Length and Transfer-Encoding is left, once.
    pub fields: HeaderBlock,
    /// How the end of the body is found.
    pub framing: ResponseFraming,
    /// Whether another request may follow on the connection (RFC 9112 section 9.3).
    pub persists: bool,
}

/// How the end of a response body is found (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseFraming {
    /// The response has no body, whatever its header says.
    None,
    /// The body has this number of bytes.
    Length(u64),
    /// The body is a series of chunks, the last one empty.
    Chunked,
    /// The body ends with the connection.
    UntilClose,
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
    match parse_lines::<FEW_HEADER_LINES>(bytes, method, spare) {
        Err(TOO_MANY_LINES) => parse_lines::<MAX_HEADER_LINES>(bytes, method, spare),
        parsed => parsed,
    }
}

const TOO_MANY_LINES: &str = "its head has over 256 fields";

#[inline(never)]
fn parse_lines<const MAX: usize>(
    bytes: &[u8],
    method: &Method,
    spare: &mut HeaderBlock,
) -> Result<Parsed, &'static str> {
    let mut lines = [const { std::mem::MaybeUninit::uninit() }; MAX];
    let mut head = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut head, bytes, &mut lines);
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(Parsed::NotYet),
        Err(httparse::Error::TooManyHeaders) => return Err(TOO_MANY_LINES),
        Err(_) => return Err("its head is malformed"),
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
    let mut fields = std::mem::take(spare).reparse(&bytes[..length], head.headers);
    let framing = framing(method, status, is_http_11, &mut fields)?;
    let options = fields.connection();
    if options.too_many {
        return Err("its Connection has too many options");
    }
    let persists = is_http_11 && framing != ResponseFraming::UntilClose && !options.close;
    Ok(Parsed::Final(
        length,
        ResponseHead {
            status,
            fields,
            framing,
            persists,
        },
    ))
}

/// Returns the framing of the body (RFC 9112 section 6.3). Rejects what the client could understand
/// differently, and leaves at most one Content-Length.
fn framing(
    method: &Method,
    status: StatusCode,
    is_http_11: bool,
    fields: &mut HeaderBlock,
) -> Result<ResponseFraming, &'static str> {
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
            ResponseFraming::Chunked
        } else {
            ResponseFraming::None
        });
    }
    drop(codings);
    let length = content_length(fields)?;
    if status == StatusCode::NO_CONTENT {
        // RFC 9110 section 8.6: a 204 has no Content-Length.
        fields.remove(KnownHeader::ContentLength);
    }
    Ok(match length {
        _ if !has_body => ResponseFraming::None,
        Some(length) => ResponseFraming::Length(length),
        None => ResponseFraming::UntilClose,
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

/// Decodes a response body. Its state is the part that has not been decoded.
#[derive(Debug)]
pub enum BodyDecoder {
    /// The body has this number of bytes left.
    Length(u64),
    /// The body has more chunks.
    Chunked(ChunkDecoder),
    /// The body goes on until the connection is closed.
    UntilClose,
    /// The whole body has been decoded.
    Ended,
    /// The next chunk is malformed, for this reason. Everything before it has been decoded.
    Malformed(String),
}

impl BodyDecoder {
    /// Returns a decoder at the start of a body.
    pub fn new(framing: ResponseFraming) -> BodyDecoder {
        match framing {
            ResponseFraming::None | ResponseFraming::Length(0) => BodyDecoder::Ended,
            ResponseFraming::Length(length) => BodyDecoder::Length(length),
            ResponseFraming::Chunked => BodyDecoder::Chunked(ChunkDecoder::for_response()),
            ResponseFraming::UntilClose => BodyDecoder::UntilClose,
        }
    }

    /// Decodes as much of `input` as fits in `buffer`. Returns the number of bytes used of `input`, and
    /// the number written to `buffer`. Both are 0 only if one of the two is empty or the body has ended.
    ///
    /// # Errors
    /// What is wrong with a chunk, once all data before it has been returned.
    pub fn decode(&mut self, input: &[u8], buffer: &mut [u8]) -> Result<(usize, usize), String> {
        let max = input.len().min(buffer.len());
        match self {
            BodyDecoder::Length(left) => {
                let length = usize::try_from(*left).map_or(max, |left| left.min(max));
                buffer[..length].copy_from_slice(&input[..length]);
                *left -= length as u64;
                if *left == 0 {
                    *self = BodyDecoder::Ended;
                }
                Ok((length, length))
            }
            BodyDecoder::Chunked(_) => self.decode_chunks(input, buffer),
            BodyDecoder::UntilClose => {
                buffer[..max].copy_from_slice(&input[..max]);
                Ok((max, max))
            }
            BodyDecoder::Ended => Ok((0, 0)),
            BodyDecoder::Malformed(reason) => Err(reason.clone()),
        }
    }

    fn decode_chunks(&mut self, input: &[u8], buffer: &mut [u8]) -> Result<(usize, usize), String> {
        let (mut used, mut filled) = (0, 0);
        while let BodyDecoder::Chunked(decoder) = self {
            // Give the decoder no more than fits: it counts the data that it returns as consumed.
            let max = (input.len() - used).min(buffer.len() - filled);
            if max == 0 {
                break;
            }
            let piece = &input[used..used + max];
            match decoder.decode(piece) {
                Ok(Decoded::Data { start, end }) => {
                    buffer[filled..filled + end - start].copy_from_slice(&piece[start..end]);
                    filled += end - start;
                    used += end;
                }
                Ok(Decoded::More) => used += max,
                Ok(Decoded::End { end }) => {
                    used += end;
                    *self = BodyDecoder::Ended;
                }
                // The data before the malformed chunk is returned first.
                Err(error) => {
                    *self = BodyDecoder::Malformed(error.message.clone().into_owned());
                    if filled == 0 {
                        return Err(error.message.into_owned());
                    }
                }
            }
        }
        Ok((used, filled))
    }
}

#[cfg(test)]
mod tests;
