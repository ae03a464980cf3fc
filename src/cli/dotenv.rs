//! Reads the `.env` file. Its variables never enter the environment of the process.
//!
//! Owns which lines count and how malformed ones are reported. Variables of this program and proxy
//! variables count; every other line, whatever it holds, is passed over, since `.env` files belong to
//! many programs. Values are taken as they stand. Called once, at the start.

use std::path::Path;

use zeroize::Zeroizing;

use super::options::PREFIX;
use crate::config::file::{self, BYTE_ORDER_MARK, PIPE_PATIENCE, Pipes, ReadError};
use crate::config::proxy_variables::is_proxy_variable;

/// The variables of a `.env` file, in the order of the file.
pub(super) type Variables = Vec<Variable>;

/// A variable that a `.env` file sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) value: Zeroizing<String>,
    /// The number of its line, counting from 1.
    pub(super) line: usize,
}

/// What is wrong with a line, after its number. Nothing of the line is quoted: it may hold a password.
const MALFORMED: &str = "is not NAME=VALUE (quote blanks)";

/// Reads the `.env` file at `path`. Without a file there are no variables. A directory is no file:
/// Python projects use the name for their virtual environment.
///
/// # Errors
///
/// That the file cannot be read; or one message for each malformed line of a variable that counts, with
/// the file's name and the line's number.
pub(super) fn read(path: &Path) -> Result<Variables, Vec<String>> {
    match file::read(path, Pipes::WaitFor(PIPE_PATIENCE)) {
        Ok(contents) => parse(&contents.bytes, &path.display().to_string()),
        Err(ReadError::Missing | ReadError::Directory) => Ok(Variables::new()),
        Err(error) => Err(vec![format!("{}: {error}", path.display())]),
    }
}

fn parse(bytes: &[u8], file: &str) -> Result<Variables, Vec<String>> {
    let text = bytes.strip_prefix(&BYTE_ORDER_MARK).unwrap_or(bytes);
    let mut variables = Variables::new();
    let mut errors = Vec::new();
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let number = index + 1;
        match variable(line) {
            Ok(found) => variables.extend(found.map(|(name, value)| Variable {
                name,
                value: Zeroizing::new(value.to_owned()),
                line: number,
            })),
            Err(what) => errors.push(format!("{file}: line {number} {what}")),
        }
    }
    if errors.is_empty() {
        Ok(variables)
    } else {
        Err(errors)
    }
}

/// Returns the variable that a line sets; `None` for a line that is passed over.
fn variable(line: &[u8]) -> Result<Option<(String, &str)>, &'static str> {
    let line = line.trim_ascii();
    let line = match line.strip_prefix(b"export") {
        Some(rest) if rest.starts_with(b" ") || rest.starts_with(b"\t") => rest.trim_ascii_start(),
        _ => line,
    };
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let end = line.iter().take_while(|byte| is_name(byte)).count();
    let (name, rest) = line.split_at(end);
    let name = String::from_utf8_lossy(name);
    if !name.starts_with(PREFIX) && !is_proxy_variable(&name) {
        return Ok(None);
    }
    let rest = std::str::from_utf8(rest).map_err(|_| "is not UTF-8")?;
    let rest = rest.trim_ascii_start().strip_prefix('=').ok_or(MALFORMED)?;
    let value = value(rest).ok_or(MALFORMED)?;
    Ok(Some((name.into_owned(), value)))
}

