//! `check --online`: what it asks the target and prints.

use std::process::{Command, Stdio};

use crate::support::{Answer, FakeFlow, ProxyBuilder, ProxyProcess, SOON, credentials};

fn models(ids: &[String]) -> Answer {
    let data: Vec<_> = ids.iter().map(|id| serde_json::json!({"id": id})).collect();
    Answer::new(200, serde_json::json!({"data": data}).to_string())
}

fn check(upstream: &FakeFlow) -> ProxyBuilder {
    ProxyProcess::to(&upstream.url())
        .command("check")
        .arg("--online")
}

#[test]
fn each_credential_has_its_status_time_and_models() {
    let upstream = FakeFlow::answering(|request| match request.client_id().as_str() {
        "client-1" => models(&["gpt-4o".to_owned(), "claude-sonnet".to_owned()]),
        "client-2" => models(&(1..=23).map(|n| format!("model-{n}")).collect::<Vec<_>>()),
        _ => Answer::unauthorized(),
    });
    let check = check(&upstream).secrets(&credentials(3)).run_to_end(SOON);
    assert_eq!(check.code, Some(1), "{check:?}");
    assert!(
        check.stdout.contains("'primary-1': accepted, 200 in "),
        "{check:?}"
    );
    assert!(
        check
            .stdout
            .contains("\n'primary-1': may use gpt-4o, claude-sonnet\n"),
        "{check:?}"
    );
    assert!(
        check
            .stdout
            .contains("'primary-2': may use model-1, model-2, "),
        "{check:?}"
    );
    assert!(
        check.stdout.contains(", model-20 and 3 more\n"),
        "{check:?}"
    );
    assert!(!check.stdout.contains("'primary-3':"), "{check:?}");
    assert!(
        check.stderr.contains("'primary-3': rejected, 401 in "),
        "{check:?}"
    );
}

#[test]
fn names_of_models_cannot_control_the_terminal() {
    let upstream = FakeFlow::answering(|_| models(&["a\n\u{1b}[31mé".to_owned()]));
    let check = check(&upstream).run_to_end(SOON);
    assert_eq!(check.code, Some(0), "{check:?}");
    assert!(check.stdout.is_ascii(), "{check:?}");
    assert!(!check.stdout.contains('\u{1b}'), "{check:?}");
    assert!(
        check.stdout.contains("may use a\\n\\u{1b}[31m\\u{e9}\n"),
        "{check:?}"
    );
}

#[test]
fn a_list_that_cannot_be_read_is_told_and_no_failure() {
    let upstream = FakeFlow::answering(|_| Answer::new(200, "<html>"));
    let check = check(&upstream).run_to_end(SOON);
    assert_eq!(check.code, Some(0), "{check:?}");
    assert!(
        check.stdout.contains("its list of models cannot be read"),
        "{check:?}"
    );
}

#[test]
fn output_that_cannot_be_written_exits_1_and_a_closed_pipe_does_not() {
    let upstream = FakeFlow::answering(|_| models(&["gpt-4o".to_owned()]));
    let full = check(&upstream)
        .after_shell("exec >/dev/full")
        .run_to_end(SOON);
    assert_eq!(full.code, Some(1), "{full:?}");
    let lines: Vec<&str> = full
        .stderr
        .lines()
        .filter(|line| line.contains("standard output"))
        .collect();
    assert_eq!(lines.len(), 1, "{full:?}");

    let dir = ProxyProcess::to(&upstream.url());
    let mut child = Command::new(env!("CARGO_BIN_EXE_flow-proxy"))
        .args([
            "check",
            "--online",
            "--target-url",
            &upstream.url(),
            "--secrets-file",
        ])
        .arg(dir.path("secrets.json"))
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the built binary starts");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("a child of ours").code(), Some(0));
}
