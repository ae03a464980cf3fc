//! One line of the log as a JSON object (RFC 8259).

use std::fmt::{self, Write};

use log::kv::{Error, Key, Source, Value, VisitSource, VisitValue};

use crate::config::shown::{is_hazardous, push_json_escape};

/// Appends `{"time":…,"level":…,"message":…}`, without a line feed; with the fields instead of the message
/// where there are some. Returns where the level's name begins.
pub(super) fn push_line(
    line: &mut String,
    time: &str,
    level: &str,
    message: &fmt::Arguments<'_>,
    fields: &dyn Source,
) -> usize {
    line.push_str("{\"time\":\"");
    line.push_str(time);
    line.push_str("\",\"level\":\"");
    let level_at = line.len();
    line.push_str(level);
    line.push('"');
    let fields_at = line.len();
    // Neither fails: the visitor does not, and a Display that does has written what there is.
    let _ = fields.visit(&mut Members(line));
    if line.len() == fields_at {
        line.push_str(",\"message\":\"");
        let _ = Escaped(line).write_fmt(*message);
        line.push('"');
    }
    line.push('}');
    level_at
}

/// Appends each field as a member of the object.
struct Members<'l>(&'l mut String);

impl<'kvs> VisitSource<'kvs> for Members<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        self.0.push_str(",\"");
        Escaped(self.0).write_str(key.as_str())?;
        self.0.push_str("\":");
        value.visit(self)
    }
}

impl VisitValue<'_> for Members<'_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        self.0.push('"');
        Escaped(self.0).write_fmt(format_args!("{value}"))?;
        self.0.push('"');
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        self.0.push_str(itoa::Buffer::new().format(value));
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        // JSON has no other numbers. Debug writes small and large ones with an exponent.
        if value.is_finite() {
            write!(self.0, "{value:?}")?;
        } else {
            self.0.push_str("null");
        }
        Ok(())
    }
}

/// Appends text as the inside of a JSON string: on one line, and harmless to a terminal.
struct Escaped<'l>(&'l mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '"' | '\\' => self.0.extend(['\\', c]),
                '\n' => self.0.push_str("\\n"),
                c if is_hazardous(c) => push_json_escape(c, self.0),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::NO_FIELDS;
    use super::*;

    fn line(message: &fmt::Arguments<'_>, fields: &dyn Source) -> String {
        let mut line = String::new();
        let level_at = push_line(&mut line, "T", "INFO", message, fields);
        assert!(line[level_at..].starts_with("INFO"));
        line
    }

    #[test]
    fn every_message_is_one_line_of_json_that_reads_back_as_it_was() {
        let all: String = (0..0x3000).filter_map(char::from_u32).collect();
        for message in [
            "",
            "plain",
            "a\"b\\c\n\r\t\u{7f}",
            "\u{2028}中\u{1F600}",
            &all,
        ] {
            let line = line(&format_args!("{message}"), &NO_FIELDS);
            assert!(!line.chars().any(is_hazardous), "{line:?}");
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            let expected = serde_json::json!({"time": "T", "level": "INFO", "message": message});
            assert_eq!(value, expected);
        }
    }

    #[test]
    fn fields_take_the_place_of_the_message() {
        let fields = [
            ("text", Value::from("a\"b")),
            ("number", Value::from(u64::MAX)),
            ("small", Value::from(3e-5)),
            ("none", Value::from(f64::NAN)),
        ];
        let line = line(&format_args!("unseen"), &&fields[..]);
        assert_eq!(
            line,
            "{\"time\":\"T\",\"level\":\"INFO\",\"text\":\"a\\\"b\",\
             \"number\":18446744073709551615,\"small\":3e-5,\"none\":null}"
        );
    }
}
