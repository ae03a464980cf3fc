//! Credentials that may not use a model, or are limited for it, are passed over for it alone (contract
//! section 5).

use std::time::{Duration, Instant};

use crate::support::{
    Answer, FakeFlow, MIB, ProxyProcess, ask_for, available, clients_for, get, post, start_proxy,
};

/// Denies `vip-model` to the first credential.
fn denying_vip() -> FakeFlow {
    FakeFlow::answering(|request| {
        let body = String::from_utf8_lossy(&request.body);
        if request.client_id() == "client-1" && body.starts_with(r#"{"messages":[],"model":"vip"#) {
            let message = "key not allowed to access model. This key can only access models=['x']";
            return Answer::error(403, "key_model_access_denied", message);
        }
        Answer::ok()
    })
}

/// Starts a proxy whose first credential rests for `vip-model`.
fn start_resting_for_vip() -> (FakeFlow, ProxyProcess) {
    let upstream = denying_vip();
    let proxy = start_proxy(&upstream, 2);
    assert_eq!(ask_for(&proxy, "vip-model").status, 200);
    assert_eq!(upstream.client_ids(), ["client-1", "client-2"]);
    let line =
        "Configuration 'primary-1' may not use model 'vip-model', passed over for it for 600 s";
    assert!(
        proxy
            .wait_for_log("passed over")
            .ends_with(&format!(" - WARNING - {line}"))
    );
    (upstream, proxy)
}

#[test]
fn a_denied_model_is_not_asked_for_again_and_others_are() {
    let (upstream, proxy) = start_resting_for_vip();
    assert_eq!(
        clients_for(&upstream, &proxy, "vip-model", 2),
        ["client-2"; 2]
    );
    assert_eq!(available(&proxy), 2);
    let mixed = [
        clients_for(&upstream, &proxy, "gpt-4o", 1),
        clients_for(&upstream, &proxy, "vip-model", 1),
        clients_for(&upstream, &proxy, "gpt-4o", 1),
        clients_for(&upstream, &proxy, "gpt-4o", 1),
    ];
    let clients: Vec<&str> = mixed.iter().flatten().map(String::as_str).collect();
    assert_eq!(clients, ["client-1", "client-2", "client-1", "client-2"]);
}

