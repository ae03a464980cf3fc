//! The command `demo`, as a new user tries it: the printed commands are pasted into a shell.

use std::io::Read as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{ProxyProcess, Response, SOON, get, post, wait_for};

fn demo() -> ProxyProcess {
    ProxyProcess::bare().command("demo").start()
}

/// The commands that the demo prints.
fn commands(demo: &ProxyProcess) -> Vec<String> {
    let commands = || {
        let printed = demo.stdout() + &demo.log();
        let whole_lines = printed.lines().map(str::trim);
        let commands = whole_lines.filter(|line| line.contains("curl "));
        commands.map(str::to_owned).collect::<Vec<String>>()
    };
    wait_for("four whole commands", SOON, || {
        let commands = commands();
        let is_whole = commands.last().is_some_and(|it| it.ends_with("; done"));
        (commands.len() == 4 && is_whole).then_some(commands)
    })
}

/// A shell that pastes one command; a proxy of the machine's own must not get in the way.
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

/// Whether curl is there; tells that a test is skipped where it is not.
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
    let demo = demo();
    let commands = commands(&demo);
    if curl_is_missing() {
        return;
    }
    let chat = paste(&commands[0]);
    assert!(chat.starts_with("data: {"), "{chat}");
    assert!(chat.ends_with("data: [DONE]\n\n"), "{chat}");
    let message = paste(&commands[1]);
    assert!(
        message.starts_with("event: message_start\ndata: {"),
        "{message}"
    );
    let end = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    assert!(message.ends_with(end), "{message}");
    let response = paste(&commands[2]);
    assert!(
        response.contains(r#""type":"response.completed""#),
        "{response}"
    );
    assert_eq!(paste(&commands[3]), "200\n".repeat(8));
}

#[test]
fn the_address_of_the_page_is_printed_first() {
    let demo = demo();
    commands(&demo);
    let page = format!("See what the proxy does: http://{}/-/\n", demo.address());
    assert!(demo.stdout().starts_with(&page), "{}", demo.stdout());
}

