//! Reads the `.env` file. Its variables never enter the environment of the process.
//!
//! Owns which lines count and how malformed ones are reported. Called once, at the start.

use std::cell::Cell;
use std::io::{self, Read};
use std::path::Path;

/// The variables of a `.env` file, names and values, in the order of the file.
pub(super) type Variables = Vec<(String, String)>;

/// Reads the `.env` file at `path`. Without a file there are no variables. A directory is no file:
/// Python projects use the name for their virtual environment.
///
/// # Errors
///
/// One message for each malformed line, with the file's name and the line's number. It quotes nothing
/// of the line: `.env` files hold passwords, of other programs too.
pub(super) fn read(path: &Path) -> Result<Variables, Vec<String>> {
    match std::fs::read(path) {
        Ok(bytes) => parse(&bytes, &path.display().to_string()),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::IsADirectory => Ok(Variables::new()),
            _ => Err(vec![format!("{}: cannot be read: {error}", path.display())]),
        },
    }
}

fn parse(bytes: &[u8], file: &str) -> Result<Variables, Vec<String>> {
    // Editors on Windows write a byte order mark.
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    // On a last line without a line end, dotenvy takes trailing blanks for an unfinished value.
    let text = [text, b"\n"].concat();
    let lines_read = Cell::new(0);
    let reader = LineByLine {
        rest: &text,
        lines_read: &lines_read,
    };
    let mut variables = Variables::new();
    let mut errors = Vec::new();
    for item in dotenvy::from_read_iter(reader) {
        match item {
            Ok(variable) => variables.push(variable),
            // A quotation that is never closed extends to the end: its first line is reported.
            Err(dotenvy::Error::LineParse(item, _)) => {
                let line = lines_read.get() + 1 - item.lines().count().max(1);
                errors.push(format!(
                    "{file}: line {line} is not NAME=VALUE (quote blanks)"
                ));
            }
            Err(_) => errors.push(format!("{file}: line {} is not UTF-8", lines_read.get())),
        }
    }
    if errors.is_empty() {
        Ok(variables)
    } else {
        Err(errors)
    }
}

/// Counts lines. It returns one line per read, so that dotenvy, which buffers, is never ahead of the
/// line that it parses.
struct LineByLine<'a> {
    rest: &'a [u8],
    lines_read: &'a Cell<usize>,
}

impl Read for LineByLine<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let line_end = self.rest.iter().position(|&byte| byte == b'\n');
        let line_length = line_end.map_or(self.rest.len(), |end| end + 1);
        let length = line_length.min(buffer.len());
        let (now, later) = self.rest.split_at(length);
        buffer[..length].copy_from_slice(now);
        self.rest = later;
        if now.ends_with(b"\n") {
            self.lines_read.set(self.lines_read.get() + 1);
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(text: &str) -> Vec<(String, String)> {
        parse(text.as_bytes(), ".env").unwrap_or_else(|errors| panic!("{errors:?}"))
    }

    fn errors(bytes: &[u8]) -> Vec<String> {
        match parse(bytes, ".env") {
            Ok(variables) => panic!("taken for {variables:?}"),
            Err(errors) => errors,
        }
    }

    #[test]
    fn comments_quotes_export_and_foreign_line_ends_are_read() {
        let text =
            "\u{feff}# note\r\nexport A=1\r\n\r\nB=\"two words\" # why\r\nC='x'\r\nD=\r\nE=5 ";
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "x"),
            ("D", ""),
            ("E", "5"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(variables(text), expected);
    }

    #[test]
    fn each_malformed_line_is_reported_by_its_number_and_never_quoted() {
        let text = "A=1\n\nSECRET hunter2\n# note\nB=two words\nC=3\n";
        let found = errors(text.as_bytes());
        assert_eq!(
            found,
            [
                ".env: line 3 is not NAME=VALUE (quote blanks)",
                ".env: line 5 is not NAME=VALUE (quote blanks)",
            ]
        );
    }

    #[test]
    fn an_open_quotation_is_reported_where_it_begins() {
        let found = errors(b"A=1\nB=\"open\nC=3\nD=4\n");
        assert_eq!(found, [".env: line 2 is not NAME=VALUE (quote blanks)"]);
    }

    #[test]
    fn lines_longer_than_a_buffer_are_counted_once() {
        let text = format!("A='{}'\nbad\n", "x".repeat(100_000));
        assert_eq!(
            errors(text.as_bytes()),
            [".env: line 2 is not NAME=VALUE (quote blanks)"]
        );
    }

    #[test]
    fn bytes_outside_utf_8_are_an_error_and_no_panic() {
        assert_eq!(errors(b"A=1\nB=\xff\nC=3\n"), [".env: line 2 is not UTF-8"]);
    }

    #[test]
    fn a_missing_file_and_a_directory_have_no_variables() {
        assert_eq!(read(Path::new("/nonexistent/.env")), Ok(Vec::new()));
        assert_eq!(read(Path::new("/")), Ok(Vec::new()));
    }
}
