//! What is measured, and the targets. Each part adds its tables and verdicts to the report.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::support::fronts::Scratch;
use crate::support::report::Report;

pub mod footprint;
pub mod look;
pub mod rates;
pub mod setups;
pub mod sse;
pub mod tls;

/// What the arguments chose.
pub struct Plan {
    pub rounds: usize,
    /// How long each measurement of a rate lasts.
    pub duration: Duration,
    /// The parts to run, in order.
    pub parts: Vec<String>,
    pub binary: PathBuf,
}

pub const PARTS: [&str; 8] = [
    "small",
    "requests",
    "large",
    "look",
    "wrk",
    "sse",
    "footprint",
    "tls",
];

/// Runs the chosen parts.
pub fn run(plan: &Plan) -> io::Result<Report> {
    let scratch = Scratch::new()?;
    let mut report = Report::default();
    for part in &plan.parts {
        eprintln!("bench: {part}");
        match part.as_str() {
            "small" => rates::small(plan, &scratch, &mut report)?,
            "requests" => rates::requests(plan, &scratch, &mut report)?,
            "large" => rates::large(plan, &scratch, &mut report)?,
            "look" => look::run(plan, &scratch, &mut report)?,
            "wrk" => rates::wrk(plan, &scratch, &mut report)?,
            "sse" => sse::plain(plan, &scratch, &mut report)?,
            "footprint" => footprint::run(plan, &scratch, &mut report)?,
            _ => tls::run(plan, &scratch, &mut report)?,
        }
    }
    Ok(report)
}
