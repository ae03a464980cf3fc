//! The upstream's answer: its head, and how its body ends. Bytes in, decisions out; no I/O.

use http::{Method, StatusCode};

use super::body::{ChunkDecoder, Decoded};
use super::headers::{HeaderBlock, KnownHeader};

/// The most field lines of an answer.
const MAX_FIELDS: usize = 128;
/// As many as nearly all answers have. Room for more would be four kilobytes of stack, which each
/// worker touches, and caches are what a worker runs out of.
const FEW_FIELDS: usize = 32;

/// The head of a final answer.
#[derive(Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub fields: HeaderBlock,
    pub framing: ResponseFraming,
    /// Whether another request may follow on the connection (RFC 9112 section 9.3).
    pub persists: bool,
}

/// How the end of an answer's body is known (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseFraming {
    /// No body follows, whatever the fields say.
    None,
    /// Exactly so many bytes.
    Length(u64),
    Chunked,
    /// It ends with the connection.
    UntilClose,
}

/// What is at the start of the bytes that an upstream has sent.
#[derive(Debug)]
pub enum Parsed {
    /// An incomplete head.
    NotYet,
    /// An interim answer (1xx) of so many bytes; the final one is still to come.
    Interim(usize),
    /// The head of the final answer, and its length in bytes.
    Final(usize, ResponseHead),
}

/// Parses the head of the answer to a request with `method` from the start of `bytes`. A final one's
/// fields are put where `spare` ones were.
///
/// # Errors
/// What is wrong with it. Also what the client could understand otherwise than we do.
pub fn parse(
    bytes: &[u8],
    method: &Method,
    spare: &mut HeaderBlock,
) -> Result<Parsed, &'static str> {
    match parse_lines::<FEW_FIELDS>(bytes, method, spare) {
        Err(TOO_MANY_FIELDS) => parse_lines::<MAX_FIELDS>(bytes, method, spare),
        parsed => parsed,
    }
}

const TOO_MANY_FIELDS: &str = "its head has over 128 fields";

#[inline(never)]
fn parse_lines<const MOST: usize>(
    bytes: &[u8],
    method: &Method,
    spare: &mut HeaderBlock,
) -> Result<Parsed, &'static str> {
    let mut lines = [const { std::mem::MaybeUninit::uninit() }; MOST];
    let mut head = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut head, bytes, &mut lines);
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(Parsed::NotYet),
        Err(httparse::Error::TooManyHeaders) => return Err(TOO_MANY_FIELDS),
        Err(_) => return Err("its head is malformed"),
    };
    let status = head.code.and_then(|code| StatusCode::from_u16(code).ok());
    let Some(status) = status else {
        return Err("its status code is not one");
    };
    if status == StatusCode::SWITCHING_PROTOCOLS {
        // RFC 9110 section 15.2.2: Upgrade is never forwarded.
        return Err("it switches protocols without having been asked to");
    }
    if status.is_informational() {
        return Ok(Parsed::Interim(length));
    }
    let is_http_11 = head.version == Some(1);
    let mut fields = std::mem::take(spare).reparse(&bytes[..length], head.headers);
    let framing = framing(method, status, is_http_11, &mut fields)?;
    let asked = fields.connection();
    if asked.are_too_many {
        return Err("its Connection has too many options");
    }
    let persists = is_http_11 && framing != ResponseFraming::UntilClose && !asked.closes;
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

/// RFC 9112 section 6.3. Refuses what the client would understand otherwise than we do, and leaves
/// at most one Content-Length.
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
        // RFC 9112 section 6.1; HTTP/1.0 knows no transfer codings.
        let is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        if !is_chunked || codings.next().is_some() || !is_http_11 {
            return Err("its transfer coding is not just chunked");
        }
        drop(codings);
        // It overrides a Content-Length.
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
        // RFC 9110 section 8.6: not in an answer that never has a body.
        fields.remove(KnownHeader::ContentLength);
    }
    Ok(match length {
        _ if !has_body => ResponseFraming::None,
        Some(length) => ResponseFraming::Length(length),
        None => ResponseFraming::UntilClose,
    })
}

/// The length that all Content-Length fields agree on, if there is one. Leaves one line of it, in
/// plain digits: some clients take a leading zero for octal.
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

/// The rest of an answer's body.
#[derive(Debug)]
pub enum ResponseBody {
    Left(u64),
    Chunks(ChunkDecoder),
    UntilClose,
    /// All of it was taken.
    Ended,
    /// What was whole of it was taken; what follows is malformed, and how.
    Broken(String),
}

