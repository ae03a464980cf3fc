//! Which files are read, and what is said of those that cannot be.

use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::{LOG, failure, line, requests, some_line, usage_in};
use crate::support::{
    Answer, FakeFlow, ProxyProcess, SOON, SetOnDrop, WorkDir, get, post, wait_for,
};

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn the_rotated_files_are_read_each_once() {
    let dir = WorkDir::new();
    let model = |name: &str| line("2026-01-15 10:30:45", "primary-1", name) + "\n";
    dir.write(LOG, model("current"));
    dir.write(&format!("{LOG}.1"), model("one"));
    // gzip is writing it.
    dir.write(&format!("{LOG}.1.gz"), &gzip(&model("one"))[..30]);
    let two_members = [gzip(&model("two")), gzip(&model("two"))].concat();
    dir.write(&format!("{LOG}.2.gz"), two_members);
    dir.write(&format!("{LOG}.10"), model("ten"));
    dir.write(&format!("{LOG}-20260114"), model("dated"));
    dir.write(&format!("{LOG}-20260113.gz"), gzip(&model("dated-gz")));
    dir.write(&format!("{LOG}-2026011210"), model("hourly"));
    // The same file twice.
    fs::hard_link(
        dir.path(&format!("{LOG}.10")),
        dir.path(&format!("{LOG}.11")),
    )
    .unwrap();
    for other in [".bak", ".1.bak", "-x", ".1x", "-2026", ".", "1"] {
        dir.write(&format!("{LOG}{other}"), model("other"));
    }
    let usage = usage_in(&dir, &["--by", "model"]);
    let groups = usage["groups"].as_array().unwrap();
    let mut found: Vec<_> = groups
        .iter()
        .map(|group| {
            (
                group["model"].as_str().unwrap(),
                group["requests"].as_u64().unwrap(),
            )
        })
        .collect();
    found.sort_unstable();
    let once = ["current", "dated", "dated-gz", "hourly", "one", "ten"].map(|name| (name, 1));
    assert_eq!(found, [&once[..], &[("two", 2)]].concat());
    // Nor does it need the current one.
    fs::remove_file(dir.path(LOG)).unwrap();
    assert_eq!(requests(&usage_in(&dir, &[])), 7);
}

#[test]
fn while_others_rotate_the_files_no_line_is_lost_or_counted_twice() {
    let dir = WorkDir::new();
    let name = |number: usize| match number {
        0 => LOG.to_owned(),
        number => format!("{LOG}.{number}"),
    };
    for number in 0..8 {
        dir.write(&name(number), some_line() + "\n");
    }
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _done = SetOnDrop(&is_done);
            for last in 7..400 {
                for number in (0..=last).rev() {
                    let _ = fs::rename(dir.path(&name(number)), dir.path(&name(number + 1)));
                }
                // Every other time the current one is missing, as between the steps of a rotation.
                if last % 2 == 0 {
                    dir.write(LOG, "");
                }
            }
        });
        while !is_done.load(Ordering::SeqCst) {
            assert_eq!(requests(&usage_in(&dir, &[])), 8);
        }
    });
}

#[test]
fn files_that_cannot_be_read_are_named_and_the_exit_code_tells() {
    let dir = WorkDir::new();
    dir.write(LOG, some_line() + "\n");
    let packed = gzip(&(some_line() + "\n"));
    dir.write(&format!("{LOG}.1.gz"), &packed[..packed.len() - 4]);
    dir.write(&format!("{LOG}.2.xz"), "x");
    let run = dir.run(&["usage"], &[]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stdout.contains("total"), "{run:?}");
    let warnings: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(warnings.len(), 2, "{run:?}");
    for name in [".1.gz: ", ".2.xz: "] {
        let start = format!("warning: {LOG}{name}");
        assert!(
            warnings.iter().any(|line| line.starts_with(&start)),
            "{run:?}"
        );
    }
}

#[test]
fn without_a_log_there_is_one_clear_line() {
    let dir = WorkDir::new();
    let run = dir.run(&["usage"], &[]);
    assert_eq!(
        failure(&run, 1),
        format!("flow-proxy: {LOG}: there is no such log file")
    );
    let run = dir.run(&["usage"], &[("FLOW_PROXY_LOG_FILE", "none")]);
    assert!(failure(&run, 2).starts_with("flow-proxy: --log-file is none"));
    let run = dir.run(&["usage", "--log-file", "."], &[]);
    assert!(failure(&run, 1).contains("no regular file"));
    dir.write(LOG, "");
    assert_eq!(requests(&usage_in(&dir, &[])), 0);
}

