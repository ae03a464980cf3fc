//! The access line, as text and as fields. Their order is what scripts expect.

use std::cell::OnceCell;
use std::fmt;
use std::time::Duration;

use log::Record;
use log::kv::{Error, Source, ToValue, Value, VisitSource};

use super::access_log::{self, AccessLog};
use super::usage::tokens::Usage;

/// Bytes reserved for a line beside its path; a long name or id makes it grow.
const USUAL_LINE: usize = 320;
/// The longest path in the log, and the longest method, in bytes.
const MAX_PATH: usize = 512;
/// The longest request id in the log, in bytes.
pub const MAX_ID: usize = 128;

/// Writes the line, if its level is on. `peer` is the client's address, `target` the request target.
pub fn write(log: &AccessLog, peer: &str, target: &[u8]) {
    let level = log.level();
    if level > log::max_level() {
        return;
    }
    let path = log.path.of(target);
    let line = AccessLine::new(peer, path, log);
    let mut record = Record::builder();
    record.level(level).target(module_path!()).key_values(&line);
    log::logger().log(&record.args(format_args!("{line}")).build());
}

/// The access line: text by its `Display`, fields by its `Source`.
struct AccessLine<'r> {
    peer: &'r str,
    path: &'r [u8],
    log: &'r AccessLog,
    /// Filled where the log is written as fields.
    values: OnceCell<Vec<(&'static str, FieldValue)>>,
}

/// Takes the fields of a line in their order. A label is what text has before the value.
trait Fields {
    /// The fields that have no label in text.
    fn request(&mut self, peer: &str, method: &[u8], path: &[u8], status: u16);
    fn number(&mut self, label: &'static str, number: u64);
    /// In US dollars.
    fn amount(&mut self, label: &'static str, amount: f64);
    fn word(&mut self, label: &'static str, word: &str);
    /// What text has in quotes.
    fn name(&mut self, label: &'static str, name: &[u8]);
    fn id(&mut self, label: &'static str, id: &[u8]);
}

impl<'r> AccessLine<'r> {
    fn new(peer: &'r str, path: &'r [u8], log: &'r AccessLog) -> Self {
        let values = OnceCell::new();
        AccessLine {
            peer,
            path,
            log,
            values,
        }
    }

    /// The one list of the fields.
    fn push_to(&self, fields: &mut impl Fields) {
        let log = self.log;
        let duration = log.started.elapsed();
        let first_byte = log.time_to_first_byte.unwrap_or(duration);
        let method = log.method.as_str().as_bytes();
        fields.request(self.peer, method, self.path, log.status);
        let config = log.config.as_ref().map_or("-", |config| &config.name);
        fields.name(" config='", config.as_bytes());
        for (label, number) in [
            (" attempts=", log.attempts as u64),
            (" ttfb_ms=", milliseconds(first_byte)),
            (" duration_ms=", milliseconds(duration)),
            (" in=", log.bytes_in),
            (" out=", log.bytes_out),
        ] {
            fields.number(label, number);
        }
        fields.word(" end=", log.end.as_str());
        for (label, word) in [(" reason=", log.reason), (" error=", log.error)] {
            if let Some(word) = word {
                fields.word(label, word);
            }
        }
        if log.resent > 0 {
            fields.number(" resent=", log.resent.into());
        }
        push_response(log, fields);
        push_name(" agent='", log.agent.as_deref(), fields);
        push_name(" session='", log.session.as_deref(), fields);
        fields.id(" id=", log.id.as_bytes());
        for (label, id) in [
            (" upstream_id=", &log.upstream_id),
            (" call_id=", &log.call_id),
        ] {
            if let Some(id) = id {
                fields.id(label, id);
            }
        }
    }
}

/// Passes on what is known of the model and of what it used.
fn push_response(log: &AccessLog, fields: &mut impl Fields) {
    push_name(" model='", log.model.as_deref(), fields);
    if let Usage::Known(tokens) = log.usage {
        for (label, number) in [
            (" input_tokens=", tokens.input),
            (" cached_tokens=", tokens.cached),
            (" output_tokens=", tokens.output),
        ] {
            fields.number(label, number);
        }
    }
    if let Some(cost) = log.cost {
        fields.amount(" cost=", cost);
    }
}

fn push_name(label: &'static str, name: Option<&str>, fields: &mut impl Fields) {
    if let Some(name) = name {
        fields.name(label, name.as_bytes());
    }
}

impl fmt::Display for AccessLine<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Built as bytes: through the formatter each piece takes three times as long (measured).
        let mut line = Vec::with_capacity(USUAL_LINE + self.path.len().min(MAX_PATH));
        self.push_to(&mut line);
        formatter.write_str(std::str::from_utf8(&line).map_err(|_| fmt::Error)?)
    }
}

/// The fields as text.
impl Fields for Vec<u8> {
    fn request(&mut self, peer: &str, method: &[u8], path: &[u8], status: u16) {
        self.extend_from_slice(peer.as_bytes());
        self.extend_from_slice(b" \"");
        push_path(method, self);
        self.push(b' ');
        push_path(path, self);
        self.extend_from_slice(b"\" ");
        self.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    }

    fn number(&mut self, label: &'static str, number: u64) {
        self.word(label, itoa::Buffer::new().format(number));
    }

    fn amount(&mut self, label: &'static str, amount: f64) {
        self.word(label, &shown_amount(amount));
    }

    fn word(&mut self, label: &'static str, word: &str) {
        self.extend_from_slice(label.as_bytes());
        self.extend_from_slice(word.as_bytes());
    }

    fn name(&mut self, label: &'static str, name: &[u8]) {
        self.extend_from_slice(label.as_bytes());
        self.extend_from_slice(name);
        self.push(b'\'');
    }

    fn id(&mut self, label: &'static str, id: &[u8]) {
        self.extend_from_slice(label.as_bytes());
        push_id(id, self);
    }
}

impl Source for AccessLine<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), Error> {
        let collect = || {
            let mut values = Vec::new();
            self.push_to(&mut values);
            values
        };
        self.values.get_or_init(collect).visit(visitor)
    }
}

/// The value of a field, as other writers of the log take it.
enum FieldValue {
    Number(u64),
    Amount(f64),
    Text(String),
}

impl ToValue for FieldValue {
    fn to_value(&self) -> Value<'_> {
        match self {
            FieldValue::Number(number) => (*number).into(),
            FieldValue::Amount(amount) => (*amount).into(),
            FieldValue::Text(text) => text.as_str().into(),
        }
    }
}

