//! The command line, seen from outside: the built binary, its output and its exit codes.

use std::process::Command;

use crate::support::{ClosedPort, Finished, WorkDir};

/// Visibly fake credentials.
const SECRETS: &str = r#"[
  {"name": "first", "clientId": "fake-id-1", "clientSecret": "fake-secret-1", "tenant": "fake"},
  {"name": "second", "clientId": "fake-id-2", "clientSecret": "fake-secret-2", "tenant": "fake"}
]"#;

/// Asserts that the run ended with bad usage; returns the lines that it wrote to stderr.
fn usage_errors(run: &Finished) -> Vec<&str> {
    assert_eq!(run.code, Some(2), "{run:#?}");
    assert_eq!(run.stdout, "", "{run:#?}");
    run.stderr.lines().collect()
}

/// Tells whether `check` printed `name` with this value and source on one line.
fn has_setting(run: &Finished, name: &str, value: &str, source: &str) -> bool {
    run.stdout.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.contains(&name) && line.contains(value) && line.contains(source)
    })
}

#[test]
fn help_is_printed_and_exits_0_even_when_all_else_is_broken() {
    let dir = WorkDir::new();
    dir.write(".env", "broken\n");
    for args in [
        &["--help"][..],
        &["-h"],
        &["help"],
        &["--nonsense", "--help"],
    ] {
        let run = dir.run(args, &[("FLOW_PROXY_PORT", "abc")]);
        assert_eq!(
            (run.code, run.stderr.as_str()),
            (Some(0), ""),
            "{args:?}: {run:#?}"
        );
        assert!(run.stdout.contains("\n  --port PORT"), "{run:#?}");
        assert!(run.stdout.lines().all(|line| line.chars().count() <= 100));
    }
}

#[test]
fn version_is_printed_and_exits_0() {
    for args in [["--version"], ["-V"]] {
        let run = WorkDir::new().run(&args, &[]);
        assert_eq!(run.code, Some(0), "{run:#?}");
        assert_eq!(
            run.stdout.trim_end(),
            concat!("flow-proxy ", env!("CARGO_PKG_VERSION"))
        );
    }
}

#[test]
fn completions_are_printed_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let run = WorkDir::new().run(&["completions", shell], &[]);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:#?}");
        assert!(run.stdout.contains("upstream-timeout"), "{run:#?}");
    }
}

/// Has `shell` read its own script without running it; skipped where it is not installed.
#[test]
fn each_shell_that_is_here_accepts_its_completions() {
    let dir = WorkDir::new();
    for shell in ["bash", "zsh", "fish"] {
        dir.write("script", &dir.run(&["completions", shell], &[]).stdout);
        match Command::new(shell)
            .arg("-n")
            .arg(dir.path("script"))
            .output()
        {
            Ok(output) => assert!(output.status.success(), "{shell}: {output:?}"),
            Err(_) => eprintln!("skipped: {shell} is not installed"),
        }
    }
}

#[test]
fn a_bad_value_stops_every_start_with_one_line_that_names_its_source() {
    let dir = WorkDir::with_secrets(SECRETS);
    let expected = "'abc' is not a port (0 to 65535)";
    for command in [&[][..], &["demo"], &["check"], &["token"], &["health"]] {
        let run = dir.run(command, &[("FLOW_PROXY_PORT", "abc")]);
        assert_eq!(
            usage_errors(&run),
            [format!("flow-proxy: FLOW_PROXY_PORT: {expected}")]
        );
    }
    let run = dir.run(&["--port=abc"], &[]);
    assert_eq!(
        usage_errors(&run),
        [format!("flow-proxy: --port: {expected}")]
    );
    dir.write(".env", "FLOW_PROXY_PORT=abc\n");
    let run = dir.run(&[], &[]);
    assert_eq!(
        usage_errors(&run),
        [format!("flow-proxy: .env: FLOW_PROXY_PORT: {expected}")]
    );
}

#[test]
fn all_bad_values_are_told_in_one_go() {
    let environment = [
        ("FLOW_PROXY_LOG_LEVEL", "loud"),
        ("FLOW_PROXY_MAX_BODY", "big"),
    ];
    let run = WorkDir::new().run(&["--workers", "0", "--prot", "1", "chekc"], &environment);
    let lines = usage_errors(&run);
    for start in [
        "--prot: unknown option; did you mean --port?",
        "'chekc' is not a command",
        "FLOW_PROXY_LOG_LEVEL: 'loud' is not",
        "--workers: '0' is not",
        "FLOW_PROXY_MAX_BODY: 'big' is not",
    ] {
        let start = format!("flow-proxy: {start}");
        assert!(
            lines.iter().any(|line| line.starts_with(&start)),
            "{start}: {run:#?}"
        );
    }
    assert_eq!(lines.len(), 5, "{run:#?}");
}

