//! Where the secrets come from: a variable, a pipe, a file; and what is probably wrong with them
//! (contract section 3).

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{
    FakeFlow, ProxyBuilder, ProxyProcess, SOON, credential, credentials, get, wait_until,
};

fn array(entries: &[serde_json::Value]) -> String {
    serde_json::to_string(entries).expect("values are JSON")
}

fn without_file(upstream: &FakeFlow) -> ProxyBuilder {
    ProxyProcess::bare().option("--target-url", &upstream.url())
}

fn make_pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().expect("mkfifo");
    assert!(made.success());
}

/// Writes to a pipe. Waits for its reader.
fn write_to_pipe(path: &Path, text: &str) {
    let pipe = std::fs::OpenOptions::new().write(true).open(path);
    let written = pipe.and_then(|mut pipe| pipe.write_all(text.as_bytes()));
    written.expect("our own pipe");
}

/// Waits until the process handles SIGTERM.
fn wait_until_term_is_handled(proxy: &ProxyProcess) {
    wait_until("a handler of SIGTERM", SOON, || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid()));
        let status = status.expect("the process runs");
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let mask = u64::from_str_radix(mask.expect("a known field").trim(), 16);
        mask.expect("hexadecimal") & (1 << 14) != 0
    });
}

#[test]
fn a_variable_may_hold_the_array_itself() {
    let upstream = FakeFlow::start();
    let mut proxy = without_file(&upstream)
        .env("FLOW_PROXY_SECRETS", &array(&credentials(2)))
        .start();
    for client in ["client-1", "client-2"] {
        assert_eq!(get(proxy.address(), "/v1/models").status, 200);
        assert_eq!(
            upstream.client_ids().last().map(String::as_str),
            Some(client)
        );
    }
    // A file that appears later is none of its business.
    std::fs::write(proxy.file("secrets.json"), array(&[credential(7)])).expect("writable");
    proxy.signal("HUP");
    proxy.wait_for_log("FLOW_PROXY_SECRETS is read once");
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    assert_eq!(
        upstream.client_ids().last().map(String::as_str),
        Some("client-1")
    );
    proxy.signal("TERM");
    assert_eq!(proxy.wait_for_exit(SOON).code(), Some(0));
    assert!(!proxy.log().contains("fake-secret"), "{}", proxy.log());
}

#[test]
fn the_variable_counts_in_dotenv_too() {
    let upstream = FakeFlow::start();
    let dotenv = format!("FLOW_PROXY_SECRETS='{}'\n", array(&[credential(3)]));
    let proxy = without_file(&upstream).with_file(".env", &dotenv).start();
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    assert_eq!(upstream.client_ids(), ["client-3"]);
}

#[test]
fn the_variable_and_a_named_file_exclude_each_other() {
    let secrets = array(&credentials(1));
    let with = || ProxyProcess::bare().env("FLOW_PROXY_SECRETS", &secrets);
    for builder in [
        with().option("--secrets-file", "secrets.json"),
        with().env("FLOW_PROXY_SECRETS_FILE", "other.json"),
    ] {
        let finished = builder.run_to_end(SOON);
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
        let start = "flow-proxy: FLOW_PROXY_SECRETS: holds the secrets";
        assert!(finished.stderr.starts_with(start), "{finished:?}");
        assert!(!finished.stderr.contains("fake-secret"), "{finished:?}");
    }
}

#[test]
fn check_never_shows_the_variable() {
    let check = |value: &str| {
        let builder = ProxyProcess::bare().env("FLOW_PROXY_SECRETS", value);
        builder.command("check").run_to_end(SOON)
    };
    let good = check(&array(&credentials(1)));
    assert_eq!(good.code, Some(0), "{good:?}");
    let line = good
        .stdout
        .lines()
        .find(|line| line.starts_with("secrets-file "));
    let is_shown = line.is_some_and(|line| line.ends_with("= none  (FLOW_PROXY_SECRETS)"));
    assert!(is_shown, "{good:?}");
    assert!(
        good.stdout.contains("configuration 1 = 'primary-1'"),
        "{good:?}"
    );
    assert!(!format!("{good:?}").contains("fake-secret"), "{good:?}");
    let bad = check(r#"[{"clientId":"hush","clientSecret":"hush"}]"#);
    assert_eq!(bad.code, Some(2), "{bad:?}");
    let problem = "FLOW_PROXY_SECRETS: entry 1: tenant is missing";
    assert!(bad.stderr.contains(problem), "{bad:?}");
    assert!(!format!("{bad:?}").contains("hush"), "{bad:?}");
}

#[test]
fn a_pipe_is_read_once_and_not_at_sighup() {
    let upstream = FakeFlow::start();
    let builder = without_file(&upstream).option("--secrets-file", "pipe");
    let pipe = builder.path("pipe");
    make_pipe(&pipe);
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || write_to_pipe(&pipe, &array(&credentials(1)))
    });
    let mut proxy = builder.start();
    writer.join().expect("the pipe was read");
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    proxy.signal("HUP");
    proxy.wait_for_log("pipe is read once");
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    assert!(!proxy.log().contains(" - ERROR - "), "{}", proxy.log());
    proxy.signal("TERM");
    assert_eq!(proxy.wait_for_exit(SOON).code(), Some(0));
}