impl FieldValue {
    fn text(bytes: &[u8]) -> FieldValue {
        FieldValue::Text(String::from_utf8_lossy(bytes).into_owned())
    }

    /// What `push` appends.
    fn pushed(text: &[u8], push: fn(&[u8], &mut Vec<u8>)) -> FieldValue {
        let mut pushed = Vec::new();
        push(text, &mut pushed);
        FieldValue::text(&pushed)
    }
}

/// The fields with their names and values.
impl Fields for Vec<(&'static str, FieldValue)> {
    fn request(&mut self, peer: &str, method: &[u8], path: &[u8], status: u16) {
        self.push(("peer", FieldValue::text(peer.as_bytes())));
        self.push(("method", FieldValue::pushed(method, push_path)));
        self.push(("path", FieldValue::pushed(path, push_path)));
        self.push(("status", FieldValue::Number(status.into())));
    }

    fn number(&mut self, label: &'static str, number: u64) {
        self.push((name_in(label), FieldValue::Number(number)));
    }

    fn amount(&mut self, label: &'static str, amount: f64) {
        self.push((name_in(label), FieldValue::Amount(rounded(amount))));
    }

    fn word(&mut self, label: &'static str, word: &str) {
        self.name(label, word.as_bytes());
    }

    fn name(&mut self, label: &'static str, name: &[u8]) {
        self.push((name_in(label), FieldValue::text(name)));
    }

    fn id(&mut self, label: &'static str, id: &[u8]) {
        self.push((name_in(label), FieldValue::pushed(id, push_id)));
    }
}

/// The name of a field in its label.
fn name_in(label: &'static str) -> &'static str {
    label.trim_matches([' ', '=', '\''])
}

/// Six digits say enough: LiteLLM sends what its computation gave, such as 2.9999999999999997e-05.
fn rounded(amount: f64) -> f64 {
    format!("{amount:.5e}").parse().unwrap_or(amount)
}

fn shown_amount(amount: f64) -> String {
    match rounded(amount) {
        0.0 => "0".into(),
        rounded @ 1e-12..1e12 => rounded.to_string(),
        rounded => format!("{rounded:e}"),
    }
}

pub fn push_id(id: &[u8], line: &mut Vec<u8>) {
    push_escaped(&id[..id.len().min(MAX_ID)], line);
}

/// In 64 bits, which are formatted in half the time of 128.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Appends a path or a method: as few kinds of characters as are usual in them, the others
/// percent-encoded, so that no shell, terminal or viewer of the log takes them for something else.
pub fn push_path(text: &[u8], line: &mut Vec<u8>) {
    if text.len() <= MAX_PATH && text.iter().copied().all(is_usual_in_path) {
        return line.extend_from_slice(text);
    }
    let end = line.len() + MAX_PATH;
    for (at, byte) in text.iter().enumerate() {
        let is_encoded = || {
            let digits = text.get(at + 1..at + 3);
            digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        };
        let (is_plain, length) = match byte {
            // What it stands for must fit, too.
            b'%' if is_encoded() => (true, 3),
            _ if is_usual_in_path(*byte) => (true, 1),
            _ => (false, 3),
        };
        if line.len() + length > end {
            return;
        }
        if is_plain {
            line.push(*byte);
        } else {
            line.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
}

fn is_usual_in_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._~:@!,=&*+-/".contains(&byte)
}

/// Appends a client's text to a line whose fields are split at spaces and quotes.
fn push_escaped(text: &[u8], line: &mut Vec<u8>) {
    if text.iter().copied().all(access_log::is_plain) {
        return line.extend_from_slice(text);
    }
    for byte in text {
        if access_log::is_plain(*byte) {
            line.push(*byte);
        } else {
            line.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
