//! The command `status`: what it shows of the page of a running proxy, and of what is none (contract
//! sections 2 and 12).

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::support::{
    Answer, ClosedPort, FakeFlow, Finished, ProxyProcess, RawUpstream, SOON, WorkDir, get, post,
    pseudo_terminal, wait_for,
};

/// A page of a proxy with one configuration that is limited, one that has failed and one that is well.
fn page() -> Value {
    json!({
        "version": "0.2.0", "state": "serving", "started_at": "2026-01-15T10:30:00Z", "uptime_s": 4210,
        "summary": "1 of 3 configurations available. 41 requests in the last hour, 1 failed over.",
        "target": "https://flow.example/flow-llm-proxy",
        "workers": {"busy": 3, "total": 256}, "connections": 12,
        "requests": {"total": 4120, "in_flight": 3, "last_hour": 41, "failed_over": 9,
            "by_status": {"2xx": 4108, "4xx": 8, "5xx": 1, "499": 3}},
        "tokens": {"input": 120000, "cached": 90000, "output": 4000, "known": 388, "unknown": 12},
        "cost": {"total": 1.25, "unknown": 200},
        "configurations": [
            {"name": "primary-1", "state": "limited", "reason": "429 requests limit",
             "since": "2026-01-15T10:30:00Z", "until": "2026-01-15T10:31:41Z", "rest_s": 41,
             "requests": 137, "in_flight": 1, "rejected": 2,
             "tokens": {"input": 9000, "cached": 0, "output": 1, "known": 1, "unknown": 0},
             "cost": {"total": 0.5, "unknown": 0}, "spend": 2.1, "budget": 10.0,
             "models": [{"model": "vip-model", "state": "denied", "rest_s": 580}]},
            {"name": "primary-2", "state": "available", "reason": null, "since": null, "until": null,
             "rest_s": null, "requests": 3983, "models": []},
            {"name": "primary-3", "state": "failed", "reason": "401 auth_error", "rest_s": 900},
        ],
        "models": [{"model": "gpt-4o", "requests": 412, "tokens": {"input": 120000}, "cost": {},
            "ttfb_ms": {"p50": 310, "p95": 900}}],
        "clients": [{"client": "-", "agent": "claude-cli/2.1", "requests": 412}],
        "minutes": [], "recent": [],
    })
}

