use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A `.env` file of its own for one test, removed when dropped.
struct DotEnv(PathBuf);

impl DotEnv {
    fn holding(text: &str) -> DotEnv {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("flow-proxy-dotenv-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        DotEnv(path)
    }
}

impl Drop for DotEnv {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn parse_with(
    args: &[&str],
    environment: &[(&str, &str)],
    dotenv: &Path,
) -> Result<Invocation, UsageErrors> {
    let environment = environment
        .iter()
        .map(|(name, value)| (name.into(), value.into()));
    parse(args.iter().map(OsString::from), environment, dotenv)
}

fn parsed(args: &[&str], environment: &[(&str, &str)]) -> Invocation {
    parse_with(args, environment, Path::new("/nonexistent/.env")).unwrap()
}

fn errors(args: &[&str], environment: &[(&str, &str)]) -> Vec<String> {
    parse_with(args, environment, Path::new("/nonexistent/.env"))
        .unwrap_err()
        .0
}

fn setting(invocation: &Invocation, name: &str) -> (String, String) {
    let setting = invocation
        .sources
        .iter()
        .find(|setting| setting.name == name)
        .unwrap();
    (setting.value.clone(), setting.source.to_string())
}

#[test]
fn nothing_at_all_serves_with_the_defaults_of_the_contract() {
    let invocation = parsed(&[], &[]);
    assert_eq!(invocation.command, Command::Serve);
    assert_eq!(invocation.options, Options::default());
    assert!(invocation.warnings.is_empty());
    let shown: Vec<String> = invocation
        .sources
        .iter()
        .map(|setting| format!("{}={} ({})", setting.name, setting.value, setting.source))
        .collect();
    assert_eq!(
        shown,
        [
            "port=8899 (default)",
            "host=127.0.0.1 (default)",
            "log-level=INFO (default)",
            "secrets-file=secrets.json (default)",
            "log-file=flow_proxy_plugin.log (default)",
            "target-url=https://flow.ciandt.com/flow-llm-proxy (default)",
            "workers=256 (default)",
            "upstream-timeout=600s (default)",
            "client-timeout=60s (default)",
            "shutdown-timeout=30s (default)",
            "max-body=100MiB (default)",
            "ca-file=none (default)",
        ]
    );
}

#[test]
fn the_command_line_goes_before_the_environment_before_dotenv_before_the_default() {
    let dotenv = DotEnv::holding("FLOW_PROXY_PORT=1\nFLOW_PROXY_WORKERS=11\nFLOW_PROXY_HOST=::1\n");
    let environment = [("FLOW_PROXY_PORT", "2"), ("FLOW_PROXY_WORKERS", "22")];
    let invocation = parse_with(&["--port", "3"], &environment, &dotenv.0).unwrap();
    let place = |name| setting(&invocation, name);
    assert_eq!(place("port"), ("3".to_owned(), "command line".to_owned()));
    assert_eq!(
        place("workers"),
        ("22".to_owned(), "FLOW_PROXY_WORKERS".to_owned())
    );
    assert_eq!(place("host"), ("::1".to_owned(), ".env".to_owned()));
    assert_eq!(place("log-level").1, "default");
    let options = &invocation.options;
    assert_eq!((options.port, options.workers), (3, 22));
    assert_eq!(options.host, IpAddr::V6(Ipv6Addr::LOCALHOST));
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let dotenv = DotEnv::holding("FLOW_PROXY_PORT=1\nFLOW_PROXY_WORKERS=\n");
    let environment = [("FLOW_PROXY_PORT", ""), ("FLOW_PROXY_NONSENSE", "")];
    let invocation = parse_with(&[], &environment, &dotenv.0).unwrap();
    assert_eq!(
        setting(&invocation, "port"),
        ("1".to_owned(), ".env".to_owned())
    );
    assert_eq!(
        setting(&invocation, "workers"),
        ("256".to_owned(), "default".to_owned())
    );
    assert!(invocation.warnings.is_empty(), "{:?}", invocation.warnings);
}

#[test]
fn reading_dotenv_leaves_the_process_s_environment_alone() {
    let dotenv = DotEnv::holding("FLOW_PROXY_PORT=1\nFLOW_PROXY_TEST_LEAK=1\n");
    parse_with(&[], &[], &dotenv.0).unwrap();
    assert_eq!(std::env::var_os("FLOW_PROXY_TEST_LEAK"), None);
}

#[test]
fn of_an_option_given_twice_the_last_counts_and_is_the_one_checked() {
    assert_eq!(parsed(&["--port=abc", "--port", "2"], &[]).options.port, 2);
    let dotenv = DotEnv::holding("FLOW_PROXY_PORT=1\nFLOW_PROXY_PORT=2\n");
    assert_eq!(parse_with(&[], &[], &dotenv.0).unwrap().options.port, 2);
}

#[test]
fn a_bad_value_that_is_not_in_force_stops_nothing() {
    let invocation = parsed(&["--port", "3"], &[("FLOW_PROXY_PORT", "abc")]);
    assert_eq!(invocation.options.port, 3);
}

#[test]
fn every_option_is_set_from_each_of_its_three_sources() {
    for spec in &OPTIONS {
        // A value that each option takes and that is no default.
        let value = match spec.long {
            "port" | "workers" | "upstream-timeout" | "client-timeout" | "shutdown-timeout" => "7",
            "max-body" => "7K",
            "host" => "::1",
            "log-level" => "error",
            "target-url" => "https://example.com/x",
            _ => "other-file",
        };
        let long = format!("--{}", spec.long);
        let joined = format!("{long}={value}");
        let dotenv = DotEnv::holding(&format!("{}={value}\n", spec.env));
        let by_env = parsed(&[], &[(spec.env, value)]);
        for invocation in [
            parsed(&[&long, value], &[]),
            parsed(&[&joined], &[]),
            parse_with(&[], &[], &dotenv.0).unwrap(),
        ] {
            assert_eq!(invocation.options, by_env.options, "{}", spec.long);
        }
        assert_ne!(by_env.options, Options::default(), "{}", spec.long);
    }
}

#[test]
fn a_bad_value_names_its_source_and_what_is_allowed() {
    let expected = "'abc' is not a port (0 to 65535)";
    assert_eq!(
        errors(&["--port", "abc"], &[]),
        [format!("--port: {expected}")]
    );
    let environment = [("FLOW_PROXY_PORT", "abc")];
    assert_eq!(
        errors(&[], &environment),
        [format!("FLOW_PROXY_PORT: {expected}")]
    );
    let dotenv = DotEnv::holding("FLOW_PROXY_PORT=abc\n");
    let found = parse_with(&[], &[], &dotenv.0).unwrap_err().0;
    let place = dotenv.0.display();
    assert_eq!(found, [format!("{place}: FLOW_PROXY_PORT: {expected}")]);
}

#[test]
fn all_problems_are_told_in_one_go_each_on_one_line() {
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
fn a_password_in_the_target_url_is_not_quoted() {
    let found = errors(&["--target-url", "https://bob:hunter2@example.com"], &[]);
    assert!(found[0].starts_with("--target-url: the URL"), "{found:?}");
    assert!(!found[0].contains("hunter2"), "{found:?}");
}

#[test]
fn a_missing_or_empty_value_is_told() {
    let expected = ["--port: a value is missing (--port PORT)"];
    assert_eq!(errors(&["--port"], &[]), expected);
    assert_eq!(errors(&["--port="], &[]), expected);
    assert_eq!(errors(&["--port", ""], &[]), expected);
}

#[test]
fn unknown_options_have_a_hint_and_their_values_no_second_complaint() {
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
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("--online"), "{found:?}");
}

#[test]
fn unknown_variables_are_warned_of_with_the_nearest_known_name() {
    let dotenv = DotEnv::holding("FLOW_PROXY_SECRET_FILE=x\nOTHER=1\n");
    let environment = [("FLOW_PROXY_PROT", "1"), ("FLOW_PROXY", "1"), ("PORT", "1")];
    let invocation = parse_with(&[], &environment, &dotenv.0).unwrap();
    let place = dotenv.0.display();
    assert_eq!(
        invocation.warnings,
        [
            "FLOW_PROXY_PROT: unknown variable, ignored; did you mean FLOW_PROXY_PORT?".to_owned(),
            format!(
                "{place}: FLOW_PROXY_SECRET_FILE: unknown variable, ignored; did you mean \
                 FLOW_PROXY_SECRETS_FILE?"
            ),
        ]
    );
}

#[test]
fn an_upstream_proxy_in_dotenv_is_warned_of() {
    let dotenv = DotEnv::holding("https_proxy=http://bob:hunter2@127.0.0.1:3128\n");
    let warnings = parse_with(&[], &[], &dotenv.0).unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("https_proxy"), "{warnings:?}");
    assert!(!warnings[0].contains("hunter2"), "{warnings:?}");
}

#[test]
fn a_malformed_dotenv_is_told_with_file_and_line() {
    let dotenv = DotEnv::holding("FLOW_PROXY_PORT=1\nFLOW_PROXY_HOST\n");
    let found = parse_with(&[], &[], &dotenv.0).unwrap_err().0;
    let place = dotenv.0.display();
    assert_eq!(
        found,
        [format!("{place}: line 2 is not NAME=VALUE (quote blanks)")]
    );
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
        (&["help"], Command::Help),
        (&["completions", "zsh"], Command::Completions(Shell::Zsh)),
    ] {
        assert_eq!(parsed(args, &[]).command, command);
    }
}

