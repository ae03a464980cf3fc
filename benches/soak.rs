//! `cargo bench --bench soak`: sends mixed load for minutes and checks every response. The proxy's
//! memory, descriptors and threads must stay flat.
//!
//! Arguments after `--`: `--minutes N` (20, fractions allowed), `--binary PATH`. Prints the curve.
//! Exits with 1 if something grew, a response was wrong, or an access line is missing. Needs Linux.
//! Does nothing under `cargo test`.

#[allow(dead_code, reason = "the bench uses the rest")]
mod support;
mod traffic;

use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use support::fronts::{FlowProxy, Scratch, free_port};
use support::process::Process;
use support::report::median;
use support::roles;
use traffic::{AccessLines, Counts, Kind};

const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// Short runs take samples more often, so that there are enough to compare.
const SAMPLES_AT_LEAST: u32 = 12;
/// How long requests in flight and their access lines may take after the load has ended.
const SETTLING: Duration = Duration::from_secs(10);

/// What the proxy uses at one moment.
struct Sample {
    at: Duration,
    rss_kib: f64,
    descriptors: f64,
    threads: f64,
    requests: u64,
}

fn main() -> ExitCode {
    if roles::run_if_asked() {
        return ExitCode::SUCCESS;
    }
    // `cargo bench` passes --bench; `cargo test --benches` does not.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    roles::raise_descriptor_limit();
    let outcome = parse().and_then(|(length, binary)| soak(length, binary));
    match outcome {
        Ok(problems) if problems.is_empty() => {
            println!("\nsoak: PASS");
            ExitCode::SUCCESS
        }
        Ok(problems) => {
            println!();
            problems
                .iter()
                .for_each(|problem| println!("soak: FAIL: {problem}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse() -> io::Result<(Duration, PathBuf)> {
    let mut minutes = 20.0;
    let mut binary = PathBuf::from(env!("CARGO_BIN_EXE_flow-proxy"));
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        let value = arguments.next().unwrap_or_default();
        let number = value
            .parse::<f64>()
            .ok()
            .filter(|n| (0.05..=10_000.0).contains(n));
        match (argument.as_str(), number) {
            ("--minutes", Some(number)) => minutes = number,
            ("--binary", _) => binary = value.into(),
            _ => {
                return Err(io::Error::other(
                    "usage: soak [--minutes N] [--binary PATH]",
                ));
            }
        }
    }
    Ok((Duration::from_secs_f64(minutes * 60.0), binary))
}

/// Runs the soak. Returns what is wrong; empty if nothing is.
fn soak(length: Duration, binary: PathBuf) -> io::Result<Vec<String>> {
    let scratch = Scratch::new()?;
    let (_upstream, upstream) = roles::start_upstream()?;
    let port = free_port()?;
    let flow_proxy = FlowProxy {
        binary: &binary,
        scratch: &scratch,
        target: format!("http://{upstream}"),
        log_level: "INFO",
        workers: None,
        ca_file: None,
    };
    let mut proxy = flow_proxy.start_piped(port)?;
    let access = read_access_lines(&mut proxy)?;
    let counts = Arc::new(Counts::default());
    let stopping = Arc::new(AtomicBool::new(false));
    let address = ([127, 0, 0, 1], port).into();
    let clients = traffic::start(address, &counts, &stopping);
    let samples = watch(&mut proxy, &counts, length)?;
    stopping.store(true, Ordering::Relaxed);
    for client in clients {
        let _ = client.join();
    }
    await_access_lines(&access, counts.sent());
    let lines = access.lock().expect("no reader panics").clone();
    print_counts(&counts, &lines);
    let mut problems = judge_curve(&samples);
    problems.extend(judge_responses(&counts, &lines));
    if !proxy.is_running() {
        problems.push("the proxy ended".to_owned());
    }
    Ok(problems)
}

/// Waits for the Listening line, then counts access lines in a thread of its own.
fn read_access_lines(proxy: &mut Process) -> io::Result<Arc<Mutex<AccessLines>>> {
    let stderr = proxy.child.stderr.take().expect("stderr is piped");
    let mut stderr = BufReader::new(stderr);
    let mut line = String::new();
    while !line.contains("Listening on ") {
        line.clear();
        if stderr.read_line(&mut line)? == 0 {
            return Err(io::Error::other("flow-proxy ended without listening"));
        }
    }
    let access = Arc::new(Mutex::new(AccessLines::default()));
    let counted = Arc::clone(&access);
    thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            counted
                .lock()
                .expect("only this thread writes")
                .count(&line);
        }
    });
    Ok(access)
}

