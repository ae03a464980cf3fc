//! What the upstream's answer says about the credential that it was sent with (contract section 5).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{
    Answer, FakeFlow, ProxyProcess, RawClient, RawUpstream, SOON, SSE_HEAD, UpstreamConnection,
    ask_for, available, clients_for, get, next_clients, start_proxy, wait_until,
};

const COOLDOWN: &str = "No deployments available for selected model, Try again in 5 seconds.";

/// Starts a proxy with two credentials, the first of which is answered with `answer`.
fn start_with_first(answer: Answer) -> (FakeFlow, ProxyProcess) {
    let upstream = FakeFlow::answering_by_client(&[("client-1", answer)]);
    let proxy = start_proxy(&upstream, 2);
    (upstream, proxy)
}

#[test]
fn a_dead_key_fails_at_once_although_no_other_is_accepted() {
    let message = "Authentication Error - Expired Key. Key Expiry time 2026-01-01";
    for dead in [
        Answer::error(401, "expired_key", "x"),
        Answer::error(401, "token_not_found_in_db", "x"),
        Answer::error(400, "auth_error", message),
    ] {
        let status = dead.status;
        let rejected = ("client-2", Answer::unauthorized());
        let upstream = FakeFlow::answering_by_client(&[("client-1", dead), rejected]);
        let proxy = start_proxy(&upstream, 2);
        assert_eq!(ask_for(&proxy, "m").status, 401);
        let line =
            format!("Authentication failed for config 'primary-1': upstream answered {status}");
        proxy.wait_for_log(&line);
        proxy.wait_for_log("ERROR - Configuration 'primary-1' marked as failed. Remaining: 1/2");
        assert!(!proxy.log().contains("'primary-2' marked"));
    }
}

#[test]
fn a_spent_budget_rests_for_5_min_whatever_the_status() {
    let message = "Budget has been exceeded! Current cost: 1.2, Max budget: 1.0";
    for spent in [
        Answer::new(402, "no JSON"),
        Answer::error(422, "budget_exceeded", "x"),
        Answer::error(400, "None", message),
        Answer::error(429, "None", "ExceededBudget: Crossed budget for team"),
    ] {
        let (upstream, proxy) = start_with_first(spent);
        assert_eq!(ask_for(&proxy, "m").status, 200);
        let line = "Configuration 'primary-1' budget exceeded, resting 300 s. Remaining: 1/2";
        assert!(
            proxy
                .wait_for_log("budget exceeded")
                .ends_with(&format!(" - WARNING - {line}"))
        );
        assert_eq!(next_clients(&upstream, &proxy, 2), ["client-2", "client-2"]);
    }
}

#[test]
fn a_bare_403_is_no_failure_of_the_credential() {
    let (upstream, proxy) = start_with_first(Answer::new(403, "forbidden"));
    assert_eq!(ask_for(&proxy, "vip").status, 200);
    assert_eq!(
        clients_for(&upstream, &proxy, "vip", 2),
        ["client-2", "client-2"]
    );
    assert_eq!(available(&proxy), 2, "for other models");
    assert_eq!(
        clients_for(&upstream, &proxy, "other", 1),
        ["client-1", "client-2"]
    );
    assert!(!proxy.log().contains("marked as failed"));
}

#[test]
fn a_bare_403_that_all_get_rests_none() {
    let upstream = FakeFlow::answering(|_| Answer::new(403, "forbidden"));
    let proxy = start_proxy(&upstream, 2);
    for n in 1..=3 {
        assert_eq!(ask_for(&proxy, "vip").status, 403);
        assert_eq!(upstream.requests().len(), 2 * n, "each is asked");
    }
    assert!(!proxy.log().contains("passed over"));
}

