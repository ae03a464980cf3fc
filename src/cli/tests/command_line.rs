//! Commands, options and flags.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::support::{DotEnv, errors, parse_with, parsed};
use crate::cli::{Command, GroupBy, Shell, Since, parse};

#[test]
fn of_an_option_given_twice_the_last_counts_and_is_the_one_checked() {
    assert_eq!(parsed(&["--port=abc", "--port", "2"], &[]).options.port, 2);
    let dotenv = DotEnv::holding("FLOW_PROXY_PORT=1\nFLOW_PROXY_PORT=2\n");
    assert_eq!(parse_with(&[], &[], &dotenv.0).unwrap().options.port, 2);
}

#[test]
fn a_missing_or_empty_value_is_reported() {
    let expected = ["--port: a value is missing (--port PORT)"];
    assert_eq!(errors(&["--port"], &[]), expected);
    assert_eq!(errors(&["--port="], &[]), expected);
    assert_eq!(errors(&["--port", ""], &[]), expected);
}

#[test]
fn unknown_options_have_a_hint_and_their_values_no_second_error() {
    for (args, line) in [
        (
            &["--prot", "9"][..],
            "--prot: unknown option; did you mean --port?",
        ),
        (
            &["--prot=9"],
            "--prot: unknown option; did you mean --port?",
        ),
        (
            &["--secrets", "x"],
            "--secrets: unknown option; did you mean --secrets-file?",
        ),
        (&["-p9"], "-p: unknown option; did you mean --port?"),
        (&["--Help"], "--Help: unknown option; did you mean --help?"),
    ] {
        assert_eq!(errors(args, &[]), [line]);
    }
}

#[test]
fn flags_take_no_value() {
    let found = errors(&["check", "--online=yes"], &[]);
    assert_eq!(found, ["--online: takes no value"]);
}

#[test]
fn an_option_that_may_stand_alone_takes_only_what_it_accepts() {
    for (args, expected) in [
        (&["--allow-http-target"][..], true),
        (&["--allow-http-target=true"], true),
        (&["--allow-http-target=false"], false),
        (&["--allow-http-target", "TRUE"], true),
        (&["--allow-http-target", "false"], false),
        (&["--allow-http-target", "--port", "1"], true),
    ] {
        let invocation = parsed(args, &[]);
        assert_eq!(invocation.options.allow_http_target, expected, "{args:?}");
    }
    let invocation = parsed(&["--allow-http-target", "check"], &[]);
    assert_eq!(invocation.command, Command::Check { online: false });
    assert_eq!(
        errors(&["--allow-http-target=1"], &[]),
        ["--allow-http-target: '1' is neither true nor false"]
    );
}

#[test]
fn or_demo_goes_without_a_command() {
    let serve = Command::Serve { or_demo: true };
    assert_eq!(parsed(&["--or-demo"], &[]).command, serve);
    assert_eq!(
        errors(&["check", "--or-demo"], &[]),
        ["--or-demo: goes without a command only"]
    );
}

#[test]
fn no_message_quotes_a_secret_or_a_long_value() {
    let long = "x".repeat(65);
    for value in [
        "{hush}",
        "clientSecrethush",
        "eyJhush",
        &format!("{long}hush"),
    ] {
        for args in [
            &["--port", value][..],
            &["--host", value],
            &["--log-level", value],
            &["--target-url", value],
            &["--workers", value],
            &["--client-timeout", value],
            &["--shutdown-timeout", value],
            &["--max-body", value],
            &["--allow-host", &format!("{value} {value}")],
            &["--allow-origin", value],
            &[&format!("--allow-http-target={value}")],
            &[&format!("--online={value}")],
            &[&format!("--{value}")],
            &[value],
            &["demo", value],
            &["completions", value],
        ] {
            for line in errors(args, &[]) {
                assert!(!line.contains("hush"), "{args:?}: {line}");
            }
        }
    }
}

#[test]
fn commands_are_read_anywhere_between_the_options() {
    for (args, command) in [
        (&["demo"][..], Command::Demo),
        (&["check"], Command::Check { online: false }),
        (
            &["--online", "--port", "1", "check"],
            Command::Check { online: true },
        ),
        (&["token"], Command::Token { name: None }),
        (
            &["token", "--port=1", "a b"],
            Command::Token {
                name: Some("a b".to_owned()),
            },
        ),
        (
            &["token", "--", "--x"],
            Command::Token {
                name: Some("--x".to_owned()),
            },
        ),
        (&["health"], Command::Health),
        (
            &["--watch", "status"],
            Command::Status {
                json: false,
                watch: true,
            },
        ),
        (&["help"], Command::Help),
        (&["completions", "zsh"], Command::Completions(Shell::Zsh)),
    ] {
        assert_eq!(parsed(args, &[]).command, command);
    }
}

