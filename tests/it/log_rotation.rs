//! Full log files are renamed, and nothing is lost meanwhile (contract section 6).

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{
    AccessLine, FakeFlow, ProxyBuilder, ProxyProcess, RawClient, SOON, TempDir, credentials,
    wait_until,
};

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

#[test]
fn a_file_that_is_renamed_and_made_anew_under_load_is_followed_without_a_signal() {
    let (upstream, dir) = (FakeFlow::start(), TempDir::new());
    let path = dir.join("proxy.log");
    for size in ["0", "64M"] {
        let proxy = logging_to(&path, &upstream)
            .option("--log-max-size", size)
            .start();
        let address = proxy.address();
        let renamed = |number| dir.join(&format!("old-{number}"));
        std::thread::scope(|scope| {
            for sender in ["a", "b"] {
                scope.spawn(move || send(address, sender, 400));
            }
            for number in 0..4 {
                wait_until("some lines", SOON, || {
                    std::fs::metadata(&path).is_ok_and(|file| file.len() > 10 * LINE)
                });
                std::fs::rename(&path, renamed(number)).expect("our own directory");
                // logrotate makes an empty file.
                std::fs::write(&path, "").expect("our own directory");
            }
        });
        stop(proxy);
        let mut files: Vec<PathBuf> = (0..4).map(renamed).collect();
        files.push(path.clone());
        assert_each_once(&files, &["a", "b"], 400);
        assert!(files.iter().all(|file| lines(file).len() > 20), "{files:?}");
        assert!(!numbered(&path, 1).exists());
        std::fs::remove_file(&path).expect("the log file");
    }
}

#[test]
fn a_file_that_is_renamed_is_made_anew_within_a_second() {
    let (upstream, dir) = (FakeFlow::start(), TempDir::new());
    let path = dir.join("proxy.log");
    let proxy = logging_to(&path, &upstream).start();
    std::fs::rename(&path, dir.join("old")).expect("our own directory");
    let mut count = 0;
    wait_until("a new log file", SOON, || {
        send(proxy.address(), &format!("r{count}"), 1);
        count += 1;
        path.exists()
    });
    send(proxy.address(), "last", 1);
    stop(proxy);
    let mut senders: Vec<String> = (0..count).map(|number| format!("r{number}")).collect();
    senders.push("last".to_owned());
    let senders: Vec<&str> = senders.iter().map(String::as_str).collect();
    assert_each_once(&[dir.join("old"), path.clone()], &senders, 1);
    assert!(lines(&path).iter().any(|line| line.contains(" id=last-0")));
    let mode = std::fs::metadata(&path)
        .expect("the log file")
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
}

#[test]
fn a_file_that_is_removed_is_made_anew_at_once() {
    let (upstream, dir) = (FakeFlow::start(), TempDir::new());
    let path = dir.join("proxy.log");
    let proxy = logging_to(&path, &upstream).start();
    send(proxy.address(), "before", 1);
    proxy.wait_for_access_line(1);
    wait_until("the line in the file", SOON, || {
        lines(&path)
            .iter()
            .any(|line| line.contains(" id=before-0"))
    });
    std::fs::remove_file(&path).expect("the log file");
    send(proxy.address(), "after", 3);
    stop(proxy);
    assert_each_once(&[path], &["after"], 3);
}

#[test]
fn a_log_without_a_limit_or_without_kept_files_has_one_file() {
    let upstream = FakeFlow::start();
    for (size_option, keep, sizes) in [("0", "7", FULL..u64::MAX), (FULL_OPTION, "0", 1..FULL + 1)]
    {
        let dir = TempDir::new();
        let path = dir.join("proxy.log");
        let proxy = logging_to(&path, &upstream)
            .options(&[("--log-max-size", size_option), ("--log-keep", keep)])
            .start();
        send(proxy.address(), "r", 100);
        stop(proxy);
        assert!(!numbered(&path, 1).exists(), "{size_option} {keep}");
        assert!(sizes.contains(&size(&path)), "{} bytes", size(&path));
        let last = lines(&path);
        assert!(
            last.iter().any(|line| line.contains(" id=r-99")),
            "{last:?}"
        );
    }
}

/// Asserts that the proxy goes on in the file that it cannot rotate, and says so once.
fn assert_grows_on(proxy: ProxyProcess, path: &Path, why: &str) {
    send(proxy.address(), "r", 120);
    let line = proxy.wait_for_log(&format!("Cannot rotate log file {}: {why}", path.display()));
    assert!(
        line.ends_with("; the log goes on where it went before"),
        "{line}"
    );
    proxy.wait_for_access_line(120);
    assert_eq!(proxy.log().matches("Cannot rotate").count(), 1);
    stop(proxy);
    assert_each_once(&[path.to_owned()], &["r"], 120);
    let text = std::fs::read_to_string(path).expect("the log file");
    assert_eq!(text.matches("Cannot rotate").count(), 1);
}

