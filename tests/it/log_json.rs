//! The log as JSON: one object a line, with the fields of the text (contract section 6).

use serde_json::{Value, json};

use crate::support::{
    Answer, FakeFlow, ProxyProcess, RawClient, SOON, credential, get, send_and_read, wait_for,
    wait_until,
};

/// What differs from one request to the next.
const VARYING: [&str; 4] = ["time", "peer", "ttfb_ms", "duration_ms"];

/// The members of an object in their order, strings without quotes, as far as its line is as expected: one
/// object without nesting and with these two members first.
fn members(line: &str) -> Vec<(String, String)> {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let object = value.as_object().expect("an object");
    let place = |name: &str| {
        line.find(&format!("\"{name}\":"))
            .expect("each member once")
    };
    let mut members: Vec<(usize, String, String)> = object
        .iter()
        .map(|(name, value)| {
            let text = value.as_str().map_or(value.to_string(), str::to_owned);
            (place(name), name.clone(), text)
        })
        .collect();
    members.sort();
    let members: Vec<_> = members.into_iter().map(|(_, n, v)| (n, v)).collect();
    assert!(
        line.starts_with("{\"time\":\"") && members[1].0 == "level",
        "{line}"
    );
    members
}

/// The fields of an access line in text, in their order, named as in JSON.
fn fields_of_text(line: &str) -> Vec<(String, String)> {
    let mut parts = line.splitn(3, " - ");
    let mut part = || parts.next().expect("three parts");
    let (time, level, message) = (part(), part(), part());
    let (peer, rest) = message.split_once(" \"").expect("the request");
    let (method, rest) = rest.split_once(' ').expect("a path");
    let (path, rest) = rest.split_once("\" ").expect("a status");
    let (status, rest) = rest.split_once(' ').expect("fields");
    let head = [
        ("time", time),
        ("level", level),
        ("peer", peer),
        ("method", method),
        ("path", path),
        ("status", status),
    ];
    let rest = rest.split(' ').filter_map(|field| field.split_once('='));
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.trim_matches('\'').to_owned());
    head.into_iter().chain(rest).map(own).collect()
}

fn access_line(proxy: &ProxyProcess, mark: &str) -> String {
    wait_for("the access line", SOON, || {
        let log = proxy.log();
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        whole
            .lines()
            .find(|line| line.contains(mark))
            .map(str::to_owned)
    })
}

#[test]
fn every_line_of_file_and_stderr_is_one_object_in_local_time() {
    let upstream = FakeFlow::start();
    let mut proxy = ProxyProcess::to(&upstream.url())
        .options(&[("--log-format", "JSON"), ("--log-level", "DEBUG")])
        .env("TZ", "NST3:30")
        .start();
    get(proxy.address(), "/v1/models");
    get(proxy.address(), "/-/x");
    proxy.signal("HUP");
    proxy.wait_for_log("reopened");
    proxy.signal("TERM");
    proxy.wait_for_exit(SOON);
    let file = std::fs::read_to_string(proxy.file("flow_proxy_plugin.log")).expect("the log file");
    wait_until("the last line", SOON, || {
        proxy.log().contains("\"Stopped\"")
    });
    for text in [&file, &proxy.log()] {
        assert!(text.lines().count() > 8, "{text}");
        for line in text.lines() {
            let members = members(line);
            let time = &members[0].1;
            let shape: String = time
                .chars()
                .map(|c| if c.is_ascii_digit() { '0' } else { c })
                .collect();
            assert_eq!(shape, "0000-00-00T00:00:00-00:00", "{line}");
            assert!(time.ends_with("-03:30"), "{line}");
            assert!(
                ["DEBUG", "INFO", "WARNING", "ERROR"].contains(&&*members[1].1),
                "{line}"
            );
            let is_message = members.len() == 3 && members[2].0 == "message";
            assert!(is_message || members[2].0 == "peer", "{line}");
        }
        assert!(text.contains("\"level\":\"INFO\",\"message\":\"Listening on http://127.0.0.1:"));
        assert!(text.contains("\"message\":\"Using configuration 'primary-1'\"}\n"));
    }
}

