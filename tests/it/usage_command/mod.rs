//! The command `usage`: what it reads of log files, and what it passes over (contract sections 2 and 12).

use serde_json::{Value, json};

use crate::support::{Finished, WorkDir};

mod files;
mod lines;

/// The default log file.
const LOG: &str = "flow_proxy_plugin.log";

/// A line as a log at INFO has it at its start.
const START: &str = "2026-01-15 10:00:00 - INFO - flow-proxy 0.2.0 starting, pid 1\n";

/// An access line as the proxy writes it, of one of 1,200 input tokens.
fn line(time: &str, config: &str, model: &str) -> String {
    format!(
        "{time} - INFO - 127.0.0.1:53422 \"POST /v1/chat/completions\" 200 config='{config}' \
         attempts=1 ttfb_ms=12 duration_ms=1034 in=512 out=20480 end=ok model='{model}' \
         input_tokens=1200 cached_tokens=1024 output_tokens=88 cost=0.25 agent='curl/8' id=fake-id"
    )
}

fn some_line() -> String {
    line("2026-01-15 10:30:45", "primary-1", "gpt-4o")
}

/// The same as a JSON line.
fn some_json() -> Value {
    json!({
        "time": "2026-01-15T10:30:45+01:00", "level": "INFO", "peer": "127.0.0.1:53422",
        "method": "POST", "path": "/v1/chat/completions", "status": 200, "config": "primary-1",
        "attempts": 1, "ttfb_ms": 12, "duration_ms": 1034, "in": 512, "out": 20480, "end": "ok",
        "model": "gpt-4o", "input_tokens": 1200, "cached_tokens": 1024, "output_tokens": 88,
        "cost": 0.25, "agent": "curl/8", "id": "fake-id",
    })
}

/// A JSON line as the log writes it: time and level come first.
fn json_line(object: &Value) -> String {
    let mut rest = object.as_object().unwrap().clone();
    let (time, level) = (rest.remove("time").unwrap(), rest.remove("level").unwrap());
    let rest = Value::Object(rest).to_string();
    format!("{{\"time\":{time},\"level\":{level},{}", &rest[1..])
}

/// The line that counts rejected requests without an access line.
fn rejections(count: u64) -> String {
    format!("2026-01-15 10:30:45 - WARNING - {count} more requests were rejected within 1 s")
}

fn rejections_as_json(count: u64) -> String {
    format!(
        "{{\"time\":\"2026-01-15T10:30:45+01:00\",\"level\":\"WARNING\",\"message\":\"{count} more \
         requests were rejected within 1 s\"}}"
    )
}

/// Runs `usage --json` with more arguments.
fn usage_in(dir: &WorkDir, args: &[&str]) -> Value {
    let args: Vec<&str> = ["usage", "--json"].iter().chain(args).copied().collect();
    let run = dir.run(&args, &[]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

fn usage_of(log: impl AsRef<[u8]>, args: &[&str]) -> Value {
    let dir = WorkDir::new();
    dir.write(LOG, log);
    usage_in(&dir, args)
}

fn requests(usage: &Value) -> u64 {
    usage["total"]["requests"].as_u64().unwrap()
}

/// Asserts that the run failed with one line; returns it.
fn failure(run: &Finished, code: i32) -> &str {
    assert_eq!((run.code, run.stdout.as_str()), (Some(code), ""), "{run:?}");
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    run.stderr.trim_end()
}