#[test]
fn the_printed_commands_show_what_the_simulated_flow_rejects_in_the_log() {
    let demo = demo();
    let commands = commands(&demo);
    if curl_is_missing() {
        return;
    }
    for (index, (config, attempts, lines)) in [
        ("demo-1", "1", &[][..]),
        (
            "demo-3",
            "2",
            &[
                "ERROR - Authentication failed for config 'demo-revoked': upstream answered 401",
                "ERROR - Configuration 'demo-revoked' marked as failed. Remaining: 2/3",
                "INFO - Failover successful - using config 'demo-3'",
            ][..],
        ),
        (
            "demo-3",
            "2",
            &["WARNING - Configuration 'demo-1' may not use model 'demo-vip', passed over for it for 600 s"],
        ),
        (
            "demo-1",
            "1",
            &["WARNING - Configuration 'demo-1' rate limited, resting 5 s. Remaining: 1/3"],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        paste(&commands[index]);
        for line in lines {
            demo.wait_for_log(line);
        }
        let line = demo.wait_for_access_line(index + 1);
        assert_eq!(
            (line.field("config"), line.field("attempts")),
            (config, attempts),
            "command {}",
            index + 1
        );
        assert_eq!(line.status, 200);
    }
}

/// A request in the form of each API, and where its response has input, cached and output tokens. Of
/// messages, the cached ones and those written to the cache are added to the input.
const APIS: [(&str, &str, [&str; 3]); 3] = [
    (
        "/v1/chat/completions",
        r#""stream_options":{"include_usage":true},"messages":[{"role":"user","content":"How much is this?"}]"#,
        [
            "/prompt_tokens",
            "/prompt_tokens_details/cached_tokens",
            "/completion_tokens",
        ],
    ),
    (
        "/v1/messages",
        r#""max_tokens":99,"messages":[{"role":"user","content":[{"type":"text","text":"How much is this?","cache_control":{"type":"ephemeral"}}]}]"#,
        [
            "/input_tokens",
            "/cache_read_input_tokens",
            "/output_tokens",
        ],
    ),
    (
        "/v1/responses",
        r#""input":"How much is this?""#,
        [
            "/input_tokens",
            "/input_tokens_details/cached_tokens",
            "/output_tokens",
        ],
    ),
];

/// The last usage that a response tells, whole or as a stream.
fn usage(response: &Response) -> Value {
    let text = response.text();
    let usage = text.lines().rev().find_map(|line| {
        let json: Value = serde_json::from_str(line.trim_start_matches("data: ")).ok()?;
        let usage = [&json["usage"], &json["response"]["usage"]];
        usage.into_iter().find(|it| it.is_object()).cloned()
    });
    usage.unwrap_or_else(|| panic!("no usage: {text}"))
}

#[test]
fn the_access_line_has_the_usage_that_the_response_tells_in_the_form_of_each_api() {
    for (path, members, pointers) in APIS {
        let demo = demo();
        for (index, is_streamed) in [false, true, false].into_iter().enumerate() {
            let body = format!(r#"{{"model":"demo-gpt","stream":{is_streamed},{members}}}"#);
            let response = post(demo.address(), path, body.as_bytes());
            assert_eq!(response.status, 200, "{}", response.text());
            let line = demo.wait_for_access_line(index + 1);
            let usage = usage(&response);
            let count = |pointer: &str| usage.pointer(pointer).and_then(Value::as_u64);
            let [input, cached, output] = pointers.map(|pointer| count(pointer).expect(pointer));
            let more = match path {
                "/v1/messages" => cached + count("/cache_creation_input_tokens").expect("a number"),
                _ => 0,
            };
            let logged = ["input_tokens", "cached_tokens", "output_tokens"]
                .map(|name| line.field(name).to_owned());
            assert_eq!(
                logged,
                [input + more, cached, output].map(|it| it.to_string()),
                "{path} {usage}"
            );
            assert!(output > 10 && input + more > 10, "{usage}");
            assert_eq!(cached > 0, index > 0, "cached once repeated: {usage}");
            // A stream's head is sent before the cost is known, and messages have no other place for it.
            let is_told = !is_streamed || path != "/v1/messages";
            assert_eq!(line.field("cost").is_empty(), !is_told, "{path}");
            assert_eq!((line.field("model"), line.field("end")), ("demo-gpt", "ok"));
        }
    }
}

#[test]
fn a_spent_budget_goes_unnoticed_by_the_client() {
    let demo = demo();
    let text = "much ".repeat(2000);
    let body = format!(r#"{{"model":"demo-claude","input":"{text}"}}"#);
    for _ in 0..3 {
        let response = post(demo.address(), "/v1/responses", body.as_bytes());
        assert_eq!(response.status, 200, "{}", response.text());
    }
    demo.wait_for_log(
        "WARNING - Configuration 'demo-1' budget exceeded, resting 300 s. Remaining: 1/3",
    );
}

#[test]
fn an_agent_that_only_offers_its_tools_gets_words() {
    let demo = demo();
    let message = |choice: &str| {
        let body = format!(
            r#"{{"model":"demo-claude","max_tokens":64,"messages":[{{"role":"user","content":"hi"}}],
            "tools":[{{"name":"Read","input_schema":{{"type":"object",
              "properties":{{"file_path":{{"type":"string"}}}},"required":["file_path"]}}}}]{choice}}}"#
        );
        let message = post(demo.address(), "/v1/messages", body.as_bytes());
        assert_eq!(message.status, 200, "{}", message.text());
        message.json()["content"][0].clone()
    };
    assert_eq!(message("")["type"], "text");
    let call = message(r#","tool_choice":{"type":"any"}"#);
    assert_eq!(
        (&call["type"], &call["name"]),
        (&"tool_use".into(), &"Read".into())
    );
    assert!(call["input"]["file_path"].is_string(), "{call}");
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
    let demo = demo();
    let commands = commands(&demo);
    if curl_is_missing() {
        return;
    }
    for command in &commands[..3] {
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
    let demo = demo();
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
fn a_body_of_some_mebibytes_gets_a_short_response() {
    let demo = demo();
    let text = "é".repeat(2 << 20);
    let body = format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}]}}"#);
    // Twice: the second one is sent again, after the revoked configuration.
    for _ in 0..2 {
        let response = post(demo.address(), "/v1/chat/completions", body.as_bytes());
        assert_eq!(response.status, 200, "{}", response.text());
        assert!(response.body.len() < 4096, "{} bytes", response.body.len());
    }
}
