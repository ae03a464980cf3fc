//! Starts the proxies that are measured: flow-proxy, nginx and HAProxy, with configurations made for
//! the run. Each listens on a free loopback port and ends when its handle is dropped.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::process::Process;
use super::roles;

/// How long a proxy may take until it accepts connections.
const START_TIMEOUT: Duration = Duration::from_secs(10);
const SECRETS: &str = r#"[{"name":"bench","clientId":"fake-client-id","clientSecret":"fake-client-secret-for-the-bench","tenant":"fake-tenant"}]"#;

/// A running proxy.
pub struct Front {
    pub address: SocketAddr,
    pub process: Process,
}

/// A directory for configurations, logs and certificates, removed when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("flow-proxy-bench-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        let secrets = path.join("secrets.json");
        fs::write(&secrets, SECRETS)?;
        fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600))?;
        Ok(Self(path))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How flow-proxy is started.
pub struct FlowProxy<'a> {
    pub binary: &'a Path,
    pub scratch: &'a Scratch,
    pub target: String,
    pub log_level: &'static str,
    /// `None`: the default.
    pub workers: Option<u32>,
    pub ca_file: Option<PathBuf>,
}

impl FlowProxy<'_> {
    /// Starts it on a free port and waits until it accepts connections.
    pub fn start(&self) -> io::Result<Front> {
        let port = free_port()?;
        let mut command = roles::guarded(self.binary)?;
        self.configure(&mut command, port);
        command.stderr(append_to(&self.stderr_path())?);
        let front = await_port(Process::spawn(&mut command)?, port);
        front.map_err(|error| {
            let printed = fs::read_to_string(self.stderr_path()).unwrap_or_default();
            io::Error::other(format!("flow-proxy: {error}: {}", printed.trim()))
        })
    }

    /// Starts it with stderr piped to the caller, and does not wait until it accepts connections.
    pub fn start_piped(&self, port: u16) -> io::Result<Process> {
        let mut command = roles::guarded(self.binary)?;
        self.configure(&mut command, port);
        Process::spawn(&mut command)
    }

    fn configure(&self, command: &mut Command, port: u16) {
        let path = |name| self.scratch.path(name);
        command
            .args(["--host", "127.0.0.1", "--log-level", self.log_level])
            .args(["--port", &port.to_string(), "--target-url", &self.target])
            .arg("--secrets-file")
            .arg(path("secrets.json"))
            .arg("--log-file")
            .arg(self.log_path())
            .env_clear()
            .current_dir(path(""))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if let Some(workers) = self.workers {
            command.args(["--workers", &workers.to_string()]);
        }
        if let Some(ca_file) = &self.ca_file {
            command.arg("--ca-file").arg(ca_file);
        }
    }

    /// Empties the two files that the log goes to.
    pub fn empty_logs(&self) {
        for path in [self.log_path(), self.stderr_path()] {
            let _ = fs::OpenOptions::new().write(true).truncate(true).open(path);
        }
    }

    /// Measures the time from the start of the program to its Listening line, then ends it.
    pub fn time_to_listening(&self) -> io::Result<Duration> {
        // Without the guard, which would add to the measured time.
        let mut command = Command::new(self.binary);
        self.configure(&mut command, 0);
        let begin = Instant::now();
        let mut process = Process::spawn(&mut command)?;
        let stderr = process.child.stderr.take();
        for line in BufReader::new(stderr.expect("stderr is piped")).lines() {
            if line?.contains("Listening on ") {
                return Ok(begin.elapsed());
            }
        }
        Err(io::Error::other("flow-proxy ended without listening"))
    }

    fn log_path(&self) -> PathBuf {
        let level = self.log_level;
        self.scratch.path(&format!("flow-proxy-{level}.log"))
    }

    fn stderr_path(&self) -> PathBuf {
        let level = self.log_level;
        self.scratch.path(&format!("flow-proxy-{level}.stderr"))
    }
}

/// Starts nginx with two workers and the given `http` block; `{port}` in it is replaced by a free
/// port.
pub fn start_nginx(scratch: &Scratch, name: &str, http_block: &str) -> io::Result<Front> {
    let port = free_port()?;
    let directory = scratch.path(name);
    fs::create_dir_all(&directory)?;
    let here = directory.display();
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {here}/{kind};\n"))
        .collect();
    let http_block = http_block.replace("{port}", &port.to_string());
    let configuration = format!(
        "daemon off;\n{user}\nworker_processes 2;\npid {here}/pid;\nerror_log {here}/error.log;\n\
         worker_rlimit_nofile 16384;\nevents {{ worker_connections 4096; }}\nhttp {{\n\
         access_log off;\nkeepalive_requests 1000000000;\nkeepalive_timeout 75s;\n\
         tcp_nodelay on;\n{temporary}{http_block}\n}}\n"
    );
    let file = directory.join("nginx.conf");
    fs::write(&file, configuration)?;
    let mut command = roles::guarded("nginx")?;
    command
        .arg("-e")
        .arg(directory.join("error.log"))
        .arg("-p")
        .arg(&directory)
        .arg("-c")
        .arg(&file);
    silence(&mut command);
    await_port(Process::spawn(&mut command)?, port)
}

/// nginx's `http` block for a reverse proxy with persistent upstream connections. `location` is added
/// to each location (for TLS).
pub fn nginx_proxy_block(scheme: &str, upstream: SocketAddr, location: &str) -> String {
    let common = format!(
        "proxy_pass {scheme}://up; proxy_http_version 1.1; proxy_set_header Connection \"\"; {location}"
    );
    format!(
        "client_max_body_size 0; client_body_buffer_size 2m;\n\
         upstream up {{ server {upstream}; keepalive 1024; keepalive_requests 1000000000; }}\n\
         server {{ listen 127.0.0.1:{{port}};\n\
         location / {{ {common} }}\n\
         location /sse {{ {common} proxy_buffering off; }} }}"
    )
}

/// Starts HAProxy with two threads in front of `upstream`. Without `http-no-delay` it delays the
/// events of a stream by 200 ms.
pub fn start_haproxy(scratch: &Scratch, upstream: SocketAddr) -> io::Result<Front> {
    let port = free_port()?;
    let configuration = format!(
        "global\n  nbthread 2\n  maxconn 4096\n\
         defaults\n  mode http\n  option http-no-delay\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         frontend front\n  bind 127.0.0.1:{port}\n  default_backend up\n\
         backend up\n  http-reuse always\n  server up {upstream}\n"
    );
    let file = scratch.path("haproxy.cfg");
    fs::write(&file, configuration)?;
    let mut command = roles::guarded("haproxy")?;
    command.args(["-db", "-q", "-f"]).arg(&file);
    silence(&mut command);
    await_port(Process::spawn(&mut command)?, port)
}

/// Whether `program` can be started from PATH.
pub fn is_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Finds a port that is free now. With port 0, flow-proxy at log level WARNING would not say where it
/// listens, and nginx and HAProxy do not support it.
pub fn free_port() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

fn await_port(mut process: Process, port: u16) -> io::Result<Front> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Instant::now() + START_TIMEOUT;
    while TcpStream::connect(address).is_err() {
        if !process.is_running() {
            return Err(io::Error::other("ended while starting"));
        }
        if Instant::now() > deadline {
            return Err(io::Error::other("does not accept connections"));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(Front { address, process })
}

fn append_to(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().create(true).append(true).open(path)
}

fn silence(command: &mut Command) {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
}
