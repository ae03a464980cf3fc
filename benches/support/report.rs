//! Tables, verdicts on the targets, and small helpers for figures.

/// A table: a title, the names of the columns, and the rows.
pub struct Section {
    title: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// A target, what was measured, and whether it is met; `None`: it could not be measured.
struct Target {
    text: String,
    measured: String,
    holds: Option<bool>,
}

#[derive(Default)]
pub struct Report {
    sections: Vec<Section>,
    targets: Vec<Target>,
}

impl Section {
    /// The first column is the row's name.
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        Self {
            title: title.into(),
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
            rows: vec![],
        }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    fn print(&self) {
        println!("\n{}", self.title);
        let width = |index: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(index));
            cells
                .chain(self.columns.get(index))
                .map(String::len)
                .max()
                .unwrap_or(0)
        };
        for row in std::iter::once(&self.columns).chain(&self.rows) {
            let mut line = String::new();
            for (index, cell) in row.iter().enumerate() {
                if index == 0 {
                    line += &format!("  {cell:<24}");
                } else {
                    line += &format!("  {cell:>width$}", width = width(index));
                }
            }
            println!("{}", line.trim_end());
        }
    }
}

impl Report {
    pub fn add(&mut self, section: Section) {
        self.sections.push(section);
    }

    pub fn at_least(&mut self, text: &str, measured: Option<f64>, limit: f64) {
        let holds = measured.map(|measured| measured >= limit);
        self.target(format!("{text}: at least {limit}"), measured, holds);
    }

    pub fn at_most(&mut self, text: &str, measured: Option<f64>, limit: f64) {
        let holds = measured.map(|measured| measured <= limit);
        self.target(format!("{text}: at most {limit}"), measured, holds);
    }

    fn target(&mut self, text: String, measured: Option<f64>, holds: Option<bool>) {
        let measured = measured.map_or("not measured".to_owned(), |value| format!("{value:.2}"));
        self.targets.push(Target {
            text,
            measured,
            holds,
        });
    }

    pub fn print(&self) {
        self.sections.iter().for_each(Section::print);
        println!("\nTargets");
        for target in &self.targets {
            let verdict = match target.holds {
                Some(true) => "PASS",
                Some(false) => "FAIL",
                None => "----",
            };
            println!("  {verdict}  {:<72} {}", target.text, target.measured);
        }
    }
}

/// The median; the mean of the two middle values if their number is even.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

/// `1.07`, or `-` if `of` is missing.
pub fn ratio(value: f64, of: Option<f64>) -> String {
    of.map_or("-".to_owned(), |of| format!("{:.2}", value / of))
}

/// Nanoseconds as milliseconds: `0.123`.
pub fn ms(ns: f64) -> String {
    format!("{:.3}", ns / 1e6)
}

/// `12.3`, or `-` if the value is not finite.
pub fn one_decimal(value: f64) -> String {
    if value.is_finite() {
        format!("{value:.1}")
    } else {
        "-".to_owned()
    }
}
