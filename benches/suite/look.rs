//! What it costs to read the usage from responses as they pass: processor time of flow-proxy for
//! responses that it reads against the same bytes that it is told not to be able to read. Nothing else
//! differs: all have a Content-Length, so the ends of events are looked for in neither.

use std::io;

use super::Plan;
use super::rates::{Sample, measure};
use super::setups::{self, FLOW};
use crate::support::fronts::Scratch;
use crate::support::report::{Report, Section, median, one_decimal};
use crate::support::upstream::LOOKED_AT;

const CONNECTIONS: usize = 8;

/// Each round measures both in turn; the ratio is the median of the rounds' ratios.
pub fn run(plan: &Plan, scratch: &Scratch, report: &mut Report) -> io::Result<()> {
    let mut setups = setups::start(plan, scratch, &[FLOW], None)?;
    // The upstream is kept, and not measured.
    let _upstream = setups.remove(0);
    let one_round = Plan {
        rounds: 1,
        duration: plan.duration,
        parts: vec![],
        binary: plan.binary.clone(),
    };
    let columns = ["", "cpu us, read", "cpu us, unread", "ratio"];
    let mut section = Section::new("Reading the usage, 8 connections", &columns);
    for kind in LOOKED_AT {
        let mut rounds: Vec<[Sample; 2]> = vec![];
        for _ in 0..plan.rounds {
            let sample = |directory| {
                let path = format!("/{directory}/{kind}?body=2");
                measure(&one_round, &setups, &path, CONNECTIONS).map(|samples| samples[FLOW])
            };
            rounds.push([sample("look")?, sample("unread")?]);
        }
        let cpu = |of: usize| median(rounds.iter().map(|round| round[of].cpu_us).collect());
        let ratios = rounds
            .iter()
            .map(|[read, unread]| read.cpu_us / unread.cpu_us);
        let ratio = median(ratios.collect());
        section.row(vec![
            kind.to_owned(),
            one_decimal(cpu(0)),
            one_decimal(cpu(1)),
            format!("{ratio:.3}"),
        ]);
        let what = format!("CPU of reading '{kind}', times that of not reading it");
        report.at_most(&what, Some(ratio), 1.05);
    }
    report.add(section);
    Ok(())
}
