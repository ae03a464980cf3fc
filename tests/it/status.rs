//! What has passed, in numbers: status, metrics and who may see them (contract sections 10 and 12).

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::support::{
    Answer, FakeFlow, ProxyProcess, RawClient, Response, SOON, ask_for, credential, get, post,
    start_proxy, start_stream, wait_until,
};

fn status(proxy: &ProxyProcess) -> Value {
    let response = get(proxy.address(), "/-/status");
    assert_eq!(response.status, 200);
    assert_eq!(response.header("cache-control"), Some("no-store"));
    response.json()
}

/// The status once so many requests have ended: they are counted behind their response.
fn status_after(proxy: &ProxyProcess, requests: u64) -> Value {
    let mut found = Value::Null;
    wait_until("the requests to be counted", SOON, || {
        found = status(proxy);
        let counted = &found["requests"];
        counted["total"] == requests && counted["in_flight"] == 0
    });
    found
}

/// The samples of the metrics, each with its labels as they are written.
fn metrics(proxy: &ProxyProcess) -> BTreeMap<String, f64> {
    let response = get(proxy.address(), "/-/metrics");
    let kind = response.header("content-type").unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let text = response.text();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let mut found = BTreeMap::new();
    for line in samples {
        let (name, value) = line.rsplit_once(' ').expect("a sample");
        let is_new = found.insert(name.to_owned(), value.parse().unwrap());
        assert!(is_new.is_none(), "two samples of {name}");
    }
    found
}

const CHAT: &str = "/v1/chat/completions";
const USAGE: &str = r#"{"model":"m-1","choices":[],"usage":{"prompt_tokens":100,
    "completion_tokens":7,"prompt_tokens_details":{"cached_tokens":60}}}"#;

fn told() -> Answer {
    Answer::new(200, USAGE)
        .header("x-litellm-response-cost", "0.25")
        .header("x-litellm-key-spend", "2.5")
        .header("x-litellm-key-max-budget", "10.0")
}

#[test]
fn status_and_metrics_tell_the_same_of_what_has_passed() {
    let upstream = FakeFlow::answering(|request| match request.body.as_slice() {
        b"quiet" => Answer::new(200, "{}"),
        _ => told(),
    });
    let proxy = start_proxy(&upstream, 2);
    for body in [r#"{"model":"m-1"}"#, r#"{"model":"m-1"}"#, "quiet"] {
        assert_eq!(post(proxy.address(), CHAT, body.as_bytes()).status, 200);
    }
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    let status = status_after(&proxy, 4);
    let requests = &status["requests"];
    assert_eq!(
        (&requests["total"], &requests["in_flight"]),
        (&4.into(), &0.into())
    );
    assert_eq!(requests["by_status"], serde_json::json!({"2xx": 4}));
    let tokens = serde_json::json!(
        {"input": 200, "cached": 120, "output": 14, "known": 3 - 1, "unknown": 1});
    assert_eq!(status["tokens"], tokens);
    assert_eq!(
        status["cost"],
        serde_json::json!({"total": 0.5, "unknown": 1})
    );
    let summary = status["summary"].as_str().unwrap();
    assert_eq!(
        summary,
        "2 of 2 configurations available. 4 requests in the last hour, 0 failed over."
    );
    let model = &status["models"][0];
    assert_eq!(
        (&model["model"], &model["requests"]),
        (&"m-1".into(), &2.into())
    );
    assert_eq!(status["minutes"].as_array().unwrap().len(), 60);
    let recent = status["recent"].as_array().unwrap();
    assert_eq!(recent.len(), 4);
    assert_eq!(
        (&recent[0]["method"], &recent[0]["path"]),
        (&"GET".into(), &"/v1/models".into())
    );
    let sum = |field: &str| -> u64 {
        let configurations = status["configurations"].as_array().unwrap();
        configurations
            .iter()
            .map(|one| one["tokens"][field].as_u64().unwrap())
            .sum()
    };
    assert_eq!((sum("input"), sum("unknown")), (200, 1));
    let spent = status["configurations"].as_array().unwrap().iter();
    assert!(
        spent
            .clone()
            .any(|one| one["spend"] == 2.5 && one["budget"] == 10.0)
    );

    let metrics = metrics(&proxy);
    let total = |start: &str, end: &str| -> f64 {
        let fits = |name: &&String| name.starts_with(start) && name.contains(end);
        metrics
            .iter()
            .filter(|(name, _)| fits(name))
            .map(|(_, value)| value)
            .sum()
    };
    assert_eq!(
        total("flow_proxy_requests_total", "status=\"200\",end=\"ok\""),
        4.0
    );
    assert_eq!(total("flow_proxy_attempts_total", "verdict=\"ok\""), 4.0);
    assert_eq!(total("flow_proxy_tokens_total", "kind=\"input\""), 200.0);
    assert_eq!(total("flow_proxy_tokens_total", "kind=\"cached\""), 120.0);
    assert_eq!(total("flow_proxy_cost_usd_total", "model=\"m-1\""), 0.5);
    assert_eq!(total("flow_proxy_usage_unknown_total", ""), 1.0);
    assert_eq!(total("flow_proxy_config_available", ""), 2.0);
    assert_eq!(total("flow_proxy_request_duration_seconds_count", ""), 4.0);
    assert!(total("process_resident_memory_bytes", "") > 1e6);
}

