//! Which credential a request is sent with, and when it is sent again with another one (contract
//! section 5).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{
    Answer, CHUNKED_POST_HEAD, EMPTY_OK, FakeFlow, HELD_BODY_LIMIT_BYTES, KIB_PER_MIB, MIB, OK,
    ProxyProcess, RawClient, RawUpstream, Response, SOON, SeenRequest, available, chunked,
    credential, get, next_clients, patterned_bytes, post, post_head, start_proxy, wait_until,
};

#[test]
fn requests_take_the_credentials_in_file_order_from_the_first() {
    let upstream = FakeFlow::start();
    let proxy = start_proxy(&upstream, 3);
    let order = next_clients(&upstream, &proxy, 7);
    let expected = [
        "client-1", "client-2", "client-3", "client-1", "client-2", "client-3", "client-1",
    ];
    assert_eq!(order, expected);
    for name in ["primary-1", "primary-2", "primary-3"] {
        let line = proxy.wait_for_log(&format!("Using configuration '{name}'"));
        assert!(
            line.ends_with(&format!(" - INFO - Using configuration '{name}'")),
            "{line}"
        );
    }
}

#[test]
fn every_start_begins_with_the_first_credential() {
    for _ in 0..2 {
        let upstream = FakeFlow::start();
        let proxy = start_proxy(&upstream, 3);
        assert_eq!(next_clients(&upstream, &proxy, 1), ["client-1"]);
    }
}

#[test]
fn the_proxys_own_pages_and_rejections_take_no_turn() {
    let upstream = FakeFlow::start();
    let proxy = start_proxy(&upstream, 2);
    assert_eq!(get(proxy.address(), "/-/health").status, 200);
    assert_eq!(get(proxy.address(), "/v1/../x").status, 400);
    assert_eq!(next_clients(&upstream, &proxy, 2), ["client-1", "client-2"]);
}

#[test]
fn a_repeated_entry_has_several_turns() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url())
        .secrets(&[credential(1), credential(1), credential(2)])
        .start();
    let expected = [
        "client-1", "client-1", "client-2", "client-1", "client-1", "client-2",
    ];
    assert_eq!(next_clients(&upstream, &proxy, 6), expected);
}

#[test]
fn parallel_requests_share_the_turns_evenly() {
    // Not tiny_http, which may leave one of several new connections waiting.
    let upstream = RawUpstream::always(EMPTY_OK);
    let proxy = start_proxy(&upstream, 3);
    let address = proxy.address();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(move || {
                let mut client = RawClient::connect(address);
                for _ in 0..20 {
                    assert_eq!(client.request("GET", "/v1/models", &[], b"").status, 200);
                }
            });
        }
    });
    let ids = upstream.client_ids();
    for id in ["client-1", "client-2", "client-3"] {
        assert_eq!(ids.iter().filter(|seen| *seen == id).count(), 40, "{id}");
    }
}

