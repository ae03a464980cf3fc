//! Responses per second and their latency: small responses at rising numbers of connections, large
//! ones, and the same load from wrk as a cross-check. Setups are measured alternately; figures are
//! medians of all samples.

use std::collections::HashMap;
use std::io;
use std::process::Command;
use std::time::Duration;

use super::Plan;
use super::setups::{self, DIRECT, FLOW, FLOW_INFO, HAPROXY, NGINX, RELAY, RELAY_SPINNING, Setup};
use crate::support::fronts::{Scratch, is_in_path};
use crate::support::load::Load;
use crate::support::report::{Report, Section, median, ms, one_decimal, ratio};
use crate::support::roles;

const CONNECTIONS: [usize; 4] = [1, 8, 32, 128];
/// How many connections request large responses, or send large requests.
const LARGE_CONNECTIONS: usize = 8;
/// The sizes of request bodies.
const REQUEST_BYTES: [usize; 3] = [2_000, 200_000, 1_000_000];

/// What one measurement of one setup gave.
#[derive(Clone, Copy)]
pub struct Sample {
    pub rate: f64,
    pub p50_ns: f64,
    pub p99_ns: f64,
    pub megabytes_per_second: f64,
    /// Processor time of the measured process, in microseconds per response.
    pub cpu_us: f64,
    pub errors: f64,
}

/// All samples of each setup.
pub type Samples = HashMap<&'static str, Vec<Sample>>;

/// A round is split into this many samples, each with a new client and new connections: which
/// processor the scheduler puts a thread on matters as much as the program.
pub const SAMPLES_PER_ROUND: u32 = 4;

/// Takes one sample of each setup after the other, each time in another order: a setup leaves the
/// scheduler and the upstream in a state that affects the next one.
pub fn measure(
    plan: &Plan,
    setups: &[Setup],
    path: &str,
    connections: usize,
) -> io::Result<HashMap<&'static str, Sample>> {
    let mut samples = Samples::new();
    for number in 0..plan.rounds * SAMPLES_PER_ROUND as usize {
        for setup in in_order(setups, number) {
            let sample = sample(setup, path, connections, plan.duration / SAMPLES_PER_ROUND)?;
            samples.entry(setup.name).or_default().push(sample);
        }
    }
    Ok(samples
        .into_iter()
        .map(|(name, samples)| (name, middle(&samples)))
        .collect())
}

/// All of `setups`, in an order that depends only on `number`.
fn in_order(setups: &[Setup], number: usize) -> Vec<&Setup> {
    let mut left: Vec<_> = setups.iter().collect();
    // Knuth's generator for 64 bits: its upper half is random enough.
    let mut state = number as u64;
    let mut pick = |count: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % count
    };
    std::iter::from_fn(|| (!left.is_empty()).then(|| left.remove(pick(left.len())))).collect()
}

/// Takes one sample of a setup.
pub fn sample(
    setup: &Setup,
    path: &str,
    connections: usize,
    duration: Duration,
) -> io::Result<Sample> {
    let cpu_before = setup.process.cpu_seconds();
    let result = roles::load(&Load {
        address: setup.address,
        path: path.to_owned(),
        connections,
        duration,
    })?;
    let cpu_seconds = setup.process.cpu_seconds() - cpu_before;
    // The warm-up costs processor time too but its responses are not counted: scale them up.
    let responses = result.requests as f64 * duration.as_secs_f64() / result.seconds;
    Ok(Sample {
        rate: result.requests as f64 / result.seconds,
        p50_ns: result.p50_ns as f64,
        p99_ns: result.p99_ns as f64,
        megabytes_per_second: result.body_bytes as f64 / result.seconds / 1e6,
        cpu_us: cpu_seconds / responses * 1e6,
        errors: result.errors as f64,
    })
}

fn middle(samples: &[Sample]) -> Sample {
    let of = |field: fn(&Sample) -> f64| median(samples.iter().map(field).collect());
    Sample {
        rate: of(|sample| sample.rate),
        p50_ns: of(|sample| sample.p50_ns),
        p99_ns: of(|sample| sample.p99_ns),
        megabytes_per_second: of(|sample| sample.megabytes_per_second),
        cpu_us: of(|sample| sample.cpu_us),
        errors: samples.iter().map(|sample| sample.errors).sum(),
    }
}