impl ResponseBody {
    pub fn new(framing: ResponseFraming) -> ResponseBody {
        match framing {
            ResponseFraming::None | ResponseFraming::Length(0) => ResponseBody::Ended,
            ResponseFraming::Length(length) => ResponseBody::Left(length),
            ResponseFraming::Chunked => ResponseBody::Chunks(ChunkDecoder::for_answer()),
            ResponseFraming::UntilClose => ResponseBody::UntilClose,
        }
    }

    /// Copies data from `input` to `buffer`, as much as is there or fits. Returns how many bytes
    /// of `input` were used up and how many of `buffer` were filled; neither, where more is needed.
    ///
    /// # Errors
    /// What is wrong with its chunks.
    pub fn take(&mut self, input: &[u8], buffer: &mut [u8]) -> Result<(usize, usize), String> {
        let most = input.len().min(buffer.len());
        match self {
            ResponseBody::Left(left) => {
                let length = usize::try_from(*left).map_or(most, |left| left.min(most));
                buffer[..length].copy_from_slice(&input[..length]);
                *left -= length as u64;
                if *left == 0 {
                    *self = ResponseBody::Ended;
                }
                Ok((length, length))
            }
            ResponseBody::Chunks(_) => self.take_chunks(input, buffer),
            ResponseBody::UntilClose => {
                buffer[..most].copy_from_slice(&input[..most]);
                Ok((most, most))
            }
            ResponseBody::Ended => Ok((0, 0)),
            ResponseBody::Broken(what) => Err(what.clone()),
        }
    }

