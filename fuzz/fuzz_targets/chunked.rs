//! The decoder of a request's chunks, fed in pieces, compared with a naive decoder of the whole buffer and, for input
//! that it accepts, with tiny_http's. The first byte of the input chooses how the rest is cut.

#![no_main]

use std::io::Read;

use flow_proxy_fuzz::http1::body::{BodyDecoder, BodyLength};
use flow_proxy_fuzz::pieces;
use libfuzzer_sys::fuzz_target;

/// What a decoder made of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    NotYet,
    /// The index after the body.
    End(usize),
    Rejected,
    /// Too much framing for too little data: exceeds our limits, but is valid chunked coding.
    TooMuchFraming,
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&seed, input)) = bytes.split_first() else {
        return;
    };
    // With room for one byte, all data before an error is returned.
    let (body, outcome) = decode(input, seed, 1);
    for other in [0, 1] {
        let decoded = decode(input, other, 1);
        assert_eq!(decoded, (body.clone(), outcome), "cut {other}");
    }
    for other in [0, seed] {
        let (data, end) = decode(input, other, 64);
        assert_eq!(end, outcome, "cut {other}");
        match outcome {
            Outcome::NotYet | Outcome::End(_) => assert_eq!(data, body, "cut {other}"),
            Outcome::Rejected | Outcome::TooMuchFraming => assert!(body.starts_with(&data)),
        }
    }
    if outcome == Outcome::TooMuchFraming {
        assert!(input.len() > 1024);
        return;
    }
    assert_eq!(naive(input), (body.clone(), outcome));
    if let Outcome::End(end) = outcome
        && input[..end].ends_with(b"\r\n0\r\n\r\n")
    {
        // tiny_http's decoder does not support trailers.
        let mut theirs = Vec::new();
        let read = chunked_transfer::Decoder::new(&input[..end]).read_to_end(&mut theirs);
        assert_eq!(read.ok(), Some(body.len()));
        assert_eq!(theirs, body);
    }
});

/// Decodes into a buffer of `room` bytes.
fn decode(input: &[u8], seed: u8, room: usize) -> (Vec<u8>, Outcome) {
    let mut decoder = BodyDecoder::of_request(BodyLength::Chunked);
    let (mut body, mut used) = (Vec::new(), 0);
    let mut buffer = vec![0; room];
    for mut piece in pieces(input, seed) {
        while !piece.is_empty() && !matches!(decoder, BodyDecoder::Ended) {
            match decoder.decode(piece, &mut buffer) {
                Ok((took, filled)) => {
                    assert!(
                        took > 0 && took <= piece.len() && filled <= took,
                        "progress"
                    );
                    body.extend_from_slice(&buffer[..filled]);
                    used += took;
                    piece = &piece[took..];
                }
                Err(error) if error.contains("too many bytes") => {
                    return (body, Outcome::TooMuchFraming);
                }
                Err(_) => return (body, Outcome::Rejected),
            }
        }
    }
    match decoder {
        BodyDecoder::Ended => (body, Outcome::End(used)),
        _ => (body, Outcome::NotYet),
    }
}

/// The same in the simplest form: line by line on the whole buffer (RFC 9112 section 7.1).
fn naive(input: &[u8]) -> (Vec<u8>, Outcome) {
    let mut body = Vec::new();
    let mut at = 0;
    let outcome = loop {
        let (size_line, next) = match line(input, at) {
            Line::Bad => break Outcome::Rejected,
            Line::Partial(line) if size(line).is_none() && !line.is_empty() => {
                break Outcome::Rejected;
            }
            Line::Partial(_) => break Outcome::NotYet,
            Line::CrOnly(line) if size(line).is_none() => break Outcome::Rejected,
            Line::CrOnly(_) => break Outcome::NotYet,
            Line::Whole(line, next) => (line, next),
        };
        let Some(size) = size(size_line) else {
            break Outcome::Rejected;
        };
        if size == 0 {
            break trailers(input, next);
        }
        let here = usize::try_from(size).unwrap_or(usize::MAX);
        let data_end = next.saturating_add(here).min(input.len());
        body.extend_from_slice(&input[next..data_end]);
        if data_end - next < here {
            break Outcome::NotYet;
        }
        let after = &input[data_end..];
        if after.starts_with(b"\r\n") {
            at = data_end + 2;
        } else if after.is_empty() || after == b"\r" {
            break Outcome::NotYet;
        } else {
            break Outcome::Rejected;
        }
    };
    (body, outcome)
}

enum Line<'a> {
    /// Without its CRLF, and where the next one starts.
    Whole(&'a [u8], usize),
    /// The input ends after the line's CR.
    CrOnly(&'a [u8]),
    /// The input ends within the line.
    Partial(&'a [u8]),
    /// A CR or LF that is not part of a CRLF.
    Bad,
}

fn line(input: &[u8], at: usize) -> Line<'_> {
    let rest = &input[at..];
    let Some(length) = rest.iter().position(|byte| b"\r\n".contains(byte)) else {
        return Line::Partial(rest);
    };
    match &rest[length..] {
        [b'\r', b'\n', ..] => Line::Whole(&rest[..length], at + length + 2),
        [b'\r'] => Line::CrOnly(&rest[..length]),
        _ => Line::Bad,
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// The size in `chunk-size [ chunk-ext ]`; `None` if the line is not valid.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|&byte| byte == b';').next()?;
    let is_size = (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    if !is_size || !line.iter().copied().all(is_text) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn trailers(input: &[u8], mut at: usize) -> Outcome {
    loop {
        let (line, next) = match line(input, at) {
            Line::Bad => return Outcome::Rejected,
            Line::Partial(line) => (line, None),
            Line::CrOnly(line) => (line, Some(None)),
            Line::Whole(line, next) => (line, Some(Some(next))),
        };
        let colon = line.iter().position(|&byte| byte == b':');
        let name = &line[..colon.unwrap_or(line.len())];
        let value = &line[name.len()..];
        let is_token =
            |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        if !name.iter().all(is_token) || !value.iter().copied().all(is_text) || colon == Some(0) {
            return Outcome::Rejected;
        }
        let Some(end) = next else {
            return Outcome::NotYet;
        };
        match (end, line, colon) {
            (Some(end), [], _) => return Outcome::End(end),
            (None, [], _) | (None, _, Some(_)) => return Outcome::NotYet,
            (_, _, None) => return Outcome::Rejected,
            (Some(next), _, Some(_)) => at = next,
        }
    }
}