fn response(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Runs `status` with more arguments against a listener that answers everything so.
fn status_at(answer: impl Into<Vec<u8>>, args: &[&str]) -> Finished {
    let listener = RawUpstream::once(answer);
    let port = listener.address().port();
    let mut command = ProxyProcess::bare().command("status").port(port);
    for arg in args {
        command = command.arg(arg);
    }
    let finished = command.run_to_end(SOON);
    assert!(
        listener
            .requests()
            .iter()
            .all(|request| request.target == "/-/status")
    );
    finished
}

fn status_of(page: &Value) -> String {
    let run = status_at(response("200 OK", &page.to_string()), &[]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
    run.stdout
}

#[test]
fn it_tells_which_configuration_is_ill_and_why_and_until_when() {
    let run = {
        let listener = RawUpstream::always(response("200 OK", &page().to_string()));
        let port = listener.address().port();
        let command = ProxyProcess::bare().command("status").port(port);
        command.env("TZ", "CET-1").run_to_end(SOON)
    };
    let text = run.stdout;
    for line in [
        "1 of 3 configurations available. 41 requests in the last hour, 1 failed over.",
        "configuration  state      requests  rejected  input  output     USD",
        "primary-1      limited         137         2  9,000       1  0.5000",
        "  429 requests limit, until 01-15 11:31:41 (in 41 s), since 01-15 11:30:00",
        "  2.10 of 10.00 USD of its budget spent",
        "  model vip-model: denied for another 9 min 40 s",
        "primary-2      available     3,983         0      0       0  0.0000",
        "primary-3      failed            0         0      0       0  0.0000",
        "  401 auth_error, for another 15 min 0 s",
        "requests  4,120 (2xx 4,108, 499 3, 4xx 8, 5xx 1), 3 in flight, 9 failed over",
        "tokens    120,000 input (90,000 cached), 4,000 output",
        "cost      1.2500 USD, unknown of 200 requests",
        "gpt-4o       412  120,000       0       0  0.0000     310     900",
        "-       claude-cli/2.1       412      0       0       0  0.0000",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
    }
    assert!(
        text.starts_with("flow-proxy 0.2.0 on http://127.0.0.1:"),
        "{text}"
    );
    assert!(text.contains(": serving, up 1 h 10 min\n"), "{text}");
    assert!(!text.contains('\u{1b}'), "no colour in a pipe: {text}");
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
}

#[test]
fn json_prints_the_page_as_it_is() {
    let body = format!("{{ \"more\": [1, 2.50],\n{}", &page().to_string()[1..]);
    let run = status_at(response("200 OK", &body), &["--json"]);
    assert_eq!((run.code, run.stdout), (Some(0), body + "\n"));
}

#[test]
fn pages_of_other_versions_are_shown_as_far_as_they_go() {
    let least =
        json!({"version": "9", "state": "stopping", "configurations": [], "new": {"a": []}});
    let text = status_of(&least);
    assert!(text.contains("flow-proxy 9 on "), "{text}");
    let mut more = page();
    more["configurations"][0] =
        json!({"name": "a", "state": "new-state", "new": 1, "models": [{}]});
    more["models"] = json!([{}]);
    assert!(status_of(&more).contains("new-state"));
}

#[test]
fn of_many_models_and_clients_the_busiest_are_shown() {
    let mut many = page();
    let row = |kind: &str, n: u64| json!({kind: format!("{kind}-{n}"), "requests": n * 7 % 20});
    many["models"] = (1..20).map(|n| row("model", n)).collect();
    many["clients"] = (1..20).map(|n| row("client", n)).collect();
    let text = status_of(&many);
    for kind in ["model-", "client-"] {
        let rows = text.lines().filter(|line| line.starts_with(kind));
        let numbers = rows.map(|row| row.split_whitespace().find_map(|word| word.parse().ok()));
        let numbers: Vec<u64> = numbers.flatten().collect();
        assert_eq!(numbers, [19, 18, 17, 16, 15, 14, 13, 12], "{text}");
    }
    assert_eq!(text.matches("and 11 more\n").count(), 2, "{text}");
}

#[test]
fn what_is_no_page_of_a_proxy_s_is_one_line_and_exit_code_1() {
    let of = |body: &str| response("200 OK", body);
    let mut other = page();
    other["state"] = "hush".into();
    let mut negative = page();
    negative["uptime_s"] = json!(-1);
    let large = format!("{}{}", " ".repeat(8 << 20), page());
    let another = "another program listens there";
    for (answer, expected) in [
        (of("<h1>hush</h1>"), another),
        (of("{}"), another),
        (of(r#"{"status":"ok","version":"hush"}"#), another),
        (of(&other.to_string()), another),
        (of(&negative.to_string()), another),
        (of(&"[".repeat(100_000)), another),
        (of(&large), "no valid response"),
        (response("403 Forbidden", "hush"), "--admin-from"),
        (response("404 Not Found", "hush"), "answered 404"),
        (response("302 Found\r\nLocation: /hush", ""), "answered 302"),
        (response("500 hush", "hush"), "answered 500"),
        (
            "hush\r\n\r\n".to_owned(),
            "no healthy flow-proxy on http://127.0.0.1:",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhush".to_owned(),
            "no healthy flow-proxy",
        ),
        (String::new(), "no healthy flow-proxy"),
    ] {
        for args in [&[][..], &["--json"], &["--watch"]] {
            let run = status_at(answer.as_str(), args);
            assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{run:?}");
            assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
            assert!(run.stderr.contains(expected), "{expected}: {run:?}");
            assert!(!run.stderr.contains("hush"), "{run:?}");
        }
    }
    let closed = ClosedPort::hold();
    let run = ProxyProcess::bare()
        .command("status")
        .port(closed.port())
        .run_to_end(SOON);
    assert_eq!(
        (run.code, run.stderr.lines().count()),
        (Some(1), 1),
        "{run:?}"
    );
    assert!(run.stderr.contains("is it running?"), "{run:?}");
}

#[test]
fn nothing_of_a_page_commands_the_terminal_or_leaves_its_80_columns() {
    let hostile = "a\u{1b}[2J\u{9b}31m\nb\u{202e}\u{7f}配";
    let long = hostile.repeat(40);
    let mut page = page();
    for name in ["version", "summary", "target"] {
        page[name] = long.clone().into();
    }
    page["requests"]["by_status"] = json!({ hostile: u64::MAX, &long: 1 });
    for name in ["input", "cached", "output"] {
        page["tokens"][name] = u64::MAX.into();
    }
    page["cost"]["total"] = f64::MAX.into();
    let tokens = page["tokens"].clone();
    let one = &mut page["configurations"][0];
    one["tokens"] = tokens;
    for name in ["name", "state", "reason", "since", "until"] {
        one[name] = long.clone().into();
    }
    one["models"] = json!([{"model": long, "state": long, "rest_s": u64::MAX}]);
    for name in ["requests", "rejected", "rest_s"] {
        one[name] = u64::MAX.into();
    }
    page["models"] = json!(vec![json!({"model": long, "requests": u64::MAX}); 20]);
    page["clients"] = json!(vec![json!({"client": long, "agent": hostile}); 20]);
    let text = status_of(&page);
    assert!(
        !text.contains(['\u{1b}', '\u{9b}', '\u{202e}', '\u{7f}']),
        "{text:?}"
    );
    for line in text.lines() {
        assert!(
            line.chars().count() + line.matches('配').count() <= 80,
            "{line}"
        );
    }
    let run = status_at(response("200 OK", &page.to_string()), &["--json"]);
    assert!(
        !run.stdout
            .contains(['\u{1b}', '\u{9b}', '\u{202e}', '\u{7f}'])
    );
    assert_eq!(serde_json::from_str::<Value>(&run.stdout).unwrap(), page);
}

#[test]
fn it_shows_a_running_proxy_and_usage_adds_its_log_up_to_the_same_numbers() {
    let answer = r#"{"object":"chat.completion","model":"m","choices":[],
        "usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4}}}"#;
    let upstream = FakeFlow::answering(move |request| match request.target.rsplit('/').next() {
        Some("completions") => Answer::new(200, answer).header("x-litellm-response-cost", "0.25"),
        Some("missing") => Answer::error(404, "not_found", "x"),
        _ => Answer::ok(),
    });
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--log-level", "DEBUG")
        .start();
    for path in [
        "/v1/chat/completions",
        "/v1/chat/completions",
        "/v1/quiet",
        "/rerank",
        "/missing",
    ] {
        post(proxy.address(), path, br#"{"model":"m"}"#);
    }
    for path in ["/v1/models", "/-/health", "/-/nothing", "/-/status"] {
        get(proxy.address(), path);
    }
    for _ in 0..100 {
        get(proxy.address(), "/-/nothing");
    }
    let port = proxy.address().port();
    let ask = |args: &[&str]| {
        let mut command = ProxyProcess::bare().command("status").port(port);
        for arg in args {
            command = command.arg(arg);
        }
        command.run_to_end(SOON)
    };
    let run = ask(&[]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
    assert!(
        run.stdout.contains("1 of 1 configuration available. "),
        "{run:?}"
    );
    let status: Value = serde_json::from_str(&ask(&["--json"]).stdout).unwrap();
    let log = proxy.file("flow_proxy_plugin.log");
    let dir = WorkDir::new();
    let total = wait_for("all lines in the file", SOON, || {
        let run = dir.run(
            &["usage", "--json", "--log-file", log.to_str().unwrap()],
            &[],
        );
        let usage: Value = serde_json::from_str(&run.stdout).unwrap();
        Some(usage["total"].clone()).filter(|total| total["requests"].as_u64() >= Some(107))
    });
    assert_eq!(total["requests"], 107, "{total}");
    assert_eq!(total["requests"], status["requests"]["total"]);
    assert_eq!(total["tokens"], status["tokens"]);
    assert_eq!(total["cost"], status["cost"]);
    let minutes = status["minutes"].as_array().unwrap().iter();
    let errors: u64 = minutes
        .map(|minute| minute["errors"].as_u64().unwrap())
        .sum();
    assert_eq!(total["errors"], errors);
}

/// A `status` that runs until it is dropped.
struct Watching(Child);

impl Watching {
    fn start(port: u16, stdout: impl Into<Stdio>, environment: &[(&str, &str)]) -> Watching {
        let child = Command::new(env!("CARGO_BIN_EXE_flow-proxy"))
            .args(["status", "--watch", "--port", &port.to_string()])
            .env_clear()
            .envs(environment.iter().copied())
            .current_dir(WorkDir::new().path("."))
            .stdin(Stdio::null())
            .stdout(stdout)
            .spawn();
        Watching(child.expect("the built binary starts"))
    }

    fn stdout(&mut self) -> BufReader<ChildStdout> {
        BufReader::new(self.0.stdout.take().expect("a pipe"))
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Answers with a page whose configurations have the number of the request as their state; the second
/// request gets none.
fn changing() -> RawUpstream {
    RawUpstream::start(|connection| {
        if connection.read_request().is_some() && connection.number != 2 {
            let mut page = page();
            page["configurations"][0]["state"] = format!("state-{}", connection.number).into();
            connection.send(response("200 OK", &page.to_string()));
        }
    })
}

#[test]
fn watch_renews_the_page_goes_on_while_there_is_none_and_ends_with_its_reader() {
    let listener = changing();
    let mut watching = Watching::start(listener.address().port(), Stdio::piped(), &[]);
    let mut stdout = watching.stdout();
    let mut text = String::new();
    for expected in [
        "state-1",
        "no healthy flow-proxy on ",
        "Last seen at ",
        "state-3",
    ] {
        while !text.contains(expected) {
            text.clear();
            assert!(
                stdout.read_line(&mut text).unwrap() > 0,
                "ended before {expected}"
            );
            assert!(
                !text.contains('\u{1b}'),
                "no command to a terminal in a pipe: {text:?}"
            );
        }
    }
    drop(stdout);
    let status = wait_for("the end", SOON, || watching.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

#[test]
fn on_a_terminal_the_page_is_cleared_and_what_is_ill_is_coloured() {
    let read_until = |master: &mut File, expected: &str| {
        let (mut text, mut piece) = (Vec::new(), [0; 4096]);
        wait_for(expected, SOON, || {
            let length = master.read(&mut piece).expect("the terminal is open");
            text.extend_from_slice(&piece[..length]);
            let text = String::from_utf8_lossy(&text).into_owned();
            text.contains(expected).then_some(text)
        })
    };
    for (environment, is_coloured) in [(&[][..], true), (&[("NO_COLOR", "1")], false)] {
        let listener = changing();
        let (master, terminal) = pseudo_terminal();
        let port = listener.address().port();
        let _watching = Watching::start(port, terminal, environment);
        let text = read_until(&mut File::from(master), "claude-cli/2.1");
        assert!(text.starts_with("\u{1b}[2J\u{1b}[H"), "{text:?}");
        for (colour, line) in [("33", "primary-1 "), ("31", "primary-3 ")] {
            let coloured = format!("\u{1b}[{colour}m{line}");
            assert_eq!(text.contains(&coloured), is_coloured, "{text:?}");
        }
        assert!(!text.contains("mprimary-2"), "{text:?}");
    }
}
