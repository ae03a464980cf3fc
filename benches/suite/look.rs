//! What it costs to read the usage from responses as they pass: processor time of flow-proxy for
//! responses that it reads, against the same bytes said to have a content coding that it does not read.
//! Nothing else differs: all have a Content-Length, so the ends of events are looked for in neither.

use std::io;

use super::Plan;
use super::rates::{SAMPLES_PER_ROUND, sample};
use super::setups::{self, FLOW};
use crate::support::fronts::Scratch;
use crate::support::report::{Report, Section, median, one_decimal};
use crate::support::upstream::LOOKED_AT;

const CONNECTIONS: usize = 8;

/// Samples are taken in pairs, of changing order, as the speed of processors changes; the ratio is the
/// median of the pairs' ratios.
pub fn run(plan: &Plan, scratch: &Scratch, report: &mut Report) -> io::Result<()> {
    let setups = setups::start(plan, scratch, &[FLOW], None)?;
    let flow = setups.iter().find(|setup| setup.name == FLOW);
    let flow = flow.ok_or_else(|| io::Error::other("flow-proxy does not start"))?;
    let columns = ["", "cpu us, read", "cpu us, unread", "ratio"];
    let mut section = Section::new("Reading the usage, 8 connections", &columns);
    for kind in LOOKED_AT {
        let cpu_us = |directory| {
            let path = format!("/{directory}/{kind}?body=2");
            let duration = plan.duration / SAMPLES_PER_ROUND;
            sample(flow, &path, CONNECTIONS, duration).map(|sample| sample.cpu_us)
        };
        let (mut read, mut unread) = (vec![], vec![]);
        for number in 0..plan.rounds * SAMPLES_PER_ROUND as usize {
            if number % 2 == 0 {
                read.push(cpu_us("look")?);
                unread.push(cpu_us("unread")?);
            } else {
                unread.push(cpu_us("unread")?);
                read.push(cpu_us("look")?);
            }
        }
        let ratios = read.iter().zip(&unread).map(|(read, unread)| read / unread);
        let ratio = median(ratios.collect());
        section.row(vec![
            kind.to_owned(),
            one_decimal(median(read)),
            one_decimal(median(unread)),
            format!("{ratio:.3}"),
        ]);
        let what = format!("CPU of reading '{kind}', times that of not reading it");
        report.at_most(&what, Some(ratio), 1.05);
    }
    report.add(section);
    Ok(())
}