#[test]
fn wrong_commands_and_words_too_many_are_told() {
    let all = "demo, check, token, health, completions, help; none runs the proxy";
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

#[cfg(unix)]
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
    assert!(found[0].ends_with("did you mean --port?"), "{found:?}");
    assert_eq!(
        found[1..],
        [
            "'\u{fffd}' is not UTF-8",
            "--port: the value is not UTF-8",
            "FLOW_PROXY_HOST: the value is not UTF-8",
        ]
    );
}

#[test]
fn a_log_file_is_is_required_by_naming_it_even_if_it_is_the_default() {
    assert!(!parsed(&[], &[]).options.log_file.is_required);
    let named = parsed(&["--log-file", "flow_proxy_plugin.log"], &[]);
    assert!(named.options.log_file.is_required);
}

#[test]
fn a_value_shown_is_read_back_as_the_same() {
    let shown = parsed(
        &[],
        &[
            ("FLOW_PROXY_MAX_BODY", "0"),
            ("FLOW_PROXY_CLIENT_TIMEOUT", "1ms"),
        ],
    );
    let args: Vec<String> = shown
        .sources
        .iter()
        .filter(|setting| setting.name != "ca-file" && setting.name != "log-file")
        .map(|setting| format!("--{}={}", setting.name, setting.value))
        .collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    assert_eq!(parsed(&args, &[]).options, shown.options);
}

