//! Tests of the logger with its threads, on real files, pipes and the full disk `/dev/full`.
//! They call the logger directly, because a process can install only one.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use log::Level;

use super::*;

const DEADLINE: Duration = Duration::from_secs(10);

/// A directory for one test, removed when dropped.
pub(super) struct TempDir(PathBuf);

impl TempDir {
    pub(super) fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("log-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn log_file(path: &Path, is_required: bool) -> LogFile {
    LogFile {
        path: path.to_owned(),
        name: path.display().to_string(),
        is_required,
        max_size: None,
        keep: 7,
        read_files: Vec::new(),
    }
}

fn logger(level: LevelFilter, stderr: File, file: &Path) -> Logger {
    let file = Arc::new(log_file(file, true));
    let sinks = Sinks::start(
        LogFormat::Text,
        Some(stderr),
        Some(file.open().unwrap()),
        Some(&file),
    )
    .unwrap();
    Logger {
        level,
        format: LogFormat::Text,
        colours_stderr: false,
        sinks,
    }
}

fn say(logger: &Logger, target: &str, level: Level, message: &str) {
    logger.log(
        &Record::builder()
            .target(target)
            .level(level)
            .args(format_args!("{message}"))
            .build(),
    );
}

fn info(logger: &Logger, message: &str) {
    say(logger, "flow_proxy::proxy", Level::Info, message);
}

fn wait_for(path: &Path, text: &str) -> String {
    let end = Instant::now() + DEADLINE;
    loop {
        let contents = fs::read_to_string(path).unwrap();
        if contents.contains(text) {
            return contents;
        }
        assert!(Instant::now() < end, "no {text:?} in {contents:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The messages of a log, without time and level.
fn messages(log: &str) -> Vec<&str> {
    log.lines()
        .map(|line| line.splitn(3, " - ").nth(2).unwrap_or(line))
        .collect()
}

#[test]
fn each_line_goes_to_both_sinks_and_flush_waits_for_them() {
    let dir = TempDir::new("both");
    let (stderr, file) = (dir.file("stderr"), dir.file("log"));
    let logger = logger(LevelFilter::Info, File::create(&stderr).unwrap(), &file);
    let lines: Vec<String> = (0..1000).map(|n| format!("line {n}")).collect();
    for line in &lines {
        info(&logger, line);
    }
    logger.flush();
    assert_eq!(messages(&fs::read_to_string(&stderr).unwrap()), lines);
    assert_eq!(messages(&fs::read_to_string(&file).unwrap()), lines);
}

#[test]
fn lines_of_many_threads_stay_whole() {
    let dir = TempDir::new("threads");
    let file = dir.file("log");
    let logger = logger(LevelFilter::Info, File::create("/dev/null").unwrap(), &file);
    let message = "x".repeat(300);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..500).for_each(|_| info(&logger, &message)));
        }
    });
    logger.flush();
    let log = fs::read_to_string(&file).unwrap();
    assert_eq!(messages(&log), vec![message.as_str(); 4000]);
}

#[test]
fn only_lines_of_this_crate_and_of_the_level_are_logged() {
    let dir = TempDir::new("targets");
    let file = dir.file("log");
    let logger = logger(LevelFilter::Info, File::create("/dev/null").unwrap(), &file);
    for (target, level) in [
        ("ureq::run", Level::Error),
        ("rustls", Level::Info),
        ("flow_proxyx", Level::Error),
        ("flow_proxy::proxy", Level::Debug),
    ] {
        say(&logger, target, level, "authorization: Bearer fake");
    }
    say(&logger, "flow_proxy", Level::Warn, "mine");
    say(&logger, "flow_proxy::proxy", Level::Info, "mine too");
    logger.flush();
    assert_eq!(
        messages(&fs::read_to_string(&file).unwrap()),
        ["mine", "mine too"]
    );
}

#[test]
fn the_file_is_appended_to_and_a_new_one_is_for_its_owner_only() {
    let dir = TempDir::new("append");
    let file = dir.file("log");
    for message in ["first", "second"] {
        let logger = logger(LevelFilter::Info, File::create("/dev/null").unwrap(), &file);
        info(&logger, message);
        logger.flush();
    }
    assert_eq!(
        messages(&fs::read_to_string(&file).unwrap()),
        ["first", "second"]
    );
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn a_blocked_stderr_delays_neither_the_program_nor_the_file() {
    let dir = TempDir::new("stuck");
    let file = dir.file("log");
    let (mut reader, writer) = io::pipe().unwrap();
    let logger = logger(
        LevelFilter::Info,
        File::from(std::os::fd::OwnedFd::from(writer)),
        &file,
    );
    let message = "y".repeat(4000);
    for n in 0..4000 {
        info(&logger, &message);
        if n % 500 == 0 {
            logger
                .sinks
                .file
                .wait_until_written(Instant::now() + DEADLINE);
        }
    }
    info(&logger, "the last one");
    let log = wait_for(&file, "the last one");
    assert_eq!(log.lines().count(), 4001);

    // Once it is read, stderr goes on, and reports its lost lines once.
    std::thread::spawn({
        let sinks = logger.sinks.clone();
        move || {
            sinks.stderr.wait_until_written(Instant::now() + DEADLINE);
            sinks.stderr.push(&[b"end\n"]);
        }
    });
    let mut text = Vec::new();
    let mut chunk = vec![0; 65_536];
    while !text.ends_with(b"\nend\n") {
        let length = reader.read(&mut chunk).unwrap();
        text.extend_from_slice(&chunk[..length]);
    }
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.matches(" lines were lost").count(), 1);
    let lost: usize = text
        .lines()
        .find_map(|line| {
            line.split("was stuck: ")
                .nth(1)?
                .split(' ')
                .next()?
                .parse()
                .ok()
        })
        .unwrap();
    assert_eq!(
        text.lines().count() - 2 + lost,
        4001,
        "whole lines, or counted"
    );
}