#[test]
fn a_fault_of_the_provider_costs_one_more_attempt_and_rests_none() {
    for fault in [
        Answer::error(429, "all_deployments_in_cooldown", "x"),
        Answer::error(429, "None", COOLDOWN),
        Answer::error(
            429,
            "throttling_error",
            "litellm.RateLimitError: OpenAIException - slow",
        ),
        Answer::error(
            401,
            "auth_error",
            "litellm.AuthenticationError: the provider's key",
        ),
        Answer::error(403, "None", "x").header("x-litellm-call-id", "1"),
    ] {
        let (status, text) = (
            fault.status,
            String::from_utf8_lossy(&fault.body).into_owned(),
        );
        let upstream = FakeFlow::answering(move |_| fault.clone());
        let proxy = start_proxy(&upstream, 3);
        let response = ask_for(&proxy, "m");
        response.assert_text(status, &text);
        assert_eq!(upstream.client_ids(), ["client-1", "client-2"]);
        assert_eq!(available(&proxy), 3);
        let line = proxy.wait_for_access_line(1);
        assert_eq!((line.status, line.number("attempts")), (status, 2));
        assert!(
            !proxy.log().contains("All configurations failed"),
            "they are well"
        );
    }
}

#[test]
fn an_error_of_an_end_user_is_told_at_once() {
    for fault in [
        Answer::error(401, "customer_model_access_denied", "x"),
        Answer::error(429, "None", "LiteLLM End User: x over its limit"),
        Answer::error(429, "None", "Rate limit exceeded for end_user: x"),
        Answer::error(429, "None", "Rate limit exceeded for tag: x").header("Retry-After", "9"),
        Answer::error(
            422,
            "budget_exceeded",
            "Budget has been exceeded! End User=x",
        ),
        Answer::error(400, "None", "ExceededBudget: End User=x over budget"),
    ] {
        let (status, shown) = (fault.status, format!("{fault:?}"));
        let upstream = FakeFlow::answering(move |_| fault.clone());
        let proxy = start_proxy(&upstream, 3);
        assert_eq!(ask_for(&proxy, "m").status, status, "{shown}");
        assert_eq!(upstream.client_ids(), ["client-1"], "{shown}");
        assert_eq!(available(&proxy), 3, "{shown}");
    }
}

// What the request says comes back in errors. If it counted, one request could bench every key.
#[test]
fn phrases_within_a_message_mean_nothing() {
    let phrases = [
        "Expired Key",
        "litellm.RateLimitError",
        "Budget has been exceeded! x",
        "ExceededBudget: x",
        "Max parallel request limit reached",
        "Rate limit exceeded for x",
        COOLDOWN,
        "The requested model 'x' is not",
        "exceeded budget for model=x",
    ];
    let said = Arc::new(AtomicUsize::new(0));
    let next = Arc::clone(&said);
    let upstream = FakeFlow::answering(move |request| {
        let phrase = phrases[next.fetch_add(1, Ordering::SeqCst) % phrases.len()];
        let status = if request.target.ends_with("404") {
            404
        } else {
            400
        };
        let message = format!("Invalid model name passed in model={phrase}. Call /v1/models");
        Answer::error(status, "invalid_request_error", &message)
    });
    let proxy = start_proxy(&upstream, 2);
    for _ in 0..phrases.len() {
        assert_eq!(ask_for(&proxy, "m").status, 400);
    }
    for _ in 0..phrases.len() {
        assert_eq!(get(proxy.address(), "/v1/404").status, 404);
    }
    assert_eq!(
        upstream.requests().len(),
        2 * phrases.len(),
        "one attempt each"
    );
    assert_eq!(available(&proxy), 2);
}

#[test]
fn a_type_that_another_status_carries_means_nothing() {
    let upstream = FakeFlow::answering(|_| Answer::error(500, "expired_key", "Expired Key"));
    let proxy = start_proxy(&upstream, 2);
    assert_eq!(ask_for(&proxy, "m").status, 500);
    assert_eq!((upstream.requests().len(), available(&proxy)), (1, 2));
}

#[test]
fn a_failed_credential_is_restored_by_an_answer_that_looked_at_its_token() {
    let upstream = FakeFlow::answering(|request| {
        let is_first = request.client_id() == "client-1";
        let (path, has_body) = (request.target.as_str(), !request.body.is_empty());
        match (path.trim_start_matches("/flow-llm-proxy"), is_first) {
            ("/revoked", true) => Answer::unauthorized(),
            ("/limited", _) => Answer::limited(Some("100")),
            ("/v1/rejected", _) => Answer::new(404, "Not Found"),
            _ if has_body => Answer::new(400, "no JSON"),
            _ => Answer::ok(),
        }
    });
    let proxy = start_proxy(&upstream, 2);
    let ask = |path| get(proxy.address(), path).status;
    assert_eq!(ask("/v1/models"), 200); // both have been well
    assert_eq!(ask("/v1/models"), 200);
    assert_eq!(ask("/revoked"), 200);
    // The only other one is not accepted for the same request, but was for `/`.
    proxy.wait_for_access_line(3);
    assert!(
        !proxy.log().contains("marked as failed"),
        "answered without a look at the token"
    );
}