/// Returns the value in what follows the equals sign: what stands between quotes, or up to a blank.
/// Nothing in it is expanded. A comment may follow after a blank.
fn value(text: &str) -> Option<&str> {
    let begun = text.trim_ascii_start();
    let (value, rest) = match begun.chars().next() {
        Some(quote @ ('"' | '\'')) => begun[1..].split_once(quote)?,
        Some('#') if begun.len() < text.len() => ("", ""),
        _ => begun.split_at(begun.find([' ', '\t']).unwrap_or(begun.len())),
    };
    let after = rest.trim_ascii_start();
    let is_comment = after.len() < rest.len() && after.starts_with('#');
    (after.is_empty() || is_comment).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(text: impl AsRef<[u8]>) -> Vec<(String, String)> {
        let parsed = parse(text.as_ref(), ".env").unwrap_or_else(|errors| panic!("{errors:?}"));
        let pairs = parsed
            .into_iter()
            .map(|one| (one.name, one.value.to_string()));
        pairs.collect()
    }

    fn errors(bytes: &[u8]) -> Vec<String> {
        match parse(bytes, ".env") {
            Ok(variables) => panic!("taken for {variables:?}"),
            Err(errors) => errors,
        }
    }

    /// The value that `FLOW_PROXY_A` gets from what follows the equals sign.
    fn value_of(text: &str) -> String {
        let variables = variables(format!("FLOW_PROXY_A={text}"));
        assert_eq!(variables.len(), 1, "{text}");
        variables[0].1.clone()
    }

    #[test]
    fn comments_quotes_export_and_foreign_line_ends_are_read() {
        let text = "\u{feff}# note\r\nexport FLOW_PROXY_A=1\r\n\r\nFLOW_PROXY_B=\"two words\" # why\r\n\
                    \tFLOW_PROXY_C = 'x'\r\nFLOW_PROXY_D=\r\nhttps_proxy=5 \t";
        let expected = [
            ("FLOW_PROXY_A", "1"),
            ("FLOW_PROXY_B", "two words"),
            ("FLOW_PROXY_C", "x"),
            ("FLOW_PROXY_D", ""),
            ("https_proxy", "5"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(variables(text), expected);
    }

    #[test]
    fn values_are_taken_as_they_stand() {
        for (text, value) in [
            ("$HOME/${USER}`id`", "$HOME/${USER}`id`"),
            ("\"$HOME\"", "$HOME"),
            ("\"a\\n\\\"", "a\\n\\"),
            (r"'a\'", r"a\"),
            ("'[{\"a\": \"b # c\"}]'", "[{\"a\": \"b # c\"}]"),
            ("a#b", "a#b"),
            ("a #b", "a"),
            ("#b", "#b"),
            (" # nothing", ""),
            ("''", ""),
            ("a=b", "a=b"),
            ("a'b\"", "a'b\""),
        ] {
            assert_eq!(value_of(text), value, "{text}");
        }
    }

    #[test]
    fn lines_of_other_programs_are_passed_over_whatever_they_hold() {
        let text = b"SECRET hunter2\nKEY=\"open\nFLOW_PROXY\nA=\xff\xfe\x00\nexport\nexport X\n=\nPORT=1\n\
                     flow_proxy_port=2\nHttps_Proxy=x y\nFLOW_PROXY_PORT=3\nB='";
        let expected = [("FLOW_PROXY_PORT".to_owned(), "3".to_owned())];
        assert_eq!(variables(text), expected);
    }

    #[test]
    fn each_malformed_line_is_reported_by_its_number_and_never_quoted() {
        let text = "FLOW_PROXY_A=1\n\nFLOW_PROXY_B hunter2\n# note\nFLOW_PROXY_C=two words\n\
                    FLOW_PROXY_D=\"open\nALL_PROXY='x'y\nFLOW_PROXY_E\nFLOW_PROXY_F=\"a\"# no blank\n";
        let lines = [3, 5, 6, 7, 8, 9];
        let expected = lines.map(|line| format!(".env: line {line} {MALFORMED}"));
        assert_eq!(errors(text.as_bytes()), expected);
    }

    #[test]
    fn bytes_outside_utf_8_in_a_value_are_an_error_and_no_panic() {
        let found = errors(b"FLOW_PROXY_A=1\nFLOW_PROXY_B=\"\xff\"\nC=3\n");
        assert_eq!(found, [".env: line 2 is not UTF-8"]);
    }

    #[test]
    fn a_missing_file_and_a_directory_have_no_variables() {
        assert_eq!(read(Path::new("/nonexistent/.env")), Ok(Vec::new()));
        assert_eq!(read(Path::new("/")), Ok(Vec::new()));
    }
}