fn await_access_lines(access: &Mutex<AccessLines>, sent: u64) {
    let deadline = Instant::now() + SETTLING;
    while access.lock().expect("no reader panics").all() < sent && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
}

/// Takes samples of the proxy until `length` is over.
fn watch(proxy: &mut Process, counts: &Counts, length: Duration) -> io::Result<Vec<Sample>> {
    let every = SAMPLE_EVERY.min(length / SAMPLES_AT_LEAST);
    let begin = Instant::now();
    let mut samples = vec![];
    println!(
        "{:>8}  {:>9}  {:>11}  {:>7}  {:>10}",
        "s", "RSS KiB", "descriptors", "threads", "requests"
    );
    while begin.elapsed() < length {
        thread::sleep(every);
        if !proxy.is_running() {
            return Err(io::Error::other("the proxy ended"));
        }
        let sample = Sample {
            at: begin.elapsed(),
            rss_kib: proxy.rss_kib() as f64,
            descriptors: proxy.descriptors() as f64,
            threads: proxy.threads() as f64,
            requests: counts.sent(),
        };
        println!(
            "{:>8.0}  {:>9}  {:>11}  {:>7}  {:>10}",
            sample.at.as_secs_f64(),
            sample.rss_kib,
            sample.descriptors,
            sample.threads,
            sample.requests
        );
        samples.push(sample);
    }
    Ok(samples)
}

/// Compares the second quarter with the last one: the first is the warm-up.
fn judge_curve(samples: &[Sample]) -> Vec<String> {
    let quarter = (samples.len() / 4).max(1);
    let early = &samples[quarter.min(samples.len() - 1)..][..quarter.min(samples.len() - quarter)];
    let late = &samples[samples.len() - quarter..];
    let of =
        |samples: &[Sample], field: fn(&Sample) -> f64| median(samples.iter().map(field).collect());
    let mut problems = vec![];
    println!();
    // Slack: the load varies the descriptors by a few, and memory is taken in pages and arenas.
    let rss: (fn(&Sample) -> f64, f64) = (|sample| sample.rss_kib, 1024.0);
    let descriptors: (fn(&Sample) -> f64, f64) = (|sample| sample.descriptors, 16.0);
    let threads: (fn(&Sample) -> f64, f64) = (|sample| sample.threads, 0.0);
    for (name, (field, slack)) in [
        ("RSS KiB", rss),
        ("descriptors", descriptors),
        ("threads", threads),
    ] {
        let (before, after) = (of(early, field), of(late, field));
        println!("  {name}: {before} in the second quarter, {after} in the last");
        if after > before * 1.05 + slack {
            problems.push(format!("{name} grew from {before} to {after}"));
        }
    }
    problems
}

fn print_counts(counts: &Counts, lines: &AccessLines) {
    println!(
        "\n  {:<16}  {:>9}  {:>9}  {:>6}",
        "kind", "sent", "correct", "wrong"
    );
    for kind in Kind::ALL {
        let (sent, right) = counts.of(kind);
        println!(
            "  {:<16}  {sent:>9}  {right:>9}  {:>6}",
            kind.name(),
            sent - right
        );
    }
    println!("  access lines: {} ({lines})", lines.all());
}

fn judge_responses(counts: &Counts, lines: &AccessLines) -> Vec<String> {
    let mut problems = counts.examples();
    let mut expect = |what: &str, measured: u64, wanted: u64| {
        if measured != wanted {
            problems.push(format!("{what}: {measured} instead of {wanted}"));
        }
    };
    let sent = |kind| counts.of(kind).0;
    let right: u64 = Kind::ALL.map(|kind| counts.of(kind).1).iter().sum();
    expect("correct responses", right, counts.sent());
    expect("access lines", lines.all(), counts.sent());
    expect(
        "end=client_gone",
        lines.of("client_gone"),
        sent(Kind::Leaver),
    );
    let broken = sent(Kind::BrokenLength) + sent(Kind::BrokenStream) + sent(Kind::BrokenHead);
    expect("end=upstream_broke", lines.of("upstream_broke"), broken);
    let whole = sent(Kind::Small) + sent(Kind::Post) + sent(Kind::Large) + sent(Kind::Stream);
    expect("end=ok", lines.of("ok"), whole);
    problems
}
