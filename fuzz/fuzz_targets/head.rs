//! The head parser, compared with httparse, with a second implementation of the strict framing rules,
//! and with itself: an incomplete head, and one that arrives in pieces, is never a different head.

#![no_main]

use flow_proxy_fuzz::http1::body::BodyLength;
use flow_proxy_fuzz::http1::error::HttpError;
use flow_proxy_fuzz::http1::request::{self, RequestHead, find_end};
use libfuzzer_sys::fuzz_target;

/// Up to this length every prefix and every `from` is tried, beyond it some of them.
const SHORT: usize = 40;

fuzz_target!(|bytes: &[u8]| {
    let step = 1 + bytes.len() / SHORT;
    check_find_end(bytes, step);
    match parse_head(bytes) {
        Ok(Some((end, head))) => {
            let whole = &bytes[..end];
            compare_with_httparse(whole, &head);
            check_strictness(whole, &head);
            for length in (0..end).step_by(step).chain([end - 1]) {
                let prefix = parse_head(&bytes[..length]);
                assert!(matches!(prefix, Ok(None)), "{length} bytes: {prefix:?}");
            }
            // Bytes after the head do not change it.
            let alone = parse_head(whole).unwrap().unwrap();
            assert_eq!((end, head), alone);
        }
        Ok(None) => {}
        Err(_) => {
            // More bytes never make a rejected head valid.
            let longer = [bytes, b"\r\n\r\n"].concat();
            assert!(parse_head(&longer).is_err());
        }
    }
});

fn parse_head(bytes: &[u8]) -> Result<Option<(usize, RequestHead)>, HttpError> {
    request::parse_head(bytes, 0, &mut Vec::new())
}

/// A call that continues where an earlier one stopped finds what a call from 0 finds.
fn check_find_end(bytes: &[u8], step: usize) {
    let at_once = find_end(bytes, 0);
    for from in (0..=bytes.len()).step_by(step) {
        let seen = find_end(&bytes[..from], 0);
        match seen {
            // Only then does the caller continue the search.
            Ok(None) => assert_eq!(find_end(bytes, from), at_once, "from {from}"),
            Ok(Some(end)) => assert_eq!(at_once, Ok(Some(end)), "{from} bytes"),
            Err(_) => assert!(at_once.is_err(), "rejected at {from} bytes, then accepted"),
        }
    }
}

fn compare_with_httparse(whole: &[u8], head: &RequestHead) {
    let mut whole = whole.to_vec();
    // httparse accepts only the minor versions 0 and 1; we treat a higher one as 1.
    let line_end = whole.iter().position(|&byte| byte == b'\r').unwrap();
    if whole[line_end - 1] > b'1' {
        whole[line_end - 1] = b'1';
    }
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(&whole);
    assert_eq!(parsed, Ok(httparse::Status::Complete(whole.len())));
    assert_eq!(request.method, Some(head.method.as_str()));
    assert_eq!(request.path.unwrap().as_bytes(), &head.target[..]);
    let minor = u8::from(head.version == http::Version::HTTP_11);
    assert_eq!(request.version, Some(minor));
    assert_eq!(request.headers.len(), head.fields.count());
    for (theirs, (name, value)) in request.headers.iter().zip(head.fields.iter()) {
        assert_eq!(theirs.name.as_bytes(), name);
        assert_eq!(theirs.value, value);
    }
}

/// The framing rules, line by line, without a parser.
fn check_strictness(whole: &[u8], head: &RequestHead) {
    let text: String = whole.iter().map(|&byte| char::from(byte)).collect();
    let mut lines = text.strip_suffix("\r\n\r\n").unwrap().split("\r\n");
    let request_line = lines.next().unwrap();
    assert!(
        request_line
            .bytes()
            .all(|byte| (b' '..=b'~').contains(&byte))
    );
    assert_eq!(request_line.matches(' ').count(), 2, "{request_line:?}");
    let is_1_0 = request_line.ends_with("HTTP/1.0");
    let (mut hosts, mut lengths, mut codings) = (0, Vec::new(), Vec::new());
    for line in lines {
        let (name, value) = line.split_once(':').expect(line);
        let in_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        assert!(!name.is_empty() && name.chars().all(in_token), "{line:?}");
        let in_value = |c: char| c == '\t' || (c >= ' ' && c != '\x7f');
        assert!(value.chars().all(in_value), "{line:?}");
        let value = value.trim_matches([' ', '\t']);
        match name.to_ascii_lowercase().as_str() {
            "host" => hosts += 1,
            "content-length" => lengths.push(value),
            "transfer-encoding" => codings.push(value),
            _ => {}
        }
    }
    assert!(hosts == 1 || (hosts == 0 && is_1_0));
    let expected = match (&lengths[..], &codings[..]) {
        ([], []) => BodyLength::None,
        ([digits], []) => {
            assert!(!digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()));
            BodyLength::Known(digits.parse().unwrap())
        }
        ([], [coding]) => {
            assert!(coding.eq_ignore_ascii_case("chunked") && !is_1_0);
            BodyLength::Chunked
        }
        _ => panic!("ambiguous framing was accepted: {text:?}"),
    };
    assert_eq!(head.body_length, expected);
}
