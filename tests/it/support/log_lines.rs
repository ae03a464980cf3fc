//! Reads the log lines that the contract promises (section 6).

use std::collections::HashMap;

/// One access line, taken apart.
#[derive(Debug, Clone)]
pub struct AccessLine {
    pub level: String,
    /// `address:port` of the client.
    pub client: String,
    /// What stands between the double quotes: `POST /v1/chat/completions`.
    pub request: String,
    pub status: u16,
    /// `config`, `attempts`, `ttfb_ms`, `duration_ms`, `in`, `out`, `end`, `id`; quotes removed.
    pub fields: HashMap<String, String>,
}

impl AccessLine {
    /// Takes a line apart. `None` where it is not an access line.
    pub fn parse(line: &str) -> Option<AccessLine> {
        let mut parts = line.splitn(3, " - ");
        let (_time, level, message) = (parts.next()?, parts.next()?, parts.next()?);
        let (client, rest) = message.split_once(" \"")?;
        let (request, rest) = rest.split_once("\" ")?;
        let (status, rest) = rest.split_once(' ')?;
        let status = status.parse().ok()?;
        let fields: HashMap<String, String> = rest
            .split(' ')
            .filter_map(|field| field.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned()))
            .collect();
        fields.contains_key("end").then(|| AccessLine {
            level: level.to_owned(),
            client: client.to_owned(),
            request: request.to_owned(),
            status,
            fields,
        })
    }

    /// Returns a field's value; empty where the line does not have it.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// Returns a field that must be a number.
    pub fn number(&self, name: &str) -> u64 {
        let value = self.field(name);
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}='{value}' is not a number in {self:?}"))
    }
}

/// Reads the lines that count rejected requests which have no access line: how many each counts.
pub fn rejections_counted(log: &str) -> Vec<usize> {
    let count = |line: &str| {
        let (_, rest) = line.split_once(" - WARNING - ")?;
        let count = rest.strip_suffix(" more requests were rejected within 1 s")?;
        count.parse().ok()
    };
    log.lines().filter_map(count).collect()
}