#[test]
fn an_answer_that_looked_at_no_token_restores_none() {
    let upstream = FakeFlow::answering(|request| {
        match (request.client_id().as_str(), request.target.as_str()) {
            ("client-1", "/flow-llm-proxy/v1/revoked") => Answer::unauthorized(),
            ("client-2", "/flow-llm-proxy/v1/limited") => Answer::limited(Some("200")),
            _ => Answer::ok(),
        }
    });
    let proxy = start_proxy(&upstream, 2);
    assert_eq!(get(proxy.address(), "/v1/revoked").status, 200);
    proxy.wait_for_log("'primary-1' marked as failed");
    assert_eq!(get(proxy.address(), "/v1/limited").status, 429);
    assert_eq!(available(&proxy), 0);
    // Now each request goes to the first credential: its rest ends first.
    for path in ["/", "/health/liveliness", "/public/x", "/unknown"] {
        assert_eq!(get(proxy.address(), path).status, 200);
        assert_eq!(
            upstream.client_ids().last().map(String::as_str),
            Some("client-1")
        );
    }
    assert_eq!(available(&proxy), 0);
    assert!(!proxy.log().contains("restored"));
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    proxy.wait_for_log("INFO - Configuration 'primary-1' restored. Remaining: 1/2");
}

/// Streams to targets that end in `/stream` until the connection closes; rejects other requests of the
/// first credential as one too many at once.
fn serve_one_at_once(connection: &mut UpstreamConnection) {
    while let Some(request) = connection.read_request() {
        if request.target.ends_with("/stream") {
            connection.send(SSE_HEAD);
            connection.wait_for_close(SOON);
            return;
        }
        let busy = "HTTP/1.1 429 Too Many Requests\r\nrate_limit_type: max_parallel_requests\r\n\
                    Retry-After: 60\r\nContent-Length: 4\r\n\r\nbusy";
        match request.client_id().as_str() {
            "client-1" => connection.send(busy),
            _ => connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        };
    }
}

/// Makes the first credential busy while it serves a stream, and ends that; returns how long the rest
/// lasted.
fn rest_of_a_busy_credential() -> Duration {
    let upstream = RawUpstream::start(serve_one_at_once);
    let proxy = start_proxy(&upstream, 2);
    let mut streaming = RawClient::connect(proxy.address());
    streaming.send_request("GET", "/v1/stream", &[], b"");
    streaming.read_head();
    assert_eq!(next_clients(&upstream, &proxy, 1), ["client-2"]); // its turn
    let asked = Instant::now();
    assert_eq!(next_clients(&upstream, &proxy, 1), ["client-1", "client-2"]);
    assert_eq!(available(&proxy), 1);
    drop(streaming);
    wait_until("the end of the stream to end the rest", SOON, || {
        available(&proxy) == 2
    });
    assert!(!proxy.log().contains("rate limited"), "told at DEBUG only");
    asked.elapsed()
}

#[test]
fn a_busy_credential_rests_until_a_request_of_its_own_ends() {
    // It would end by itself after a second; on a busy machine not every round is quicker.
    let is_quick = |_| rest_of_a_busy_credential() < Duration::from_millis(900);
    assert!((0..5).any(is_quick));
}

#[test]
fn a_busy_credential_without_a_request_in_flight_rests_1_s_at_most() {
    let upstream = FakeFlow::answering_by_client(&[(
        "client-1",
        Answer::error(429, "None", "Max parallel request limit reached x")
            .header("Retry-After", "60"),
    )]);
    let proxy = start_proxy(&upstream, 2);
    assert_eq!(next_clients(&upstream, &proxy, 1), ["client-1", "client-2"]);
    let rested = Instant::now();
    wait_until("the rest to end", SOON, || available(&proxy) == 2);
    assert!(
        rested.elapsed() < Duration::from_secs(3),
        "{:?}",
        rested.elapsed()
    );
}
