//! flow-proxy: parses the command line, runs one command, exits with its code.

use std::env;
use std::path::Path;
use std::process::ExitCode;

use flow_proxy::cli;
use flow_proxy::commands::{self, report::Failure};
use flow_proxy::config::options::DOTENV;

/// musl's own allocator has one lock for all threads. Measured against glibc's request rate: 0.45 to
/// 0.77 with musl's, 0.87 to 1.16 with this one. The price is memory: idle RSS 16 MB instead of 4 MB,
/// and 103 MB without its feature `no_thp`, which keeps it off huge pages.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before anything else: the environment may hold the secrets.
    commands::keep_memory_private();
    let arguments = env::args_os().skip(1);
    let outcome = cli::parse(arguments, env::vars_os(), Path::new(DOTENV))
        .map_err(Failure::from)
        .and_then(commands::run);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