#[test]
fn a_rest_is_told_with_its_reason_and_its_end() {
    let upstream = FakeFlow::answering_by_client(&[
        ("client-1", Answer::unauthorized()),
        ("client-2", Answer::limited(Some("40"))),
    ]);
    let proxy = start_proxy(&upstream, 3);
    assert_eq!(post(proxy.address(), CHAT, b"{}").status, 200);
    let status = status_after(&proxy, 1);
    let one = |index: usize| &status["configurations"][index];
    assert_eq!(
        (&one(0)["state"], &one(0)["reason"]),
        (&"failed".into(), &"401 rejected".into())
    );
    assert_eq!(
        (&one(1)["state"], &one(1)["reason"]),
        (&"limited".into(), &"429 rate limit".into())
    );
    let rest = one(1)["rest_s"].as_u64().unwrap();
    assert!((30..=40).contains(&rest), "{rest}");
    assert!(one(1)["until"].as_str().unwrap() > one(1)["since"].as_str().unwrap());
    assert_eq!(
        (&one(2)["state"], &one(2)["rest_s"]),
        (&"available".into(), &Value::Null)
    );
    assert_eq!(
        (&one(0)["rejected"], &one(2)["rejected"]),
        (&1.into(), &0.into())
    );
    assert_eq!(status["requests"]["failed_over"], 1);
    let metrics = metrics(&proxy);
    assert_eq!(
        metrics["flow_proxy_config_available{config=\"primary-1\"}"],
        0.0
    );
    assert!(metrics["flow_proxy_config_rest_seconds{config=\"primary-2\"}"] > 29.0);
}

#[test]
fn a_request_on_its_way_is_in_flight_and_the_look_itself_is_not() {
    let (_upstream, _commands, proxy, client) = start_stream(&[]);
    let during = status(&proxy);
    let in_flight = &during["configurations"][0]["in_flight"];
    assert_eq!(
        (&during["requests"]["in_flight"], in_flight),
        (&1.into(), &1.into())
    );
    assert_eq!(during["workers"]["busy"], 1);
    drop(client);
    wait_until("the request's end", SOON, || {
        let after = status(&proxy);
        after["requests"]["in_flight"] == 0 && after["recent"][0]["end"] == "client_gone"
    });
    assert_eq!(status(&proxy)["configurations"][0]["in_flight"], 0);
}

#[test]
fn after_a_reload_the_counters_of_old_names_stay() {
    let upstream = FakeFlow::answering(|_| told());
    let proxy = ProxyProcess::to(&upstream.url()).start();
    assert_eq!(ask_for(&proxy, "m-1").status, 200);
    let secrets = serde_json::json!([credential(7)]).to_string();
    fs::write(proxy.file("secrets.json"), secrets).unwrap();
    proxy.signal("HUP");
    wait_until("the new configuration", SOON, || {
        status(&proxy)["configurations"][0]["name"] == "primary-7"
    });
    assert_eq!(ask_for(&proxy, "m-1").status, 200);
    let status = status_after(&proxy, 2);
    let old = &status["configurations"][1];
    assert_eq!(
        (&old["name"], &old["state"]),
        (&"primary-1".into(), &"removed".into())
    );
    assert_eq!(
        (&old["tokens"]["input"], &status["tokens"]["input"]),
        (&100.into(), &200.into())
    );
    let old = r#"flow_proxy_tokens_total{config="primary-1",model="m-1",kind="output"}"#;
    assert_eq!(metrics(&proxy)[old], 7.0);
}