#[test]
fn a_rejected_credential_is_replaced_by_the_next_and_marked() {
    let forbidden = r#"{"error":{"type":"auth_error","message":"no"}}"#;
    for (status, body) in [(401, "no"), (403, forbidden)] {
        let upstream = FakeFlow::answering_by_client(&[("client-1", Answer::new(status, body))]);
        let proxy = start_proxy(&upstream, 3);
        let response = post(proxy.address(), "/v1/chat/completions", b"{}");
        response.assert_text(200, r#"{"ok":true}"#);
        for line in [
            format!(
                " - ERROR - Authentication failed for config 'primary-1': upstream answered {status}"
            ),
            " - ERROR - Configuration 'primary-1' marked as failed. Remaining: 2/3".to_owned(),
            " - INFO - Failover successful - using config 'primary-2'".to_owned(),
        ] {
            let logged = proxy.wait_for_log(&line);
            assert!(logged.ends_with(&line), "{logged}");
        }
        let access = proxy.wait_for_access_line(1);
        assert_eq!(
            (access.field("config"), access.number("attempts")),
            ("primary-2", 2)
        );
        assert_eq!(access.status, 200);
    }
}

#[test]
fn a_failed_credential_rests_while_the_remaining_ones_take_turns() {
    let upstream = FakeFlow::answering_by_client(&[("client-1", Answer::unauthorized())]);
    let proxy = start_proxy(&upstream, 3);
    assert_eq!(next_clients(&upstream, &proxy, 1), ["client-1", "client-2"]);
    let order = next_clients(&upstream, &proxy, 4);
    assert_eq!(order, ["client-3", "client-2", "client-3", "client-2"]);
}

#[test]
fn the_repeated_request_is_the_same_but_for_its_token() {
    let upstream = FakeFlow::answering_by_client(&[("client-1", Answer::unauthorized())]);
    let proxy = start_proxy(&upstream, 2);
    let body = patterned_bytes(100_000);
    let sent = [
        ("X-Tag", "one"),
        ("X-Tag", "two"),
        ("Content-Type", "application/json"),
    ];
    let mut client = RawClient::connect(proxy.address());
    assert_eq!(
        client.request("PATCH", "/v1/x?y=z", &sent, &body).status,
        200
    );
    let requests = upstream.requests();
    assert_eq!(requests.len(), 2);
    let without_token = |request: &SeenRequest| {
        let mut headers = request.headers.clone();
        headers.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
        (request.method.clone(), request.target.clone(), headers)
    };
    assert_eq!(without_token(&requests[0]), without_token(&requests[1]));
    assert!(requests.iter().all(|request| request.body == body));
    assert_eq!(requests[0].client_id(), "client-1");
    assert_eq!(requests[1].client_id(), "client-2");
}

#[test]
fn a_request_that_all_reject_marks_no_credential_and_passes_the_last_answer_on() {
    let upstream = FakeFlow::answering(|request| {
        if request.target.ends_with("/bad") {
            Answer::new(403, format!("no, {}", request.client_id())).header("X-Why", "because")
        } else {
            Answer::ok()
        }
    });
    let proxy = start_proxy(&upstream, 2);
    let response = get(proxy.address(), "/v1/bad");
    response.assert_text(403, "no, client-2");
    assert_eq!(
        (response.header("x-why"), response.error_code()),
        (Some("because"), "")
    );
    let line = " - ERROR - All configurations failed for this request (last answer: 403)";
    assert!(
        proxy
            .wait_for_log("All configurations failed")
            .ends_with(line)
    );
    assert!(
        !proxy.log().contains("marked as failed"),
        "one bad request cannot empty the pool"
    );
    let mut later = next_clients(&upstream, &proxy, 2);
    later.sort();
    assert_eq!(later, ["client-1", "client-2"]);
    assert_eq!(available(&proxy), 2);
}

#[test]
fn a_request_is_tried_with_each_credential_once() {
    let upstream = FakeFlow::answering(|_| Answer::unauthorized());
    let proxy = start_proxy(&upstream, 5);
    assert_eq!(get(proxy.address(), "/v1/models").status, 401);
    let each: Vec<String> = (1..=5).map(|n| format!("client-{n}")).collect();
    assert_eq!(upstream.client_ids(), each);
    let access = proxy.wait_for_access_line(1);
    assert_eq!((access.status, access.number("attempts")), (401, 5));
    assert_eq!(access.level, "WARNING");
}

#[test]
fn the_third_attempt_may_still_succeed_and_marks_both_that_failed() {
    let upstream = FakeFlow::answering_by_client(&[
        ("client-1", Answer::unauthorized()),
        ("client-2", Answer::new(401, "no")),
    ]);
    let proxy = start_proxy(&upstream, 3);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    proxy.wait_for_log("Configuration 'primary-1' marked as failed. Remaining: ");
    proxy.wait_for_log("Configuration 'primary-2' marked as failed. Remaining: 1/3");
    assert_eq!(next_clients(&upstream, &proxy, 2), ["client-3", "client-3"]);
}

#[test]
fn a_repeated_entry_is_one_credential_for_one_request() {
    let upstream = FakeFlow::answering(|_| Answer::unauthorized());
    let proxy = ProxyProcess::to(&upstream.url())
        .secrets(&[credential(1), credential(1), credential(2)])
        .start();
    assert_eq!(get(proxy.address(), "/v1/models").status, 401);
    assert_eq!(upstream.client_ids(), ["client-1", "client-2"]);
}

#[test]
fn repeated_entries_share_their_failure() {
    let upstream = FakeFlow::answering_by_client(&[("client-1", Answer::unauthorized())]);
    let mut twin = credential(1);
    twin["name"] = "twin".into();
    let proxy = ProxyProcess::to(&upstream.url())
        .secrets(&[credential(1), twin, credential(2)])
        .start();
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    let order = next_clients(&upstream, &proxy, 3);
    assert_eq!(order, ["client-2"; 3]);
}

#[test]
fn where_no_available_credential_is_left_those_at_rest_are_asked() {
    let second_is_revoked = Arc::new(AtomicBool::new(false));
    let revoked = Arc::clone(&second_is_revoked);
    let upstream = FakeFlow::answering(move |request| match request.client_id().as_str() {
        "client-1" => Answer::unauthorized(),
        _ if revoked.load(Ordering::SeqCst) => Answer::unauthorized(),
        _ => Answer::ok(),
    });
    let proxy = start_proxy(&upstream, 2);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    proxy.wait_for_log("'primary-1' marked as failed. Remaining: 1/2");
    second_is_revoked.store(true, Ordering::SeqCst);
    let response = get(proxy.address(), "/v1/models");
    assert_eq!(response.status, 401);
    let asked = ["client-1", "client-2", "client-2", "client-1"];
    assert_eq!(upstream.client_ids(), asked);
    assert!(!proxy.log().contains("'primary-2' marked as failed"));
}

#[test]
fn a_rejection_of_the_only_credential_is_passed_on() {
    let upstream = FakeFlow::answering(|_| Answer::new(401, "no"));
    let proxy = start_proxy(&upstream, 1);
    for _ in 0..3 {
        let response = get(proxy.address(), "/v1/models");
        response.assert_text(401, "no");
    }
    assert_eq!(upstream.requests().len(), 3);
    assert_eq!(available(&proxy), 1);
}

#[test]
fn no_other_status_is_held_against_the_credential() {
    let statuses = [200, 301, 400, 404, 408, 422, 500, 502, 503, 504, 529];
    let upstream = FakeFlow::answering_the_status_asked_for("body");
    let proxy = start_proxy(&upstream, 2);
    for (n, status) in statuses.into_iter().enumerate() {
        assert_eq!(
            get(proxy.address(), &format!("/v1/{status}")).status,
            status
        );
        assert_eq!(
            proxy.wait_for_access_line(n + 1).number("attempts"),
            1,
            "{status}"
        );
    }
    let turns: Vec<String> = (0..statuses.len())
        .map(|n| format!("client-{}", n % 2 + 1))
        .collect();
    assert_eq!(upstream.client_ids(), turns);
}

#[test]
fn a_connection_error_is_not_held_against_the_credential() {
    let upstream = RawUpstream::start(|connection| {
        connection.read_request();
    });
    let proxy = start_proxy(&upstream, 2);
    for _ in 0..4 {
        assert_eq!(get(proxy.address(), "/v1/models").status, 502);
    }
    assert_eq!(
        upstream.client_ids(),
        ["client-1", "client-2", "client-1", "client-2"]
    );
    assert_eq!(available(&proxy), 2);
    assert_eq!(proxy.wait_for_access_line(1).number("attempts"), 1);
}

#[test]
fn a_limited_and_a_rejected_credential_each_get_their_verdict() {
    let upstream = FakeFlow::answering_by_client(&[
        ("client-1", Answer::limited(Some("60"))),
        ("client-2", Answer::unauthorized()),
    ]);
    let proxy = start_proxy(&upstream, 3);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    proxy.wait_for_log("Configuration 'primary-1' rate limited, resting 60 s. Remaining: 2/3");
    proxy.wait_for_log("Configuration 'primary-2' marked as failed. Remaining: 1/3");
    assert_eq!(proxy.wait_for_access_line(1).number("attempts"), 3);
}

/// Sends a body with its length or in chunked coding, and reads the response.
fn post_body(proxy: &ProxyProcess, body: &[u8], coded: bool) -> Response {
    if !coded {
        return post(proxy.address(), "/v1/x", body);
    }
    let mut client = RawClient::connect(proxy.address());
    client.send(CHUNKED_POST_HEAD);
    client.send(chunked(body, 50_000));
    client.read_response()
}

#[test]
fn a_held_body_is_repeated_up_to_its_limit() {
    for coded in [false, true] {
        let upstream = FakeFlow::answering_by_client(&[("client-1", Answer::unauthorized())]);
        let proxy = start_proxy(&upstream, 2);
        let body = patterned_bytes(HELD_BODY_LIMIT_BYTES);
        assert_eq!(post_body(&proxy, &body, coded).status, 200);
        let requests = upstream.requests();
        assert_eq!(requests.len(), 2);
        assert!(requests.iter().all(|request| request.body == body));
    }
}

#[test]
fn a_streamed_body_is_not_repeated() {
    for coded in [false, true] {
        let upstream = FakeFlow::answering_by_client(&[("client-1", Answer::new(401, "no"))]);
        let proxy = start_proxy(&upstream, 2);
        let body = patterned_bytes(HELD_BODY_LIMIT_BYTES + 1);
        let response = post_body(&proxy, &body, coded);
        response.assert_text(401, "no");
        assert_eq!(upstream.requests().len(), 1);
        assert_eq!(proxy.wait_for_access_line(1).number("attempts"), 1);
        assert!(
            !proxy.log().contains("marked as failed"),
            "no credential was accepted for it"
        );
    }
}

#[test]
fn a_failover_leaves_nothing_of_the_first_answer_to_the_client() {
    let upstream = FakeFlow::answering_by_client(&[(
        "client-1",
        Answer::new(401, "x".repeat(100_000))
            .header("X-First", "1")
            .header("Set-Cookie", "a=1"),
    )]);
    let proxy = start_proxy(&upstream, 2);
    let mut client = RawClient::connect(proxy.address());
    for _ in 0..3 {
        let response = client.request("POST", "/v1/x", &[], b"body");
        response.assert_text(200, r#"{"ok":true}"#);
        assert_eq!(
            (response.header("x-first"), response.header("set-cookie")),
            (None, None)
        );
    }
}

#[test]
fn a_rejection_that_never_ends_does_not_hold_the_failover_up() {
    let upstream = RawUpstream::start(|connection| {
        while let Some(request) = connection.read_request() {
            if request.client_id() == "client-1" {
                connection.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 100\r\n\r\nhalf");
                connection.wait_for_close(Duration::from_secs(60));
                return;
            }
            connection.send(OK);
        }
    });
    let proxy = start_proxy(&upstream, 2);
    let asked = Instant::now();
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
}

// 64 MiB are held together: of three bodies at once one is streamed and sent once.
#[test]
fn bodies_that_are_held_together_are_bounded() {
    let upstream = RawUpstream::start(|connection| {
        while let Some(request) = connection.read_request_head() {
            let length = request.header("content-length").map(str::to_owned);
            let length: usize = length.and_then(|text| text.parse().ok()).unwrap_or(0);
            if request.client_id() == "client-1" {
                connection.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
            } else {
                connection.send(OK);
            }
            if length > 0 {
                connection.wait_for_close(SOON);
                return;
            }
        }
    });
    let proxy = start_proxy(&upstream, 2);
    let before = proxy.rss_kib();
    let mut clients: Vec<RawClient> = (0..3)
        .map(|_| RawClient::connect(proxy.address()))
        .collect();
    let body = vec![b'x'; 30 * MIB];
    for client in &mut clients {
        client.send(post_head(body.len()));
        client.send(&body[..body.len() - 1]);
    }
    wait_until("the body that streams", SOON, || upstream.connections() > 0);
    let grown = proxy.rss_kib().saturating_sub(before);
    assert!(grown < 80 * KIB_PER_MIB, "grew by {grown} KiB");
    drop(clients);
    wait_until("the memory to be given back", SOON, || {
        proxy.rss_kib().saturating_sub(before) < 16 * KIB_PER_MIB
    });
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
}
