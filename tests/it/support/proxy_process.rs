//! The built binary as a child process, killed on drop.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::machine::raise_descriptor_limit;
use super::{AccessLine, Finished, SOON, TempDir, credentials, wait_for, wait_until};

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
    uid: Option<u32>,
}

/// A running flow-proxy.
pub struct ProxyProcess {
    child: Child,
    address: SocketAddr,
    output: Output,
    dir: TempDir,
}

impl ProxyProcess {
    /// Prepares a proxy in front of `target_url`, with the credential `primary-1` alone.
    pub fn to(target_url: &str) -> ProxyBuilder {
        ProxyProcess::bare()
            .secrets(&credentials(1))
            .option("--target-url", target_url)
    }

    /// Prepares a process without target and secrets file.
    pub fn bare() -> ProxyBuilder {
        ProxyBuilder {
            dir: TempDir::new(),
            command: None,
            port: Some(0),
            args: vec![],
            env: vec![],
            stdin: None,
            shell: None,
            uid: None,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the path of a file in the process's working directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Returns all that has been written to stderr so far.
    pub fn log(&self) -> String {
        self.output.stderr_text()
    }

    /// Returns all that has been written to stdout so far.
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

    /// Panics with all that was logged where the process has ended instead of listening.
    fn panic_at_end(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a child of ours") {
            self.output.join();
            panic!("ended at start with {status}:\n{}", self.log());
        }
    }

    /// Returns the resident set size in KiB.
    pub fn rss_kib(&self) -> u64 {
        self.status_number("VmRSS:")
    }

    /// Returns the largest resident set so far, or since [`reset_peak_rss`](Self::reset_peak_rss).
    pub fn peak_rss_kib(&self) -> u64 {
        self.status_number("VmHWM:")
    }

    /// Lets the kernel count the peak anew. Where it does not, the peak is that of the whole life.
    pub fn reset_peak_rss(&self) {
        let _ = std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5");
    }

    pub fn thread_count(&self) -> u64 {
        self.status_number("Threads:")
    }

    /// Counts the open file descriptors. `None` where the kernel does not tell: to root only, since nothing
    /// may attach to the process.
    pub fn fd_count(&self) -> Option<usize> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.pid()));
        entries.ok().map(Iterator::count)
    }

    /// Counts the open connections to clients.
    pub fn client_count(&self) -> usize {
        let port = self.address.port();
        let own = |socket: &TcpSocket| socket.local_port == port && socket.is_connected;
        tcp_sockets().filter(own).count()
    }

    /// Counts the open connections to the upstream that listens there.
    pub fn upstream_count(&self, upstream: SocketAddr) -> usize {
        let port = upstream.port();
        let own = |socket: &TcpSocket| socket.remote_port == port && socket.is_connected;
        tcp_sockets().filter(own).count()
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

/// A TCP socket that a process has open. Which process the kernel tells to root only.
struct TcpSocket {
    local_port: u16,
    remote_port: u16,
    is_connected: bool,
}

/// Lists the machine's sockets over IPv4 and IPv6.
fn tcp_sockets() -> impl Iterator<Item = TcpSocket> {
    let tables = ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/net/{table}")));
    let lines = tables.into_iter().flatten().flat_map(|table| {
        let lines = table.lines().skip(1).map(str::to_owned);
        lines.collect::<Vec<_>>()
    });
    lines.filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (local, remote) = (columns.get(1)?, columns.get(2)?);
        let (state, inode) = (*columns.get(3)?, *columns.get(9)?);
        let port = |end: &str| u16::from_str_radix(end.rsplit_once(':')?.1, 16).ok();
        Some(TcpSocket {
            local_port: port(local)?,
            remote_port: port(remote)?,
            // 0A: it listens. Without an inode, the socket was closed by its process.
            is_connected: state != "0A" && inode != "0",
        })
    })
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

    pub fn options(self, options: &[(&str, &str)]) -> ProxyBuilder {
        let add = |builder: ProxyBuilder, (name, value): &(&str, &str)| builder.option(name, value);
        options.iter().fold(self, add)
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

    /// Runs the process as another user, which only root can.
    pub fn uid(mut self, uid: u32) -> ProxyBuilder {
        self.uid = Some(uid);
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> ProxyBuilder {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the command before the options: `demo`, `health`.
    pub fn command(mut self, command: &str) -> ProxyBuilder {
        self.command = Some(command.to_owned());
        self
    }

    /// Sets a fixed port instead of any free one.
    pub fn port(mut self, port: u16) -> ProxyBuilder {
        self.port = Some(port);
        self
    }

    /// No option `--port` at all.
    pub fn without_port(mut self) -> ProxyBuilder {
        self.port = None;
        self
    }

    /// Returns a path in the working directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Starts the process and waits for its `Listening on` line.
    pub fn start(self) -> ProxyProcess {
        let mut process = self.spawn();
        process.address = wait_for("the line 'Listening on http://…'", SOON, || {
            process.panic_at_end();
            listening_address(&process.log())
        });
        process
    }

    /// Starts the process at a log level that hides its line, on a port that is free now, and waits until
    /// it listens.
    pub fn start_silent(mut self) -> ProxyProcess {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        self.port = Some(free.expect("a free loopback port").port());
        let mut process = self.spawn();
        wait_until("the process to listen", SOON, || {
            process.panic_at_end();
            TcpStream::connect(process.address).is_ok()
        });
        process
    }

    /// Runs the process to its own end; kills it and panics after `deadline`.
    pub fn run_to_end(self, deadline: Duration) -> Finished {
        let mut process = self.spawn();
        let status = process.wait_for_exit(deadline);
        process.output.join();
        Finished {
            code: status.code(),
            stdout: process.stdout(),
            stderr: process.log(),
        }
    }

    /// Starts the process and waits for nothing.
    pub fn spawn(self) -> ProxyProcess {
        raise_descriptor_limit();
        let program = env!("CARGO_BIN_EXE_flow-proxy");
        let mut command = match &self.shell {
            None if self.uid.is_some() => {
                // Where the binary lies, another user may have no access.
                let copy = self.dir.join("flow-proxy");
                std::fs::copy(program, &copy).expect("our own directory is writable");
                let mut command = Command::new(copy);
                command.uid(self.uid.unwrap_or_default());
                command
            }
            None => Command::new(program),
            Some(commands) => {
                let mut shell = Command::new("sh");
                let script = format!("{commands} && exec \"$0\" \"$@\"");
                shell.args(["-c", &script, program]);
                shell
            }
        };
        command
            .args(&self.command)
            .args(self.port.map(|port| format!("--port={port}")))
            .args(&self.args)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(self.dir.path())
            .stdin(self.stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = wait_for("the built binary to start", SOON, || {
            match command.spawn() {
                // Another test's child may have inherited the copy of the binary while it was written.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => None,
                spawned => Some(spawned.expect("the built binary starts")),
            }
        });
        let output = Output::drain(&mut child);
        ProxyProcess {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], self.port.unwrap_or_default())),
            output,
            dir: self.dir,
        }
    }
}

/// Reads the address in the first whole `Listening on` line.
fn listening_address(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once("Listening on http://")?;
    let (address, _) = rest.split_once('\n')?;
    Some(
        address
            .trim()
            // What ends the line in JSON.
            .trim_end_matches("\"}")
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