#[test]
fn an_access_line_has_the_fields_of_the_text_in_their_order() {
    let upstream = FakeFlow::answering(|request| {
        let status = if request.target.contains("/limited") {
            429
        } else {
            200
        };
        let body = json!({
            "model": "gpt-4o",
            "usage": {
                "prompt_tokens": 1200,
                "prompt_tokens_details": {"cached_tokens": 1024},
                "completion_tokens": 88,
            },
        });
        Answer::new(status, body.to_string())
            .header("Content-Type", "application/json")
            .header("x-litellm-response-cost", "2.9999999999999997e-05")
            .header("x-request-id", "theirs")
            .header("x-litellm-call-id", "call-1")
    });
    let start = |format| {
        let builder = ProxyProcess::to(&upstream.url()).option("--log-format", format);
        builder.start()
    };
    let (text, json) = (start("text"), start("json"));
    let sent = [
        ("User-Agent", "claude-cli/2.1.9 (external, cli)"),
        ("session-id", "s-1"),
        ("x-request-id", "a b'c"),
    ];
    let mut names = vec![];
    for path in ["/v1/chat/completions", "/v1/limited", "/-/x", "/v1/it's%22"] {
        let [text, json] = [&text, &json].map(|proxy| {
            let mut client = RawClient::connect(proxy.address());
            client.request(
                "POST",
                &format!("{path}?query"),
                &sent,
                b"{\"model\":\"gpt-4o\"}",
            );
            let method_and_path = path.replace('\'', "%27");
            access_line(proxy, &method_and_path)
        });
        let (text, json) = (fields_of_text(&text), members(&json));
        let fixed = |fields: &[(String, String)]| -> Vec<(String, String)> {
            let shown = |(name, value): &(String, String)| match name.as_str() {
                name if VARYING.contains(&name) => (name.to_owned(), String::new()),
                // JSON writes the same number with an exponent.
                "cost" => (
                    name.clone(),
                    value.parse::<f64>().expect("a cost").to_string(),
                ),
                _ => (name.clone(), value.clone()),
            };
            fields.iter().map(shown).collect()
        };
        assert_eq!(fixed(&json), fixed(&text), "{path}");
        names.extend(json.into_iter().map(|(name, _)| name));
    }
    for name in [
        "reason",
        "error",
        "cost",
        "cached_tokens",
        "agent",
        "session",
        "call_id",
    ] {
        assert!(names.iter().any(|one| one == name), "{name}");
    }
}

#[test]
fn numbers_are_numbers_and_the_rest_is_text() {
    let upstream = FakeFlow::answering(|_| Answer::new(200, r#"{"usage":{"cost":0.0041}}"#));
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--log-format", "json")
        .start();
    let mut client = RawClient::connect(proxy.address());
    let id = [("x-request-id", "12")];
    client.request("POST", "/v1/chat/completions", &id, b"{\"model\":\"4\"}");
    let line: Value = serde_json::from_str(&access_line(&proxy, "\"peer\"")).expect("JSON");
    for name in ["status", "attempts", "ttfb_ms", "duration_ms", "in", "out"] {
        assert!(line[name].is_u64(), "{name} in {line}");
    }
    let shown = [
        "peer", "method", "status", "config", "end", "model", "cost", "id",
    ];
    let values = shown.map(|name| line[name].clone());
    let peer = client.local_address();
    let expected = json!([peer, "POST", 200, "primary-1", "ok", "4", 0.0041, "12"]);
    assert_eq!(json!(values), expected);
    assert!(line.get("message").is_none(), "{line}");
}

#[test]
fn nothing_from_outside_leaves_its_string() {
    let upstream = FakeFlow::start();
    let name = "b\\c {} 中\u{1F600}";
    let mut entry = credential(1);
    entry["name"] = json!(name);
    let mut proxy = ProxyProcess::to(&upstream.url())
        .secrets(&[entry])
        .option("--log-format", "json")
        .start();
    for request in [
        &b"GET /v1/x\" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"[..],
        b"GET /v1/\\u2028\xff HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nx-request-id: \"},{\\\xe9\r\n\
          User-Agent: \"\\\"/1\\u0000 x\r\n\r\n",
        b"GET /v1/x HTTP/1.1\r\nHost: evil\"\\\xff\r\nConnection: close\r\n\r\n",
    ] {
        send_and_read(&proxy, request);
    }
    proxy.signal("TERM");
    proxy.wait_for_exit(SOON);
    let file = std::fs::read(proxy.file("flow_proxy_plugin.log")).expect("the log file");
    let text = String::from_utf8(file).expect("UTF-8");
    let is_shown = |c: char| c == '\n' || (!c.is_control() && !"\u{2028}\u{202e}".contains(c));
    assert!(text.chars().all(is_shown), "{text:?}");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let used = format!("Using configuration '{name}'");
    assert!(lines.iter().any(|line| line["message"] == *used), "{text}");
    let paths = lines.iter().filter(|line| line["path"].is_string());
    assert!(paths.count() >= 3, "{text}");
    assert!(lines.iter().any(|line| line["config"] == *name), "{text}");
}

#[test]
fn a_format_that_is_none_is_a_bad_value() {
    let finished = ProxyProcess::to("http://127.0.0.1:9/x")
        .env("FLOW_PROXY_LOG_FORMAT", "xml")
        .command("check")
        .run_to_end(SOON);
    assert_eq!(finished.code, Some(2), "{finished:?}");
    let line = "flow-proxy: FLOW_PROXY_LOG_FORMAT: 'xml' is neither text nor json\n";
    assert!(finished.stderr.contains(line), "{finished:?}");
}
