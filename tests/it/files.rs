//! Files that are read at the start or at a reload: none blocks, none is read without bound, and who else
//! can get at the secrets is told (contract sections 3 and 8).

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::thread;

use crate::support::{FakeFlow, Finished, ProxyBuilder, ProxyProcess, SOON, credentials, get};

const TOO_LARGE: usize = (1 << 20) + 1;

fn check() -> ProxyBuilder {
    ProxyProcess::to("http://127.0.0.1:9/x").command("check")
}

fn make_pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().expect("mkfifo");
    assert!(made.success());
}

fn assert_stops(finished: &Finished, start: &str, what: &str) {
    assert_eq!(finished.code, Some(2), "{finished:?}");
    let mut lines = finished.stderr.lines();
    let is_told = lines.any(|line| line.starts_with(start) && line.contains(what));
    assert!(is_told, "{start} … {what} in {finished:?}");
}

#[test]
fn a_pipe_without_a_writer_blocks_no_start() {
    let dotenv = check();
    make_pipe(&dotenv.path(".env"));
    let finished = dotenv.run_to_end(SOON);
    assert_stops(
        &finished,
        "flow-proxy: .env: ",
        "is a pipe whose end has not come",
    );
    for command in ["check", "demo"] {
        let roots = ProxyProcess::to("http://127.0.0.1:9/x").option("--ca-file", "pipe");
        make_pipe(&roots.path("pipe"));
        let finished = roots.command(command).run_to_end(SOON);
        let start = "flow-proxy: --ca-file pipe: ";
        assert_stops(&finished, start, "is a pipe whose end has not come");
    }
}

#[test]
fn check_waits_for_the_secrets_in_a_pipe_for_a_few_seconds() {
    let builder = ProxyProcess::bare()
        .option("--secrets-file", "pipe")
        .command("check");
    make_pipe(&builder.path("pipe"));
    let finished = builder.run_to_end(SOON);
    let what = "is a pipe whose end has not come after 5 s";
    assert_stops(&finished, "flow-proxy: pipe: ", what);
}

#[test]
fn a_pipe_that_has_a_writer_is_read() {
    let builder = check();
    let pipe = builder.path(".env");
    make_pipe(&pipe);
    let writer = thread::spawn(move || {
        let mut pipe = std::fs::File::options()
            .write(true)
            .open(pipe)
            .expect("our pipe");
        pipe.write_all(b"FLOW_PROXY_WORKERS=7\n")
            .expect("it has a reader");
    });
    let finished = builder.run_to_end(SOON);
    writer.join().expect("the pipe was read");
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.contains("= 7  (.env)"), "{finished:?}");
}

#[test]
fn a_file_over_1_mib_is_an_error() {
    let blanks = " ".repeat(TOO_LARGE);
    for (name, option, start) in [
        (".env", None, "flow-proxy: .env: "),
        ("secrets.json", None, "flow-proxy: secrets.json: "),
        (
            "ca.pem",
            Some("--ca-file"),
            "flow-proxy: --ca-file ca.pem: ",
        ),
    ] {
        let builder = check().with_file(name, &blanks);
        let builder = match option {
            Some(option) => builder.option(option, name),
            None => builder,
        };
        let finished = builder.run_to_end(SOON);
        assert_stops(&finished, start, "is larger than 1 MiB");
    }
    let zeros = check().option("--secrets-file", "/dev/zero");
    assert_stops(&zeros.run_to_end(SOON), "flow-proxy: /dev/zero: ", "larger");
}

#[test]
fn a_secrets_file_that_grows_over_1_mib_is_not_reloaded() {
    let upstream = FakeFlow::start();
    let proxy = ProxyProcess::to(&upstream.url()).start();
    std::fs::write(proxy.file("secrets.json"), " ".repeat(TOO_LARGE)).expect("our own file");
    proxy.signal("HUP");
    let line = proxy.wait_for_log("secrets.json: is larger than 1 MiB");
    assert!(line.contains(" - ERROR - Not reloaded"), "{line}");
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
}

/// Returns the warnings of `check` about a secrets file in a directory of its own, which `prepare` gets.
fn warnings(prepare: impl FnOnce(&Path)) -> String {
    let builder = ProxyProcess::bare().option("--secrets-file", "d/secrets.json");
    let directory = builder.path("d");
    std::fs::create_dir(&directory).expect("our own directory");
    let text = serde_json::to_string(&credentials(1)).expect("values are JSON");
    std::fs::write(directory.join("secrets.json"), text).expect("our own directory");
    set_mode(&directory.join("secrets.json"), 0o600);
    set_mode(&directory, 0o755);
    prepare(&directory);
    let finished = builder.command("check").run_to_end(SOON);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    finished.stderr
}

fn set_mode(path: &Path, mode: u32) {
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, permissions).expect("our own file");
}

#[test]
fn a_secrets_file_in_a_directory_that_others_can_write_gets_a_warning() {
    let replaceable = "warning: d/secrets.json is in a directory where other users can replace it";
    for (mode, is_told) in [
        (0o700, false),
        (0o755, false),
        (0o777, true),
        (0o757, true),
        (0o1777, false),
    ] {
        let warnings = warnings(|directory| set_mode(directory, mode));
        assert_eq!(
            warnings.contains(replaceable),
            is_told,
            "{mode:o}: {warnings}"
        );
        assert_eq!(warnings.lines().count(), usize::from(is_told), "{warnings}");
    }
    let behind_link = warnings(|directory| {
        let open = directory.join("open");
        std::fs::create_dir(&open).expect("our own directory");
        set_mode(&open, 0o777);
        let file = directory.join("secrets.json");
        std::fs::rename(&file, open.join("own.json")).expect("our own file");
        symlink("open/own.json", &file).expect("our own directory");
    });
    assert!(behind_link.contains(replaceable), "{behind_link}");
}

#[test]
fn a_secrets_file_of_another_user_gets_a_warning() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    let other = Some(12_345);
    let file = warnings(|directory| chown(directory.join("secrets.json"), other, None).unwrap());
    let expected = "warning: d/secrets.json belongs to another user (uid 12345)";
    assert!(file.starts_with(expected), "{file}");
    let directory = warnings(|directory| chown(directory, other, None).unwrap());
    assert!(
        directory.contains("other users can replace it"),
        "{directory}"
    );
    let group = warnings(|directory| {
        chown(directory, None, other).unwrap();
        set_mode(directory, 0o775);
    });
    assert!(group.contains("other users can replace it"), "{group}");
    let own_group = warnings(|directory| set_mode(directory, 0o775));
    assert_eq!(own_group, "");
}
