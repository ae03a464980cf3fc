//! What the running proxy is doing, in 80 columns: who is ill, why, and until when. Pure.

use std::cmp::Reverse;
use std::fmt::Write;

use tz::UtcDateTime;

use super::snapshot::{Configuration, Cost, Snapshot, Tokens};
use crate::commands::text::{self, COLUMNS, Table, cut, dollars, short};
use crate::logging::local_time;

/// The longest name from outside that is shown, in columns.
const MAX_NAME: usize = 40;
/// The fewest columns of a name that stands beside numbers.
const SHORTEST_NAME: usize = 10;
/// The most models, and the most clients.
const MAX_ROWS: usize = 8;
/// ECMA-48 SGR: red, yellow, and back to the default.
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const DEFAULT: &str = "\x1b[0m";

/// Returns the whole text. `url` is the page's, `now` the time in seconds since the epoch.
pub fn text(snapshot: &Snapshot, url: &str, now: i64, is_coloured: bool) -> String {
    let base = url.strip_suffix("/-/status").unwrap_or(url);
    let (version, state) = (name(&snapshot.version), &snapshot.state);
    let uptime = period(snapshot.uptime_s);
    let mut lines = Lines(String::new());
    lines.push(&format!(
        "flow-proxy {version} on {base}: {state}, up {uptime}"
    ));
    lines.push(&text::name(snapshot.summary.as_bytes()));
    lines.0.push('\n');
    lines.0 += &configurations(snapshot, now, is_coloured);
    lines.0.push('\n');
    totals(snapshot, &mut lines);
    lines.0 += &models(snapshot);
    lines.0 += &clients(snapshot);
    lines.0
}

/// Lines that end where the terminal's do.
struct Lines(String);

impl Lines {
    fn push(&mut self, line: &str) {
        self.0 += &cut(line, COLUMNS);
        self.0.push('\n');
    }
}

/// A row for each configuration; below it, what is wrong with it.
fn configurations(snapshot: &Snapshot, now: i64, is_coloured: bool) -> String {
    let headings = [
        "configuration",
        "state",
        "requests",
        "rejected",
        "input",
        "output",
        "USD",
    ];
    let mut table = Table::new(2, &headings);
    for one in &snapshot.configurations {
        table.push(vec![
            name(&one.name),
            name(&one.state),
            short(one.requests),
            short(one.rejected),
            short(one.tokens.input),
            short(one.tokens.output),
            dollars(one.cost.total, snapshot.cost.total),
        ]);
    }
    let rows = table.lines(SHORTEST_NAME);
    let mut text = rows.first().cloned().unwrap_or_default();
    for (row, one) in rows.iter().skip(1).zip(&snapshot.configurations) {
        let mut lines = Lines(row.clone());
        if let Some(rest) = rest(one, now) {
            lines.push(&format!("  {rest}"));
        }
        if let (Some(spend), Some(budget)) = (one.spend, one.budget) {
            let decimals = if budget < 1.0 { 4 } else { 2 };
            let budget = format!("{spend:.decimals$} of {budget:.decimals$} USD");
            lines.push(&format!("  {} of its budget spent", cut(&budget, MAX_NAME)));
        }
        for model in &one.models {
            let (model_name, state) = (name(&model.model), name(&model.state));
            let left = model.rest_s.map_or(String::new(), |rest| {
                format!(" for another {}", period(rest))
            });
            lines.push(&format!("  model {model_name}: {state}{left}"));
        }
        let colour = match one.state.as_str() {
            _ if !is_coloured => "",
            "available" if one.models.is_empty() => "",
            "removed" => "",
            "failed" => RED,
            _ => YELLOW,
        };
        match colour {
            "" => text += &lines.0,
            _ => text += &format!("{colour}{}{DEFAULT}\n", lines.0.trim_end()),
        }
    }
    text
}

