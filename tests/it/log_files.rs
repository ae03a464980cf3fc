//! Which files the log is written to, and which it is not (contract section 6).

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use crate::support::{FakeFlow, ProxyBuilder, ProxyProcess, SOON, credential, get};

const DEFAULT: &str = "flow_proxy_plugin.log";

/// Starts a proxy whose directory was prepared, and asserts that it serves and warns of its default log
/// file.
fn assert_logs_to_stderr_only(prepare: impl FnOnce(&ProxyBuilder), why: &str) -> ProxyProcess {
    let upstream = FakeFlow::start();
    let builder = ProxyProcess::to(&upstream.url());
    prepare(&builder);
    let proxy = builder.start();
    let line = proxy.wait_for_log(&format!("Cannot open log file {DEFAULT}: {why}"));
    assert!(line.contains(" - WARNING - "), "{line}");
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    proxy.signal("HUP");
    let again = proxy.wait_for_log("the log goes on where it went before");
    assert!(again.contains(why), "{again}");
    proxy
}

fn is_untouched(path: &Path, content: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text == content)
}

#[test]
fn the_default_log_file_is_no_symlink() {
    let proxy = assert_logs_to_stderr_only(
        |builder| {
            std::fs::write(builder.path("precious"), "mine\n").expect("our own directory");
            symlink("precious", builder.path(DEFAULT)).expect("our own directory");
        },
        "it is a symbolic link",
    );
    assert!(is_untouched(&proxy.file("precious"), "mine\n"));
    let proxy = assert_logs_to_stderr_only(
        |builder| symlink("nothing", builder.path(DEFAULT)).expect("our own directory"),
        "it is a symbolic link",
    );
    assert!(!proxy.file("nothing").exists());
}

#[test]
fn the_default_log_file_is_a_file_of_this_user_s() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    let proxy = assert_logs_to_stderr_only(
        |builder| {
            let file = builder.path(DEFAULT);
            std::fs::write(&file, "theirs\n").expect("our own directory");
            chown(file, Some(12_345), None).expect("root may");
        },
        "it is no regular file of this user's",
    );
    assert!(is_untouched(&proxy.file(DEFAULT), "theirs\n"));
}

#[test]
fn a_log_file_that_was_asked_for_may_be_a_symlink() {
    let upstream = FakeFlow::start();
    let builder = ProxyProcess::to(&upstream.url()).option("--log-file", DEFAULT);
    symlink("real.log", builder.path(DEFAULT)).expect("our own directory");
    let mut proxy = builder.start();
    proxy.signal("TERM");
    proxy.wait_for_exit(SOON);
    let text = std::fs::read_to_string(proxy.file("real.log")).expect("the log file");
    assert!(text.contains("Listening on"), "{text}");
}

#[test]
fn a_file_that_is_read_is_no_log_file() {
    let secrets = "the secrets file";
    let roots = "a file of certificates";
    for (log_file, kind) in [
        ("secrets.json", secrets),
        ("./d/../secrets.json", secrets),
        ("symlink", secrets),
        ("hardlink", secrets),
        ("ca.pem", roots),
        ("no-such-ca.pem", roots),
        ("d/../.env", "the .env file"),
    ] {
        let ca_file = if log_file.starts_with("no") {
            log_file
        } else {
            "ca.pem"
        };
        let builder = ProxyProcess::to("http://127.0.0.1:9/x")
            .with_file("ca.pem", "")
            .option("--log-file", log_file)
            .env("SSL_CERT_FILE", ca_file);
        let secrets_file = builder.path("secrets.json");
        std::fs::create_dir(builder.path("d")).expect("our own directory");
        symlink("secrets.json", builder.path("symlink")).expect("our own directory");
        std::fs::hard_link(&secrets_file, builder.path("hardlink")).expect("our own directory");
        let finished = builder.command("check").run_to_end(SOON);
        assert_eq!(finished.code, Some(2), "{finished:?}");
        let line = format!("flow-proxy: --log-file: '{log_file}' is {kind}");
        let mut lines = finished.stderr.lines();
        assert!(
            lines.any(|one| one.starts_with(&line)),
            "{line} in {finished:?}"
        );
    }
}

