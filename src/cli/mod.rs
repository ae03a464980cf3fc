//! The command line: arguments, environment and `.env`, read into an [`Invocation`].
//!
//! Owns which commands and options exist (`commands.rs`, `options.rs`), which source of a value wins
//! (`layers.rs`), what `.env` may say (`dotenv_trust.rs`), which values exclude each other
//! (`conflicts.rs`, `log_file.rs`), and every message about wrong usage. Out of scope: printing, exit codes, and whether
//! the files that options name exist (`commands`). Reads no file but `.env`. The main thread calls it
//! once, before it starts any other thread.

mod args;
mod commands;
mod completions;
mod conflicts;
mod dotenv;
mod dotenv_trust;
mod help;
mod layers;
mod log_file;
mod options;
#[cfg(test)]
mod tests;
mod values;
mod variables;

use std::ffi::OsString;
use std::fmt;
use std::path::Path;

pub use commands::{Command, GroupBy, Shell, Since, UsageQuery};
pub use completions::completions;
pub use help::{help, version};
pub use layers::{Setting, Source};

use crate::config::options::Options;
use layers::Layers;

/// What the user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// What to do.
    pub command: Command,
    /// The options in force.
    pub options: Options,
    /// Each option in the order of the help, with its value and its source. Empty for commands that
    /// only print.
    pub settings: Vec<Setting>,
    /// Probable mistakes that stop nothing, one line each.
    pub warnings: Vec<String>,
}

/// All problems, one line each, without the program's name in front. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageErrors(pub Vec<String>);

impl fmt::Display for UsageErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for UsageErrors {}

/// Reads the arguments (without the program's name), the environment and the `.env` file at
/// `dotenv_path`, in this order of precedence.
///
/// Commands that only print (help, version, completions) read neither the environment nor `.env`.
/// `--help` and `--version` win over any error in the other arguments.
///
/// # Errors
///
/// All problems at once: first those of the arguments, then those of `.env`, then those of values in
/// the order of the help.
pub fn parse(
    arguments: impl Iterator<Item = OsString>,
    environment: impl Iterator<Item = (OsString, OsString)>,
    dotenv_path: &Path,
) -> Result<Invocation, UsageErrors> {
    let args::Arguments {
        command,
        values,
        mut errors,
    } = args::read(arguments);
    if let Some(command) = &command
        && errors.is_empty()
        && command.only_prints()
    {
        return Ok(Invocation {
            command: command.clone(),
            options: Options::default(),
            settings: Vec::new(),
            warnings: Vec::new(),
        });
    }
    let dotenv = dotenv::read(dotenv_path).unwrap_or_else(|problems| {
        errors.extend(problems);
        Vec::new()
    });
    let layers = Layers::new(values, environment, dotenv, dotenv_path);
    let (options, settings) = layers.resolve(&mut errors);
    match command {
        Some(command) if errors.is_empty() => Ok(Invocation {
            command,
            options,
            settings,
            warnings: layers.warnings(),
        }),
        _ => Err(UsageErrors(errors)),
    }
}
