//! The command `usage`: adds up the access lines of the log file and of its rotated ones.
//!
//! Reads files only, one line at a time: `files` finds and opens them, `lines` splits them, `head` takes
//! the beginning of a line apart, `text_line` and `json_line` an access line, `rejections` the line that
//! counts requests without one, `groups` adds up, `report` shows the sums. Memory is bounded, whatever
//! the files hold.

mod files;
mod groups;
mod head;
mod json_line;
mod lines;
mod reading;
mod record;
mod rejections;
mod report;
mod text_line;

use std::time::{SystemTime, UNIX_EPOCH};

use log::LevelFilter;

use super::report::{Failure, print, print_warning};
use crate::cli::{Since, UsageQuery};
use crate::config::options::Options;
use crate::config::shown::shown_path;
use crate::logging::local_time;
use reading::Reading;

/// Prints what the requests of the log used.
pub(super) fn run(options: &Options, query: &UsageQuery) -> Result<(), Failure> {
    if options.log_level < LevelFilter::Info {
        return Err(Failure::Running(
            "at --log-level WARNING and ERROR the log has no lines of successful requests; to read one \
             that was written at INFO, give --log-level INFO"
                .to_owned(),
        ));
    }
    let Some(log_file) = &options.log_file else {
        return Err(Failure::configuration(
            "--log-file is none, so there is no log file to read: give its name".to_owned(),
        ));
    };
    let opened = files::open(&log_file.path).map_err(Failure::Running)?;
    let mut reading = Reading::new(&query.by, query.since.as_ref().map(first_time));
    let mut outcome = Ok(());
    let mut warnings = opened.problems;
    for file in &opened.files {
        if let Err(error) = lines::for_each(&file.file, |line| reading.take(line)) {
            let name = shown_path(&file.path);
            warnings.push(format!("{name}: cannot be read to its end: {error}"));
        }
    }
    for warning in &warnings {
        print_warning(warning);
        outcome = Err(Failure::Reported);
    }
    if reading.lacks_successes() {
        let name = shown_path(&log_file.path);
        return Err(Failure::Running(format!(
            "{name}: was written at --log-level WARNING or ERROR: it lacks the lines of successful \
             requests"
        )));
    }
    print(&match query.json {
        true => report::json(&reading, opened.files.len()),
        false => report::table(&reading, opened.files.len()),
    })?;
    outcome
}

/// Returns the time from which on lines count, as lines have it.
fn first_time(since: &Since) -> String {
    match since {
        Since::At(time) => time.clone(),
        Since::Ago(ago) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let first = now.unwrap_or_default().saturating_sub(*ago).as_secs();
            local_time(i64::try_from(first).unwrap_or(i64::MAX))
        }
    }
}
