//! The command `demo`, as users try it who have just built the program: the printed commands are
//! pasted into a shell.

use std::io::Read as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::{ProxyProcess, SOON, get, post, wait_for};

fn start_demo() -> ProxyProcess {
    ProxyProcess::bare().command("demo").start()
}

/// Waits for the curl commands that the demo prints.
fn commands(demo: &ProxyProcess) -> Vec<String> {
    let commands = || {
        let printed = demo.stdout() + &demo.log();
        let whole_lines = printed.lines().map(str::trim);
        let commands = whole_lines.filter(|line| line.starts_with("curl "));
        commands.map(str::to_owned).collect::<Vec<String>>()
    };
    wait_for("three whole curl commands", SOON, || {
        let commands = commands();
        let whole = commands.iter().all(|command| command.ends_with('\''));
        (commands.len() == 3 && whole).then_some(commands)
    })
}

/// Prepares a shell that runs one command; a proxy of the machine's own must not get in the way.
fn shell(command: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::null());
    for variable in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        shell.env_remove(variable);
    }
    shell
}

fn paste(command: &str) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = shell(command).output().expect("a POSIX shell");
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command}: {status}: {stderr}");
    String::from_utf8(stdout).expect("answers in UTF-8")
}

/// Tells whether curl is missing, and prints that a test is skipped where it is.
fn curl_is_missing() -> bool {
    let found = Command::new("curl")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    let missing = !found.is_ok_and(|status| status.success());
    if missing {
        eprintln!("SKIPPED: curl is not installed, the printed commands were not run");
    }
    missing
}

#[test]
fn each_printed_command_gets_what_it_asks_for() {
    let demo = start_demo();
    let commands = commands(&demo);
    if curl_is_missing() {
        return;
    }
    let models: serde_json::Value = serde_json::from_str(&paste(&commands[0])).expect("JSON");
    assert_eq!(models["object"], "list");
    assert!(models["data"][0]["id"].is_string(), "{models}");
    let chat = paste(&commands[1]);
    assert!(chat.starts_with("data: {"), "{chat}");
    assert!(chat.ends_with("data: [DONE]\n\n"), "{chat}");
    let message = paste(&commands[2]);
    assert!(
        message.starts_with("event: message_start\ndata: {"),
        "{message}"
    );
    let end = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    assert!(message.ends_with(end), "{message}");
}

#[test]
fn the_second_printed_command_shows_a_failover_in_the_log() {
    let demo = start_demo();
    let commands = commands(&demo);
    if curl_is_missing() {
        return;
    }
    paste(&commands[0]);
    let line = demo.wait_for_access_line(1);
    assert_eq!(
        (line.field("config"), line.field("attempts")),
        ("demo-1", "1")
    );
    paste(&commands[1]);
    demo.wait_for_log(
        "ERROR - Authentication failed for config 'demo-revoked': upstream answered 401",
    );
    demo.wait_for_log("ERROR - Configuration 'demo-revoked' marked as failed. Remaining: 2/3");
    demo.wait_for_log("INFO - Failover successful - using config 'demo-3'");
    let line = demo.wait_for_access_line(2);
    assert_eq!(
        (line.field("config"), line.field("attempts")),
        ("demo-3", "2")
    );
    assert_eq!(line.status, 200);
}

/// Kills a command that a failed assertion leaves behind.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_streamed_answer_arrives_piece_by_piece() {
    let demo = start_demo();
    let commands = commands(&demo);
    if curl_is_missing() {
        return;
    }
    for command in &commands[1..] {
        // exec: the process that is killed on failure must be curl itself.
        let command = format!("exec {command}");
        let child = shell(&command)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a POSIX shell");
        let mut curl = Running(child);
        let mut stdout = curl.0.stdout.take().expect("stdout is a pipe");
        let started = Instant::now();
        let (mut text, mut arrivals) = (Vec::new(), Vec::new());
        let mut piece = [0; 64 * 1024];
        while let Ok(length @ 1..) = stdout.read(&mut piece) {
            text.extend_from_slice(&piece[..length]);
            arrivals.push(started.elapsed());
        }
        let events = String::from_utf8_lossy(&text).matches("\n\n").count();
        assert!(events > 10, "{events} events of {command}");
        // Half of them may be late on a busy machine; a proxy that gathers makes one piece.
        assert!(
            arrivals.len() > events / 2,
            "{events} events in {} pieces",
            arrivals.len()
        );
        let spread = *arrivals.last().expect("some") - arrivals[0];
        assert!(spread > Duration::from_millis(200), "all within {spread:?}");
    }
}

#[test]
fn the_simulated_flow_answers_errors_as_flow_does() {
    let demo = start_demo();
    let unknown = get(demo.address(), "/v1/nothing");
    assert_eq!(
        (unknown.status, unknown.json()["error"]["code"].as_str()),
        (404, Some("404"))
    );
    assert_eq!(
        unknown.error_code(),
        "",
        "an answer of Flow's, not of the proxy's own"
    );
    let malformed = post(demo.address(), "/v1/messages", b"{");
    assert_eq!(
        (malformed.status, malformed.json()["type"].as_str()),
        (400, Some("error"))
    );
}

#[test]
fn a_body_of_some_mebibytes_is_answered_by_a_short_answer() {
    let demo = start_demo();
    let text = "é".repeat(2 << 20);
    let body = format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}]}}"#);
    // Twice: the second one would have to be repeated for another credential, and is too large to
    // be held for that.
    for expected in [200, 401] {
        let answer = post(demo.address(), "/v1/chat/completions", body.as_bytes());
        assert_eq!(answer.status, expected, "{}", answer.text());
        assert!(answer.body.len() < 4096, "{} bytes", answer.body.len());
    }
}
