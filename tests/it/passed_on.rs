//! Which answer the client gets when no attempt succeeded, and what is added to it (contract section 5).

use std::time::{Duration, Instant};

use crate::support::{
    Answer, FakeFlow, HELD_BODY_LIMIT_BYTES, RawUpstream, SOON, ask_for, available, get, post,
    start_proxy, wait_until,
};

fn limited(text: &str, retry_after: &str) -> Answer {
    Answer::new(429, text)
        .header("Retry-After", retry_after)
        .header("X-Who", text)
}

fn in_cooldown(text: &str) -> Answer {
    Answer::error(429, "all_deployments_in_cooldown", text)
}

/// Asks an upstream that answers each credential in its own way; returns status and body.
fn answer_of(answers: &[Answer]) -> (u16, String) {
    let ids: Vec<String> = (1..=answers.len()).map(|n| format!("client-{n}")).collect();
    let by_client: Vec<(&str, Answer)> = ids
        .iter()
        .map(String::as_str)
        .zip(answers.iter().cloned())
        .collect();
    let upstream = FakeFlow::answering_by_client(&by_client);
    let proxy = start_proxy(&upstream, answers.len());
    let response = ask_for(&proxy, "m");
    assert_eq!(upstream.requests().len(), answers.len(), "each is asked");
    let line = proxy.wait_for_access_line(1);
    assert_eq!(line.number("attempts"), answers.len() as u64);
    assert_eq!(response.values("x-request-id").len(), 1);
    (response.status, response.text())
}

#[test]
fn a_limit_says_more_than_what_another_credential_lacks() {
    let (status, body) = answer_of(&[
        limited("first", "60"),
        limited("second", "60"),
        Answer::unauthorized(),
    ]);
    assert_eq!((status, body.as_str()), (429, "second"));
}

#[test]
fn a_provider_at_fault_says_more_than_a_limit() {
    let fault = in_cooldown("x");
    let body = String::from_utf8_lossy(&fault.body).into_owned();
    assert_eq!(
        answer_of(&[fault.clone(), limited("l", "60")]),
        (429, body.clone())
    );
    assert_eq!(answer_of(&[limited("l", "60"), fault]), (429, body));
}

#[test]
fn without_either_the_last_answer_is_passed_on() {
    let (status, body) = answer_of(&[Answer::unauthorized(), Answer::new(403, "the last")]);
    assert_eq!((status, body.as_str()), (403, "the last"));
}

#[test]
fn an_answer_that_another_credential_got_is_passed_on_whatever_was_kept() {
    let (status, body) = answer_of(&[limited("first", "60"), Answer::new(404, "no such model")]);
    assert_eq!((status, body.as_str()), (404, "no such model"));
}

#[test]
fn a_limit_that_is_passed_on_tells_when_the_first_rest_ends() {
    let upstream = FakeFlow::answering_by_client(&[
        ("client-1", limited("1", "2.5")),
        (
            "client-2",
            limited("2", "240").header("retry-after-ms", "240000"),
        ),
    ]);
    let proxy = start_proxy(&upstream, 2);
    let response = ask_for(&proxy, "m");
    assert_eq!((response.status, response.text().as_str()), (429, "2"));
    assert_eq!(response.values("retry-after"), ["3"]);
    assert_eq!(response.header("retry-after-ms"), None);
    assert_eq!(response.header("x-should-retry"), None, "waiting helps");
}

#[test]
fn a_limit_without_retry_after_gets_one() {
    let upstream = FakeFlow::answering(|_| Answer::error(429, "None", "Rate limit exceeded x"));
    let proxy = start_proxy(&upstream, 1);
    assert_eq!(ask_for(&proxy, "m").values("retry-after"), ["5"]);
}

#[test]
fn a_providers_retry_after_is_told() {
    let upstream =
        FakeFlow::answering(|_| in_cooldown("x").header("llm_provider-retry-after", "11"));
    let proxy = start_proxy(&upstream, 1);
    assert_eq!(ask_for(&proxy, "m").values("retry-after"), ["11"]);
    let upstream = FakeFlow::answering(|_| in_cooldown("x"));
    let proxy = start_proxy(&upstream, 1);
    assert_eq!(ask_for(&proxy, "m").header("retry-after"), None);
}

#[test]
fn a_client_is_told_not_to_retry_where_no_credential_can_help() {
    let spent = Answer::error(422, "budget_exceeded", "x");
    for (answers, expected) in [
        ([Answer::unauthorized(), spent.clone()], Some("false")),
        (
            [spent.clone(), Answer::error(401, "expired_key", "x")],
            Some("false"),
        ),
        ([limited("l", "60"), spent.clone()], None),
        ([Answer::new(403, "bare"), spent], None),
        ([in_cooldown("x"), Answer::unauthorized()], None),
    ] {
        let shown = format!("{answers:?}");
        let [first, second] = answers;
        let upstream = FakeFlow::answering_by_client(&[("client-1", first), ("client-2", second)]);
        let proxy = start_proxy(&upstream, 2);
        assert_eq!(
            ask_for(&proxy, "m").header("x-should-retry"),
            expected,
            "{shown}"
        );
    }
    let upstream = FakeFlow::answering(|_| Answer::new(400, "the request is wrong"));
    let proxy = start_proxy(&upstream, 1);
    assert_eq!(ask_for(&proxy, "m").header("x-should-retry"), None);
}

