//! What the program costs before it serves a request: memory, start time, size on disk.

use std::fs;
use std::io;
use std::time::Duration;

use super::Plan;
use super::setups::{FLOW, FLOW_INFO, flow_proxy};
use crate::support::fronts::Scratch;
use crate::support::report::{Report, Section, median};
use crate::support::roles;

const STARTS: usize = 10;
/// How long all workers may take to start and fall asleep.
const SETTLING: Duration = Duration::from_secs(10);

pub fn run(plan: &Plan, scratch: &Scratch, report: &mut Report) -> io::Result<()> {
    let (_upstream, address) = roles::start_upstream()?;
    let idle_mib = flow_proxy(plan, scratch, FLOW, address, None)
        .start()
        .and_then(|front| {
            if !front.process.await_sleep(SETTLING) {
                return Err(io::Error::other("its threads do not fall asleep"));
            }
            Ok(front.process.rss_kib() as f64 / 1024.0)
        });
    let starter = flow_proxy(plan, scratch, FLOW_INFO, address, None);
    let starts: io::Result<Vec<_>> = (0..STARTS)
        .map(|_| Ok(starter.time_to_listening()?.as_secs_f64() * 1e3))
        .collect();
    let start_ms = starts.map(median);
    let size_mib = fs::metadata(&plan.binary).map(|file| file.len() as f64 / f64::from(1 << 20));
    let mut section = Section::new("Footprint", &["", "measured"]);
    for (name, unit, value, limit) in [
        ("idle RSS, 256 workers", "MiB", idle_mib.ok(), 8.0),
        ("start to Listening", "ms", start_ms.ok(), 20.0),
        ("binary", "MiB", size_mib.ok(), 3.0),
    ] {
        let cell = value.map_or("-".to_owned(), |value| format!("{value:.2} {unit}"));
        section.row(vec![name.to_owned(), cell]);
        report.at_most(&format!("{name}, {unit}"), value, limit);
    }
    report.add(section);
    Ok(())
}