#[test]
fn the_model_is_found_wherever_and_however_it_stands() {
    let (upstream, proxy) = start_resting_for_vip();
    let megabyte = "x".repeat(MIB);
    let bodies = [
        r#"{"mod\u0065l":"vip\u002dmodel"}"#.to_owned(),
        r#"{"metadata":{"model":"gpt-4o"},"messages":[{"model":"gpt-4o"}],"model":"vip-model"}"#
            .to_owned(),
        r#"{"x":"\"model\":\"gpt-4o\",","model":"vip-model"}"#.to_owned(),
        r#"{"model":"gpt-4o","model":"vip-model"}"#.to_owned(),
        format!(r#"{{"messages":[{{"content":"{megabyte}"}}],"model":"vip-model"}}"#),
        "\u{feff}{\"model\":\"vip-model\"}".to_owned(),
        " \r\n\t{ \"model\" : \"vip-model\" }".to_owned(),
    ];
    for body in bodies {
        let before = upstream.requests().len();
        let response = post(proxy.address(), "/v1/chat/completions", body.as_bytes());
        assert_eq!(response.status, 200);
        let asked = upstream.client_ids().split_off(before);
        assert_eq!(asked, ["client-2"], "{}", &body[..body.len().min(100)]);
    }
    for path in [
        "/v1/models/vip-model",
        "/v1beta/models/vip-model:generateContent",
        "/openai/deployments/vip-model/chat/completions",
        "/models/vip%2Dmodel",
    ] {
        let before = upstream.requests().len();
        assert_eq!(get(proxy.address(), path).status, 200);
        assert_eq!(
            upstream.client_ids().split_off(before),
            ["client-2"],
            "{path}"
        );
    }
}

#[test]
fn another_model_than_the_one_at_rest_takes_its_turn() {
    let (upstream, proxy) = start_resting_for_vip();
    let bodies = [
        r#"{"model":"a","model":"gpt-4o"}"#,
        r#"{"model":"gpt-4o","x":{"model":"vip-model"}}"#,
        r#"{"messages":[""model":"vip-model""],"x":"model"}"#,
    ];
    for body in bodies {
        let before = upstream.requests().len();
        for _ in 0..2 {
            post(proxy.address(), "/v1/chat/completions", body.as_bytes());
        }
        let asked = upstream.client_ids().split_off(before);
        assert_eq!(asked, ["client-1", "client-2"], "{body}");
    }
}

#[test]
fn a_request_without_a_model_leaves_no_rest_for_one() {
    let upstream = FakeFlow::answering_by_client(&[(
        "client-1",
        Answer::error(401, "team_model_access_denied", "x"),
    )]);
    let proxy = start_proxy(&upstream, 2);
    assert_eq!(get(proxy.address(), "/v1/files").status, 200);
    assert_eq!(upstream.client_ids(), ["client-1", "client-2"]);
    assert!(!proxy.log().contains("passed over"));
    assert_eq!(get(proxy.address(), "/v1/files").status, 200);
    assert_eq!(upstream.client_ids()[2..], ["client-1", "client-2"]);
}

#[test]
fn a_denial_of_another_model_than_the_one_asked_for_leaves_no_rest() {
    let upstream = FakeFlow::answering_by_client(&[(
        "client-1",
        Answer::error(401, "None", "The requested model 'fallback' is not allowed"),
    )]);
    let proxy = start_proxy(&upstream, 2);
    for _ in 0..2 {
        assert_eq!(ask_for(&proxy, "gpt-4o").status, 200);
    }
    assert_eq!(upstream.client_ids()[2..], ["client-1", "client-2"]);
    assert!(!proxy.log().contains("passed over"));
}

#[test]
fn where_no_other_is_left_a_denied_model_is_asked_for_all_the_same() {
    let upstream = FakeFlow::answering(|_| Answer::error(403, "key_model_access_denied", "x"));
    let proxy = start_proxy(&upstream, 2);
    for attempts in [2, 1, 1] {
        let before = upstream.requests().len();
        let response = ask_for(&proxy, "vip-model");
        assert_eq!((response.status, response.error_code()), (403, ""));
        assert_eq!(response.header("x-should-retry"), Some("false"));
        assert_eq!(upstream.requests().len() - before, attempts);
    }
}

#[test]
fn a_limit_for_a_model_rests_for_it_alone() {
    let upstream = FakeFlow::answering(|request| {
        let is_vip = String::from_utf8_lossy(&request.body).contains("vip-model");
        if is_vip && request.client_id() == "client-1" {
            let message = "Rate limit exceeded for model_per_key: x. Limit type: requests.";
            return Answer::error(429, "None", message).header("Retry-After", "7");
        }
        Answer::ok()
    });
    let proxy = start_proxy(&upstream, 2);
    assert_eq!(ask_for(&proxy, "vip-model").status, 200);
    let line = "Configuration 'primary-1' rate limited for model 'vip-model', resting 7 s";
    assert!(
        proxy
            .wait_for_log("rate limited")
            .ends_with(&format!(" - WARNING - {line}"))
    );
    assert_eq!(
        clients_for(&upstream, &proxy, "vip-model", 2),
        ["client-2"; 2]
    );
    assert_eq!(
        clients_for(&upstream, &proxy, "gpt-4o", 2),
        ["client-1", "client-2"]
    );
}

// The model is read from a body of 1 MB for each request while a credential rests for one.
#[test]
fn many_models_fill_no_memory_and_take_no_time() {
    let (_upstream, proxy) = start_resting_for_vip();
    let before = proxy.rss_kib();
    let started = Instant::now();
    for n in 0..300 {
        assert_eq!(ask_for(&proxy, &format!("vip-{n}")).status, 200);
    }
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "{:?}",
        started.elapsed()
    );
    assert!(proxy.rss_kib().saturating_sub(before) < 4 * 1024);
    assert_eq!(
        ask_for(&proxy, "vip-model").status,
        200,
        "served, though its rest gave way"
    );
}

#[test]
fn a_model_is_told_without_what_could_forge_a_line() {
    let upstream = denying_vip();
    let proxy = start_proxy(&upstream, 2);
    let model = format!(
        "vip\n2026-01-01 00:00:00 - ERROR - 'x'\u{1b}[31m\"é{}",
        "y".repeat(300)
    );
    assert_eq!(ask_for(&proxy, &model).status, 200);
    let log = proxy.log();
    assert!(!log.contains("\n2026-01-01 00:00:00"), "{log}");
    assert!(!log.contains('\u{1b}') && !log.contains('é') && !log.contains(&"y".repeat(129)));
}