#[test]
fn wrong_commands_and_superfluous_words_are_reported() {
    let all = "demo, check, token, health, status, usage, completions, help; none runs the proxy";
    for (args, line) in [
        (
            &["chekc"][..],
            format!("'chekc' is not a command ({all}); did you mean check?"),
        ),
        (&["start"], format!("'start' is not a command ({all})")),
        (&["demo", "x"], "'x': unexpected after demo".to_owned()),
        (
            &["token", "a", "b"],
            "'b': unexpected after token".to_owned(),
        ),
        (
            &["demo", "--online"],
            "--online: goes with the command check only".to_owned(),
        ),
        (
            &["status", "--by=day"],
            "--by: goes with the command usage only".to_owned(),
        ),
        (
            &["usage", "--watch"],
            "--watch: goes with the command status only".to_owned(),
        ),
        (
            &["--json"],
            "--json: goes with the commands status and usage only".to_owned(),
        ),
        (
            &["usage", "--since"],
            "--since: a value is missing (--since WHEN)".to_owned(),
        ),
        (
            &["completions"],
            "completions: a shell is missing (bash, zsh, fish)".to_owned(),
        ),
        (
            &["completions", "tcsh"],
            "completions: 'tcsh' is not a shell (bash, zsh, fish)".to_owned(),
        ),
    ] {
        assert_eq!(errors(args, &[]), [line]);
    }
}

#[test]
fn usage_takes_times_and_groups() {
    let query = |args: &[&str]| {
        let args: Vec<&str> = std::iter::once("usage")
            .chain(args.iter().copied())
            .collect();
        match parsed(&args, &[]).command {
            Command::Usage(query) => query,
            other => panic!("{other:?}"),
        }
    };
    let ago = |seconds| Some(Since::Ago(Duration::from_secs(seconds)));
    let at = |time: &str| Some(Since::At(time.to_owned()));
    for (text, since) in [
        ("30m", ago(1800)),
        ("12h", ago(12 * 3600)),
        ("7D", ago(7 * 86400)),
        ("2024-02-29", at("2024-02-29 00:00:00")),
        ("2024-01-15 10:30", at("2024-01-15 10:30:00")),
        ("2024-01-15T10:30:45", at("2024-01-15 10:30:45")),
    ] {
        assert_eq!(query(&["--since", text]).since, since, "{text}");
    }
    for text in [
        "7",
        "0d",
        "-1d",
        "7x",
        "d",
        "99999999999999999999d",
        "18446744073709551615d",
        "2023-02-29",
        "2024-13-01",
        "2024-1-15",
        "2024-01-15 25:00",
        "2024-01-15 10",
        "2024-01-15 10:30:45.5",
        "24-01-15",
        "2024-01-15-01",
        "yesterday",
        "+024-01-15",
        "2024-01-15 ",
    ] {
        let found = errors(&["usage", "--since", text], &[]);
        assert_eq!(found.len(), 1, "{text}");
        let start = format!("--since: '{text}' is not a time (a number with m, h or d");
        assert!(found[0].starts_with(&start), "{found:?}");
    }
    let by = query(&["--by", "model,day", "--json", "--by", "config", "--by=day"]);
    assert_eq!(by.by, [GroupBy::Model, GroupBy::Day, GroupBy::Config]);
    assert!(by.json);
    assert_eq!(
        errors(&["usage", "--by", "modle,{hush}"], &[]),
        ["--by: 'modle' is not one of config, model, client, day, status"]
    );
}

#[test]
fn help_and_version_are_given_whatever_else_is_wrong() {
    let dotenv = DotEnv::holding("broken\n");
    let environment = [("FLOW_PROXY_PORT", "abc")];
    for (args, command) in [
        (&["--help"][..], Command::Help),
        (&["-h"], Command::Help),
        (&["help"], Command::Help),
        (&["chekc", "--prot=1", "--help"], Command::Help),
        (&["-V"], Command::Version),
        (&["--version"], Command::Version),
        (&["--version", "--help"], Command::Version),
        (&["completions", "bash"], Command::Completions(Shell::Bash)),
    ] {
        let invocation = parse_with(args, &environment, &dotenv.0).unwrap();
        assert_eq!(invocation.command, command);
    }
}

#[test]
fn all_problems_are_reported_at_once_each_on_one_line() {
    let found = errors(
        &["--prot", "1", "--workers=0", "--max-body", "1\n2", "chekc"],
        &[
            ("FLOW_PROXY_LOG_LEVEL", "loud"),
            ("FLOW_PROXY_HOST", "example.com"),
        ],
    );
    let starts = [
        "--prot: unknown option; did you mean --port?",
        "'chekc' is not a command",
        "FLOW_PROXY_HOST: 'example.com' is not an IP address",
        "FLOW_PROXY_LOG_LEVEL: 'loud' is not a log level",
        "--workers: '0' is not a number of workers (1 to 16384)",
        "--max-body: '1\\n2' is not a size",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (line, start) in found.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
        assert!(!line.contains('\n'), "{line}");
    }
}

#[test]
fn values_outside_utf_8_are_an_error_and_no_panic() {
    use std::os::unix::ffi::OsStringExt;

    let bad = || OsString::from_vec(b"\xff".to_vec());
    let option_with_bad_name = OsString::from_vec(b"--\xff".to_vec());
    let args = [
        OsString::from("--port"),
        bad(),
        option_with_bad_name,
        bad(),
        bad(),
    ];
    let environment = [
        (OsString::from("FLOW_PROXY_HOST"), bad()),
        (OsString::from("OTHER"), bad()),
        (bad(), bad()),
    ];
    let missing = Path::new("/nonexistent/.env");
    let found = parse(args.into_iter(), environment.into_iter(), missing)
        .unwrap_err()
        .0;
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found[0].contains("did you mean --"), "{found:?}");
    assert_eq!(
        found[1..],
        [
            "'\u{fffd}' is not UTF-8",
            "--port: the value is not UTF-8",
            "FLOW_PROXY_HOST: the value is not UTF-8",
        ]
    );
}