#[test]
fn signals_are_heard_while_a_pipe_has_no_writer() {
    for signal in ["TERM", "INT"] {
        let upstream = FakeFlow::start();
        let builder = without_file(&upstream).option("--secrets-file", "pipe");
        make_pipe(&builder.path("pipe"));
        let mut proxy = builder.spawn();
        wait_until_term_is_handled(&proxy);
        proxy.signal("HUP");
        proxy.signal(signal);
        assert_eq!(proxy.wait_for_exit(SOON).code(), Some(0), "SIG{signal}");
        let line = format!("Received SIG{signal} while waiting for pipe");
        wait_until("a line that says so", SOON, || proxy.log().contains(&line));
    }
}

#[test]
fn sighup_while_a_pipe_has_no_writer_does_not_end_the_start() {
    let upstream = FakeFlow::start();
    let builder = without_file(&upstream).option("--secrets-file", "pipe");
    let pipe = builder.path("pipe");
    make_pipe(&pipe);
    let mut proxy = builder.spawn();
    wait_until_term_is_handled(&proxy);
    proxy.signal("HUP");
    let asked = Instant::now();
    while asked.elapsed() < Duration::from_millis(300) {
        assert!(!proxy.has_exited(), "{}", proxy.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    write_to_pipe(&pipe, &array(&credentials(1)));
    proxy.wait_for_log("Listening on http://127.0.0.1:");
}

#[test]
fn a_pipe_in_the_place_of_the_watched_file_blocks_nothing() {
    let upstream = FakeFlow::start();
    let mut proxy = ProxyProcess::to(&upstream.url()).start();
    let file = proxy.file("secrets.json");
    std::fs::remove_file(&file).expect("our own file");
    make_pipe(&file);
    proxy.signal("HUP");
    let line = proxy.wait_for_log("is no regular file");
    assert!(line.contains(" - ERROR - Not reloaded"), "{line}");
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    proxy.signal("TERM");
    assert_eq!(proxy.wait_for_exit(SOON).code(), Some(0));
}

#[test]
fn probable_mistakes_get_a_warning_at_start_and_in_check() {
    let mut entry = credential(1);
    entry["clientSecret"] = "hush\n".into();
    entry["tenant"] = "FAKE-tenant-replace-me".into();
    let builder = || ProxyProcess::to("http://127.0.0.1:9/x").secrets(std::slice::from_ref(&entry));
    let warnings = [
        "secrets.json: entry 1: clientSecret begins or ends with a blank or a line end",
        "secrets.json: entry 1: tenant is still the template's",
    ];
    let check = builder().command("check").run_to_end(SOON);
    assert_eq!(check.code, Some(0), "{check:?}");
    let proxy = builder().start();
    for warning in warnings {
        assert!(
            check.stderr.contains(&format!("warning: {warning}")),
            "{check:?}"
        );
        assert!(proxy.wait_for_log(warning).contains(" - WARNING - "));
    }
    assert!(!check.stderr.contains("hush"), "{check:?}");
    assert!(!proxy.log().contains("hush"), "{}", proxy.log());
}

#[test]
fn a_missing_field_names_the_one_that_was_probably_meant() {
    let mut entry = credential(1);
    let fields = entry.as_object_mut().expect("an object");
    let id = fields.remove("clientId").expect("a known field");
    fields.insert("client_id".to_owned(), id);
    let check = ProxyProcess::to("http://127.0.0.1:9/x").secrets(&[entry]);
    let check = check.command("check").run_to_end(SOON);
    assert_eq!(check.code, Some(2), "{check:?}");
    let problem = "entry 1: clientId is missing; client_id: did you mean clientId?";
    assert!(check.stderr.contains(problem), "{check:?}");
}
