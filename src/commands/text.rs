//! Text for a terminal of 80 columns: numbers, names from outside, tables, JSON. Pure.

use std::fmt::Write;

use crate::config::shown::{is_hazardous, printable, push_json_escape};

/// The columns that a text may take.
pub(super) const COLUMNS: usize = 80;
/// The blanks between two columns of a table.
const GAP: usize = 2;
/// What numbers are cut to that do not fit otherwise, by the letter that stands for it.
pub(super) const UNITS: [(&str, u64); 7] = [
    ("", 1),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
];
/// The largest number that [`short`] does not cut.
const LARGEST: u64 = 99_999_999;
/// What a line is indented by that belongs to the one above.
const INDENT: &str = "  ";

/// Columns of names, then columns of numbers. Names are cut where a line gets too long, or get a line
/// of their own.
pub(super) struct Table {
    names: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table whose headings are those of `names` columns of names, then those of numbers.
    pub(super) fn new(names: usize, headings: &[&str]) -> Table {
        let headings = headings.iter().map(|heading| (*heading).to_owned());
        Table {
            names,
            rows: vec![headings.collect()],
        }
    }

    /// Adds a row, which has a cell for each heading.
    pub(super) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// Returns how many columns a line takes where each name is cut after `longest_name`.
    pub(super) fn width(&self, longest_name: usize) -> usize {
        let widths = self.widths();
        let names = widths[..self.names]
            .iter()
            .map(|name| longest_name.min(*name));
        let numbers = &widths[self.names..];
        let gaps = GAP * widths.len().saturating_sub(1);
        names.sum::<usize>() + numbers.iter().sum::<usize>() + gaps
    }

    /// Returns the lines, each with its line end. Names keep at least `shortest_name` columns beside
    /// numbers, or stand above them.
    pub(super) fn lines(&self, shortest_name: usize) -> Vec<String> {
        let mut widths = self.widths();
        let is_stacked = self.width(shortest_name) > COLUMNS;
        let taken = match is_stacked {
            true => 0,
            false => widths[self.names..].iter().map(|width| width + GAP).sum(),
        };
        let free = COLUMNS.saturating_sub(taken + GAP * self.names.saturating_sub(1));
        shrink(&mut widths[..self.names], free);
        let line = |row: &Vec<String>| {
            let mut names = String::new();
            for (cell, width) in row.iter().zip(&widths).take(self.names) {
                let cell = cut(cell, *width);
                let padding = width + GAP - width_of(&cell);
                let _ = write!(names, "{cell}{:padding$}", "");
            }
            let mut numbers = String::new();
            for (cell, width) in row.iter().zip(&widths).skip(self.names) {
                let _ = write!(numbers, "{cell:>width$}{:GAP$}", "");
            }
            let (numbers, before) = (numbers.trim_end(), names.trim_end());
            match is_stacked {
                true => format!("{before}\n{INDENT}{numbers}\n"),
                false => format!("{}\n", format!("{names}{numbers}").trim_end()),
            }
        };
        self.rows.iter().map(line).collect()
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.first().map_or(0, Vec::len);
        let widest = |at| self.rows.iter().filter_map(move |row| row.get(at));
        (0..columns)
            .map(|at| widest(at).map(|cell| width_of(cell)).max().unwrap_or(0))
            .collect()
    }
}

/// Takes columns from the widest ones until all fit into `free`.
fn shrink(widths: &mut [usize], free: usize) {
    while widths.iter().sum::<usize>() > free {
        match widths.iter_mut().max() {
            Some(widest @ 2..) => *widest -= 1,
            _ => return,
        }
    }
}

/// Returns a name from outside as a terminal may show it.
pub(super) fn name(bytes: &[u8]) -> String {
    printable(&String::from_utf8_lossy(bytes))
}

/// Returns `text` cut to `width` columns, with a sign that it is cut.
pub(super) fn cut(text: &str, width: usize) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut left = width.saturating_sub(1);
    for char in text.chars() {
        let Some(rest) = left.checked_sub(char_width(char)) else {
            break;
        };
        left = rest;
        kept.push(char);
    }
    kept + "…"
}

/// Returns the columns that `text` takes.
pub(super) fn width_of(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// Two columns for the blocks of East Asian and pictorial characters (Unicode Standard Annex 11).
fn char_width(char: char) -> usize {
    let is_wide = matches!(char,
        '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}' | '\u{1f300}'..='\u{1faff}' | '\u{20000}'..='\u{3fffd}');
    1 + usize::from(is_wide)
}

/// Returns a number with its thousands separated: `1,234,567`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a number with its thousands separated, in ten columns at most.
pub(super) fn short(number: u64) -> String {
    let mut units = UNITS.iter().filter(|(_, unit)| number / unit <= LARGEST);
    let (letter, unit) = units.next().unwrap_or(&UNITS[0]);
    format!("{}{letter}", thousands(number / unit))
}

/// Returns an amount of US dollars, with as many decimals as suit `total`: calls cost fractions of a cent,
/// which show in small sums.
pub(super) fn dollars(amount: f64, total: f64) -> String {
    let decimals = if total < 100.0 { 4 } else { 2 };
    if amount >= 1e9 {
        return format!("{amount:.3e}");
    }
    let text = format!("{amount:.decimals$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let whole = whole.parse().unwrap_or_default();
    format!("{}.{fraction}", thousands(whole))
}

/// Escapes in a JSON text what a terminal would act on. Such characters stand in its strings only.
pub(super) fn json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        if is_hazardous(char) && !char.is_ascii_whitespace() {
            push_json_escape(char, &mut escaped);
        } else {
            escaped.push(char);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_thousands_separated() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(thousands(number), text);
        }
        for (number, text) in [
            (99_999_999, "99,999,999"),
            (100_000_000, "100,000k"),
            (u64::MAX, "18,446,744T"),
        ] {
            assert_eq!(short(number), text);
        }
        for (amount, text) in [
            (0.0, "0.0000"),
            (1.25, "1.2500"),
            (1234.567, "1,234.57"),
            (f64::MAX, "1.798e308"),
        ] {
            assert_eq!(dollars(amount, amount), text);
        }
        assert_eq!(dollars(0.25, 300.0), "0.25");
    }

    #[test]
    fn a_table_keeps_to_80_columns_whatever_stands_in_it() {
        let long = "n".repeat(100);
        let wide = "配".repeat(60);
        for names in [
            vec![long.as_str()],
            vec![&wide],
            vec![&long, &wide, &long, "a"],
        ] {
            for number in ["1", "123,456,789"] {
                let count = names.len();
                let numbers = [number; 5];
                let row = names.iter().chain(&numbers).map(|cell| (*cell).to_owned());
                let row: Vec<String> = row.collect();
                let headings = vec!["h"; count + 5];
                let mut table = Table::new(count, &headings);
                table.push(row);
                let text = table.lines(12).concat();
                assert!(text.lines().all(|line| width_of(line) <= COLUMNS), "{text}");
                assert_eq!(text.matches(number).count(), 5, "{text}");
            }
        }
    }

    #[test]
    fn json_keeps_its_meaning_without_characters_that_command_a_terminal() {
        let text = "{\n\"a\":\"\u{9b}2J\u{7f}\u{202e}é\"}\n";
        assert_eq!(json(text), "{\n\"a\":\"\\u009b2J\\u007f\\u202eé\"}\n");
    }
}
