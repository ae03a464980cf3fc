//! New secrets without a restart: SIGHUP and the watched file (contract sections 5 and 11).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{
    Answer, Ended, FakeFlow, ProxyProcess, SOON, available, credential, get, next_clients,
    start_proxy, start_stream, wait_until,
};

/// The proxy looks at the file every 5 s, and the machine may be busy.
const WATCHED_SOON: Duration = Duration::from_secs(15);

fn secrets_text(entries: &[serde_json::Value]) -> String {
    serde_json::to_string(entries).expect("values are JSON")
}

fn write_in_place(path: &Path, entries: &[serde_json::Value]) {
    std::fs::write(path, secrets_text(entries)).expect("our own file is writable");
}

/// Sends requests until one arrives from `client_id`.
fn wait_for_client(upstream: &FakeFlow, proxy: &ProxyProcess, client_id: &str, deadline: Duration) {
    wait_until(&format!("a request from {client_id}"), deadline, || {
        assert_eq!(get(proxy.address(), "/v1/models").status, 200);
        upstream
            .client_ids()
            .last()
            .is_some_and(|last| last == client_id)
    });
}

fn error_lines(proxy: &ProxyProcess) -> usize {
    proxy
        .log()
        .lines()
        .filter(|line| line.contains(" - ERROR - "))
        .count()
}

#[test]
fn sighup_loads_the_secrets_again() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    write_in_place(&proxy.file("secrets.json"), &[credential(7), credential(8)]);
    proxy.signal("HUP");
    wait_for_client(&upstream, &proxy, "client-7", Duration::from_secs(3));
    let after = next_clients(&upstream, &proxy, 4);
    assert_eq!(after, ["client-8", "client-7", "client-8", "client-7"]);
}

#[test]
fn a_file_written_in_place_is_seen_without_a_signal() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    write_in_place(&proxy.file("secrets.json"), &[credential(7)]);
    wait_for_client(&upstream, &proxy, "client-7", WATCHED_SOON);
}

#[test]
fn a_file_replaced_by_rename_is_seen_without_a_signal() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    write_in_place(&proxy.file("new.json"), &[credential(7)]);
    std::fs::rename(proxy.file("new.json"), proxy.file("secrets.json")).expect("one directory");
    wait_for_client(&upstream, &proxy, "client-7", WATCHED_SOON);
    write_in_place(&proxy.file("new.json"), &[credential(8)]);
    std::fs::rename(proxy.file("new.json"), proxy.file("secrets.json")).expect("one directory");
    wait_for_client(&upstream, &proxy, "client-8", WATCHED_SOON);
}