#[test]
fn a_full_disk_is_reported_once_on_stderr_and_its_end_once_on_both() {
    let dir = TempDir::new("full");
    let (stderr, path) = (dir.file("stderr"), dir.file("log"));
    symlink("/dev/full", &path).unwrap();
    let logger = logger(LevelFilter::Info, File::create(&stderr).unwrap(), &path);
    for message in ["one", "two", "three"] {
        info(&logger, message);
        logger.flush();
    }
    let text = wait_for(&stderr, "Cannot write to log file");
    assert_eq!(
        text.matches("Cannot write to log file").count(),
        1,
        "{text}"
    );
    assert!(text.contains("No space left on device"), "{text}");

    fs::remove_file(&path).unwrap();
    logger
        .sinks
        .file
        .switch_to(log_file(&path, true).open().unwrap());
    info(&logger, "four");
    let log = wait_for(&path, "works again");
    let notice = format!(
        "Writing to log file {} works again; 3 lines were lost",
        path.display()
    );
    assert_eq!(messages(&log), ["four", &notice]);
    wait_for(&stderr, &notice);
}

#[test]
fn a_closed_stderr_is_reported_in_the_file() {
    let dir = TempDir::new("closed");
    let file = dir.file("log");
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let logger = logger(
        LevelFilter::Info,
        File::from(std::os::fd::OwnedFd::from(writer)),
        &file,
    );
    info(&logger, "hello");
    // In either order: stderr may have failed before the line was queued for the file.
    wait_for(&file, "Cannot write to stderr: ");
    wait_for(&file, " - hello");
}

#[test]
fn reopening_after_a_rename_begins_a_new_file() {
    let dir = TempDir::new("rotate");
    let path = dir.file("log");
    let logger = logger(LevelFilter::Info, File::create("/dev/null").unwrap(), &path);
    let handle = Handle {
        sinks: logger.sinks.clone(),
        log_file: Some(log_file(&path, true).into()),
    };
    info(&logger, "old");
    handle.flush();
    fs::rename(&path, dir.file("log.1")).unwrap();
    handle.reopen();
    info(&logger, "new");
    handle.flush();
    assert_eq!(
        messages(&fs::read_to_string(dir.file("log.1")).unwrap()),
        ["old"]
    );
    assert_eq!(messages(&fs::read_to_string(&path).unwrap()), ["new"]);
}

#[test]
fn a_file_that_cannot_be_reopened_stays_in_use() {
    let dir = TempDir::new("keep");
    let path = dir.file("log");
    let logger = logger(LevelFilter::Info, File::create("/dev/null").unwrap(), &path);
    let gone = dir.file("no-such-directory/log");
    Handle {
        sinks: logger.sinks.clone(),
        log_file: Some(log_file(&gone, true).into()),
    }
    .reopen();
    info(&logger, "still here");
    logger.flush();
    assert_eq!(
        messages(&fs::read_to_string(&path).unwrap()),
        ["still here"]
    );
}

#[test]
fn a_required_log_file_must_open() {
    let dir = TempDir::new("required");
    for path in [dir.0.clone(), dir.file("no-such-directory/log")] {
        let error = init(
            LevelFilter::Info,
            LogFormat::Text,
            Some(log_file(&path, true)),
        )
        .err()
        .expect("cannot be opened");
        assert!(error.starts_with("Cannot open log file "), "{error}");
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn reopening_closes_the_old_file_at_once() {
    let dir = TempDir::new("let-go");
    let path = dir.file("log");
    let (mut reader, writer) = io::pipe().unwrap();
    let old = File::from(std::os::fd::OwnedFd::from(writer));
    let log_file = Some(Arc::new(log_file(&path, true)));
    let sinks = Sinks::start(LogFormat::Text, None, Some(old), log_file.as_ref()).unwrap();
    Handle { sinks, log_file }.reopen();
    // Returns only when the last descriptor of the writing end is closed.
    assert_eq!(reader.read(&mut [0; 16]).unwrap(), 0);
}
