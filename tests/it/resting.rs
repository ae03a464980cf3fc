//! How long a limited credential rests, and what happens when all of them do (contract section 5).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{
    Answer, FakeFlow, SOON, available, get, http_date, next_clients, start_proxy, wait_until,
};

#[test]
fn a_429_rests_the_credential_for_retry_after() {
    let upstream = FakeFlow::answering_by_client(&[("client-1", Answer::limited(Some("2")))]);
    let proxy = start_proxy(&upstream, 2);
    let limited_at = Instant::now();
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    assert_eq!(upstream.client_ids(), ["client-1", "client-2"]);
    let line = " - WARNING - Configuration 'primary-1' rate limited, resting 2 s. Remaining: 1/2";
    assert!(proxy.wait_for_log("rate limited").ends_with(line));
    proxy.wait_for_log("INFO - Failover successful - using config 'primary-2'");
    wait_until("client-1 to be asked again", SOON, || {
        next_clients(&upstream, &proxy, 1).contains(&"client-1".to_owned())
    });
    let rested = limited_at.elapsed();
    assert!(
        rested >= Duration::from_millis(1900),
        "rested only {rested:?}"
    );
    assert!(rested <= Duration::from_secs(5), "rested {rested:?}");
    assert!(!proxy.log().contains("marked as failed"));
}

#[test]
fn retry_after_may_be_a_date() {
    let date = http_date(Duration::from_secs(60));
    let upstream = FakeFlow::answering_by_client(&[("client-1", Answer::limited(Some(&date)))]);
    let proxy = start_proxy(&upstream, 2);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    let line = proxy.wait_for_log("Configuration 'primary-1' rate limited, resting ");
    let seconds: u64 = line
        .split_once("resting ")
        .and_then(|(_, rest)| rest.split_once(" s."))
        .and_then(|(seconds, _)| seconds.parse().ok())
        .unwrap_or_else(|| panic!("whole seconds in {line}"));
    assert!((55..=61).contains(&seconds), "{line}");
}

#[test]
fn a_429_without_retry_after_rests_5_s() {
    let upstream = FakeFlow::answering_by_client(&[("client-1", Answer::limited(None))]);
    let proxy = start_proxy(&upstream, 3);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    proxy.wait_for_log("Configuration 'primary-1' rate limited, resting 5 s. Remaining: 2/3");
}

#[test]
fn an_unreadable_retry_after_counts_as_none() {
    for value in ["soon", "-1", "1.5e3x", ""] {
        let upstream = FakeFlow::answering_by_client(&[("client-1", Answer::limited(Some(value)))]);
        let proxy = start_proxy(&upstream, 2);
        assert_eq!(get(proxy.address(), "/v1/models").status, 200);
        proxy.wait_for_log("Configuration 'primary-1' rate limited, resting 5 s. Remaining: 1/2");
    }
}

/// Asserts how long a 429 with this `Retry-After` rests its credential.
fn assert_rests(retry_after: &str, seconds: u64) {
    let upstream =
        FakeFlow::answering_by_client(&[("client-1", Answer::limited(Some(retry_after)))]);
    let proxy = start_proxy(&upstream, 2);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    let line = proxy.wait_for_log("Configuration 'primary-1' rate limited");
    assert!(
        line.ends_with(&format!(" resting {seconds} s. Remaining: 1/2")),
        "{line}"
    );
}

#[test]
fn a_rest_is_5_min_at_most() {
    assert_rests("86400", 300);
    assert_rests(&http_date(Duration::from_secs(10 * 365 * 86_400)), 300);
}

#[test]
fn a_retry_after_beyond_all_numbers_rests_5_min() {
    assert_rests("99999999999999999999999999", 300);
}

#[test]
fn a_limited_answer_is_passed_on_whole_when_all_are_limited() {
    let upstream = FakeFlow::answering(|request| {
        let mut answer = Answer::limited(Some("7"));
        answer.body = request.client_id().into_bytes();
        answer
    });
    let proxy = start_proxy(&upstream, 2);
    let response = get(proxy.address(), "/v1/models");
    response.assert_text(429, "client-2");
    assert_eq!(
        (response.header("retry-after"), response.error_code()),
        (Some("7"), "")
    );
    proxy.wait_for_log("All configurations failed for this request (last answer: 429)");
    proxy.wait_for_log("Configuration 'primary-2' rate limited, resting 7 s. Remaining: 0/2");
    assert_eq!(available(&proxy), 0);
}

#[test]
fn the_proxy_never_rejects_what_the_upstream_might_accept() {
    let upstream = FakeFlow::answering(|_| Answer::limited(Some("100")));
    let proxy = start_proxy(&upstream, 1);
    for n in 1..=3 {
        let response = get(proxy.address(), "/v1/models");
        assert_eq!((response.status, response.error_code()), (429, ""));
        assert_eq!(upstream.requests().len(), n);
    }
}

#[test]
fn when_none_is_available_the_one_whose_rest_ends_first_is_used() {
    let limiting = Arc::new(AtomicBool::new(true));
    let limits = Arc::clone(&limiting);
    let upstream = FakeFlow::answering(move |request| {
        if !limits.load(Ordering::SeqCst) {
            return Answer::ok();
        }
        Answer::limited(Some(match request.client_id().as_str() {
            "client-1" => "100",
            "client-2" => "50",
            _ => "200",
        }))
    });
    let proxy = start_proxy(&upstream, 3);
    assert_eq!(get(proxy.address(), "/v1/models").status, 429);
    limiting.store(false, Ordering::SeqCst);
    assert_eq!(next_clients(&upstream, &proxy, 1), ["client-2"]);
}

#[test]
fn a_rest_is_never_shortened_by_a_later_answer() {
    let answers = AtomicUsize::new(0);
    let upstream = FakeFlow::answering(move |_| {
        let first = answers.fetch_add(1, Ordering::SeqCst) == 0;
        Answer::limited(Some(if first { "100" } else { "1" }))
    });
    let proxy = start_proxy(&upstream, 1);
    for _ in 0..2 {
        assert_eq!(get(proxy.address(), "/v1/models").status, 429);
    }
    let second_answer_at = Instant::now();
    while second_answer_at.elapsed() < Duration::from_millis(1500) {
        assert_eq!(
            available(&proxy),
            0,
            "after {:?}",
            second_answer_at.elapsed()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
