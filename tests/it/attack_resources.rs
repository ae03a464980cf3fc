//! A machine that has run out: of disk for the log, of descriptors, of threads.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::support::attack::{Attack, assert_no_bug};
use crate::support::{
    GET_REQUEST, OK, ProxyProcess, RawClient, RawUpstream, SOON, TempDir, Upstream, get, wait_until,
};

#[test]
fn a_full_disk_under_the_log_is_told_once_and_costs_no_request() {
    if !Path::new("/dev/full").exists() {
        println!("skipped: there is no /dev/full");
        return;
    }
    let upstream = RawUpstream::always(OK);
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--log-file", "/dev/full")
        .start();
    let attack = Attack::begin("a full disk under the log", &proxy);
    for _ in 0..200 {
        assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    }
    proxy.wait_for_access_line(201);
    attack.end(4 * 1024, 1);
    let told = proxy.log().matches("Cannot write to ").count();
    assert_eq!(told, 1, "{}", proxy.log());
}

/// A tiny file system, unmounted on drop.
struct TinyDisk(PathBuf);

impl TinyDisk {
    /// Mounts it. `None` where this process may not mount.
    fn mount(at: PathBuf) -> Option<TinyDisk> {
        fs::create_dir_all(&at).expect("our own directory is writable");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16k", "tmpfs"])
            .arg(&at)
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then_some(TinyDisk(at))
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_log_on_a_disk_that_fills_up_goes_on_when_there_is_room_again() {
    let dir = TempDir::new();
    let Some(disk) = TinyDisk::mount(dir.join("disk")) else {
        println!("skipped: this process may not mount a tmpfs");
        return;
    };
    let filler = disk.0.join("filler");
    let log_file = disk.0.join("proxy.log");
    let upstream = RawUpstream::always(OK);
    let proxy = ProxyProcess::to(&upstream.url())
        .option("--log-file", log_file.to_str().expect("an ASCII path"))
        .start();
    let attack = Attack::begin("a disk that fills up under the log", &proxy);
    let _ = fs::write(&filler, vec![b'x'; 16 * 1024]); // as much as there is room for
    wait_until("the log to notice the full disk", SOON, || {
        assert_eq!(get(proxy.address(), "/v1/models").status, 200);
        proxy.log().contains("Cannot write to ")
    });
    fs::remove_file(&filler).expect("it was there");
    // The log itself may have taken the room: it is emptied, as an operator would.
    fs::write(&log_file, "").expect("it is ours");
    wait_until("the log to go on", SOON, || {
        assert_eq!(get(proxy.address(), "/v1/models").status, 200);
        proxy.log().contains("works again")
    });
    wait_until("the log file to hold new lines", SOON, || {
        let text = fs::read_to_string(&log_file).unwrap_or_default();
        text.contains("lines were lost") && text.contains("GET /v1/models")
    });
    attack.end(4 * 1024, 1);
    drop(proxy);
}

fn start_with_80_descriptors(upstream: &Upstream) -> ProxyProcess {
    ProxyProcess::to(&upstream.url())
        .option("--workers", "64")
        .after_shell("ulimit -n 80")
        .start()
}

#[test]
fn without_descriptors_the_proxy_goes_on_and_recovers() {
    let upstream = RawUpstream::always(OK);
    let proxy = start_with_80_descriptors(&upstream);
    let address = proxy.address();
    assert_eq!(get(address, "/v1/models").status, 200);
    let mut clients: Vec<RawClient> = (0..300).map(|_| RawClient::connect(address)).collect();
    // A good client is let in all the same: those that ask nothing give way.
    for _ in 0..10 {
        let asked = Instant::now();
        assert_eq!(get(address, "/v1/models").status, 200);
        // Each time that none of them can give way yet, no connection is let in for 100 ms.
        assert!(asked.elapsed() < SOON / 3, "{:?}", asked.elapsed());
    }
    for client in &mut clients {
        client.try_send("GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    }
    let served = clients
        .iter_mut()
        .filter_map(|client| {
            let answer = client.read_raw_to_close(SOON);
            (!answer.is_empty()).then(|| assert!(answer.starts_with(b"HTTP/1.1 200 ")))
        })
        .count();
    println!("without descriptors: {served} of 300 were served");
    assert!(served > 0);
    drop(clients);
    for _ in 0..20 {
        assert_eq!(get(address, "/v1/models").status, 200);
    }
    wait_until("the descriptors to be given back", SOON, || {
        proxy.client_count() == 0
    });
    assert_no_bug(&proxy.log());
}

#[test]
fn as_many_connections_as_fit_are_kept_when_one_more_comes() {
    let upstream = RawUpstream::always(OK);
    let proxy = start_with_80_descriptors(&upstream);
    let address = proxy.address();
    // (80 - 16) / 2 connections fit, if idle upstream connections leave them the room: each
    // further one takes the place of one, and not of many.
    let mut clients: Vec<RawClient> = Vec::new();
    for _ in 0..42 {
        let mut client = RawClient::connect(address);
        assert_eq!(client.request("GET", "/v1/models", &[], b"").status, 200);
        clients.push(client);
    }
    let is_kept = |client: &mut RawClient| client.try_send(GET_REQUEST) && client.is_answered();
    let kept = clients.iter_mut().map(is_kept).filter(|kept| *kept).count();
    assert!(kept >= 24, "only {kept} of 32 places are in use");
    assert_no_bug(&proxy.log());
}

#[test]
fn more_workers_than_the_system_allows_are_a_clear_error_at_start() {
    // Address space stands in for a limit on threads, which does not bind root.
    let upstream = RawUpstream::always(OK);
    let start = || {
        ProxyProcess::to(&upstream.url())
            .option("--workers", "16384")
            .after_shell("ulimit -v 1500000")
            .run_to_end(SOON)
    };
    // A thread that gets its stack, and then nothing more of the address space, is aborted by std.
    let mut starts = std::iter::repeat_with(start).take(5);
    let finished = starts.find(|finished| finished.code.is_some());
    let finished = finished.expect("a start that ends by itself");
    let log = finished.stderr;
    assert_eq!(finished.code, Some(1), "{log}");
    assert!(log.contains("--workers"), "{log}");
    assert!(!log.contains("Listening on"), "{log}");
    assert_no_bug(&log);
}
