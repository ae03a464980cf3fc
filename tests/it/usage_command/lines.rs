//! Which lines count, and what the sums look like.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{
    LOG, START, json_line, line, rejections, rejections_as_json, requests, some_json, some_line,
    usage_of,
};
use crate::support::WorkDir;

#[test]
fn text_and_json_lines_in_one_file_are_added_up_alike() {
    let log = format!("{}\n{}\n", some_line(), json_line(&some_json()));
    let usage = usage_of(log, &["--by", "config", "--by=model,client,day,status"]);
    let sums = json!({
        "requests": 2, "errors": 0,
        "tokens": {"input": 2400, "cached": 2048, "output": 176, "known": 2, "unknown": 0},
        "cost": {"total": 0.5, "unknown": 0},
    });
    assert_eq!(usage["total"], sums);
    let mut group = sums;
    for (name, value) in [
        ("config", "primary-1"),
        ("model", "gpt-4o"),
        ("client", "curl/8"),
        ("day", "2026-01-15"),
        ("status", "200"),
    ] {
        group[name] = value.into();
    }
    assert_eq!(usage["groups"], json!([group]));
    assert_eq!(usage["first"], "2026-01-15 10:30:45");
}

#[test]
fn a_line_counts_by_what_it_says() {
    let text = |status: &str, request: &str, rest: &str| {
        some_line()
            .replace("\" 200 ", &format!("\" {status} "))
            .replace("POST /v1/chat/completions", request)
            .replace(
                " end=ok model='gpt-4o' input_tokens=1200 cached_tokens=1024 output_tokens=88 cost=0.25",
                rest,
            )
    };
    let (post, ok) = ("POST /v1/messages", " end=ok");
    // Requests, errors, known, unknown.
    for (line, expected) in [
        (text("200", post, ok), [1, 0, 0, 1]),
        (text("200", post, " end=client_gone"), [1, 0, 0, 1]),
        (text("200", post, " end=incomplete"), [1, 1, 0, 1]),
        (
            text("200", post, " end=error_event reason=limit"),
            [1, 1, 0, 1],
        ),
        (text("200", "GET /v1/models", ok), [1, 0, 0, 0]),
        (
            text("200", "POST /v1/messages/count_tokens", ok),
            [1, 0, 0, 0],
        ),
        (text("200", "POST /v1/moderations", ok), [1, 0, 0, 0]),
        (text("200", "POST /rerank", ok), [1, 0, 0, 0]),
        (text("302", post, ok), [1, 0, 0, 0]),
        (text("429", post, " end=ok reason=limit"), [1, 1, 0, 0]),
        (text("499", post, " end=client_gone"), [1, 0, 0, 1]),
        (
            text("499", post, " end=client_gone")
                .replace("ttfb_ms=12", "ttfb_ms=1034")
                .replace("out=20480", "out=0"),
            [1, 0, 0, 0],
        ),
        (
            text("499", "GET /v1/models", " end=client_gone"),
            [1, 0, 0, 0],
        ),
        (
            text("403", "GET /", " end=ok error=forbidden"),
            [1, 1, 0, 0],
        ),
        (
            text(
                "200",
                post,
                " end=client_gone input_tokens=1 cached_tokens=0 output_tokens=0",
            ),
            [1, 0, 1, 0],
        ),
        (
            text("200", "GET /-/status", ok).replace(" - INFO", " - DEBUG"),
            [0, 0, 0, 0],
        ),
        (rejections(7), [7, 7, 0, 0]),
        (rejections_as_json(7), [7, 7, 0, 0]),
        (
            text("404", "GET /-/nothing", " end=ok error=not_found"),
            [1, 1, 0, 0],
        ),
    ] {
        let total = usage_of(format!("{START}{line}\n"), &[])["total"].take();
        let tokens = &total["tokens"];
        let found = [
            &total["requests"],
            &total["errors"],
            &tokens["known"],
            &tokens["unknown"],
        ];
        assert_eq!(
            found.map(|number| number.as_u64().unwrap()),
            expected,
            "{line}"
        );
    }
}