#[test]
fn a_file_that_cannot_be_rotated_grows_on_and_that_is_said_once() {
    let (upstream, dir) = (FakeFlow::start(), TempDir::new());
    let path = dir.join("taken.log");
    std::fs::create_dir(numbered(&path, 1)).expect("our own directory");
    let builder = logging_to(&path, &upstream).option("--log-keep", "1");
    assert_grows_on(builder.start(), &path, "what is no log file of this user's");
    assert!(numbered(&path, 1).is_dir());

    let link = dir.join("link.log");
    // Made by opening it.
    symlink("real.log", &link).expect("our own directory");
    let proxy = logging_to(&link, &upstream).start();
    assert_grows_on(proxy, &link, "it is a symbolic link");
    assert!(link.is_symlink() && !numbered(&link, 1).exists());
}

#[test]
fn a_directory_where_nothing_may_be_renamed_is_said_once() {
    let (upstream, dir) = (FakeFlow::start(), TempDir::new());
    let path = dir.join("proxy.log");
    std::fs::write(&path, "").expect("our own directory");
    let mut builder = logging_to(&path, &upstream);
    if rustix::process::geteuid().is_root() {
        // Root may do all; another user needs its own secrets file and log file.
        let user = 12_345;
        for file in [&path, &builder.path("secrets.json")] {
            chown(file, Some(user), None).expect("root may");
        }
        builder = builder.uid(user);
    }
    let set_mode = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(dir.path(), mode).expect("our own directory");
    };
    set_mode(0o555);
    assert_grows_on(builder.start(), &path, "Permission denied");
    set_mode(0o755);
}

#[test]
fn what_is_no_regular_file_is_never_rotated() {
    let upstream = FakeFlow::start();
    let proxy = logging_to(Path::new("/dev/stdout"), &upstream).start();
    send(proxy.address(), "r", 120);
    wait_until("all lines on the pipe", SOON, || {
        proxy.stdout().matches(" id=r-").count() == 120
    });
    assert!(!proxy.log().contains("Cannot"), "{}", proxy.log());
    stop(proxy);
}

#[test]
fn a_named_pipe_that_loses_its_name_is_written_to_as_before() {
    let (upstream, dir) = (FakeFlow::start(), TempDir::new());
    let path = dir.join("pipe");
    let made = Command::new("mkfifo").arg(&path).status();
    assert!(made.expect("mkfifo").success());
    let options = File::options().read(true).write(true).open(&path);
    let mut pipe = options.expect("both ends of the pipe");
    let proxy = logging_to(&path, &upstream).start();
    std::fs::remove_file(&path).expect("our own directory");
    send(proxy.address(), "r", 3);
    stop(proxy);
    let mut text = vec![0; 64 * 1024];
    let length = pipe.read(&mut text).expect("the lines");
    let text = String::from_utf8_lossy(&text[..length]);
    assert!(text.contains(" id=r-2\n"), "{text}");
    assert!(!path.exists());
}

#[test]
fn a_line_longer_than_the_limit_gets_a_file_of_its_own() {
    let (upstream, dir) = (FakeFlow::start(), TempDir::new());
    let path = dir.join("proxy.log");
    // The start lists their names in one line.
    let mut entries = credentials(100);
    for (number, entry) in entries.iter_mut().enumerate() {
        entry["name"] = format!("{number:0>100}").into();
    }
    let proxy = logging_to(&path, &upstream)
        .secrets(&entries)
        .option("--log-keep", "100")
        .start();
    send(proxy.address(), "r", 3);
    stop(proxy);
    let files = log_files(&path);
    assert_each_once(&files, &["r"], 3);
    let long: Vec<&PathBuf> = files.iter().filter(|file| size(file) > FULL).collect();
    assert_eq!(long.len(), 1, "{files:?}");
    assert_eq!(lines(long[0]).len(), 1, "{files:?}");
    assert!(files.iter().all(|file| size(file) > 0), "{files:?}");
}

/// A small file system, unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// Mounts one of 64 KiB; `None` where this user may not.
    fn mount() -> Option<SmallDisk> {
        let dir = TempDir::new();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]);
        let mounted = mount.arg(dir.path()).output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then(|| SmallDisk(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_said_once_and_room_is_used_again() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: only root can mount file systems");
        return;
    };
    let upstream = FakeFlow::start();
    let path = disk.0.join("proxy.log");
    let proxy = logging_to(&path, &upstream)
        .option("--log-keep", "100")
        .start();
    send(proxy.address(), "r", 500);
    proxy.wait_for_log("Cannot write to log file");
    proxy.wait_for_access_line(500);
    assert_eq!(proxy.log().matches("Cannot write").count(), 1);
    for number in 1..6 {
        std::fs::remove_file(numbered(&path, number)).expect("a rotated file");
    }
    send(proxy.address(), "again", 1);
    proxy.wait_for_log(" works again; ");
    send(proxy.address(), "last", 1);
    stop(proxy);
    let text = std::fs::read_to_string(&path).expect("the log file");
    assert!(text.contains(" id=last-0\n"), "{text}");
}
