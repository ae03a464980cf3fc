//! What the program can be asked to do: one file for each command.
//!
//! Owns what goes to standard output and standard error, the exit codes, and the wiring of all other
//! modules; nothing else imports it. A command runs on the main thread and returns when it is done.

pub mod report;

mod check;
mod demo;
mod listen;
mod online;
mod process;
mod running;
mod serve;
mod signals;
mod terminal;
mod text;
mod token;
mod usage;

pub use process::keep_memory_private;

use crate::cli::{self, Command, Invocation};
use report::{Failure, print};

/// Runs the command that was asked for.
///
/// # Errors
/// Why it failed, for [`Failure::report`].
pub fn run(invocation: Invocation) -> Result<(), Failure> {
    process::survive_file_size_limit();
    match &invocation.command {
        Command::Serve { or_demo: true } => demo::run_unless_secrets(invocation),
        Command::Serve { or_demo: false } => serve::run(invocation),
        Command::Demo => demo::run(invocation),
        Command::Check { online } => check::run(&invocation, *online),
        Command::Token { name } => token::run(&invocation.options, name.as_deref()),
        Command::Health => running::health::run(&invocation.options),
        Command::Status { json, watch } => running::status::run(&invocation.options, *json, *watch),
        Command::Usage(query) => usage::run(&invocation.options, query),
        Command::Help => print(&cli::help()),
        Command::Version => print(&cli::version()),
        Command::Completions(shell) => print(&cli::completions(*shell)),
    }
}