/// Why a configuration is not asked, and until when.
fn rest(one: &Configuration, now: i64) -> Option<String> {
    let mut parts = Vec::new();
    parts.extend(one.reason.as_deref().map(name));
    let clock = |time: &Option<String>| local_clock(time.as_deref()?, now);
    let left = one.rest_s.map(period);
    parts.extend(match (clock(&one.until), left) {
        (Some(time), Some(left)) => Some(format!("until {time} (in {left})")),
        (Some(time), None) => Some(format!("until {time}")),
        (None, left) => left.map(|left| format!("for another {left}")),
    });
    parts.extend(clock(&one.since).map(|time| format!("since {time}")));
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn totals(snapshot: &Snapshot, lines: &mut Lines) {
    let requests = &snapshot.requests;
    let by_status = requests.by_status.iter();
    let by_status = by_status.map(|(status, count)| format!("{} {}", name(status), short(*count)));
    let by_status: Vec<String> = by_status.collect();
    let by_status = match by_status.is_empty() {
        true => String::new(),
        false => format!(" ({})", by_status.join(", ")),
    };
    lines.push(&format!(
        "requests  {}{by_status}, {} in flight, {} failed over",
        short(requests.total),
        short(requests.in_flight),
        short(requests.failed_over)
    ));
    let Tokens {
        input,
        cached,
        output,
        known,
        unknown,
    } = snapshot.tokens;
    lines.push(&format!(
        "tokens    {} input ({} cached), {} output",
        short(input),
        short(cached),
        short(output)
    ));
    lines.push(&format!(
        "          known of {} requests, unknown of {}",
        short(known),
        short(unknown)
    ));
    let Cost { total, unknown } = snapshot.cost;
    let (total, unknown) = (dollars(total, total), short(unknown));
    lines.push(&format!(
        "cost      {total} USD, unknown of {unknown} requests"
    ));
    let (busy, workers) = (snapshot.workers.busy, snapshot.workers.total);
    let connections = short(snapshot.connections);
    lines.push(&format!(
        "workers   {busy} of {workers} busy, {connections} connections"
    ));
    lines.push(&format!(
        "target    {}",
        text::name(snapshot.target.as_bytes())
    ));
}

fn models(snapshot: &Snapshot) -> String {
    let headings = [
        "model", "requests", "input", "cached", "output", "USD", "p50 ms", "p95 ms",
    ];
    let mut table = Table::new(1, &headings);
    for one in busiest(&snapshot.models, |one| one.requests) {
        let mut row = vec![name(&one.model), short(one.requests)];
        row.extend(used(&one.tokens, &one.cost, &snapshot.cost));
        let milliseconds = |of: fn(f64, f64) -> f64| {
            let first_byte = one.ttfb_ms.as_ref();
            first_byte.map_or("-".to_owned(), |time| short(of(time.p50, time.p95) as u64))
        };
        row.push(milliseconds(|p50, _| p50));
        row.push(milliseconds(|_, p95| p95));
        table.push(row);
    }
    with_rest(&table, snapshot.models.len())
}

fn clients(snapshot: &Snapshot) -> String {
    let headings = [
        "client", "agent", "requests", "input", "cached", "output", "USD",
    ];
    let mut table = Table::new(2, &headings);
    for one in busiest(&snapshot.clients, |one| one.requests) {
        let mut row = vec![name(&one.client), name(&one.agent), short(one.requests)];
        row.extend(used(&one.tokens, &one.cost, &snapshot.cost));
        table.push(row);
    }
    with_rest(&table, snapshot.clients.len())
}

/// Returns those that are shown: with the most requests, these first.
fn busiest<T>(all: &[T], requests: fn(&T) -> u64) -> impl Iterator<Item = &T> {
    let mut sorted: Vec<&T> = all.iter().collect();
    sorted.sort_by_key(|one| Reverse(requests(one)));
    sorted.into_iter().take(MAX_ROWS)
}

fn used(tokens: &Tokens, cost: &Cost, total: &Cost) -> [String; 4] {
    [
        short(tokens.input),
        short(tokens.cached),
        short(tokens.output),
        dollars(cost.total, total.total),
    ]
}

/// Returns the table after an empty line, and how many rows it leaves out; nothing where it has no row.
fn with_rest(table: &Table, count: usize) -> String {
    if count == 0 {
        return String::new();
    }
    let mut text = format!("\n{}", table.lines(SHORTEST_NAME).concat());
    if count > MAX_ROWS {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "and {} more", count - MAX_ROWS);
    }
    text
}

fn name(text: &str) -> String {
    match text {
        "" => "-".to_owned(),
        text => cut(&text::name(text.as_bytes()), MAX_NAME),
    }
}

/// Returns a time of the page (RFC 3339, in UTC) as local time; of other days with month and day.
fn local_clock(text: &str, now: i64) -> Option<String> {
    let number = |from, to| text.get(from..to)?.parse::<u16>().ok();
    let small = |from| u8::try_from(number(from, from + 2)?).ok();
    let year = i32::from(number(0, 4)?);
    if !text.ends_with('Z') {
        return None;
    }
    let (month, day) = (small(5)?, small(8)?);
    let (hour, minute, second) = (small(11)?, small(14)?, small(17)?);
    let time = UtcDateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    let local = local_time(time.unix_time());
    let today = local_time(now);
    let (date, clock) = local.split_once(' ')?;
    Some(match today.starts_with(date) {
        true => clock.to_owned(),
        false => local.split_once('-')?.1.to_owned(),
    })
}

/// Returns a number of seconds in at most two units.
fn period(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{} d {} h", short(days), hours % 24),
        () if hours > 0 => format!("{hours} h {} min", minutes % 60),
        () if minutes > 0 => format!("{minutes} min {} s", seconds % 60),
        () => format!("{seconds} s"),
    }
}
