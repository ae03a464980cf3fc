//! What the process keeps in its memory stays there (contract section 8).

use std::os::unix::fs::MetadataExt;

use rustix::process::geteuid;

use crate::support::{ProxyBuilder, ProxyProcess};

/// A user with no rights, for tests that run as root.
const UNPRIVILEGED: u32 = 12_345;

fn unprivileged_demo() -> (ProxyBuilder, u32) {
    let demo = ProxyProcess::bare()
        .command("demo")
        .option("--log-file", "none");
    if geteuid().is_root() {
        (demo.uid(UNPRIVILEGED), UNPRIVILEGED)
    } else {
        (demo, geteuid().as_raw())
    }
}

#[test]
fn no_core_dump_is_made() {
    let proxy = unprivileged_demo().0.start();
    let limits = format!("/proc/{}/limits", proxy.pid());
    let limits = std::fs::read_to_string(limits).expect("the process runs");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let words: Vec<&str> = line.expect("a known limit").split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{words:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn no_other_process_of_the_user_can_attach() {
    let (demo, uid) = unprivileged_demo();
    let proxy = demo.start();
    // The kernel takes these from the user for exactly that reason: proc(5), PR_SET_DUMPABLE.
    for name in ["mem", "environ", "fd", "maps"] {
        let path = format!("/proc/{}/{name}", proxy.pid());
        let owner = std::fs::metadata(&path).expect("the process runs").uid();
        assert_ne!(owner, uid, "{path}");
    }
}
