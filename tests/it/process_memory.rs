//! What the process keeps in its memory stays there (contract section 8).

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::process::geteuid;

use crate::support::{
    FakeFlow, ProxyBuilder, ProxyProcess, RawClient, SOON, credential, expected_token, get,
    wait_until,
};

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

/// Counts where a text stands in what a process can write: in its heap, and in the arguments and the
/// environment that it was started with, which lie on its stack and cannot be wiped. `None` where the
/// kernel does not show it: to root only.
#[cfg(target_os = "linux")]
fn count_in_memory(proxy: &ProxyProcess, text: &str) -> Option<usize> {
    let memory = File::open(format!("/proc/{}/mem", proxy.pid())).ok()?;
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", proxy.pid())).ok()?;
    let mut count = 0;
    for line in maps.lines().filter(|line| !line.ends_with("[stack]")) {
        let mut words = line.split_whitespace();
        let (range, mode) = (words.next()?, words.next()?);
        if !mode.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-')?;
        let start = u64::from_str_radix(start, 16).ok()?;
        let end = u64::from_str_radix(end, 16).ok()?;
        let mut bytes = vec![0; usize::try_from(end - start).ok()?];
        // What was unmapped meanwhile cannot be read.
        if memory.read_exact_at(&mut bytes, start).is_ok() {
            count += memchr::memmem::find_iter(&bytes, text).count();
        }
    }
    Some(count)
}

/// A text that JSON writes with escapes.
#[cfg(target_os = "linux")]
fn note(number: usize) -> String {
    format!("note-{number}-of-\"no\"-meaning")
}

/// An entry with a field of no meaning, and what must be gone from memory when it is no longer used:
/// clientSecret, the token's payload and its signature.
#[cfg(target_os = "linux")]
fn entry(number: usize) -> (serde_json::Value, Vec<String>) {
    let secret = format!("fake-secret-{number}-not-real");
    let mut entry = credential(number);
    entry["note"] = note(number).into();
    let token = expected_token(
        &format!("client-{number}"),
        &secret,
        &format!("tenant-{number}"),
    );
    let parts: Vec<&str> = token.split('.').collect();
    // The payload begins with the clientId, which is no secret.
    let payload = parts[1][40..].to_owned();
    (entry, vec![secret, payload, parts[2].to_owned()])
}

#[test]
#[cfg(target_os = "linux")]
fn secrets_that_a_reload_replaced_are_gone_from_memory() {
    let upstream = FakeFlow::start();
    let ((old, old_secrets), (new, new_secrets)) = (entry(1), entry(2));
    let proxy = ProxyProcess::to(&upstream.url())
        .secrets(&[old])
        .option("--workers", "8")
        .start();
    if count_in_memory(&proxy, "x").is_none() {
        eprintln!("skipped: the memory of another process can be read by root only");
        return;
    }
    let mut clients: Vec<RawClient> = Vec::new();
    for _ in 0..20 {
        let mut client = RawClient::connect(proxy.address());
        for path in ["/v1/models", "/v1/chat/completions"] {
            let body = b"{\"model\":\"m\"}";
            assert_eq!(client.request("POST", path, &[], body).status, 200);
        }
        clients.push(client);
    }
    let count = |text: &str| count_in_memory(&proxy, text).expect("it could be read");
    for secret in &old_secrets {
        assert!(
            count(secret) > 0,
            "{secret} is in use, and the search finds it"
        );
    }
    let text_of = |number| [note(number), note(number).replace('"', "\\\"")];
    let assert_gone = |text: &str| {
        let what = format!("{text}, which was in the file, to be gone");
        wait_until(&what, SOON, || count(text) == 0);
    };
    for text in text_of(1) {
        assert_gone(&text);
    }
    let text = serde_json::to_string(&[new]).expect("values are JSON");
    std::fs::write(proxy.file("secrets.json"), text).expect("our own file");
    proxy.signal("HUP");
    proxy.wait_for_log("Reloaded 1 configurations");
    for secret in &old_secrets {
        let what = format!("{secret} to be gone after the reload");
        wait_until(&what, SOON, || count(secret) == 0);
    }
    assert_eq!(get(proxy.address(), "/v1/models").status, 200);
    for secret in &new_secrets {
        assert!(count(secret) > 0, "{secret} is in use");
    }
    for text in [text_of(1), text_of(2)].concat() {
        assert_gone(&text);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn secrets_of_a_variable_are_kept_in_no_copy() {
    let (entry, _) = entry(1);
    let array = serde_json::to_string(&[entry]).expect("values are JSON");
    let by_environment = ProxyProcess::bare()
        .env("FLOW_PROXY_SECRETS", &array)
        .option("--workers", "8");
    let dotenv = format!("FLOW_PROXY_SECRETS='{array}'\n");
    let by_dotenv = ProxyProcess::bare()
        .with_file(".env", &dotenv)
        .option("--workers", "8");
    for builder in [by_environment, by_dotenv] {
        let proxy = builder.start();
        let count = || count_in_memory(&proxy, "note-1-of-");
        if count().is_none() {
            eprintln!("skipped: the memory of another process can be read by root only");
            return;
        }
        // The thread that read them may still be about to end.
        wait_until("all copies to be gone", SOON, || count() == Some(0));
    }
}
