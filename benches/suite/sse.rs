//! 500 event streams at once, 50 events each, 20 ms apart: when the first event arrives, how regular
//! the following ones are, and what the streams cost. Each round restarts the proxies, so that the
//! peak resident memory is that of the streams.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use super::Plan;
use super::setups::{self, DIRECT, FLOW, HAPROXY, NGINX, RELAY, STREAM_WORKERS, Setup};
use crate::support::fronts::Scratch;
use crate::support::report::{Report, Section, median, ms};
use crate::support::roles;
use crate::support::streams::Streams;

pub const STREAMS: usize = 500;
const EVENTS: u64 = 50;
/// Streams are opened over this time, since real clients do not all arrive in the same moment. They
/// still overlap: a stream lasts one second.
const RAMP: Duration = Duration::from_millis(400);

#[derive(Clone, Copy)]
pub struct Sample {
    pub whole: f64,
    pub first_p50_ns: f64,
    pub first_p99_ns: f64,
    pub gap_p50_ns: f64,
    pub gap_p99_ns: f64,
    pub delay_p50_ns: f64,
    pub delay_p99_ns: f64,
    pub cpu_seconds: f64,
    pub peak_rss_mib: f64,
}

pub fn plain(plan: &Plan, scratch: &Scratch, report: &mut Report) -> io::Result<()> {
    let mut samples: HashMap<&'static str, Vec<Sample>> = HashMap::new();
    let mut order = vec![];
    for round in 0..plan.rounds {
        let wanted = [RELAY, FLOW, NGINX, HAPROXY];
        let setups = setups::start(plan, scratch, &wanted, Some(STREAM_WORKERS))?;
        for setup in &setups {
            let sample = sample(setup, EVENTS)?;
            samples.entry(setup.name).or_default().push(sample);
            if round == 0 {
                order.push(setup.name);
            }
        }
    }
    let results: HashMap<_, _> = samples
        .into_iter()
        .map(|(name, samples)| (name, middle(&samples)))
        .collect();
    let title = format!("{STREAMS} SSE streams of {EVENTS} events, 20 ms apart");
    report.add(section(title, &order, &results));
    judge(&results, report);
    Ok(())
}

/// Opens all the streams through `setup` and waits for their ends.
pub fn sample(setup: &Setup, events: u64) -> io::Result<Sample> {
    let cpu_before = setup.process.cpu_seconds();
    let result = roles::streams(&Streams {
        address: setup.address,
        streams: STREAMS,
        events,
        ramp: RAMP,
    })?;
    Ok(Sample {
        whole: result.whole as f64,
        first_p50_ns: result.first_p50_ns as f64,
        first_p99_ns: result.first_p99_ns as f64,
        gap_p50_ns: result.gap_p50_ns as f64,
        gap_p99_ns: result.gap_p99_ns as f64,
        delay_p50_ns: result.delay_p50_ns as f64,
        delay_p99_ns: result.delay_p99_ns as f64,
        cpu_seconds: setup.process.cpu_seconds() - cpu_before,
        peak_rss_mib: setup.process.peak_rss_kib() as f64 / 1024.0,
    })
}

pub fn middle(samples: &[Sample]) -> Sample {
    let of = |field: fn(&Sample) -> f64| median(samples.iter().map(field).collect());
    Sample {
        whole: of(|sample| sample.whole),
        first_p50_ns: of(|sample| sample.first_p50_ns),
        first_p99_ns: of(|sample| sample.first_p99_ns),
        gap_p50_ns: of(|sample| sample.gap_p50_ns),
        gap_p99_ns: of(|sample| sample.gap_p99_ns),
        delay_p50_ns: of(|sample| sample.delay_p50_ns),
        delay_p99_ns: of(|sample| sample.delay_p99_ns),
        cpu_seconds: of(|sample| sample.cpu_seconds),
        peak_rss_mib: of(|sample| sample.peak_rss_mib),
    }
}

pub fn section(
    title: String,
    order: &[&'static str],
    results: &HashMap<&'static str, Sample>,
) -> Section {
    let columns = [
        "",
        "whole",
        "first p50",
        "first p99",
        "gap p50",
        "gap p99",
        "late p50",
        "late p99 ms",
        "cpu s",
        "peak RSS MiB",
    ];
    let mut section = Section::new(title, &columns);
    for &name in order {
        let sample = results[name];
        section.row(vec![
            name.to_owned(),
            format!("{:.0}", sample.whole),
            ms(sample.first_p50_ns),
            ms(sample.first_p99_ns),
            ms(sample.gap_p50_ns),
            ms(sample.gap_p99_ns),
            ms(sample.delay_p50_ns),
            ms(sample.delay_p99_ns),
            format!("{:.2}", sample.cpu_seconds),
            format!("{:.1}", sample.peak_rss_mib),
        ]);
    }
    section
}

fn judge(results: &HashMap<&'static str, Sample>, report: &mut Report) {
    let of = |name: &str, field: fn(&Sample) -> f64| results.get(name).map(field);
    let gap = |name| of(name, |sample| sample.gap_p99_ns / 1e6);
    let cpu = |name| of(name, |sample| sample.cpu_seconds);
    let whole = of(FLOW, |sample| sample.whole);
    report.at_least("streams that came whole", whole, STREAMS as f64);
    let over_direct = gap(FLOW)
        .zip(gap(DIRECT))
        .map(|(flow, direct)| flow - direct);
    report.at_most("p99 of the gap, ms more than direct", over_direct, 3.0);
    let all_whole = whole.filter(|whole| *whole as usize == STREAMS);
    let rss = all_whole.and_then(|_| of(FLOW, |sample| sample.peak_rss_mib));
    report.at_most("peak RSS of 500 streams, MiB", rss, 40.0);
    let over_nginx = cpu(FLOW).zip(cpu(NGINX)).map(|(flow, nginx)| flow / nginx);
    report.at_most("CPU of 500 streams, times nginx's", over_nginx, 1.5);
}