/// Small responses at 1, 8, 32 and 128 connections, and what the log at INFO costs.
pub fn small(plan: &Plan, scratch: &Scratch, report: &mut Report) -> io::Result<()> {
    let wanted = [RELAY, RELAY_SPINNING, FLOW, FLOW_INFO, NGINX, HAPROXY];
    let setups = setups::start(plan, scratch, &wanted, None)?;
    for connections in CONNECTIONS {
        let results = measure(plan, &setups, "/small", connections)?;
        setups::flow_proxy(plan, scratch, FLOW_INFO, setups[0].address, None).empty_logs();
        let title = format!("Small responses, {connections} connections");
        report.add(section(title, &setups, &results));
        judge_small(connections, &results, report);
    }
    Ok(())
}

/// Requests with bodies: a short prompt, what an agent sends, a long history.
pub fn requests(plan: &Plan, scratch: &Scratch, report: &mut Report) -> io::Result<()> {
    // The blind relay reads a request in one piece, so that it is no measure here.
    let setups = setups::start(plan, scratch, &[FLOW, NGINX, HAPROXY], None)?;
    for bytes in REQUEST_BYTES {
        let path = format!("/small?body={bytes}");
        let results = measure(plan, &setups, &path, LARGE_CONNECTIONS)?;
        let title = format!("Requests of {bytes} bytes, {LARGE_CONNECTIONS} connections");
        report.add(section(title, &setups, &results));
        let rate = |name| results.get(name).map(|sample: &Sample| sample.rate);
        let over_nginx = rate(FLOW)
            .zip(rate(NGINX))
            .map(|(flow, nginx)| flow / nginx);
        let what = format!("rate of requests of {bytes} bytes, times nginx's");
        report.at_least(&what, over_nginx, 1.0);
    }
    Ok(())
}

fn section(title: String, setups: &[Setup], results: &HashMap<&'static str, Sample>) -> Section {
    let columns = [
        "",
        "req/s",
        "p50 ms",
        "p99 ms",
        "cpu us/req",
        "x relay",
        "x nginx",
        "errors",
    ];
    let mut section = Section::new(title, &columns);
    let rate = |name| results.get(name).map(|sample| sample.rate);
    for setup in setups {
        let sample = results[setup.name];
        section.row(vec![
            setup.name.to_owned(),
            format!("{:.0}", sample.rate),
            ms(sample.p50_ns),
            ms(sample.p99_ns),
            one_decimal(sample.cpu_us),
            ratio(sample.rate, rate(RELAY)),
            ratio(sample.rate, rate(NGINX)),
            format!("{}", sample.errors),
        ]);
    }
    section
}

fn judge_small(connections: usize, results: &HashMap<&'static str, Sample>, report: &mut Report) {
    let of = |name: &str, field: fn(&Sample) -> f64| results.get(name).map(field);
    let rate = |name| of(name, |sample| sample.rate);
    let divided = |value: Option<f64>, by: Option<f64>| Some(value? / by?);
    let at = format!("at {connections}");
    let flow_p99_ms = of(FLOW, |sample| sample.p99_ns / 1e6);
    let over_relay = divided(rate(FLOW), rate(RELAY));
    let over_nginx = divided(rate(FLOW), rate(NGINX));
    if connections == 1 {
        let added = |name| Some(of(name, |s| s.p50_ns)? - of(DIRECT, |s| s.p50_ns)?);
        let measured = divided(added(FLOW), added(NGINX));
        report.at_most("added p50 at 1, times nginx's", measured, 1.3);
    }
    if connections == 8 {
        report.at_least(&format!("rate {at}, times the relay's"), over_relay, 0.95);
    }
    if connections >= 32 {
        report.at_least(&format!("rate {at}, times the relay's"), over_relay, 1.15);
        report.at_least(&format!("rate {at}, times nginx's"), over_nginx, 0.65);
    }
    if [8, 32].contains(&connections) {
        report.at_most(&format!("p99 {at}, ms"), flow_p99_ms, 2.0);
    }
    if connections == 32 {
        let info = divided(rate(FLOW_INFO), rate(FLOW));
        report.at_least(&format!("rate {at} with INFO, times WARNING"), info, 0.8);
    }
    let errors = of(FLOW, |sample| sample.errors);
    report.at_most(&format!("responses other than 200 {at}"), errors, 0.0);
}

