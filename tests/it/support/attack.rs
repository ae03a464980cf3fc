//! What the attacks share: a watch over the attacked process, and a process under tight limits.

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::{ProxyProcess, RawUpstream, SOON, TempDir, credentials, get, wait_for, wait_until};

/// What the attacked proxy may hold in descriptors afterwards beyond what it held before: idle
/// upstream connections, one for each worker that was busy at once.
const SPARE_DESCRIPTORS: usize = 4;

/// An attack under way: knows what the process was before, and says what became of it.
pub struct Attack<'a> {
    name: &'static str,
    proxy: &'a ProxyProcess,
    rss_before_kib: u64,
    descriptors_before: usize,
}

impl<'a> Attack<'a> {
    /// Notes what the process holds now, after a first request has warmed it up.
    pub fn begin(name: &'static str, proxy: &'a ProxyProcess) -> Attack<'a> {
        assert_eq!(get(proxy.address(), "/v1/models").status, 200, "{name}");
        reset_peak(proxy.pid());
        Attack {
            name,
            proxy,
            rss_before_kib: proxy.rss_kib(),
            descriptors_before: proxy.fd_count(),
        }
    }

    /// The attack is over: the next request is served, no thread panicked, memory stayed within
    /// `growth_kib` of what it was and, once the connections are gone, so did the descriptors.
    ///
    /// `upstreams`: idle upstream connections that may have been added.
    pub fn end(self, growth_kib: u64, upstreams: usize) {
        let peak = peak_kib(self.proxy.pid());
        println!(
            "attack {}: peak RSS {peak} KiB (before: {} KiB)",
            self.name, self.rss_before_kib
        );
        let asked = Instant::now();
        assert_eq!(get(self.proxy.address(), "/v1/models").status, 200);
        assert!(asked.elapsed() < SOON / 3, "{:?}", asked.elapsed());
        assert_no_bug(&self.proxy.log());
        assert!(
            peak <= self.rss_before_kib + growth_kib,
            "{}: grew from {} to {peak} KiB",
            self.name,
            self.rss_before_kib
        );
        let most = self.descriptors_before + upstreams + SPARE_DESCRIPTORS;
        wait_until("the descriptors to be given back", SOON, || {
            self.proxy.fd_count() <= most
        });
    }
}

/// No thread of the proxy panicked.
pub fn assert_no_bug(log: &str) {
    let bug = log.lines().find(|line| line.contains("Bug:"));
    assert_eq!(bug, None);
}

/// The largest resident set so far, or since [`reset_peak`], in KiB.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let words = line.and_then(|line| line.split_whitespace().nth(1));
    words.and_then(|n| n.parse().ok()).expect("a number")
}

/// Lets the kernel count the peak anew. Where it does not, the peak is that of the whole life.
fn reset_peak(pid: u32) {
    let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// An upstream that answers `ok` to everything, however many connections there are.
pub fn obliging_upstream() -> RawUpstream {
    RawUpstream::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

/// Numbers that look random and are the same in each run (xorshift64*).
pub struct Numbers(u64);

impl Numbers {
    pub fn seeded(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// A proxy that a shell starts after having tightened its own limits. Killed on drop.
pub struct LimitedProxy {
    child: Child,
    dir: TempDir,
}

impl LimitedProxy {
    /// `limits` is shell: `ulimit -n 80`.
    pub fn start(limits: &str, target_url: &str, options: &[&str]) -> LimitedProxy {
        let dir = TempDir::new();
        let secrets = serde_json::to_string(&credentials(1)).expect("values are JSON");
        std::fs::write(dir.join("secrets.json"), secrets).expect("our own directory is writable");
        let stderr = File::create(dir.join("stderr")).expect("our own directory is writable");
        let child = Command::new("sh")
            .args(["-c", &format!("{limits} && exec \"$0\" \"$@\"")])
            .arg(env!("CARGO_BIN_EXE_flow-proxy"))
            .args(["--port", "0", "--target-url", target_url])
            .args(options)
            .env_clear()
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("a POSIX shell");
        LimitedProxy { child, dir }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("stderr")).unwrap_or_default()
    }

    /// Waits for the line that tells the address.
    pub fn address(&self) -> SocketAddr {
        wait_for("the line 'Listening on http://…'", SOON, || {
            let log = self.log();
            let (_, rest) = log.split_once("Listening on http://")?;
            rest.split_once('\n')?.0.trim().parse().ok()
        })
    }

    pub fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(path).expect("the process runs").count()
    }

    pub fn wait_for_exit(&mut self, deadline: Duration) -> ExitStatus {
        wait_for("the process to end", deadline, || {
            self.child.try_wait().expect("a child of ours")
        })
    }
}

impl Drop for LimitedProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the proxy ---\n{}--- end ---", self.log());
        }
    }
}
