//! The `.env` file, seen from outside.

use std::os::unix::fs::symlink as make_symlink;
use std::path::Path;

use crate::support::{ProxyBuilder, ProxyProcess, SOON, TempDir, credentials};

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

/// Lines by which a `.env` file would send secrets and prompts elsewhere, let others in, or choose a file
/// that is written; with what messages call them.
const NEED_TRUST: [(&str, &str); 14] = [
    (
        "FLOW_PROXY_TARGET_URL=https://evil.example/x",
        "--target-url",
    ),
    ("export FLOW_PROXY_LOG_FILE='/tmp/none/x'", "--log-file"),
    ("FLOW_PROXY_CA_FILE=ca.pem", "--ca-file"),
    ("FLOW_PROXY_HOST=0.0.0.0", "--host"),
    ("FLOW_PROXY_ALLOW_HOST=evil.example", "--allow-host"),
    ("FLOW_PROXY_ALLOW_HTTP_TARGET=true", "--allow-http-target"),
    ("HTTPS_PROXY=http://evil.example:1", "HTTPS_PROXY"),
    ("https_proxy=http://evil.example:1", "https_proxy"),
    ("HTTP_PROXY=http://evil.example:1", "HTTP_PROXY"),
    ("http_proxy=http://evil.example:1", "http_proxy"),
    ("ALL_PROXY=http://evil.example:1", "ALL_PROXY"),
    ("all_proxy=http://evil.example:1", "all_proxy"),
    ("NO_PROXY=*", "NO_PROXY"),
    ("no_proxy=*", "no_proxy"),
];

fn secrets_text() -> String {
    serde_json::to_string(&credentials(1)).expect("values are JSON")
}

/// A cloned repository with this `.env`, and no secrets in it.
fn cloned(dotenv: &str) -> ProxyBuilder {
    ProxyProcess::bare().with_file(".env", dotenv)
}

/// Asserts that the process ends with exit code 2 and a line about line `line` of `.env`.
fn assert_stops(builder: ProxyBuilder, line: usize, what: &str) {
    let finished = builder.run_to_end(SOON);
    assert_eq!(finished.code, Some(2), "{what}: {finished:?}");
    let start = format!("flow-proxy: .env: line {line}: {what} ");
    let is_told = finished.stderr.lines().any(|line| line.starts_with(&start));
    assert!(is_told, "{start:?} in {finished:?}");
    assert!(!finished.stderr.contains("evil.example"), "{finished:?}");
}

#[test]
fn a_foreign_dotenv_cannot_say_where_secrets_and_prompts_go() {
    let elsewhere = TempDir::new();
    let secrets = elsewhere.join("secrets.json");
    std::fs::write(&secrets, secrets_text()).expect("our own directory");
    let secrets = secrets.to_str().expect("UTF-8");
    for (line, what) in NEED_TRUST {
        let dotenv = format!("OTHER=1\n\n{line}\nFLOW_PROXY_PORT=0\n");
        let named = cloned(&dotenv).env("FLOW_PROXY_SECRETS_FILE", secrets);
        assert_stops(named, 3, what);
        let given = cloned(&dotenv).option("--secrets-file", secrets);
        assert_stops(given.command("check"), 3, what);
        let array = cloned(&dotenv).env("FLOW_PROXY_SECRETS", &secrets_text());
        assert_stops(array, 3, what);
    }
    // What another source overrides stands there nevertheless; of two lines each is told.
    let twice = cloned("FLOW_PROXY_TARGET_URL=\nNO_PROXY=a\nNO_PROXY=b\n");
    let twice = twice.option("--secrets-file", secrets).env("NO_PROXY", "c");
    assert_stops(twice, 3, "NO_PROXY");
    let harmless = cloned("FLOW_PROXY_PORT=0\nFLOW_PROXY_WORKERS=7\nFLOW_PROXY_HOST=\n");
    let harmless = harmless.option("--secrets-file", secrets).command("check");
    assert_eq!(harmless.run_to_end(SOON).code, Some(0));
}