#[test]
fn an_invalid_file_keeps_the_old_configurations_and_says_why() {
    let upstream = FakeFlow::start();
    let proxy = start_proxy(&upstream, 2);
    let secret = "fake-secret-never-to-be-logged";
    let broken = format!(r#"[{{"clientId":"c","clientSecret":"{secret}","tenant":""}}]"#);
    std::fs::write(proxy.file("secrets.json"), broken).expect("our own file is writable");
    proxy.signal("HUP");
    let line = proxy.wait_for_log(" - ERROR - ");
    assert!(proxy.log().contains("tenant"), "says which field: {line}");
    assert!(!proxy.log().contains(secret));
    for n in [1, 2, 1, 2] {
        assert_eq!(get(proxy.address(), "/v1/models").status, 200);
        assert_eq!(upstream.client_ids().last(), Some(&format!("client-{n}")));
    }
}

#[test]
fn an_invalid_file_is_reported_once_and_mended_without_a_signal() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    std::fs::write(proxy.file("secrets.json"), "[{\"clientId\": ").expect("writable");
    proxy.wait_for_log(" - ERROR - ");
    let seen_at = Instant::now();
    let reported = error_lines(&proxy);
    // Two more looks at the file, which come every 5 s.
    while seen_at.elapsed() < Duration::from_secs(11) {
        assert_eq!(error_lines(&proxy), reported, "{}", proxy.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    write_in_place(&proxy.file("secrets.json"), &[credential(7)]);
    wait_for_client(&upstream, &proxy, "client-7", WATCHED_SOON);
}

#[test]
fn a_file_that_is_gone_for_a_while_keeps_the_old_configurations() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    std::fs::remove_file(proxy.file("secrets.json")).expect("our own file");
    proxy.signal("HUP");
    proxy.wait_for_log(" - ERROR - ");
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    write_in_place(&proxy.file("secrets.json"), &[credential(7)]);
    proxy.signal("HUP");
    wait_for_client(&upstream, &proxy, "client-7", Duration::from_secs(3));
}

#[test]
fn the_health_of_unchanged_credentials_survives() {
    let upstream = FakeFlow::answering(|request| match request.client_id().as_str() {
        "client-1" => Answer::unauthorized(),
        "client-2" => Answer::limited(Some("100")),
        _ => Answer::ok(),
    });
    let proxy = start_proxy(&upstream, 3);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    proxy.wait_for_log("'primary-1' marked as failed");
    proxy.wait_for_log("'primary-2' rate limited");
    // The same two in other places and with another name, and a new one.
    let mut renamed = credential(1);
    renamed["name"] = "renamed".into();
    let entries = [credential(4), renamed, credential(2), credential(3)];
    write_in_place(&proxy.file("secrets.json"), &entries);
    wait_for_client(&upstream, &proxy, "client-4", WATCHED_SOON);
    let later = next_clients(&upstream, &proxy, 4);
    assert_eq!(later, ["client-3", "client-4", "client-3", "client-4"]);
}

#[test]
fn sighup_ends_rests_and_restores_no_failed_credential() {
    let is_limited = Arc::new(AtomicBool::new(true));
    let limited = Arc::clone(&is_limited);
    let upstream = FakeFlow::answering(move |request| match request.client_id().as_str() {
        "client-1" => Answer::unauthorized(),
        "client-2" if limited.load(Ordering::SeqCst) => Answer::limited(Some("100")),
        "client-3" if limited.load(Ordering::SeqCst) => Answer::new(402, "spent"),
        _ => Answer::ok(),
    });
    let proxy = start_proxy(&upstream, 4);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    assert_eq!(available(&proxy), 1);
    is_limited.store(false, Ordering::SeqCst);
    proxy.signal("HUP");
    wait_until("the rests to end", SOON, || available(&proxy) == 3);
    let mut later = next_clients(&upstream, &proxy, 3);
    later.sort();
    assert_eq!(later, ["client-2", "client-3", "client-4"]);
}

#[test]
fn a_changed_credential_starts_healthy() {
    let upstream = FakeFlow::answering(|request| match request.client_id().as_str() {
        "client-1" => Answer::unauthorized(),
        _ => Answer::ok(),
    });
    let proxy = start_proxy(&upstream, 2);
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    proxy.wait_for_log("'primary-1' marked as failed");
    let mut changed = credential(5);
    changed["name"] = "primary-1".into();
    write_in_place(&proxy.file("secrets.json"), &[changed, credential(2)]);
    proxy.signal("HUP");
    wait_for_client(&upstream, &proxy, "client-5", Duration::from_secs(3));
}

#[test]
fn requests_in_flight_are_undisturbed() {
    let (_upstream, commands, proxy, mut client) = start_stream(&[]);
    let lines = proxy.log().lines().count();
    write_in_place(&proxy.file("secrets.json"), &[credential(7)]);
    proxy.signal("HUP");
    wait_until("the reload to be logged", SOON, || {
        proxy.log().lines().count() > lines
    });
    commands.send("3\r\ntwo\r\n0\r\n\r\n");
    let (_, body, ended) = client.read_body_to_end();
    assert_eq!((body.as_slice(), ended), (&b"onetwo"[..], Ended::Complete));
    let line = proxy.wait_for_access_line(1);
    assert_eq!(
        (line.field("config"), line.field("end")),
        ("primary-1", "ok")
    );
}

#[test]
fn sighup_reopens_the_log_file() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--log-file", "proxy.log")
        .start();
    assert_eq!(get(proxy.address(), "/v1/before").status, 200);
    proxy.wait_for_access_line(1);
    let (log, rotated) = (proxy.file("proxy.log"), proxy.file("proxy.log.1"));
    std::fs::rename(&log, &rotated).expect("one directory");
    proxy.signal("HUP");
    wait_until("the log file to be there again", SOON, || log.exists());
    assert_eq!(get(proxy.address(), "/v1/after").status, 200);
    wait_until("the request in the new file", SOON, || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains("/v1/after"))
    });
    let old = std::fs::read_to_string(&rotated).expect("a text file");
    assert!(old.contains("/v1/before") && !old.contains("/v1/after"));
}
