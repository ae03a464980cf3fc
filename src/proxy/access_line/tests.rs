use std::sync::Arc;
use std::time::Instant;

use http::Method;

use super::*;
use crate::config::secrets::{Configuration, Credential};
use crate::http1::headers::HeaderBlock;
use crate::proxy::access_log::ExchangeEnd;
use crate::proxy::request_id::RequestId;
use crate::proxy::route::TargetSlice;
use crate::proxy::usage::tokens::Tokens;

#[test]
fn the_line_has_the_facts_in_the_order_that_scripts_expect() {
    let configuration = Configuration {
        name: "primary-2".into(),
        credential: Arc::new(Credential::new("fake", "fake", "fake")),
    };
    let id = RequestId::Client(b"a b'c".as_slice().into());
    let log = AccessLog {
        path: TargetSlice::In(0..10),
        status: 200,
        config: Some(Arc::new(configuration)),
        attempts: 2,
        time_to_first_byte: Some(Duration::from_millis(12)),
        bytes_in: 512,
        bytes_out: 20480,
        ..AccessLog::new(Method::POST, id, Instant::now())
    };
    let (peer, path) = ("127.0.0.1:53422", log.path.of(b"/v1/chat\"x?query"));
    let line = AccessLine::new(peer, path, &log).to_string();
    let start = "127.0.0.1:53422 \"POST /v1/chat%22x\" 200 config='primary-2' attempts=2 \
                 ttfb_ms=12 duration_ms=";
    assert!(line.starts_with(start), "{line}");
    assert!(
        line.ends_with(" in=512 out=20480 end=ok id=a%20b%27c"),
        "{line}"
    );
}

#[test]
fn paths_have_few_kinds_of_characters_and_512_bytes_at_most() {
    let pushed = |text: &[u8]| {
        let mut line = b"x".to_vec();
        push_path(text, &mut line);
        String::from_utf8(line).unwrap()
    };
    let a = |count: usize| "a".repeat(count);
    for (text, expected) in [
        ("/v1/A.b_c~d:e@f!g,h=i&j*k+l-m/%2f%2F".to_owned(), None),
        (
            "'\"()$`;<>|\\[]{}^#?".to_owned(),
            Some("%27%22%28%29%24%60%3B%3C%3E%7C%5C%5B%5D%7B%7D%5E%23%3F".to_owned()),
        ),
        (
            "%%2%zz%é".to_owned(),
            Some("%25%252%25zz%25%C3%A9".to_owned()),
        ),
        (a(512), None),
        (a(16_000), Some(a(512))),
        (a(511) + "'", Some(a(511))),
        (a(510) + "%2f", Some(a(510))),
        (a(509) + "%2fb", Some(a(509) + "%2f")),
        ("'".repeat(600), Some("%27".repeat(170))),
    ] {
        let expected = expected.unwrap_or_else(|| text.clone());
        assert_eq!(pushed(text.as_bytes()), format!("x{expected}"));
    }
}

#[test]
fn what_is_known_of_the_response_stands_between_end_and_id() {
    let id = RequestId::Client(b"x".as_slice().into());
    let mut log = AccessLog::new(Method::POST, id, Instant::now());
    log.end = ExchangeEnd::ErrorEvent;
    log.reason = Some("limit");
    log.error = Some("overloaded");
    log.resent = 1;
    log.note_model("gpt-4o");
    log.usage = Usage::Known(Tokens {
        input: 1200,
        cached: 1024,
        output: u64::MAX,
    });
    log.cost = Some(0.0041);
    log.note_client(&HeaderBlock::of(&[
        ("User-Agent", "claude-cli/2.1.9 (external, cli)"),
        ("session-id", "s-1"),
    ]));
    let line = AccessLine::new("-", b"/", &log).to_string();
    let end = " end=error_event reason=limit error=overloaded resent=1 model='gpt-4o' \
               input_tokens=1200 cached_tokens=1024 output_tokens=18446744073709551615 \
               cost=0.0041 agent='claude-cli/2.1.9' session='s-1' id=x";
    assert!(line.ends_with(end), "{line}");
}

#[test]
fn costs_are_short_whatever_they_are() {
    for (cost, expected) in [
        (0.0, "0"),
        (2.9999999999999997e-05, "0.00003"),
        (0.0041, "0.0041"),
        (0.002058, "0.002058"),
        (1.23456789, "1.23457"),
        (12345.678, "12345.7"),
        (1e-7, "0.0000001"),
        (1e-300, "1e-300"),
        (f64::MAX, "1.79769e308"),
    ] {
        assert_eq!(shown_amount(cost), expected);
    }
}