#[test]
fn a_foreign_dotenv_cannot_lead_to_secrets_elsewhere() {
    let elsewhere = TempDir::new();
    let secrets = elsewhere.join("secrets.json");
    std::fs::write(&secrets, secrets_text()).expect("our own directory");
    let target = "FLOW_PROXY_TARGET_URL=https://evil.example\n";
    let file = |path: &str| format!("{target}FLOW_PROXY_SECRETS_FILE={path}\n");
    let parent = elsewhere.path().file_name().expect("a name");
    let upward = format!("../{}/secrets.json", parent.to_str().expect("UTF-8"));
    for path in [secrets.to_str().expect("UTF-8"), &upward] {
        let builder = cloned(&file(path)).command("check");
        assert_stops(builder, 1, "--target-url");
        let alone = cloned(&format!("FLOW_PROXY_SECRETS_FILE={path}\n")).command("check");
        assert_stops(alone, 1, "--secrets-file");
    }
    let symlink = |name: &str, to: &Path, dotenv: &str| {
        let builder = cloned(dotenv).command("check");
        make_symlink(to, builder.path(name)).expect("our own directory");
        builder
    };
    let by_default = symlink("secrets.json", &secrets, target);
    assert_stops(by_default, 1, "--target-url");
    let in_directory = symlink("d", elsewhere.path(), &file("d/secrets.json"));
    assert_stops(in_directory, 1, "--target-url");
    let none = cloned(target).command("check");
    assert_stops(none, 1, "--target-url");
    assert_stops(cloned(target).arg("--or-demo"), 1, "--target-url");
    let log = "FLOW_PROXY_SECRETS_FILE=none.json\nFLOW_PROXY_LOG_FILE=x.log\n";
    assert_stops(cloned(log).arg("--or-demo"), 2, "--log-file");
    let outside = format!(
        "FLOW_PROXY_SECRETS_FILE={}/none\n",
        elsewhere.path().display()
    );
    assert_stops(cloned(&outside).command("demo"), 1, "--secrets-file");
    let dangling = Path::new("../none.json");
    let dangling = symlink("own", dangling, "FLOW_PROXY_SECRETS_FILE=own\n");
    assert_stops(dangling, 1, "--secrets-file");
    // The secrets of a variable come from no file.
    let array = format!("{target}FLOW_PROXY_SECRETS='{}'\n", secrets_text());
    assert_stops(cloned(&array).command("check"), 1, "--target-url");
}

#[test]
fn beside_its_own_secrets_dotenv_may_say_everything() {
    let with = |name: &str, line: &str| {
        let dotenv = format!("FLOW_PROXY_TARGET_URL=http://127.0.0.1:9/x\n{line}\n");
        let builder = cloned(&dotenv).with_file(name, &secrets_text());
        builder.command("check")
    };
    let absolute = with("own.json", "");
    let path = absolute.path("own.json");
    let line = format!(
        "FLOW_PROXY_TARGET_URL=http://127.0.0.1:9/x\nFLOW_PROXY_SECRETS_FILE={}\n",
        path.display()
    );
    std::fs::write(absolute.path(".env"), line).expect("our own directory");
    let linked = with("own.json", "");
    make_symlink("own.json", linked.path("secrets.json")).expect("our own directory");
    for builder in [
        with("secrets.json", "FLOW_PROXY_LOG_FILE=x.log"),
        with("own.json", "FLOW_PROXY_SECRETS_FILE=./own.json"),
        with(
            "own.json",
            "FLOW_PROXY_SECRETS_FILE=none\nFLOW_PROXY_SECRETS_FILE=own.json",
        ),
        absolute,
        linked,
    ] {
        let check = builder.run_to_end(SOON);
        assert_eq!(check.code, Some(0), "{check:?}");
        let target = "http://127.0.0.1:9/x";
        assert!(has_setting(&check.stdout, "target-url", target, ".env"));
    }
}

#[test]
fn a_reload_does_not_follow_a_link_to_secrets_elsewhere() {
    let elsewhere = TempDir::new();
    let secrets = elsewhere.join("secrets.json");
    let text = serde_json::to_string(&credentials(2)).expect("values are JSON");
    std::fs::write(&secrets, text).expect("our own directory");
    for (dotenv, log) in [
        ("NO_PROXY=*\n", "secrets.json: leads out of the directory"),
        ("FLOW_PROXY_WORKERS=7\n", "Reloaded 2 configurations"),
    ] {
        let proxy = ProxyProcess::to("http://127.0.0.1:9/x");
        let proxy = proxy.with_file(".env", dotenv).start();
        std::fs::remove_file(proxy.file("secrets.json")).expect("our own file");
        make_symlink(&secrets, proxy.file("secrets.json")).expect("our own directory");
        proxy.signal("HUP");
        proxy.wait_for_log(log);
    }
}