#[test]
fn a_body_that_was_not_held_is_worth_a_retry() {
    let upstream = FakeFlow::answering_by_client(&[("client-1", Answer::unauthorized())]);
    let proxy = start_proxy(&upstream, 2);
    let body = vec![b'x'; HELD_BODY_LIMIT_BYTES + 1];
    let response = post(proxy.address(), "/v1/x", &body);
    assert_eq!(
        (response.status, response.header("x-should-retry")),
        (401, None)
    );
    assert_eq!(post(proxy.address(), "/v1/x", &body).status, 200);
}

#[test]
fn after_a_limit_those_at_rest_are_left_alone() {
    let upstream = FakeFlow::answering_by_client(&[
        ("client-1", limited("1", "60")),
        ("client-2", limited("2", "90")),
    ]);
    let proxy = start_proxy(&upstream, 2);
    assert_eq!(ask_for(&proxy, "m").status, 429);
    let response = ask_for(&proxy, "m");
    assert_eq!((response.status, response.text().as_str()), (429, "1"));
    assert_eq!(
        upstream.client_ids()[2..],
        ["client-1"],
        "whose rest ends first"
    );
}

#[test]
fn the_last_good_credential_serves_though_it_rests_and_another_was_revoked() {
    // All at rest, the first of them revoked: the good one is asked as well.
    let upstream = FakeFlow::answering(|request| match request.target.as_str() {
        "/flow-llm-proxy/v1/limit" if request.client_id() == "client-1" => limited("1", "50"),
        "/flow-llm-proxy/v1/limit" => limited("2", "100"),
        _ if request.client_id() == "client-1" => Answer::unauthorized(),
        _ => Answer::ok(),
    });
    let proxy = start_proxy(&upstream, 2);
    assert_eq!(get(proxy.address(), "/v1/limit").status, 429);
    assert_eq!(available(&proxy), 0);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    assert_eq!(upstream.client_ids()[2..], ["client-1", "client-2"]);
}

#[test]
fn of_four_credentials_three_may_be_revoked() {
    let revoked = ["client-1", "client-2", "client-3"].map(|id| (id, Answer::unauthorized()));
    let upstream = FakeFlow::answering_by_client(&revoked);
    let proxy = start_proxy(&upstream, 4);
    for _ in 0..12 {
        assert_eq!(ask_for(&proxy, "m").status, 200);
    }
    assert_eq!(
        upstream.requests().len(),
        15,
        "each revoked one was asked once"
    );
    assert_eq!(available(&proxy), 1);
}

#[test]
fn no_attempt_begins_later_than_10_s_after_the_first_answer_that_called_for_it() {
    let upstream = RawUpstream::start(|connection| {
        while let Some(request) = connection.read_request() {
            if request.client_id() == "client-2" {
                std::thread::sleep(Duration::from_millis(10_300)); // the upstream's own pace
            }
            connection.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
        }
    });
    let proxy = start_proxy(&upstream, 4);
    let asked = Instant::now();
    let response = ask_for(&proxy, "m");
    assert_eq!((response.status, upstream.requests().len()), (401, 2));
    assert!(
        asked.elapsed() < Duration::from_secs(15),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(
        response.header("x-should-retry"),
        None,
        "not all were asked"
    );
}

#[test]
fn the_second_attempt_begins_however_late_the_first_answer_comes() {
    let upstream = RawUpstream::start(|connection| {
        while let Some(request) = connection.read_request() {
            if request.client_id() == "client-2" {
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                continue;
            }
            std::thread::sleep(Duration::from_millis(10_300)); // the upstream's own pace
            connection.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
        }
    });
    let proxy = start_proxy(&upstream, 2);
    assert_eq!(ask_for(&proxy, "m").status, 200);
}

#[test]
fn an_answer_to_a_request_from_before_a_rest_does_not_renew_it() {
    let upstream = RawUpstream::start(|connection| {
        while let Some(request) = connection.read_request() {
            let is_slow = request.target.ends_with("/slow");
            if is_slow {
                std::thread::sleep(Duration::from_millis(2_500)); // the upstream's own pace
            }
            let after = if is_slow { 200 } else { 1 };
            connection.send(format!(
                "HTTP/1.1 429 Too Many Requests\r\nRetry-After: {after}\r\nContent-Length: 0\r\n\r\n"
            ));
        }
    });
    let proxy = start_proxy(&upstream, 1);
    let address = proxy.address();
    let slow = std::thread::spawn(move || get(address, "/v1/slow").status);
    wait_until("the slow request", SOON, || upstream.requests().len() == 1);
    assert_eq!(get(address, "/v1/quick").status, 429);
    wait_until("the rest of a second to end", SOON, || {
        available(&proxy) == 1
    });
    assert_eq!(slow.join().expect("no panic"), 429);
    proxy.wait_for_access_line(2);
    assert_eq!(available(&proxy), 1, "{}", proxy.log());
}
