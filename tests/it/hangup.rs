//! SIGHUP with and without the terminal that the proxy was started in (contract section 11).

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Ended, ProxyProcess, RawClient, RawUpstream, SOON, get, pseudo_terminal, wait_until,
};

const TARGET: &str = "http://127.0.0.1:9/x";

/// The master of a pseudo-terminal.
struct Master {
    descriptor: OwnedFd,
    terminal: File,
}

impl Master {
    /// Closes the terminal. A process that another test is starting may hold the descriptor for a moment.
    fn close(self) {
        drop(self.descriptor);
        wait_until("the terminal to be gone", SOON, || {
            !self.terminal.is_terminal()
        });
    }
}

/// A pseudo-terminal: its master and the terminal.
fn terminal() -> (Master, File) {
    let (descriptor, terminal) = pseudo_terminal();
    let master = Master {
        descriptor,
        terminal: terminal.try_clone().expect("a descriptor"),
    };
    (master, terminal)
}

#[test]
fn sighup_reloads_while_the_terminal_is_there_and_stops_when_it_is_gone() {
    let (master, terminal) = terminal();
    let mut proxy = ProxyProcess::to(TARGET).stdin(terminal).start();
    proxy.signal("HUP");
    proxy.wait_for_log("Reloaded 1 configurations");
    assert!(!proxy.has_exited());
    master.close();
    proxy.signal("HUP");
    assert_eq!(proxy.wait_for_exit(SOON).code(), Some(0));
    let log = proxy.log();
    assert!(log.contains("the terminal is gone, stopping"), "{log}");
    assert!(log.ends_with(" - INFO - Stopped\n"), "{log}");
}

#[test]
fn a_second_sighup_of_a_closed_terminal_does_not_cut_the_stop_short() {
    let (master, terminal) = terminal();
    let (upstream, commands) = RawUpstream::on_command();
    let mut proxy = ProxyProcess::to(&upstream.url()).stdin(terminal).start();
    let mut client = RawClient::connect(proxy.address());
    client.send_request("GET", "/v1/x", &[], b"");
    commands.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    client.read_head();
    master.close();
    proxy.signal("HUP");
    proxy.wait_for_log("the terminal is gone, stopping");
    proxy.signal("HUP");
    // What a second signal ends at once goes on here.
    let asked = Instant::now();
    while asked.elapsed() < Duration::from_millis(300) {
        assert!(!proxy.has_exited(), "{}", proxy.log());
        thread::sleep(Duration::from_millis(10));
    }
    commands.send("0\r\n\r\n");
    assert_eq!(client.read_body_to_end().2, Ended::Complete);
    assert_eq!(proxy.wait_for_exit(SOON).code(), Some(0));
}

#[test]
fn under_nohup_it_reloads_even_when_the_terminal_is_gone() {
    let (master, terminal) = terminal();
    let mut proxy = ProxyProcess::to(TARGET)
        .stdin(terminal)
        .after_shell("trap '' HUP")
        .start();
    master.close();
    proxy.signal("HUP");
    proxy.wait_for_log("Reloaded 1 configurations");
    assert!(!proxy.has_exited());
    assert_eq!(get(proxy.address(), "/-/health").status, 200);
}

/// Starts its arguments with a controlling terminal and no other descriptor on it, waits until standard
/// error says that it listens, closes the terminal and exits with the code of the process.
const IN_A_TERMINAL: &str = r#"
import os, pty, sys, time
log = sys.argv[1]
pid, master = pty.fork()
if pid == 0:
    null = os.open(os.devnull, os.O_RDWR)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, descriptor in ((null, 0), (null, 1), (out, 2)):
        os.dup2(source, descriptor)
    os.execv(sys.argv[2], sys.argv[2:])
for _ in range(1500):
    if os.path.exists(log) and "Listening on" in open(log).read():
        break
    time.sleep(0.01)
os.close(master)
for _ in range(1500):
    ended, status = os.waitpid(pid, os.WNOHANG)
    if ended:
        sys.exit(os.waitstatus_to_exitcode(status))
    time.sleep(0.01)
os.kill(pid, 9)
sys.exit("it goes on")
"#;

#[test]
fn closing_the_controlling_terminal_stops_it() {
    let dir = ProxyProcess::to(TARGET);
    let log = dir.path("stderr");
    let run = Command::new("python3")
        .args(["-c", IN_A_TERMINAL])
        .args([log.as_os_str(), env!("CARGO_BIN_EXE_flow-proxy").as_ref()])
        .args(["--port", "0", "--target-url", TARGET, "--log-file", "none"])
        .current_dir(dir.path(""))
        .output();
    let Ok(output) = run else {
        eprintln!("skipped: python3 is not installed");
        return;
    };
    let text = std::fs::read_to_string(log).unwrap_or_default();
    assert_eq!(output.status.code(), Some(0), "{output:?}\n{text}");
    assert!(text.contains("the terminal is gone, stopping"), "{text}");
}
