//! `cargo bench --bench bench`: measures, in one run, the upstream without a proxy (direct), a blind
//! TCP relay with one thread per connection (blocking, and spinning before it blocks), flow-proxy,
//! nginx and HAProxy.
//!
//! Prints tables with ratios, and for each target whether it is met. Needs Linux (epoll, /proc).
//! nginx, HAProxy, wrk and openssl are used if they are in PATH; if not, a line says what is left out.
//!
//! Arguments after `--`: `--rounds N` (5), `--seconds S` (2, fractions allowed), `--only
//! small,requests,large,look,wrk,sse,footprint,tls`, `--binary PATH` (the one that cargo has built).
//!
//! All traffic is on loopback, and all processes end with the run. Does nothing under `cargo test`.

mod suite;
#[allow(dead_code, reason = "the soak uses the rest")]
mod support;

use std::path::PathBuf;
use std::time::Duration;

use suite::{PARTS, Plan};
use support::{process, roles};

const USAGE: &str = "usage: bench [--rounds N] [--seconds S] [--only PART,PART] [--binary PATH]";

fn main() {
    if roles::run_if_asked() {
        return;
    }
    // `cargo bench` passes --bench; `cargo test --benches` does not.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let plan = parse(std::env::args().skip(1)).unwrap_or_else(|problem| {
        eprintln!("bench: {problem}\n{USAGE}\nparts: {}", PARTS.join(","));
        std::process::exit(2);
    });
    roles::raise_descriptor_limit();
    println!(
        "flow-proxy bench: {} rounds of {} s, medians, interleaved, {} processors",
        plan.rounds,
        plan.duration.as_secs_f64(),
        std::thread::available_parallelism().map_or(0, usize::from)
    );
    if let Some(busy) = process::busy_share(Duration::from_secs(1)) {
        println!(
            "other programs take {:.0} % of the processors: above 5 % the figures say little",
            busy * 100.0
        );
    }
    match suite::run(&plan) {
        Ok(report) => report.print(),
        Err(error) => {
            eprintln!("bench: {error}");
            std::process::exit(1);
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Plan, String> {
    let mut plan = Plan {
        rounds: 5,
        duration: Duration::from_secs(2),
        parts: PARTS.map(str::to_owned).to_vec(),
        binary: PathBuf::from(env!("CARGO_BIN_EXE_flow-proxy")),
    };
    while let Some(argument) = arguments.next() {
        if argument == "--bench" {
            continue;
        }
        let value = arguments
            .next()
            .ok_or(format!("{argument} needs a value"))?;
        let not_a_number = |_| format!("{argument}: '{value}' is not a number");
        match argument.as_str() {
            "--rounds" => plan.rounds = value.parse::<usize>().map_err(not_a_number)?.max(1),
            "--seconds" => {
                let seconds = value
                    .parse::<f64>()
                    .ok()
                    .filter(|s| (0.1..=60.0).contains(s));
                let seconds = seconds.ok_or(format!("--seconds: '{value}' is not 0.1 to 60"))?;
                plan.duration = Duration::from_secs_f64(seconds);
            }
            "--only" => plan.parts = value.split(',').map(str::to_owned).collect(),
            // The proxies run in a directory of their own, so a relative path would not be found.
            "--binary" => {
                plan.binary = PathBuf::from(&value)
                    .canonicalize()
                    .map_err(|error| format!("--binary: {value}: {error}"))?;
            }
            _ => return Err(format!("unknown argument '{argument}'")),
        }
    }
    match plan
        .parts
        .iter()
        .find(|part| !PARTS.contains(&part.as_str()))
    {
        Some(part) => Err(format!("no part is called '{part}'")),
        None => Ok(plan),
    }
}
