//! Full log files are renamed, and nothing is lost meanwhile (contract section 6).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::{AccessLine, FakeFlow, ProxyBuilder, ProxyProcess, RawClient, SOON, TempDir};

/// The size of a full log file in these tests, in bytes, and as the option has it.
const FULL: u64 = 8 * 1024;
const FULL_OPTION: &str = "8K";
/// More than any line of these tests has, in bytes.
const LINE: u64 = 1024;

fn logging_to(path: &Path, upstream: &FakeFlow) -> ProxyBuilder {
    ProxyProcess::to(&upstream.url())
        .option("--log-file", path.to_str().expect("UTF-8"))
        .option("--log-max-size", FULL_OPTION)
}

/// Sends requests on one connection, with the ids `prefix-0`, `prefix-1`, ….
fn send(address: SocketAddr, prefix: &str, count: usize) {
    let mut client = RawClient::connect(address);
    for number in 0..count {
        let id = format!("{prefix}-{number}");
        let response = client.request("GET", "/v1/models", &[("x-request-id", &id)], b"");
        assert_eq!(response.status, 200);
    }
}

fn stop(mut proxy: ProxyProcess) {
    proxy.signal("TERM");
    assert!(proxy.wait_for_exit(SOON).success());
}

fn numbered(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// The log files in the directory of `path` that begin with its name, the oldest rotated one first.
fn log_files(path: &Path) -> Vec<PathBuf> {
    let rotated = (1..).map(|number| numbered(path, number));
    let mut files: Vec<PathBuf> = rotated.take_while(|path| path.exists()).collect();
    files.reverse();
    files.push(path.to_owned());
    files
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).expect("a log file").len()
}

/// Reads whole lines: each with time and level, which a torn one has not, or has twice.
fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).expect("a log file in UTF-8");
    assert!(text.is_empty() || text.ends_with('\n'), "{path:?}");
    let is_whole = |line: &str| {
        let level = line.split(" - ").nth(1).unwrap_or_default();
        let starts = line.matches(" - INFO - ").count() + line.matches(" - WARNING - ").count();
        ["INFO", "WARNING", "ERROR"].contains(&level) && starts <= 1
    };
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    assert!(lines.iter().all(|line| is_whole(line)), "{path:?}: {text}");
    lines
}

/// Asserts that these files have one access line for each request of `send`, in all.
fn assert_each_once(files: &[PathBuf], senders: &[&str], count: usize) {
    let mut found: HashMap<String, usize> = HashMap::new();
    for line in files.iter().flat_map(|file| lines(file)) {
        if let Some(line) = AccessLine::parse(&line) {
            *found.entry(line.field("id").to_owned()).or_default() += 1;
        }
    }
    for sender in senders {
        for number in 0..count {
            let id = format!("{sender}-{number}");
            assert_eq!(found.remove(&id), Some(1), "access lines of {id}");
        }
    }
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn a_full_log_file_is_renamed_and_the_oldest_is_removed() {
    let (upstream, dir) = (FakeFlow::start(), TempDir::new());
    let path = dir.join("proxy.log");
    let proxy = logging_to(&path, &upstream)
        .option("--log-keep", "2")
        .start();
    send(proxy.address(), "r", 200);
    stop(proxy);
    let files = log_files(&path);
    assert_eq!(files.len(), 3, "{files:?}");
    for file in &files {
        assert!(size(file) <= FULL, "{file:?} has {} bytes", size(file));
        let mode = std::fs::metadata(file).expect("a log file").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "{file:?}");
    }
    for file in &files[..2] {
        assert!(size(file) > FULL - LINE, "{file:?}: {}", size(file));
    }
    // What is left are the last lines, in their order, without a gap.
    let kept: Vec<String> = files.iter().flat_map(|file| lines(file)).collect();
    let ids = kept.iter().filter_map(|line| AccessLine::parse(line));
    let ids: Vec<String> = ids.map(|line| line.field("id").to_owned()).collect();
    let expected: Vec<String> = (200 - ids.len()..200).map(|n| format!("r-{n}")).collect();
    assert_eq!(ids, expected);
    assert!(ids.len() > 60, "{} lines", ids.len());
}

#[test]
fn two_instances_on_one_file_lose_and_tear_no_line_and_rename_each_file_once() {
    let (upstream, dir) = (FakeFlow::start(), TempDir::new());
    let path = dir.join("proxy.log");
    let start = || {
        let builder = logging_to(&path, &upstream);
        builder.option("--log-keep", "1000").start()
    };
    let proxies = [start(), start()];
    let senders = ["a", "b", "c", "d"];
    std::thread::scope(|scope| {
        for (sender, proxy) in senders.iter().zip(proxies.iter().cycle()) {
            scope.spawn(|| send(proxy.address(), sender, 300));
        }
    });
    proxies.into_iter().for_each(stop);
    let files = log_files(&path);
    assert_each_once(&files, &senders, 300);
    let (_, rotated) = files.split_last().expect("a log file");
    assert!(rotated.len() > 20, "{} rotated files", rotated.len());
    for file in rotated {
        // Renamed twice for one overflow, a file would be nearly empty.
        assert!(size(file) > FULL - LINE, "{file:?}: {}", size(file));
        // Both may write at the same moment to a file that has room for one.
        assert!(size(file) < FULL + 16 * LINE, "{file:?}: {}", size(file));
    }
}

#[test]
fn names_of_rotated_files_that_something_else_has_are_passed_over() {
    let (upstream, dir) = (FakeFlow::start(), TempDir::new());
    let path = dir.join("proxy.log");
    std::fs::write(dir.join("precious"), "mine\n").expect("our own directory");
    symlink("precious", numbered(&path, 1)).expect("our own directory");
    std::fs::create_dir(numbered(&path, 2)).expect("our own directory");
    for name in ["proxy.log.1.gz", "proxy.log.01", "proxy.log.20260101"] {
        std::fs::write(dir.join(name), name).expect("our own directory");
    }
    let proxy = logging_to(&path, &upstream)
        .option("--log-keep", "4")
        .start();
    send(proxy.address(), "r", 200);
    stop(proxy);
    for name in ["proxy.log.1.gz", "proxy.log.01", "proxy.log.20260101"] {
        let text = std::fs::read_to_string(dir.join(name)).expect("what was written");
        assert_eq!(text, name);
    }
    assert!(numbered(&path, 1).is_symlink() && numbered(&path, 2).is_dir());
    let precious = std::fs::read_to_string(dir.join("precious")).expect("what was written");
    assert_eq!(precious, "mine\n");
    for number in [3, 4] {
        assert!(size(&numbered(&path, number)) > FULL - LINE);
    }
    assert!(!numbered(&path, 5).exists());
}
