//! Where values come from, and `.env`.

use std::net::Ipv6Addr;
use std::path::Path;

use super::support::{DotEnv, errors, parse_with, parsed, setting};
use crate::cli::Command;
use crate::cli::options::{NEVER_IN_DOTENV, OPTIONS, PREFIX};
use crate::config::address::Host;
use crate::config::options::Options;
use crate::config::secrets::SecretsSource;

#[test]
fn nothing_at_all_serves_with_the_defaults_of_the_contract() {
    let invocation = parsed(&[], &[]);
    assert_eq!(invocation.command, Command::Serve { or_demo: false });
    assert_eq!(invocation.options, Options::default());
    assert!(invocation.warnings.is_empty());
    let shown: Vec<String> = invocation
        .settings
        .iter()
        .map(|setting| format!("{}={} ({})", setting.name, setting.value, setting.source))
        .collect();
    assert_eq!(
        shown,
        [
            "port=8899 (default)",
            "host=127.0.0.1,[::1] (default)",
            "log-level=INFO (default)",
            "secrets-file=secrets.json (default)",
            "log-file=flow_proxy_plugin.log (default)",
            "log-max-size=32MiB (default)",
            "log-keep=7 (default)",
            "log-format=text (default)",
            "target-url=https://flow.ciandt.com/flow-llm-proxy (default)",
            "allow-http-target=false (default)",
            "workers=256 (default)",
            "limit-wait=0s (default)",
            "upstream-timeout=600s (default)",
            "client-timeout=60s (default)",
            "shutdown-timeout=30s (default)",
            "max-body=100MiB (default)",
            "ca-file=none (default)",
            "allow-host=none (default)",
            "allow-origin=none (default)",
            "admin-from=none (default)",
        ]
    );
}

