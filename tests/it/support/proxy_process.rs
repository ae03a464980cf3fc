//! The built binary as a child process, killed on drop.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{AccessLine, SOON, TempDir, credentials, wait_for};

/// What to start: arguments, environment and files of a fresh working directory.
pub struct ProxyBuilder {
    dir: TempDir,
    command: Option<String>,
    /// The value of `--port`; `None` leaves the option out.
    port: Option<u16>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    stdin: Option<File>,
    shell: Option<String>,
}

/// How a process ended, and all that it wrote to stderr.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A running flow-proxy.
pub struct ProxyProcess {
    child: Child,
    address: SocketAddr,
    output: Output,
    dir: TempDir,
}

impl ProxyProcess {
    /// A builder for a proxy in front of `target_url`, with the credential `primary-1` alone.
    pub fn to(target_url: &str) -> ProxyBuilder {
        ProxyProcess::bare()
            .secrets(&credentials(1))
            .option("--target-url", target_url)
    }

    /// A builder without target and secrets file.
    pub fn bare() -> ProxyBuilder {
        ProxyBuilder {
            dir: TempDir::new(),
            command: None,
            port: Some(0),
            args: vec![],
            env: vec![],
            stdin: None,
            shell: None,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A file of the process's working directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// All that has been written to stderr so far.
    pub fn log(&self) -> String {
        self.output.stderr_text()
    }

    /// All that has been written to stdout so far.
    pub fn stdout(&self) -> String {
        self.output.stdout_text()
    }

    /// Waits until the log holds `text`, and returns the first line that does.
    pub fn wait_for_log(&self, text: &str) -> String {
        let line = || {
            self.log()
                .lines()
                .find(|line| line.contains(text))
                .map(str::to_owned)
        };
        wait_for(
            &format!("the log line {text:?} in\n{}", self.log()),
            SOON,
            line,
        )
    }

    pub fn access_lines(&self) -> Vec<AccessLine> {
        let log = self.log();
        let whole_lines = log.rfind('\n').map_or("", |end| &log[..end]);
        whole_lines.lines().filter_map(AccessLine::parse).collect()
    }

    /// Waits for the access line number `count`, counting from 1, and returns it.
    pub fn wait_for_access_line(&self, count: usize) -> AccessLine {
        let what = format!("access line number {count}");
        wait_for(&what, SOON, || self.access_lines().get(count - 1).cloned())
    }

    /// Sends a signal by its short name: `TERM`, `INT`, `HUP`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.pid())])
            .status()
            .expect("a POSIX shell");
        assert!(sent.success(), "kill -{name} {}: {sent}", self.pid());
    }

    /// Waits for the process to end by itself.
    pub fn wait_for_exit(&mut self, deadline: Duration) -> ExitStatus {
        let child = &mut self.child;
        wait_for("the process to end", deadline, || {
            child.try_wait().expect("a child of ours")
        })
    }

    pub fn has_exited(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_some()
    }

    /// Resident set size in KiB.
    pub fn rss_kib(&self) -> u64 {
        self.status_number("VmRSS:")
    }

    pub fn thread_count(&self) -> u64 {
        self.status_number("Threads:")
    }

    /// Open file descriptors.
    pub fn fd_count(&self) -> usize {
        let path = format!("/proc/{}/fd", self.pid());
        std::fs::read_dir(path).expect("the process runs").count()
    }

    /// Open sockets.
    pub fn socket_count(&self) -> usize {
        let path = format!("/proc/{}/fd", self.pid());
        std::fs::read_dir(path)
            .expect("the process runs")
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .filter(|target| target.to_string_lossy().starts_with("socket:"))
            .count()
    }

    fn status_number(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(path).expect("the process runs");
        let line = status
            .lines()
            .find(|line| line.starts_with(field))
            .expect("a known field");
        line.split_whitespace()
            .nth(1)
            .and_then(|n| n.parse().ok())
            .expect("a number")
    }
}

impl Drop for ProxyProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the proxy ---\n{}--- end ---", self.log());
        }
    }
}

impl ProxyBuilder {
    /// Writes `secrets.json` with these entries.
    pub fn secrets(self, entries: &[serde_json::Value]) -> ProxyBuilder {
        let text = serde_json::to_string_pretty(entries).expect("values are JSON");
        self.with_file("secrets.json", &text)
    }

    /// Adds a file to the working directory.
    pub fn with_file(self, name: &str, content: &str) -> ProxyBuilder {
        std::fs::write(self.dir.join(name), content).expect("our own directory is writable");
        self
    }