#[test]
fn env_example_lists_every_variable_commented_out_with_its_default() {
    let example = include_str!("../../.env.example");
    let lines: Vec<&str> = example
        .lines()
        .filter_map(|line| line.strip_prefix("# FLOW_PROXY_"))
        .collect();
    let expected: Vec<String> = OPTIONS
        .iter()
        .map(|spec| {
            let default = spec.default_text();
            let default = if default == "none" { "" } else { &default };
            format!("{}={default}", &spec.env[PREFIX.len()..])
        })
        .collect();
    assert_eq!(lines, expected);
    assert!(
        example
            .lines()
            .all(|line| line.is_empty() || line.starts_with("# "))
    );
}

#[test]
fn env_example_taken_as_it_stands_means_the_defaults() {
    let example = include_str!("../../.env.example").replace("# FLOW_PROXY_", "FLOW_PROXY_");
    let dotenv = DotEnv::holding(&example);
    let mut options = parse_with(&[], &[], &dotenv.0).unwrap().options;
    assert!(std::mem::take(&mut options.log_file.is_required));
    assert_eq!(options, Options::default());
}

#[test]
fn every_variable_is_named_after_its_option() {
    for spec in &OPTIONS {
        let name = spec.long.to_ascii_uppercase().replace('-', "_");
        assert_eq!(spec.env, format!("{PREFIX}{name}"));
    }
}
