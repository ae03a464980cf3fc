//! Child processes that end when their handle is dropped, and what the kernel reports about them.

use std::fs;
use std::io;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The unit of processor time in /proc (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;
/// How long a child may take to end after SIGTERM before it gets SIGKILL.
const GRACE: Duration = Duration::from_secs(3);

/// A child process. Dropping it ends the child and the processes that it started.
pub struct Process {
    pub child: Child,
}

impl Process {
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        Ok(Self {
            child: command.spawn()?,
        })
    }

    /// The child and its own children (nginx's workers).
    fn pids(&self) -> Vec<u32> {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        let children = children
            .split_ascii_whitespace()
            .filter_map(|pid| pid.parse().ok());
        std::iter::once(pid).chain(children).collect()
    }

    /// Processor time used so far, user and system, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        self.pids().into_iter().map(cpu_ticks).sum::<f64>() / TICKS_PER_SECOND
    }

    /// Resident memory in KiB; pages shared by several processes count once for each.
    pub fn rss_kib(&self) -> u64 {
        self.sum_status("VmRSS:")
    }

    /// Peak resident memory since the start, in KiB.
    pub fn peak_rss_kib(&self) -> u64 {
        self.sum_status("VmHWM:")
    }

    pub fn threads(&self) -> u64 {
        self.sum_status("Threads:")
    }

    /// Waits until all threads of the child sleep, that is, until its start is complete. False: they
    /// still did not after `longest`.
    pub fn await_sleep(&self, longest: Duration) -> bool {
        let deadline = Instant::now() + longest;
        while !all_threads_sleep(self.child.id()) {
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Counts the open descriptors. Of a process that nothing may attach to, the kernel lists them to root
    /// only; others get the length of its table, which grows with the most that were open.
    pub fn descriptors(&self) -> u64 {
        let path = format!("/proc/{}/fd", self.child.id());
        match fs::read_dir(path) {
            Ok(entries) => entries.count() as u64,
            Err(_) => status_number(self.child.id(), "FDSize:"),
        }
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn sum_status(&self, field: &str) -> u64 {
        self.pids()
            .into_iter()
            .map(|pid| status_number(pid, field))
            .sum()
    }

    /// Sends SIGTERM and waits; after [`GRACE`], kills the child and the processes that it started.
    fn end(&mut self) {
        if !self.is_running() {
            return;
        }
        let pids = self.pids();
        send(self.child.id(), Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while self.is_running() {
            if Instant::now() > deadline {
                // The child has not been reaped, so its id cannot belong to another process yet.
                pids.iter().rev().for_each(|pid| send(*pid, Signal::KILL));
                let _ = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        let _ = kill_process(pid, signal);
    }
}

fn all_threads_sleep(pid: u32) -> bool {
    let sleeps = |stat: String| after_name(&stat).next() == Some("S");
    fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| {
        threads.flatten().all(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat"));
            stat.is_ok_and(sleeps)
        })
    })
}

/// The fields of a `stat` file after the name, starting with the state. The name may hold any
/// character and ends at the last ')' (proc(5)).
fn after_name(stat: &str) -> impl Iterator<Item = &str> {
    let fields = stat.rsplit(')').next().unwrap_or_default();
    fields.split_ascii_whitespace()
}

fn cpu_ticks(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // utime and stime.
    after_name(&stat)
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum()
}

fn status_number(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.split_ascii_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// Waits for `length`. Returns the share (0 to 1) of the machine's processor time that was in use.
pub fn busy_share(length: Duration) -> Option<f64> {
    let before = machine_ticks()?;
    thread::sleep(length);
    let after = machine_ticks()?;
    Some(1.0 - (after.0 - before.0) / (after.1 - before.1))
}

/// Idle ticks and all ticks since boot, from the first line of /proc/stat: the 4th and 5th numbers
/// are idle time and waiting for disks (proc(5)).
fn machine_ticks() -> Option<(f64, f64)> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let ticks: Vec<f64> = stat
        .lines()
        .next()?
        .split_ascii_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    Some((ticks.get(3)? + ticks.get(4)?, ticks.iter().sum()))
}
