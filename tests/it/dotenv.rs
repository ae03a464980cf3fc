//! The `.env` file, seen from outside.

use crate::support::{ProxyBuilder, ProxyProcess, SOON};

fn check(dotenv: &str) -> ProxyBuilder {
    ProxyProcess::to("http://127.0.0.1:9/x")
        .with_file(".env", dotenv)
        .command("check")
}

/// Whether `check` printed a setting with this value and source.
fn has_setting(stdout: &str, name: &str, value: &str, source: &str) -> bool {
    let start = format!("{name} ");
    let end = format!("= {value}  ({source})");
    let mut lines = stdout.lines();
    lines.any(|line| line.starts_with(&start) && line.ends_with(&end))
}

#[test]
fn lines_of_other_programs_are_passed_over_whatever_they_hold() {
    let builder = check("");
    let lines = b"PASSWORD hunter2\nKEY=\"never closed\nA=\xff\xfe\x00\x01\nB=two words\n\
                  export FLOW_PROXY_WORKERS='7' # ours\r\nC='\n";
    std::fs::write(builder.path(".env"), lines).expect("our own directory is writable");
    let check = builder.run_to_end(SOON);
    assert_eq!(check.code, Some(0), "{check:?}");
    assert!(
        has_setting(&check.stdout, "workers", "7", ".env"),
        "{check:?}"
    );
    assert!(!format!("{check:?}").contains("hunter2"));
}

#[test]
fn a_malformed_line_of_ours_is_told_by_its_number_and_not_quoted() {
    let dotenv = "OTHER hunter1\nFLOW_PROXY_WORKERS=1\nFLOW_PROXY_LOG_FILE hunter2\n\
                  HTTPS_PROXY=\"http://hunter3\n";
    let check = check(dotenv).run_to_end(SOON);
    assert_eq!(
        (check.code, check.stdout.as_str()),
        (Some(2), ""),
        "{check:?}"
    );
    let lines: Vec<&str> = check.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{check:?}");
    assert!(
        lines[0].starts_with("flow-proxy: .env: line 3 "),
        "{check:?}"
    );
    assert!(
        lines[1].starts_with("flow-proxy: .env: line 4 "),
        "{check:?}"
    );
    assert!(!check.stderr.contains("hunter"), "{check:?}");
}

#[test]
fn nothing_in_a_value_is_expanded() {
    for value in ["$HOME/a", "a\\n$(id)`id`", "~/a"] {
        for line in [
            format!("'{value}'"),
            format!("\"{value}\""),
            value.to_owned(),
        ] {
            let dotenv = format!("FLOW_PROXY_LOG_FILE={line}\n");
            let check = check(&dotenv).env("HOME", "/home/x").run_to_end(SOON);
            assert_eq!(check.code, Some(0), "{check:?}");
            let is_whole = has_setting(&check.stdout, "log-file", value, ".env");
            assert!(is_whole, "{line}: {check:?}");
        }
    }
}

#[test]
fn allow_http_target_does_not_count_here_and_a_warning_says_so() {
    let dotenv = "FLOW_PROXY_ALLOW_HTTP_TARGET=true\n";
    let there = check(dotenv).run_to_end(SOON);
    assert_eq!(there.code, Some(0), "{there:?}");
    let warning = "warning: .env: FLOW_PROXY_ALLOW_HTTP_TARGET has no effect here";
    assert!(there.stderr.contains(warning), "{there:?}");
    let needed = check(dotenv)
        .option("--target-url", "http://192.0.2.1")
        .run_to_end(SOON);
    assert_eq!(needed.code, Some(2), "{needed:?}");
    assert!(needed.stderr.contains("clear text"), "{needed:?}");
}

#[test]
fn ssl_cert_file_does_not_count_here() {
    let check = check("SSL_CERT_FILE=no-such-file.pem\n").run_to_end(SOON);
    assert_eq!(check.code, Some(0), "{check:?}");
}
