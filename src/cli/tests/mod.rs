//! Tests of parsing: from arguments, environment and `.env` to an invocation.

mod command_line;
mod sources;
mod support;