#[test]
fn the_command_line_goes_before_the_environment_before_dotenv_before_the_default() {
    let dotenv = DotEnv::with_secrets_file(
        "FLOW_PROXY_PORT=1\nFLOW_PROXY_WORKERS=11\nFLOW_PROXY_HOST=::1\n",
    );
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
    assert_eq!(options.host, Host::Address(Ipv6Addr::LOCALHOST.into()));
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
fn a_bad_value_that_is_not_in_force_stops_nothing() {
    let invocation = parsed(&["--port", "3"], &[("FLOW_PROXY_PORT", "abc")]);
    assert_eq!(invocation.options.port, 3);
}

#[test]
fn every_option_is_set_from_each_of_its_three_sources() {
    for spec in OPTIONS {
        // A value that each option takes and that is no default.
        let value = match spec.long {
            "port" | "workers" => "7",
            "log-keep" => "0",
            "log-format" => "JSON",
            "upstream-timeout" | "client-timeout" | "shutdown-timeout" | "limit-wait" => "7",
            "max-body" | "log-max-size" => "7K",
            "host" => "::1",
            "allow-http-target" => "true",
            "log-level" => "error",
            "target-url" => "https://example.com/x",
            "allow-origin" => "https://example.com",
            "admin-from" => "10.0.0.0/8",
            _ => "other-file",
        };
        let long = format!("--{}", spec.long);
        let joined = format!("{long}={value}");
        let dotenv = DotEnv::with_secrets_file(&format!("{}={value}\n", spec.env));
        let by_env = parsed(&[], &[(spec.env, value)]);
        for invocation in [parsed(&[&long, value], &[]), parsed(&[&joined], &[])] {
            assert_eq!(invocation.options, by_env.options, "{}", spec.long);
        }
        if spec.long == "secrets-file" {
            continue;
        }
        let mut by_dotenv = parse_with(&[], &[], &dotenv.0).unwrap();
        by_dotenv.options.secrets = Options::default().secrets;
        by_dotenv.options.secrets_within = None;
        let counts = !NEVER_IN_DOTENV.contains(&spec.env);
        assert_eq!(by_dotenv.options == by_env.options, counts, "{}", spec.long);
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
fn a_password_in_the_target_url_is_not_quoted() {
    let found = errors(&["--target-url", "https://bob:hunter2@example.com"], &[]);
    assert!(found[0].starts_with("--target-url: the URL"), "{found:?}");
    assert!(!found[0].contains("hunter2"), "{found:?}");
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
fn proxy_variables_are_read_from_the_environment_and_from_dotenv() {
    let dotenv =
        DotEnv::with_secrets_file("https_proxy=http://bob:hunter2@127.0.0.1:3128\nNO_PROXY=\n");
    let environment = [("ALL_PROXY", "http://one:1"), ("HTTP_PROXY", "")];
    let invocation = parse_with(&[], &environment, &dotenv.0).unwrap();
    let variables = &invocation.options.proxy_variables;
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    assert_eq!(variables.environment, environment.map(owned));
    assert_eq!(variables.dotenv.len(), 2, "{variables:?}");
    assert_eq!(
        setting(&invocation, "secrets-file").0,
        dotenv.secrets_file().display().to_string()
    );
    assert!(invocation.warnings.is_empty(), "{:?}", invocation.warnings);
    assert!(!format!("{invocation:?}").contains("hunter2"));
}

#[test]
fn allow_http_target_does_not_count_in_dotenv_and_a_warning_says_so() {
    let dotenv = DotEnv::with_secrets_file("FLOW_PROXY_ALLOW_HTTP_TARGET=true\n");
    let invocation = parse_with(&[], &[], &dotenv.0).unwrap();
    assert!(!invocation.options.allow_http_target);
    let warnings = invocation.warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let start = format!("{}: FLOW_PROXY_ALLOW_HTTP_TARGET ", dotenv.0.display());
    assert!(warnings[0].starts_with(&start), "{warnings:?}");
    let from_there = ["--target-url", "http://example.com"];
    assert!(parse_with(&from_there, &[], &dotenv.0).is_err());
}

#[test]
fn an_http_target_must_be_allowed() {
    let url = ["--target-url", "http://example.com"];
    let rejection = "--target-url: 'http://example.com' would send the token in clear text";
    let found = errors(&url, &[]);
    assert!(
        found.len() == 1 && found[0].starts_with(rejection),
        "{found:?}"
    );
    let allowed = parsed(&url, &[("FLOW_PROXY_ALLOW_HTTP_TARGET", "true")]);
    assert!(allowed.options.target.sends_in_clear());
}

#[test]
fn a_target_that_is_the_proxy_itself_is_an_error() {
    let at_port = [("FLOW_PROXY_PORT", "4000")];
    for url in [
        "http://127.0.0.1:4000",
        "https://localhost:4000/flow-llm-proxy",
        "http://[::1]:4000/x",
        "http://a.localhost:4000",
    ] {
        let found = errors(&["--target-url", url], &at_port);
        let start = format!("--target-url: '{url}' is this proxy itself");
        assert!(
            found.len() == 1 && found[0].starts_with(&start),
            "{found:?}"
        );
        parsed(&["--target-url", url, "--port", "4001"], &at_port);
        parsed(&["--target-url", url, "--host", "192.0.2.1"], &at_port);
    }
    let by_address = ["--target-url=https://192.0.2.1:4000", "--host=192.0.2.1"];
    assert_eq!(errors(&by_address, &at_port).len(), 1);
    parsed(&["--target-url=http://127.0.0.1:1", "--port=0"], &[]);
}

#[test]
fn the_secrets_may_stand_in_a_variable_but_not_beside_a_file() {
    let secrets = ("FLOW_PROXY_SECRETS", "[hush]");
    let invocation = parsed(&[], &[secrets]);
    assert!(matches!(
        invocation.options.secrets,
        SecretsSource::Array(_)
    ));
    let place = ("none".to_owned(), "FLOW_PROXY_SECRETS".to_owned());
    assert_eq!(setting(&invocation, "secrets-file"), place);
    assert!(!format!("{invocation:?}").contains("hush"));

    let dotenv = DotEnv::holding("FLOW_PROXY_SECRETS=[hush]\n");
    let invocation = parse_with(&[], &[], &dotenv.0).unwrap();
    assert_eq!(setting(&invocation, "secrets-file").1, ".env");

    let file = [("FLOW_PROXY_SECRETS_FILE", "x"), secrets];
    for found in [
        errors(&["--secrets-file", "x"], &[secrets]),
        errors(&[], &file),
        parse_with(&["--secrets-file=x"], &[], &dotenv.0)
            .unwrap_err()
            .0,
    ] {
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].contains("FLOW_PROXY_SECRETS: holds the secrets"),
            "{found:?}"
        );
        assert!(!found[0].contains("hush"), "{found:?}");
    }
}

#[test]
fn further_roots_come_from_the_environment_s_ssl_cert_file_only() {
    let dotenv = DotEnv::holding("SSL_CERT_FILE=other.pem\n");
    let invocation = parse_with(&["--ca-file=a.pem"], &[], &dotenv.0).unwrap();
    assert_eq!(
        invocation.options.root_files(),
        [("--ca-file", Path::new("a.pem"))]
    );
    let environment = [("SSL_CERT_FILE", "b.pem")];
    let both = parse_with(&["--ca-file=a.pem"], &environment, &dotenv.0).unwrap();
    let expected = [
        ("--ca-file", Path::new("a.pem")),
        ("SSL_CERT_FILE", Path::new("b.pem")),
    ];
    assert_eq!(both.options.root_files(), expected);
    assert_eq!(setting(&both, "SSL_CERT_FILE").0, "b.pem");
}

#[test]
fn a_setting_that_may_hold_a_secret_is_not_shown() {
    let invocation = parsed(&["--secrets-file", "[{\"clientSecret\":\"hush\"}]"], &[]);
    assert!(!setting(&invocation, "secrets-file").0.contains("hush"));
    let long = "x/".repeat(100);
    let invocation = parsed(&["--secrets-file", &long], &[]);
    assert_eq!(
        setting(&invocation, "secrets-file").0,
        format!("{}…", &long[..64])
    );
}

#[test]
fn a_malformed_dotenv_is_reported_with_file_and_line() {
    let dotenv = DotEnv::holding("FLOW_PROXY_PORT=1\nFLOW_PROXY_HOST\n");
    let found = parse_with(&[], &[], &dotenv.0).unwrap_err().0;
    let place = dotenv.0.display();
    assert_eq!(
        found,
        [format!("{place}: line 2 is not NAME=VALUE (quote blanks)")]
    );
}

#[test]
fn a_log_file_is_required_by_naming_it_even_if_it_is_the_default() {
    let is_required = |args: &[&str]| {
        let log_file = parsed(args, &[]).options.log_file;
        log_file.is_some_and(|file| file.is_required)
    };
    assert!(!is_required(&[]));
    assert!(is_required(&["--log-file", "flow_proxy_plugin.log"]));
    assert_eq!(parsed(&["--log-file", "none"], &[]).options.log_file, None);
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
        .settings
        .iter()
        .filter(|setting| {
            let has_value = setting.value != "none";
            // A log file that is named must be writable, the default one need not.
            (has_value || setting.name == "max-body") && setting.name != "log-file"
        })
        .map(|setting| format!("--{}={}", setting.name, setting.value))
        .collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    assert_eq!(parsed(&args, &[]).options, shown.options);
}

#[test]
fn env_example_lists_every_variable_commented_out_with_its_default() {
    let example = include_str!("../../../.env.example");
    let lines: Vec<&str> = example
        .lines()
        .filter_map(|line| line.strip_prefix("# FLOW_PROXY_"))
        .collect();
    let expected: Vec<String> = OPTIONS
        .iter()
        .filter(|spec| !NEVER_IN_DOTENV.contains(&spec.env))
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
    let example = include_str!("../../../.env.example").replace("# FLOW_PROXY_", "FLOW_PROXY_");
    let secrets_line = "FLOW_PROXY_SECRETS_FILE=secrets.json";
    assert!(example.contains(secrets_line));
    let dotenv = DotEnv::with_secrets_file(&example.replace(secrets_line, ""));
    let mut options = parse_with(&[], &[], &dotenv.0).unwrap().options;
    options.secrets = Options::default().secrets;
    assert!(options.secrets_within.take().is_some());
    let log_file = options.log_file.as_mut();
    assert!(std::mem::take(&mut log_file.unwrap().is_required));
    assert_eq!(options, Options::default());
}

#[test]
fn every_variable_is_named_after_its_option() {
    for spec in OPTIONS {
        let name = spec.long.to_ascii_uppercase().replace('-', "_");
        assert_eq!(spec.env, format!("{PREFIX}{name}"));
    }
}
