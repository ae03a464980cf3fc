//! `--limit-wait`: a request waits where every credential that could serve it is limited (contract
//! section 5).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{
    Answer, FakeFlow, ProxyProcess, RawClient, SOON, ask_for, credentials, get, wait_until,
};

/// Limits its first `limits` requests for `retry_after` seconds.
fn limiting(limits: usize, retry_after: &'static str) -> FakeFlow {
    let answers = AtomicUsize::new(0);
    FakeFlow::answering(move |_| match answers.fetch_add(1, Ordering::SeqCst) {
        n if n < limits => Answer::limited(Some(retry_after)),
        _ => Answer::ok(),
    })
}

fn start(upstream: &FakeFlow, credential_count: usize, options: &[(&str, &str)]) -> ProxyProcess {
    ProxyProcess::to(&upstream.url())
        .secrets(&credentials(credential_count))
        .options(options)
        .start()
}

/// Begins a request that waits; returns its client.
fn begin_waiting(upstream: &FakeFlow, proxy: &ProxyProcess) -> RawClient {
    let mut client = RawClient::connect(proxy.address());
    client.send_request("POST", "/v1/x", &[], b"{}");
    wait_until("the limit to be known", SOON, || {
        !upstream.requests().is_empty()
    });
    proxy.wait_for_log("rate limited");
    client
}

#[test]
fn a_request_waits_for_the_first_rest_to_end() {
    let upstream = limiting(2, "2");
    let proxy = start(&upstream, 2, &[("--limit-wait", "10")]);
    let asked = Instant::now();
    assert_eq!(ask_for(&proxy, "m").status, 200);
    let took = asked.elapsed();
    assert!(
        took > Duration::from_millis(1900) && took < Duration::from_secs(8),
        "{took:?}"
    );
    assert_eq!(upstream.requests().len(), 3);
    assert_eq!(proxy.wait_for_access_line(1).status, 200);
}

#[test]
fn a_request_that_comes_while_all_rest_waits_before_it_is_sent() {
    let upstream = limiting(1, "3");
    let proxy = start(&upstream, 1, &[("--limit-wait", "10")]);
    let mut first = begin_waiting(&upstream, &proxy);
    let asked = Instant::now();
    assert_eq!(ask_for(&proxy, "m").status, 200);
    let took = asked.elapsed();
    assert!(took > Duration::from_secs(1), "{took:?}");
    assert_eq!(first.read_response().status, 200);
    assert_eq!(upstream.requests().len(), 3);
}

#[test]
fn none_waits_by_default_nor_for_longer_than_allowed() {
    for options in [&[][..], &[("--limit-wait", "3")]] {
        let upstream = FakeFlow::answering(|_| Answer::limited(Some("30")));
        let proxy = start(&upstream, 2, options);
        let asked = Instant::now();
        let response = ask_for(&proxy, "m");
        assert_eq!(
            (response.status, response.header("retry-after")),
            (429, Some("30"))
        );
        assert!(
            asked.elapsed() < Duration::from_secs(2),
            "{:?}",
            asked.elapsed()
        );
    }
}

#[test]
fn a_credential_that_may_not_use_the_model_is_not_waited_for() {
    let answers = AtomicUsize::new(0);
    let upstream = FakeFlow::answering(move |request| match request.client_id().as_str() {
        "client-1" => Answer::error(403, "key_model_access_denied", "x"),
        _ if answers.fetch_add(1, Ordering::SeqCst) == 0 => Answer::limited(Some("1")),
        _ => Answer::ok(),
    });
    let proxy = start(&upstream, 2, &[("--limit-wait", "10")]);
    assert_eq!(ask_for(&proxy, "vip").status, 200);
    assert_eq!(upstream.client_ids(), ["client-1", "client-2", "client-2"]);
}

#[test]
fn none_waits_where_a_credential_is_not_limited_but_failed() {
    let upstream = FakeFlow::answering_by_client(&[
        ("client-1", Answer::error(401, "expired_key", "x")),
        ("client-2", Answer::limited(Some("2"))),
    ]);
    let proxy = start(&upstream, 2, &[("--limit-wait", "10")]);
    let asked = Instant::now();
    assert_eq!(ask_for(&proxy, "m").status, 429);
    assert!(
        asked.elapsed() < Duration::from_millis(1500),
        "{:?}",
        asked.elapsed()
    );
}

#[test]
fn it_waits_again_as_long_as_the_time_lasts() {
    let upstream = limiting(3, "1");
    let proxy = start(&upstream, 1, &[("--limit-wait", "10")]);
    assert_eq!(ask_for(&proxy, "m").status, 200);
    assert_eq!(upstream.requests().len(), 4);
    let upstream = FakeFlow::answering(|_| Answer::limited(Some("1")));
    let proxy = start(&upstream, 1, &[("--limit-wait", "3")]);
    let asked = Instant::now();
    assert_eq!(ask_for(&proxy, "m").status, 429);
    let took = asked.elapsed();
    assert!(
        took > Duration::from_millis(1900) && took < Duration::from_secs(4),
        "{took:?}"
    );
}

#[test]
fn a_client_that_leaves_ends_its_wait() {
    let upstream = limiting(1, "20");
    let proxy = start(&upstream, 1, &[("--limit-wait", "60")]);
    let client = begin_waiting(&upstream, &proxy);
    let left = Instant::now();
    drop(client);
    let line = proxy.wait_for_access_line(1);
    assert_eq!((line.status, line.field("end")), (499, "client_gone"));
    assert_eq!(
        (line.field("config"), line.number("attempts")),
        ("primary-1", 1)
    );
    assert!(
        left.elapsed() < Duration::from_secs(1),
        "{:?}",
        left.elapsed()
    );
}

#[test]
fn a_reload_ends_the_wait() {
    let upstream = limiting(1, "50");
    let proxy = start(&upstream, 1, &[("--limit-wait", "60")]);
    let mut client = begin_waiting(&upstream, &proxy);
    proxy.signal("HUP");
    assert_eq!(client.read_response().status, 200);
}

#[test]
fn the_stop_ends_the_wait() {
    let upstream = limiting(9, "50");
    let mut proxy = start(&upstream, 1, &[("--limit-wait", "60")]);
    let mut client = begin_waiting(&upstream, &proxy);
    proxy.signal("TERM");
    assert_eq!(client.read_response().status, 429);
    assert_eq!(proxy.wait_for_exit(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn a_quarter_of_the_workers_may_wait() {
    let upstream = Arc::new(limiting(9, "50"));
    let proxy = start(&upstream, 1, &[("--limit-wait", "60"), ("--workers", "4")]);
    let mut waiting = vec![begin_waiting(&upstream, &proxy)];
    // Whether the first one waits already, or is not made to, only the next one can tell.
    wait_until("a request that is not made to wait", SOON, || {
        let mut next = RawClient::connect(proxy.address());
        next.send_request("POST", "/v1/x", &[], b"{}");
        let is_answered = next.has_response_within(Duration::from_secs(2));
        waiting.push(next);
        is_answered
    });
    assert_eq!(get(proxy.address(), "/-/health").status, 200);
}