    /// Adds an option and its value.
    pub fn option(mut self, name: &str, value: &str) -> ProxyBuilder {
        self.args.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Adds an argument that is no option with a value.
    pub fn arg(mut self, arg: &str) -> ProxyBuilder {
        self.args.push(arg.to_owned());
        self
    }

    /// Gives the process this standard input instead of `/dev/null`.
    pub fn stdin(mut self, file: File) -> ProxyBuilder {
        self.stdin = Some(file);
        self
    }

    /// Starts the process from a shell that has run this: `ulimit -f 8`.
    pub fn after_shell(mut self, commands: &str) -> ProxyBuilder {
        self.shell = Some(commands.to_owned());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> ProxyBuilder {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The command before the options: `demo`, `health`.
    pub fn command(mut self, command: &str) -> ProxyBuilder {
        self.command = Some(command.to_owned());
        self
    }

    /// A fixed port instead of any free one.
    pub fn port(mut self, port: u16) -> ProxyBuilder {
        self.port = Some(port);
        self
    }

    /// No option `--port` at all.
    pub fn without_port(mut self) -> ProxyBuilder {
        self.port = None;
        self
    }

    /// A path in the working directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Starts the process and waits for its `Listening on` line.
    pub fn start(self) -> ProxyProcess {
        let (mut child, output) = self.spawn();
        let address = wait_for("the line 'Listening on http://…'", SOON, || {
            if let Some(status) = child.try_wait().expect("a child of ours") {
                output.join();
                panic!("ended at start with {status}:\n{}", output.stderr_text());
            }
            listening_address(&output.stderr_text())
        });
        ProxyProcess {
            child,
            address,
            output,
            dir: self.dir,
        }
    }

    /// Starts the process without waiting for a line: for log levels that hide it.
    pub fn start_silent(self) -> ProxyProcess {
        let (child, output) = self.spawn();
        let address = SocketAddr::from(([127, 0, 0, 1], self.port.unwrap_or_default()));
        ProxyProcess {
            child,
            address,
            output,
            dir: self.dir,
        }
    }

    /// Runs the process to its own end; kills it and panics after `deadline`.
    pub fn run_to_end(self, deadline: Duration) -> Finished {
        let (child, output) = self.spawn();
        let address = SocketAddr::from(([127, 0, 0, 1], self.port.unwrap_or_default()));
        let mut process = ProxyProcess {
            child,
            address,
            output,
            dir: self.dir,
        };
        let status = process.wait_for_exit(deadline);
        process.output.join();
        Finished {
            code: status.code(),
            stdout: process.stdout(),
            stderr: process.log(),
        }
    }

    fn spawn(&self) -> (Child, Output) {
        let program = env!("CARGO_BIN_EXE_flow-proxy");
        let mut command = match &self.shell {
            None => Command::new(program),
            Some(commands) => {
                let mut shell = Command::new("sh");
                let script = format!("{commands}; exec \"$0\" \"$@\"");
                shell.args(["-c", &script, program]);
                shell
            }
        };
        command
            .args(&self.command)
            .args(self.port.map(|port| format!("--port={port}")))
            .args(&self.args);
        command
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.dir.path());
        let stdin = self
            .stdin
            .as_ref()
            .map(|file| file.try_clone().expect("a descriptor"));
        command
            .stdin(stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the built binary starts");
        let output = Output::drain(&mut child);
        (child, output)
    }
}

/// The address in the first whole `Listening on` line.
fn listening_address(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once("Listening on http://")?;
    let (address, _) = rest.split_once('\n')?;
    Some(
        address
            .trim()
            .trim_end_matches('/')
            .parse()
            .expect("an address after 'Listening on'"),
    )
}

/// What a child writes, collected by one thread for each pipe.
struct Output {
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Output {
    fn drain(child: &mut Child) -> Output {
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let threads = vec![
            collect(
                child.stdout.take().expect("stdout is a pipe"),
                Arc::clone(&stdout),
            ),
            collect(
                child.stderr.take().expect("stderr is a pipe"),
                Arc::clone(&stderr),
            ),
        ];
        Output {
            stdout,
            stderr,
            threads: Mutex::new(threads),
        }
    }

    /// Waits until both pipes have ended.
    fn join(&self) {
        for thread in self
            .threads
            .lock()
            .expect("no panic under this lock")
            .drain(..)
        {
            let _ = thread.join();
        }
    }

    fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout.lock().expect("no panic under this lock")).into_owned()
    }

    fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().expect("no panic under this lock")).into_owned()
    }
}

fn collect(mut pipe: impl Read + Send + 'static, into: Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut piece = [0; 8192];
        while let Ok(length @ 1..) = pipe.read(&mut piece) {
            into.lock()
                .expect("no panic under this lock")
                .extend_from_slice(&piece[..length]);
        }
    })
}