#[test]
fn entries_of_one_name_make_one_series() {
    let upstream = FakeFlow::start();
    let named = |number| {
        let mut entry = credential(number);
        entry["name"] = "a\\b".into();
        entry
    };
    let proxy = ProxyProcess::to(&upstream.url())
        .secrets(&[named(1), named(2)])
        .start();
    for _ in 0..2 {
        assert_eq!(ask_for(&proxy, "m").status, 200);
    }
    let status = status_after(&proxy, 2);
    let configurations = &status["configurations"];
    let metrics = metrics(&proxy);
    assert_eq!(
        metrics[r#"flow_proxy_config_available{config="a\\b"}"#],
        2.0
    );
    let requests = r#"flow_proxy_requests_total{config="a\\b",status="200",end="ok"}"#;
    assert_eq!(metrics[requests], 2.0);
    assert_eq!(configurations.as_array().unwrap().len(), 1);
    assert_eq!(configurations[0]["requests"], 2);
}

/// Sends a request head as it stands; returns the response.
fn send(proxy: &ProxyProcess, head: &str) -> Response {
    let mut client = RawClient::connect(proxy.address());
    client.send(format!(
        "{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    ));
    client.read_response()
}

#[test]
fn pages_are_for_callers_on_this_machine_and_are_read_only() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    for page in ["", "status", "metrics"] {
        let get = send(&proxy, &format!("GET /-/{page} HTTP/1.1"));
        assert_eq!(get.status, 200, "{page}");
        let post = send(
            &proxy,
            &format!("POST /-/{page} HTTP/1.1\r\nContent-Length: 0"),
        );
        assert_eq!(
            (post.status, post.error_code()),
            (405, "method_not_allowed")
        );
        for front in [
            "X-Forwarded-For: 10.0.0.1",
            "Forwarded: for=a",
            "Via: 1.1 a",
            "X-Real-IP: a",
        ] {
            let through = send(&proxy, &format!("GET /-/{page} HTTP/1.1\r\n{front}"));
            assert_eq!((through.status, through.error_code()), (403, "forbidden"));
            assert!(through.text().contains("through another proxy"));
        }
        let foreign = send(
            &proxy,
            &format!("GET /-/{page} HTTP/1.1\r\nOrigin: https://evil.example"),
        );
        assert_eq!(foreign.status, 403, "{page}");
    }
    let page = send(&proxy, "GET /-/ HTTP/1.1");
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'sha256-"),
        "{policy}"
    );
    assert_eq!(page.header("access-control-allow-origin"), None);
    // Looking is not counted.
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(status(&proxy)["requests"]["by_status"]["2xx"], Value::Null);
}

#[test]
fn a_browser_that_asks_for_the_root_is_sent_to_the_page() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    let html = "Accept: text/html,application/xhtml+xml";
    let led = send(&proxy, &format!("GET / HTTP/1.1\r\n{html}"));
    assert_eq!((led.status, led.header("location")), (302, Some("/-/")));
    assert_eq!(upstream.requests().len(), 0);
    for head in [
        "GET / HTTP/1.1\r\nAccept: */*".to_owned(),
        format!("GET / HTTP/1.1\r\n{html}\r\nVia: 1.1 front"),
        format!("POST / HTTP/1.1\r\nContent-Length: 0\r\n{html}"),
        format!("GET /x HTTP/1.1\r\n{html}"),
    ] {
        assert_eq!(send(&proxy, &head).status, 200, "{head}");
    }
    assert_eq!(upstream.requests().len(), 4);
}

#[test]
fn a_response_that_is_passed_on_after_others_counts_for_its_own_configuration() {
    let upstream = FakeFlow::answering_by_client(&[
        (
            "client-1",
            Answer::limited(Some("40")).header("x-litellm-key-spend", "7"),
        ),
        ("client-2", Answer::unauthorized()),
    ]);
    let proxy = start_proxy(&upstream, 2);
    assert_eq!(post(proxy.address(), CHAT, b"{}").status, 429);
    let status = status_after(&proxy, 1);
    let one = |index: usize| &status["configurations"][index];
    assert_eq!(
        (&one(0)["requests"], &one(0)["spend"]),
        (&1.into(), &7.0.into())
    );
    assert_eq!(
        (&one(1)["requests"], &one(1)["rejected"]),
        (&0.into(), &1.into())
    );
    let line = proxy.wait_for_access_line(1);
    assert_eq!(
        (line.field("config"), line.field("attempts")),
        ("primary-1", "2")
    );
}

#[test]
fn the_status_is_whole_while_all_workers_are_busy() {
    let (_upstream, _commands, proxy, _client) = start_stream(&[("--workers", "1")]);
    let entries: Vec<Value> = (1..=700).map(credential).collect();
    fs::write(proxy.file("secrets.json"), Value::from(entries).to_string()).unwrap();
    proxy.signal("HUP");
    wait_until("the new configurations", SOON, || {
        let status = status(&proxy);
        let configurations = status["configurations"].as_array().unwrap();
        assert_eq!(status["workers"]["busy"], 1);
        configurations.len() >= 700
    });
    let mut slow = RawClient::connect(proxy.address());
    slow.send("GET /-/status HTTP/1.1\r\nHost: localhost\r\n\r\n");
    // The whole body is on its way before anything is read.
    wait_until("another page", SOON, || {
        get(proxy.address(), "/-/health").status == 200
    });
    let response = slow.read_response();
    assert!(response.body.len() > 150_000, "{}", response.body.len());
}

#[test]
fn what_the_proxy_rejects_washes_away_no_request_that_it_served() {
    let upstream = FakeFlow::answering(|_| told());
    let proxy = ProxyProcess::to(&upstream.url()).start();
    assert_eq!(ask_for(&proxy, "m-1").status, 200);
    for _ in 0..25 {
        let image = "GET /what-it-says HTTP/1.1\r\nSec-Fetch-Site: cross-site";
        assert_eq!(send(&proxy, image).status, 403);
    }
    let status = status_after(&proxy, 26);
    let recent = status["recent"].as_array().unwrap();
    assert_eq!(recent.len(), 1, "{recent:?}");
    assert_eq!(status["requests"]["by_status"]["4xx"], 25);
}