#[test]
fn a_log_without_successes_is_not_added_up() {
    let dir = WorkDir::new();
    let failed = some_line()
        .replace("INFO", "WARNING")
        .replace("\" 200", "\" 404");
    dir.write(LOG, format!("{failed}\n"));
    assert!(failure(&dir.run(&["usage"], &[]), 1).contains("--log-level WARNING"));
    dir.write(LOG, format!("{failed}\n{}\n", some_line()));
    assert_eq!(requests(&usage_in(&dir, &[])), 2);
    for level in ["WARNING", "ERROR"] {
        let run = dir.run(&["usage"], &[("FLOW_PROXY_LOG_LEVEL", level)]);
        assert!(failure(&run, 1).contains("no lines of successful requests"));
    }
    let json_line = |time: &str, level: &str, message: &str| {
        format!(
            "{{\"time\":\"2026-01-15T{time}Z\",\"level\":\"{level}\",\"message\":\"{message}\"}}\n"
        )
    };
    let error = json_line("10:30:45", "ERROR", "x");
    dir.write(LOG, &error);
    failure(&dir.run(&["usage"], &[]), 1);
    dir.write(LOG, error + &json_line("10:30:45", "INFO", "x"));
    assert_eq!(requests(&usage_in(&dir, &[])), 0);
}

#[test]
fn the_last_start_decides_whether_a_log_has_successes() {
    let upstream = FakeFlow::start();
    for format in ["text", "json"] {
        let dir = WorkDir::new();
        for (level, code) in [("INFO", 0), ("WARNING", 1), ("info", 0), ("ERROR", 1)] {
            let mut proxy = ProxyProcess::to(&upstream.url())
                .option("--log-file", dir.path(LOG).to_str().unwrap())
                .option("--log-format", format)
                .option("--log-level", level)
                .start_silent();
            get(proxy.address(), "/v1/models");
            proxy.signal("TERM");
            proxy.wait_for_exit(SOON);
            let run = dir.run(&["usage"], &[]);
            assert_eq!(run.code, Some(code), "{level}: {run:?}");
        }
        // In whatever order they are read.
        let old = "2001-01-15 10:00:00 - INFO - Options: port=1 log-level=INFO\n";
        dir.write(&format!("{LOG}.1"), old);
        failure(&dir.run(&["usage"], &[]), 1);
    }
}

#[test]
fn it_adds_up_what_a_proxy_has_logged() {
    let answer = r#"{"object":"chat.completion","model":"m","choices":[],
        "usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4}}}"#;
    let upstream =
        FakeFlow::answering(move |request| match request.target.ends_with("/v1/quiet") {
            true => Answer::ok(),
            false => Answer::new(200, answer),
        });
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--log-level", "DEBUG")
        .start();
    for path in ["/v1/chat/completions", "/v1/chat/completions", "/v1/quiet"] {
        post(proxy.address(), path, br#"{"model":"m"}"#);
    }
    get(proxy.address(), "/v1/models");
    get(proxy.address(), "/-/health");
    // More than 50 within a second: most of them have no access line.
    for _ in 0..200 {
        assert_eq!(get(proxy.address(), "/-/nothing").status, 404);
    }
    let log = proxy.file(LOG);
    let dir = WorkDir::new();
    let usage = wait_for("all lines in the file", SOON, || {
        let args = ["--log-file", log.to_str().unwrap(), "--by", "config"];
        Some(usage_in(&dir, &args)).filter(|usage| requests(usage) >= 204)
    });
    assert_eq!(usage["total"]["requests"], 204, "{usage}");
    assert_eq!(usage["total"]["errors"], 200, "{usage}");
    let tokens = json!({"input": 20, "cached": 8, "output": 10, "known": 2, "unknown": 1});
    assert_eq!(usage["total"]["tokens"], tokens, "{usage}");
    assert_eq!(usage["groups"][0]["config"], "-", "{usage}");
}