#[test]
fn a_file_that_is_read_has_no_name_of_a_rotated_log() {
    for (secrets, code) in [("x.log.1", 2), ("x.log.01x", 0), ("x.log.", 0)] {
        let builder = ProxyProcess::bare()
            .with_file(secrets, &serde_json::json!([credential(1)]).to_string())
            .option("--secrets-file", secrets)
            .option("--log-file", "./x.log");
        let finished = builder.command("check").run_to_end(SOON);
        assert_eq!(finished.code, Some(code), "{secrets} {finished:?}");
        let line = "--log-file: 'x.log.1', the secrets file, has the name of a rotated './x.log'";
        assert_eq!(finished.stderr.contains(line), code == 2, "{finished:?}");
    }
}

#[test]
fn a_secrets_file_that_is_named_as_log_file_is_left_alone() {
    let builder = ProxyProcess::bare()
        .with_file(
            ".env",
            "FLOW_PROXY_LOG_FILE=own.json\nFLOW_PROXY_SECRETS_FILE=own.json\n",
        )
        .with_file("own.json", "[]");
    let mut proxy = builder.spawn();
    assert_eq!(proxy.wait_for_exit(SOON).code(), Some(2));
    let line = "flow-proxy: .env: FLOW_PROXY_LOG_FILE: 'own.json' is the secrets file";
    proxy.wait_for_log(line);
    assert!(is_untouched(&proxy.file("own.json"), "[]"));
}

#[test]
fn a_log_file_that_all_users_may_write_gets_a_warning() {
    for (mode, is_told) in [(0o666, true), (0o602, true), (0o664, false), (0o600, false)] {
        let builder = ProxyProcess::to("http://127.0.0.1:9/x").option("--log-file", "own.log");
        let file = builder.path("own.log");
        std::fs::write(&file, "").expect("our own directory");
        std::fs::set_permissions(&file, Permissions::from_mode(mode)).expect("our own file");
        let proxy = builder.start();
        let line = "WARNING - Log file own.log can be written by all users of this machine: run chmod 600 own.log";
        assert_eq!(proxy.log().contains(line), is_told, "{mode:o}");
    }
}

#[test]
fn sigusr1_reopens_the_log_and_further_signals_do_not_end_the_proxy() {
    let upstream = FakeFlow::start();
    let mut proxy = ProxyProcess::to(&upstream.url())
        .option("--log-file", "own.log")
        .start();
    let rotated = proxy.file("own.log.1");
    std::fs::rename(proxy.file("own.log"), &rotated).expect("our own directory");
    for signal in ["ALRM", "USR2", "USR1"] {
        proxy.signal(signal);
    }
    proxy.wait_for_log("Log file own.log reopened");
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    proxy.wait_for_access_line(1);
    assert!(!proxy.log().contains("Received"), "{}", proxy.log());
    proxy.signal("TERM");
    assert_eq!(proxy.wait_for_exit(SOON).code(), Some(0));
    let new = std::fs::read_to_string(proxy.file("own.log")).expect("the new file");
    assert!(new.contains("\"GET /v1/models\" 200"), "{new}");
}

#[test]
fn a_log_file_that_has_become_a_file_that_is_read_is_not_reopened() {
    let upstream = FakeFlow::start();
    for (other, kind) in [
        ("secrets.json", "it is the secrets file"),
        (".env", "it is the .env file"),
    ] {
        for link in [symlink::<PathBuf, PathBuf>, std::fs::hard_link] {
            let proxy = ProxyProcess::to(&upstream.url())
                .with_file(".env", "# mine\n")
                .option("--log-file", "own.log")
                .start();
            let before = std::fs::read_to_string(proxy.file(other)).expect("our own file");
            std::fs::remove_file(proxy.file("own.log")).expect("the log file");
            link(proxy.file(other), proxy.file("own.log")).expect("our own directory");
            proxy.signal("HUP");
            let line = proxy.wait_for_log("the log goes on where it went before");
            assert!(line.contains(kind), "{line}");
            assert_eq!(get(proxy.address(), "/v1/models").status, 200);
            proxy.wait_for_access_line(1);
            assert!(is_untouched(&proxy.file(other), &before), "{other}");
        }
    }
}