#[test]
fn check_shows_each_value_and_which_source_won() {
    let dir = WorkDir::with_secrets(SECRETS);
    dir.write(
        ".env",
        "FLOW_PROXY_PORT=1\nFLOW_PROXY_WORKERS=11\nFLOW_PROXY_MAX_BODY=1M\n",
    );
    let environment = [
        ("FLOW_PROXY_PORT", "2"),
        ("FLOW_PROXY_WORKERS", "22"),
        ("FLOW_PROXY_CLIENT_TIMEOUT", ""),
    ];
    let run = dir.run(&["check", "--port", "3"], &environment);
    assert_eq!(run.code, Some(0), "{run:#?}");
    for (name, value, source) in [
        ("port", "3", "command line"),
        ("workers", "22", "FLOW_PROXY_WORKERS"),
        ("max-body", "1MiB", ".env"),
        ("client-timeout", "60s", "default"),
        (
            "target-url",
            "https://flow.ciandt.com/flow-llm-proxy",
            "default",
        ),
    ] {
        assert!(has_setting(&run, name, value, source), "{name}: {run:#?}");
    }
}

#[test]
fn check_warns_of_unknown_variables_and_goes_on() {
    let dir = WorkDir::with_secrets(SECRETS);
    let run = dir.run(&["check"], &[("FLOW_PROXY_PROT", "1")]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let printed = run.output();
    let warning = printed
        .lines()
        .find(|line| line.contains("FLOW_PROXY_PROT"));
    assert!(
        warning.is_some_and(|line| line.contains("FLOW_PROXY_PORT?")),
        "{run:#?}"
    );
}

#[test]
fn check_never_prints_a_secret() {
    let run = WorkDir::with_secrets(SECRETS).run(&["check", "--log-level", "DEBUG"], &[]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let printed = run.output();
    assert!(
        !printed.contains("fake-secret") && !printed.contains("eyJ"),
        "{run:#?}"
    );
}

#[test]
fn check_without_a_secrets_file_exits_2() {
    let run = WorkDir::new().run(&["check"], &[]);
    assert_eq!(run.code, Some(2), "{run:#?}");
    assert!(run.stderr.contains("secrets.json.template"), "{run:#?}");
}

#[test]
fn token_prints_the_token_of_the_name_given_or_the_first_and_nothing_else() {
    let dir = WorkDir::with_secrets(SECRETS);
    let first = dir.run(&["token"], &[]);
    assert_eq!(
        (first.code, first.stderr.as_str()),
        (Some(0), ""),
        "{first:#?}"
    );
    assert_eq!(first.stdout, format!("{FIRST_TOKEN}\n"));
    assert_eq!(dir.run(&["token", "first"], &[]).stdout, first.stdout);
    let second = dir.run(&["token", "second"], &[]);
    assert_eq!(second.code, Some(0), "{second:#?}");
    assert_eq!(second.stdout.split('.').count(), 3, "{second:#?}");
    assert_ne!(second.stdout, first.stdout);
}

#[test]
fn token_of_an_unknown_name_exits_2_and_prints_nothing_on_stdout() {
    let run = WorkDir::with_secrets(SECRETS).run(&["token", "third"], &[]);
    let lines = usage_errors(&run);
    assert!(
        lines.iter().any(|line| line.contains("'third'")),
        "{run:#?}"
    );
}

#[test]
fn health_exits_1_with_one_line_where_nothing_listens() {
    let closed = ClosedPort::hold();
    let port = closed.port().to_string();
    let run = WorkDir::new().run(&["health", "--port", &port], &[]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{run:#?}");
    assert_eq!(run.stderr.lines().count(), 1, "{run:#?}");
}

#[test]
fn a_port_in_use_exits_1_and_names_the_port() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let run = WorkDir::with_secrets(SECRETS).run(&["--port", &port], &[]);
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(run.stderr.contains(&port), "{run:#?}");
}

/// The token of the first entry of [`SECRETS`], made as RFC 7515 says with Python's hmac module.
const FIRST_TOKEN: &str = concat!(
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.",
    "eyJjbGllbnRJZCI6ImZha2UtaWQtMSIsImNsaWVudFNlY3JldCI6ImZha2Utc2VjcmV0LTEiLCJ0ZW5hbnQiOiJmYWtlIn0.",
    "M-XqortLWaOOUY8JeNlNi6zu-L8l73V-UFPbm19Zd-I",
);