#[test]
fn what_is_no_access_line_does_not_count() {
    let good = some_line();
    let replaced = |from: &str, to: &str| good.replace(from, to);
    let with_message = {
        let mut object = some_json();
        object["message"] = good.clone().into();
        json_line(&object)
    };
    let json = |name: &str, value: Value| {
        let mut object = some_json();
        object[name] = value;
        json_line(&object)
    };
    let mut lines = vec![
        // Messages that quote one.
        format!("2026-01-15 10:30:45 - WARNING - The client says {good}"),
        replaced("127.0.0.1:53422", "peer"),
        replaced("127.0.0.1:53422", "client 127.0.0.1:53422"),
        json!({"time": "2026-01-15T10:30:45+01:00", "level": "INFO", "message": good}).to_string(),
        with_message,
        // Other programs' lines.
        format!("host app[1]: {good}"),
        replaced("2026-01-15 10:30:45", "2026/01/15 10:30:45"),
        replaced("INFO", "NOTICE"),
        json!({"time": "2026-01-15T10:30:45Z", "level": "INFO", "path": "/"}).to_string(),
        // Torn and mended ones.
        format!("{good} {good}"),
        format!("{}{good}", &good[..100]),
        rejections(7) + " ",
        rejections(7).replace("WARNING - ", "WARNING - said: "),
        rejections(7).replace("7 more", "more"),
        rejections(7).replace("7 more", "+7 more"),
        rejections_as_json(7).replace("\"7", "\"said: 7"),
        // Fields that the proxy cannot have written.
        replaced("POST /v1", "POST /v1/a b"),
        replaced("\" 200 ", "\" 20 "),
        replaced("\" 200 ", "\" 65736 "),
        replaced("attempts=1", "attempts=-1"),
        replaced("input_tokens=1200", "input_tokens=-1200"),
        replaced("output_tokens=88", "output_tokens=18446744073709551616"),
        replaced("cost=0.25", "cost=-0.25"),
        replaced("cost=0.25", "cost=1e999"),
        replaced("cost=0.25", "cost=NaN"),
        replaced("id=fake-id", "x=1"),
        json("input_tokens", json!(-1)),
        json("cost", json!(-1)),
        json("status", json!(99)),
        json("time", json!("2026-01-15")),
        format!("{}x", "[".repeat(20_000)),
    ];
    // Whatever it is cut to.
    lines.extend((0..good.len() - "ake-id".len()).map(|end| good[..end].to_owned()));
    let whole = json_line(&some_json());
    lines.extend((0..whole.len()).map(|end| whole[..end].to_owned()));
    let usage = usage_of(lines.join("\n") + "\n", &[]);
    assert_eq!(requests(&usage), 0, "{usage}");
    assert_eq!(
        requests(&usage_of(good, &[])),
        1,
        "a last line without its end"
    );
}

#[test]
fn garbage_and_endless_lines_are_passed_over_and_the_rest_counts() {
    let mut log = (0..2_000_000u32)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect::<Vec<u8>>();
    log.extend_from_slice(format!("\n{}\n", some_line()).as_bytes());
    log.resize(log.len() + 3_000_000, b'x');
    log.extend_from_slice(format!("{}\n{}\n", some_line(), json_line(&some_json())).as_bytes());
    log.extend_from_slice(b"\0\n\n\n");
    assert_eq!(requests(&usage_of(log, &["--by", "model"])), 2);
}

#[test]
fn sums_saturate() {
    let huge = some_line()
        .replace("=1200", "=18446744073709551615")
        .replace("cost=0.25", "cost=1.7e308");
    let usage = usage_of(format!("{huge}\n{huge}\n"), &[]);
    assert_eq!(usage["total"]["tokens"]["input"], u64::MAX);
    assert_eq!(usage["total"]["cost"]["total"], f64::MAX);
    let dir = WorkDir::new();
    dir.write(LOG, format!("{huge}\n{huge}\n"));
    let run = dir.run(&["usage", "--by", "model"], &[]);
    assert!(
        run.stdout.contains("18,446,744,073,709,551k") && run.stdout.contains("1.798e308"),
        "{run:?}"
    );
    assert!(
        run.stdout.lines().all(|line| line.chars().count() <= 80),
        "{run:?}"
    );
}