    fn take_chunks(&mut self, input: &[u8], buffer: &mut [u8]) -> Result<(usize, usize), String> {
        let (mut used, mut filled) = (0, 0);
        while let ResponseBody::Chunks(decoder) = self {
            // Never more than fits: the decoder counts what it has handed out as taken.
            let most = (input.len() - used).min(buffer.len() - filled);
            if most == 0 {
                break;
            }
            let here = &input[used..used + most];
            match decoder.decode(here) {
                Ok(Decoded::Data { start, end }) => {
                    buffer[filled..filled + end - start].copy_from_slice(&here[start..end]);
                    filled += end - start;
                    used += end;
                }
                Ok(Decoded::More) => used += most,
                Ok(Decoded::End { end }) => {
                    used += end;
                    *self = ResponseBody::Ended;
                }
                // What came before it is the client's all the same.
                Err(error) => {
                    *self = ResponseBody::Broken(error.message.clone().into_owned());
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
mod tests {
    use super::*;

    fn parse_fresh(bytes: &[u8], method: &Method) -> Result<Parsed, &'static str> {
        parse(bytes, method, &mut HeaderBlock::default())
    }

    fn parse_whole(head: &str) -> Result<ResponseHead, &'static str> {
        match parse_fresh(head.as_bytes(), &Method::GET)? {
            Parsed::Final(length, answer) => {
                assert_eq!(length, head.len());
                Ok(answer)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_connection_has_64_options_at_most() {
        let head = |options: usize| {
            let options = "x,".repeat(options);
            format!("HTTP/1.1 200 OK\r\nConnection: {options}\r\n\r\n")
        };
        assert!(parse_whole(&head(64)).is_ok());
        assert!(parse_whole(&head(65)).is_err());
    }

    #[test]
    fn every_prefix_of_a_head_is_not_yet_a_head() {
        let head = b"HTTP/1.1 200 OK\r\nX-A:  1 \r\nx-a: 2\r\n\r\nbody";
        let end = head.len() - 4;
        for length in 0..end {
            let parsed = parse_fresh(&head[..length], &Method::GET);
            assert!(matches!(parsed, Ok(Parsed::NotYet)), "{length} bytes");
        }
        let Ok(Parsed::Final(length, answer)) = parse_fresh(head, &Method::GET) else {
            panic!("not final");
        };
        assert_eq!((length, answer.status), (end, StatusCode::OK));
        assert_eq!(
            answer.fields,
            HeaderBlock::of(&[("X-A", "1"), ("x-a", "2")])
        );
    }

    #[test]
    fn interim_answers_are_told_from_the_final_one() {
        let both = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        let Ok(Parsed::Interim(length)) = parse_fresh(both, &Method::GET) else {
            panic!("not interim");
        };
        let rest = parse_fresh(&both[length..], &Method::GET);
        assert!(matches!(rest, Ok(Parsed::Final(19, _))));
    }

    /// The answer to a request with `method`, its head being `HTTP/{head}`.
    fn answer_to(method: &str, head: &str) -> ResponseHead {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        match parse_fresh(format!("HTTP/{head}\r\n\r\n").as_bytes(), &method) {
            Ok(Parsed::Final(_, answer)) => answer,
            other => panic!("{head}: {other:?}"),
        }
    }

    #[test]
    fn the_framing_is_the_rfcs() {
        const FIVE: &str = "Content-Length: 5";
        for (method, head, framing, lengths) in [
            (
                "GET",
                format!("1.1 200 OK\r\n{FIVE}"),
                ResponseFraming::Length(5),
                1,
            ),
            (
                "HEAD",
                format!("1.1 200 OK\r\n{FIVE}"),
                ResponseFraming::None,
                1,
            ),
            (
                "GET",
                format!("1.1 304 x\r\n{FIVE}"),
                ResponseFraming::None,
                1,
            ),
            (
                "GET",
                format!("1.1 204 x\r\n{FIVE}"),
                ResponseFraming::None,
                0,
            ),
            ("GET", "1.1 200 OK".into(), ResponseFraming::UntilClose, 0),
        ] {
            let answer = answer_to(method, &head);
            assert_eq!(answer.framing, framing, "{head}");
            let count = answer.fields.values(KnownHeader::ContentLength).count();
            assert_eq!(count, lengths, "{head}");
        }
        let chunked = format!("1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n{FIVE}");
        let answer = answer_to("GET", &chunked);
        assert_eq!(answer.framing, ResponseFraming::Chunked);
        assert_eq!(answer.fields.value(KnownHeader::ContentLength), None);
        assert_eq!(answer_to("HEAD", &chunked).framing, ResponseFraming::None);
    }

    #[test]
    fn a_connection_persists_where_the_rfc_says_so() {
        for (head, persists) in [
            ("1.1 200 OK\r\nContent-Length: 5", true),
            ("1.1 200 OK\r\nTransfer-Encoding: chunked", true),
            ("1.1 304 x", true),
            ("1.1 200 OK", false),
            ("1.0 200 OK\r\nContent-Length: 5", false),
            (
                "1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, Close",
                false,
            ),
        ] {
            assert_eq!(answer_to("GET", head).persists, persists, "{head}");
        }
    }

    #[test]
    fn several_equal_lengths_become_one() {
        let answer = parse_whole(
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nA: b\r\ncontent-length: 5\r\n\r\n",
        );
        let lines = [("Content-Length", "5"), ("A", "b")];
        assert_eq!(answer.unwrap().fields, HeaderBlock::of(&lines));
        let answer = parse_whole("HTTP/1.1 200 OK\r\nContent-Length: 010\r\n\r\n").unwrap();
        assert_eq!(answer.fields, HeaderBlock::of(&[("Content-Length", "10")]));
    }

    #[test]
    fn what_could_be_understood_in_two_ways_is_refused() {
        for fields in [
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5, 6",
            "Content-Length: +5",
            "Content-Length: ",
            "Content-Length: 99999999999999999999",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "A: b\r\n c",
            "A\0: b",
            "A: b\0",
            "no colon",
        ] {
            let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
            assert!(parse_whole(&head).is_err(), "{fields:?}");
        }
        for head in [
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 099 x\r\n\r\n",
            "SSH-2.0-x\r\n\r\n",
        ] {
            assert!(
                parse_fresh(head.as_bytes(), &Method::GET).is_err(),
                "{head:?}"
            );
        }
    }

    #[test]
    fn what_came_before_a_malformed_chunk_is_not_lost() {
        let input = b"5\r\nhello\r\nnonsense";
        let mut body = ResponseBody::new(ResponseFraming::Chunked);
        let mut buffer = [0; 64];
        let (used, filled) = body.take(input, &mut buffer).unwrap();
        assert_eq!(&buffer[..filled], b"hello");
        let rest = body.take(&input[used..], &mut buffer);
        assert_eq!(rest, Err("an empty chunk size".into()));
    }

    #[test]
    fn a_body_is_taken_in_pieces_of_any_size() {
        let chunks = b"5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n";
        for (framing, input) in [
            (ResponseFraming::Length(12), b"hello, world".as_slice()),
            (ResponseFraming::Chunked, chunks),
        ] {
            for size in 1..=input.len() {
                let mut body = ResponseBody::new(framing);
                let mut taken = Vec::new();
                let mut rest = input;
                while !rest.is_empty() {
                    let mut buffer = [0; 4];
                    let here = &rest[..size.min(rest.len())];
                    let (used, filled) = body.take(here, &mut buffer).unwrap();
                    assert!(used > 0);
                    taken.extend_from_slice(&buffer[..filled]);
                    rest = &rest[used..];
                }
                assert_eq!(taken, b"hello, world");
                assert!(matches!(body, ResponseBody::Ended));
            }
        }
    }
}