/// Responses of 1 MiB.
pub fn large(plan: &Plan, scratch: &Scratch, report: &mut Report) -> io::Result<()> {
    let setups = setups::start(plan, scratch, &[RELAY, FLOW, NGINX, HAPROXY], None)?;
    let results = measure(plan, &setups, "/large", LARGE_CONNECTIONS)?;
    let title = format!("Responses of 1 MiB, {LARGE_CONNECTIONS} connections");
    let columns = [
        "", "MB/s", "p50 ms", "p99 ms", "x relay", "x nginx", "errors",
    ];
    let mut section = Section::new(title, &columns);
    let rate = |name| {
        results
            .get(name)
            .map(|sample: &Sample| sample.megabytes_per_second)
    };
    for setup in &setups {
        let sample = results[setup.name];
        let megabytes = sample.megabytes_per_second;
        section.row(vec![
            setup.name.to_owned(),
            format!("{megabytes:.0}"),
            ms(sample.p50_ns),
            ms(sample.p99_ns),
            ratio(megabytes, rate(RELAY)),
            ratio(megabytes, rate(NGINX)),
            format!("{}", sample.errors),
        ]);
    }
    report.add(section);
    let measured = rate(FLOW)
        .zip(rate(NGINX))
        .map(|(flow, nginx)| flow / nginx);
    report.at_least("MB/s of 1 MiB responses, times nginx's", measured, 0.9);
    Ok(())
}

/// The load of 32 connections again, sent by wrk.
pub fn wrk(plan: &Plan, scratch: &Scratch, report: &mut Report) -> io::Result<()> {
    if !is_in_path("wrk") {
        eprintln!("bench: wrk is left out: not in PATH");
        return Ok(());
    }
    let setups = setups::start(plan, scratch, &[RELAY, FLOW, NGINX, HAPROXY], None)?;
    let mut rates: HashMap<&str, Vec<f64>> = HashMap::new();
    let mut p99s: HashMap<&str, Vec<f64>> = HashMap::new();
    for _ in 0..plan.rounds {
        for setup in &setups {
            let (rate, p99_ms) = run_wrk(setup, plan.duration)?;
            rates.entry(setup.name).or_default().push(rate);
            p99s.entry(setup.name).or_default().push(p99_ms);
        }
    }
    let of = |name| rates.get(name).map(|rates| median(rates.clone()));
    let columns = ["", "req/s", "p99 ms", "x relay", "x nginx"];
    let mut section = Section::new("Small responses, 32 connections, by wrk", &columns);
    for setup in &setups {
        let rate = of(setup.name).unwrap_or(f64::NAN);
        section.row(vec![
            setup.name.to_owned(),
            format!("{rate:.0}"),
            format!("{:.3}", median(p99s[setup.name].clone())),
            ratio(rate, of(RELAY)),
            ratio(rate, of(NGINX)),
        ]);
    }
    report.add(section);
    Ok(())
}

/// Responses per second, and the 99th percentile in milliseconds.
fn run_wrk(setup: &Setup, duration: Duration) -> io::Result<(f64, f64)> {
    let output = Command::new("wrk")
        .args(["-t2", "-c32", "--latency", "-d"])
        // wrk counts in whole seconds.
        .arg(format!("{}s", duration.as_secs().max(1)))
        .arg(format!("http://{}/small", setup.address))
        .output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let after = |label: &str| {
        let line = printed
            .lines()
            .find(|line| line.trim().starts_with(label))?;
        line.split_ascii_whitespace().last()
    };
    let rate = after("Requests/sec:").and_then(|number| number.parse().ok());
    let p99 = after("99%").and_then(wrk_ms);
    Ok((rate.unwrap_or(f64::NAN), p99.unwrap_or(f64::NAN)))
}

/// wrk's `812.00us`, `1.20ms`, `1.02s` in milliseconds.
fn wrk_ms(text: &str) -> Option<f64> {
    let (number, factor) = text
        .strip_suffix("us")
        .map(|number| (number, 1e-3))
        .or_else(|| text.strip_suffix("ms").map(|number| (number, 1.0)))
        .or_else(|| text.strip_suffix('s').map(|number| (number, 1e3)))?;
    Some(number.parse::<f64>().ok()? * factor)
}
