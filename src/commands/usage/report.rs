//! The sums as a table, and as JSON.

use serde_json::{Map, Value, json};

use super::groups::Sums;
use super::head::Time;
use super::reading::Reading;
use crate::commands::text::{self, COLUMNS, Table, UNITS, dollars, thousands};

/// The columns of a table behind the names.
const HEADINGS: [&str; 7] = [
    "requests", "errors", "input", "cached", "output", "unknown", "USD",
];
/// How many units are tried before names get a line of their own.
const UNITS_BESIDE_NAMES: usize = 3;

/// Returns a line for each group, one for all, and one that tells what was read.
pub fn table(reading: &Reading, files: usize) -> String {
    let groups = reading.groups.by().len();
    // A single name may be as long as most models' are.
    let shortest_name = if groups > 1 { 12 } else { 24 };
    let beside = UNITS[..UNITS_BESIDE_NAMES].iter();
    let beside = beside.map(|unit| build(reading, *unit));
    let mut fitting = beside.filter(|table| table.width(shortest_name) <= COLUMNS);
    let table = fitting.next().unwrap_or_else(|| {
        let mut stacked = UNITS.iter().map(|unit| build(reading, *unit));
        let fits = |table: &Table| table.width(0) <= COLUMNS;
        let fitting = stacked.find(fits);
        fitting.unwrap_or_else(|| build(reading, UNITS[UNITS.len() - 1]))
    });
    let mut text = table.lines(shortest_name).concat();
    let period = match (reading.period, &reading.since) {
        (Some((first, last)), _) => format!("{} to {}", shown(&first), shown(&last)),
        (None, Some(since)) => format!("no requests since {since}"),
        (None, None) => "no requests".to_owned(),
    };
    let plural = if files == 1 { "" } else { "s" };
    text += &format!("{period}, in {files} file{plural}\n");
    text
}

fn build(reading: &Reading, unit: (&str, u64)) -> Table {
    let (by, total) = (reading.groups.by(), &reading.groups.total);
    let mut headings: Vec<&str> = by.iter().map(|by| by.name()).collect();
    if by.is_empty() {
        headings.push("");
    }
    headings.extend(HEADINGS);
    let mut table = Table::new(by.len().max(1), &headings);
    for (names, sums) in reading.groups.sorted() {
        let mut row: Vec<String> = names.iter().map(|name| text::name(name)).collect();
        row.extend(numbers(sums, total, unit));
        table.push(row);
    }
    let mut row = vec![String::new(); by.len().max(1)];
    row[0] = "total".to_owned();
    row.extend(numbers(total, total, unit));
    table.push(row);
    table
}

fn numbers(sums: &Sums, total: &Sums, (letter, unit): (&str, u64)) -> [String; 7] {
    let tokens = |count: u64| match count / unit {
        0 if count > 0 => format!("<1{letter}"),
        count => format!("{}{letter}", thousands(count)),
    };
    [
        thousands(sums.requests),
        thousands(sums.errors),
        tokens(sums.tokens.input),
        tokens(sums.tokens.cached),
        tokens(sums.tokens.output),
        thousands(sums.unknown),
        dollars(sums.cost, total.cost),
    ]
}

/// Returns one JSON object, with a line end.
pub fn json(reading: &Reading, files: usize) -> String {
    let by = reading.groups.by();
    let group = |(names, sums): (Vec<&[u8]>, &Sums)| {
        let names = names.iter().map(|name| String::from_utf8_lossy(name));
        let names = by.iter().zip(names);
        let mut object: Map<String, Value> = names
            .map(|(by, name)| (by.name().to_owned(), name.into()))
            .collect();
        object.extend(fields(sums));
        Value::Object(object)
    };
    let groups: Vec<Value> = reading.groups.sorted().into_iter().map(group).collect();
    let names: Vec<&str> = by.iter().map(|by| by.name()).collect();
    let object = json!({
        "files": files,
        "since": reading.since,
        "first": reading.period.map(|(first, _)| shown(&first)),
        "last": reading.period.map(|(_, last)| shown(&last)),
        "by": names,
        "total": Value::Object(fields(&reading.groups.total)),
        "groups": groups,
    });
    text::json(&format!("{object}\n"))
}

/// The names are those of `/-/status`.
fn fields(sums: &Sums) -> Map<String, Value> {
    let object = json!({
        "requests": sums.requests,
        "errors": sums.errors,
        "tokens": {
            "input": sums.tokens.input,
            "cached": sums.tokens.cached,
            "output": sums.tokens.output,
            "known": sums.known,
            "unknown": sums.unknown,
        },
        "cost": {"total": sums.cost, "unknown": sums.without_cost},
    });
    match object {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

fn shown(time: &Time) -> String {
    String::from_utf8_lossy(time).into_owned()
}
