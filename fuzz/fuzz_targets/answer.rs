//! The upstream's responses, head and body, compared with a second implementation of the framing rules
//! and with a naive reader of the whole body. The first byte of the input chooses the request method
//! and how the rest is cut.

#![no_main]

use flow_proxy_fuzz::http1::body::{BodyDecoder, BodyLength};
use flow_proxy_fuzz::http1::headers::{HeaderBlock, KnownHeader};
use flow_proxy_fuzz::http1::response::{Parsed, ResponseHead, parse};
use flow_proxy_fuzz::pieces;
use http::Method;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&seed, input)) = bytes.split_first() else {
        return;
    };
    let method = if seed & 1 == 0 {
        Method::GET
    } else {
        Method::HEAD
    };
    match parse(input, &method, &mut HeaderBlock::default()) {
        Ok(Parsed::Final(length, response)) => {
            for shorter in (0..length).step_by(1 + length / 40) {
                let prefix = parse(&input[..shorter], &method, &mut HeaderBlock::default());
                assert!(
                    matches!(prefix, Ok(Parsed::NotYet)),
                    "{shorter}: {prefix:?}"
                );
            }
            check_framing(&response, &method);
            check_lengths(&response, &input[..length]);
            check_persistence(&response, &input[..length]);
            check_body(&response, &input[length..], seed >> 1);
        }
        Ok(Parsed::Interim(length)) => assert!((1..=input.len()).contains(&length)),
        Ok(Parsed::NotYet) => {}
        Err(_) => {
            // More bytes never make a rejected message valid.
            assert!(
                parse(
                    &[input, b"\r\n\r\n"].concat(),
                    &method,
                    &mut HeaderBlock::default()
                )
                .is_err()
            );
        }
    }
});

/// The values of all header lines with this name, exactly as received.
fn values<'h>(head: &'h [u8], name: &'static str) -> impl Iterator<Item = &'h [u8]> {
    let lines = head.split(|&byte| byte == b'\n').skip(1);
    lines.filter_map(move |line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let is_it = line[..colon].eq_ignore_ascii_case(name.as_bytes());
        is_it.then(|| line[colon + 1..].trim_ascii())
    })
}

/// If the length counts, every Content-Length value is the same number.
fn check_lengths(response: &ResponseHead, head: &[u8]) {
    let BodyLength::Known(length) = response.body_length else {
        return;
    };
    for value in values(head, "content-length") {
        for part in value.split(|&byte| byte == b',') {
            let number = std::str::from_utf8(part.trim_ascii()).unwrap().parse();
            assert_eq!(number, Ok(length));
        }
    }
}

fn check_persistence(response: &ResponseHead, head: &[u8]) {
    let mut options =
        values(head, "connection").flat_map(|value| value.split(|&byte| byte == b','));
    let closes = options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"));
    // Empty lines before the status line are passed over.
    let is_http_11 = head.trim_ascii_start().starts_with(b"HTTP/1.1");
    let may_persist = is_http_11 && response.body_length != BodyLength::UntilClose;
    assert_eq!(response.persists, may_persist && !closes);
}

/// RFC 9112 section 6.3, applied to the header lines that are forwarded.
fn check_framing(response: &ResponseHead, method: &Method) {
    let lengths: Vec<_> = response.fields.values(KnownHeader::ContentLength).collect();
    let codings: Vec<_> = response
        .fields
        .values(KnownHeader::TransferEncoding)
        .collect();
    assert!(
        lengths.len() + codings.len() <= 1,
        "ambiguous framing was accepted"
    );
    let has_body = *method != Method::HEAD && ![204, 304].contains(&response.status.as_u16());
    let expected = match (&lengths[..], &codings[..]) {
        _ if !has_body => BodyLength::None,
        ([digits], []) => BodyLength::Known(std::str::from_utf8(digits).unwrap().parse().unwrap()),
        ([], [coding]) => {
            assert!(coding.eq_ignore_ascii_case(b"chunked"));
            BodyLength::Chunked
        }
        _ => BodyLength::UntilClose,
    };
    assert_eq!(response.body_length, expected);
    assert!(!response.persists || expected != BodyLength::UntilClose);
    for (name, value) in response.fields.iter() {
        assert!(!name.is_empty() && name.iter().all(u8::is_ascii_graphic));
        assert!(
            value
                .iter()
                .all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
        );
    }
}

fn check_body(response: &ResponseHead, input: &[u8], seed: u8) {
    let (body, used, is_whole) = take_all(response.body_length, input, seed);
    assert_eq!(
        take_all(response.body_length, input, 0),
        (body.clone(), used, is_whole)
    );
    match response.body_length {
        BodyLength::None => assert!(body.is_empty() && used == 0 && is_whole),
        BodyLength::Known(length) => {
            let here =
                usize::try_from(length).map_or(input.len(), |length| length.min(input.len()));
            assert_eq!(body, &input[..here]);
            assert_eq!(is_whole, here as u64 == length);
        }
        BodyLength::UntilClose => assert_eq!(body, input),
        BodyLength::Chunked if is_whole => assert_eq!(naive(&input[..used]), body),
        BodyLength::Chunked => {}
    }
}

/// The data of a complete chunked body, without trailers.
fn naive(mut input: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    loop {
        let end = input.windows(2).position(|pair| pair == b"\r\n").unwrap();
        let line = std::str::from_utf8(&input[..end]);
        let line = line.unwrap_or_else(|error| {
            // Extensions may hold any bytes; the size comes before them.
            std::str::from_utf8(&input[..error.valid_up_to()]).unwrap()
        });
        let digits = line
            .split(';')
            .next()
            .unwrap()
            .trim_end_matches([' ', '\t']);
        assert!(
            digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{line:?}"
        );
        let size = usize::from_str_radix(digits, 16).unwrap();
        if size == 0 {
            return data;
        }
        let (chunk, rest) = input[end + 2..].split_at(size);
        data.extend_from_slice(chunk);
        input = rest.strip_prefix(b"\r\n").unwrap();
    }
}

/// The body's data, how many bytes of `input` it took, and whether it is complete.
fn take_all(length: BodyLength, input: &[u8], seed: u8) -> (Vec<u8>, usize, bool) {
    let mut body = BodyDecoder::of_response(length);
    let (mut data, mut used) = (Vec::new(), 0);
    let mut buffer = [0; 64];
    for piece in pieces(input, seed) {
        let mut rest = piece;
        while !rest.is_empty() && !matches!(body, BodyDecoder::Ended) {
            let Ok((took, filled)) = body.decode(rest, &mut buffer) else {
                // How many bytes were taken before the error depends on the cut.
                return (data, 0, false);
            };
            assert!(took > 0 && took <= rest.len() && filled <= took, "progress");
            data.extend_from_slice(&buffer[..filled]);
            used += took;
            rest = &rest[took..];
        }
    }
    (data, used, matches!(body, BodyDecoder::Ended))
}