#[test]
fn lines_before_since_do_not_count() {
    let log: String = [
        "2026-01-14 23:59:59",
        "2026-01-15 00:00:00",
        "2026-01-15 10:30:00",
    ]
    .map(|time| line(time, "a", "b") + "\n")
    .concat();
    for (since, count) in [
        ("2026-01-15", 2),
        ("2026-01-15 10:30", 1),
        ("2026-01-15T10:30:01", 0),
        ("2025-12-31", 3),
    ] {
        let usage = usage_of(&log, &["--since", since]);
        assert_eq!(requests(&usage), count, "{since}");
    }
    // Whatever the clock says: a day ago is later than that, ten thousand days ago is not.
    assert_eq!(requests(&usage_of(&log, &["--since", "30m"])), 0);
    assert_eq!(requests(&usage_of(&log, &["--since", "10000d"])), 3);
}

#[test]
fn the_table_has_the_most_used_first_and_days_in_order() {
    let dir = WorkDir::new();
    let mut log = String::new();
    for (day, config, count) in [("16", "rare", 1), ("15", "often", 1200), ("17", "some", 2)] {
        for _ in 0..count {
            writeln!(
                log,
                "{}",
                line(&format!("2026-01-{day} 10:00:00"), config, "m")
            )
            .unwrap();
        }
    }
    dir.write(LOG, log);
    let table = |by: &str| dir.run(&["usage", "--by", by], &[]).stdout;
    let config = "\
config  requests  errors      input     cached   output  unknown     USD
often      1,200       0  1,440,000  1,228,800  105,600        0  300.00
some           2       0      2,400      2,048      176        0    0.50
rare           1       0      1,200      1,024       88        0    0.25
total      1,203       0  1,443,600  1,231,872  105,864        0  300.75
2026-01-15 10:00:00 to 2026-01-17 10:00:00, in 1 file
";
    assert_eq!(table("config"), config);
    let days = table("day");
    let days: Vec<&str> = days.lines().skip(1).map(|line| &line[..10]).collect();
    assert_eq!(days[..3], ["2026-01-15", "2026-01-16", "2026-01-17"]);
}

#[test]
fn names_are_escaped_and_cut_to_80_columns() {
    let dir = WorkDir::new();
    let long = "配置".repeat(60);
    let mut object = some_json();
    object["config"] = "a\u{9b}2J\u{1b}[31m\nb\u{202e}".into();
    object["model"] = long.clone().into();
    dir.write(
        LOG,
        format!(
            "{}\n{}\n",
            json_line(&object),
            line("2026-01-15 10:30:45", &long, "m")
        ),
    );
    for by in ["config", "config,model,client,day,status"] {
        let run = dir.run(&["usage", "--by", by], &[]);
        assert!(
            !run.stdout.contains(['\u{9b}', '\u{1b}', '\u{202e}']),
            "{run:?}"
        );
        for line in run.stdout.lines() {
            let wide = line.matches(['配', '置']).count();
            assert!(line.chars().count() + wide <= 80, "{line}");
        }
        let run = dir.run(&["usage", "--json", "--by", by], &[]);
        assert!(!run.stdout.contains(['\u{9b}', '\u{202e}']), "{run:?}");
    }
}

#[test]
fn beyond_the_limit_groups_are_added_up_as_other() {
    let mut log = String::new();
    for number in 0..12_000 {
        let model = format!("m{number}");
        writeln!(log, "{}", line("2026-01-15 10:30:45", "a", &model)).unwrap();
    }
    let usage = usage_of(log, &["--by", "model"]);
    let groups = usage["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 10_001);
    assert_eq!(groups[10_000]["model"], "other");
    assert_eq!(groups[10_000]["requests"], 2_000);
}
