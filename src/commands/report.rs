//! What commands write to standard output and standard error, and how they fail.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::cli::UsageErrors;
use crate::config::secrets::SecretsErrors;

/// The exit code of a failure while running.
const EXIT_FAILURE: u8 = 1;
/// The exit code of bad usage or bad configuration.
const EXIT_USAGE: u8 = 2;

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// Bad usage or bad configuration, one line for each problem: exit code 2.
    Configuration(Vec<String>),
    /// A failure while running: exit code 1.
    Running(String),
    /// A failure while running whose lines have been written already: exit code 1.
    Reported,
}

impl Failure {
    /// Bad configuration with a single problem.
    pub(super) fn configuration(problem: String) -> Failure {
        Failure::Configuration(vec![problem])
    }

    /// Writes the problems to standard error and returns the exit code.
    pub fn report(self) -> ExitCode {
        let (problems, code) = match self {
            Failure::Configuration(problems) => (problems, EXIT_USAGE),
            Failure::Running(problem) => (vec![problem], EXIT_FAILURE),
            Failure::Reported => (Vec::new(), EXIT_FAILURE),
        };
        for problem in &problems {
            print_problem(problem);
        }
        ExitCode::from(code)
    }
}

impl From<UsageErrors> for Failure {
    fn from(errors: UsageErrors) -> Failure {
        Failure::Configuration(errors.0)
    }
}

impl From<SecretsErrors> for Failure {
    fn from(errors: SecretsErrors) -> Failure {
        Failure::Configuration(errors.problems().to_vec())
    }
}

/// Writes `text` to standard output. A reader that has closed the pipe is no failure.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    match write_out(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            print_problem(&format!("cannot write to standard output: {error}"));
            Err(Failure::Reported)
        }
        _ => Ok(()),
    }
}

/// Writes `text` to standard output.
pub(super) fn write_out(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes a problem to standard error.
pub(super) fn print_problem(problem: &str) {
    print_error_line(format_args!("flow-proxy: {problem}"));
}

/// Writes a warning to standard error.
pub(super) fn print_warning(warning: &str) {
    print_error_line(format_args!("warning: {warning}"));
}

/// Does what `eprintln!` does, which panics where standard error is closed: the exit code must be
/// right then too.
fn print_error_line(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
