//! flow-proxy: parse, run, exit code. The only file that prints or exits.

use std::env;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use flow_proxy::cli::{self, Command, Invocation};
use flow_proxy::commands::check as online;
use flow_proxy::commands::health;
use flow_proxy::commands::serve::{self as run, Failure, Source};
use flow_proxy::config::options::Options;
use flow_proxy::config::secrets::{self, Loaded};
use flow_proxy::config::watch::FileVersion;
use flow_proxy::demo::Demo;
use flow_proxy::logging;
use flow_proxy::upstream::connection::Upstream;
use flow_proxy::upstream::proxy_env::ProxySettings;

/// musl's own has one lock for all threads. Measured against glibc's request rate: 0.45 to 0.77 with
/// musl's, 0.87 to 1.16 with this. The price is memory: idle RSS 16 MB instead of 4 MB, and 103 MB
/// without its feature `no_thp`, which keeps it off huge pages.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A failure while running.
const FAILED: u8 = 1;
/// Bad usage or bad configuration.
const MISUSED: u8 = 2;

fn main() -> ExitCode {
    let arguments = env::args_os().skip(1);
    let mut invocation = match cli::parse(arguments, env::vars_os(), Path::new(".env")) {
        Ok(invocation) => invocation,
        Err(errors) => return complain_all(&errors.0),
    };
    match &invocation.command {
        Command::Help => print(&cli::help()),
        Command::Version => print(&cli::version()),
        Command::Completions(shell) => print(&cli::completions(*shell)),
        Command::Check { online } => check(&invocation, *online),
        Command::Token { name } => token(&invocation.options, name.as_deref()),
        Command::Health => {
            match health::check_health(invocation.options.host, invocation.options.port) {
                Ok(()) => ExitCode::SUCCESS,
                Err(problem) => complain(FAILED, &problem),
            }
        }
        Command::Serve => serve(&invocation),
        Command::Demo => demo(&mut invocation),
    }
}

fn serve(invocation: &Invocation) -> ExitCode {
    let seen = FileVersion::of(&invocation.options.secrets_file);
    let loaded = match secrets::load(&invocation.options.secrets_file) {
        Ok(loaded) => loaded,
        Err(errors) => return complain_all(errors.problems()),
    };
    run(invocation, &loaded, &Source::SecretsFile(seen), |_| {})
}

fn demo(invocation: &mut Invocation) -> ExitCode {
    let demo = match Demo::start() {
        Ok(demo) => demo,
        Err(error) => return complain(FAILED, &format!("cannot start the demo: {error}")),
    };
    invocation.options.target = demo.target();
    for setting in &mut invocation.settings {
        if setting.name == "target-url" {
            setting.value = demo.target().to_string();
        }
    }
    let loaded = Loaded {
        configurations: demo.configurations(),
        warnings: Vec::new(),
    };
    run(invocation, &loaded, &Source::Fixed, |address| {
        print(&Demo::instructions(address));
    })
}

fn run(
    invocation: &Invocation,
    loaded: &Loaded,
    source: &Source,
    on_listening: impl FnOnce(std::net::SocketAddr),
) -> ExitCode {
    let Invocation {
        options,
        warnings,
        settings: sources,
        ..
    } = invocation;
    let log_file = &options.log_file;
    let logger = match logging::init(options.log_level, &log_file.path, log_file.is_required) {
        Ok(logger) => logger,
        Err(problem) => return complain(MISUSED, &problem),
    };
    log_panics();
    for warning in warnings.iter().chain(&loaded.warnings) {
        log::warn!("{warning}");
    }
    let served = run::serve(
        options,
        sources,
        &loaded.configurations,
        source,
        &logger,
        on_listening,
    );
    logger.flush();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Configuration(problem)) => complain(MISUSED, &problem),
        Err(Failure::Running(problem)) => complain(FAILED, &problem),
    }
}

/// A panic of one request is a line in the log, not the end. It names the place, never a value.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map_or_else(String::new, |at| format!("{}:{}", at.file(), at.line()));
        let thread = std::thread::current();
        log::error!(
            "Bug: thread '{}' panicked at {place}",
            thread.name().unwrap_or("?")
        );
    }));
}

/// Prints what would run. Every problem is reported before it ends.
fn check(invocation: &Invocation, online: bool) -> ExitCode {
    let Invocation {
        options,
        warnings,
        settings: sources,
        ..
    } = invocation;
    let width = sources
        .iter()
        .map(|setting| setting.name.len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for setting in sources {
        let (name, value) = (setting.name, &setting.value);
        text.push_str(&format!("{name:width$} = {value}  ({})\n", setting.source));
    }
    let mut problems = Vec::new();
    let loaded = secrets::load(&options.secrets_file);
    match &loaded {
        Ok(loaded) => {
            for (index, one) in loaded.configurations.iter().enumerate() {
                text.push_str(&format!("configuration {} = '{}'\n", index + 1, one.name));
            }
        }
        Err(errors) => problems.extend(errors.problems().iter().cloned()),
    }
    let proxy_settings = ProxySettings::FromEnvironment(options.target.clone());
    let ca_file = options.ca_file.as_deref();
    if let Err(problem) = Upstream::new(
        &options.target,
        options.upstream_timeout,
        ca_file,
        &proxy_settings,
    ) {
        problems.push(problem);
    }
    for warning in warnings
        .iter()
        .chain(loaded.iter().flat_map(|loaded| &loaded.warnings))
    {
        eprintln_or_ignore(&format!("warning: {warning}"));
    }
    let printed = print(&text);
    if !problems.is_empty() {
        return complain_all(&problems);
    }
    match (online, loaded) {
        (true, Ok(loaded)) => check_online(options, &loaded),
        _ => printed,
    }
}

/// Asks the target with each credential and prints a line for each step as it is done.
fn check_online(options: &Options, loaded: &Loaded) -> ExitCode {
    let mut failed = 0;
    let steps = match online::check(options, &loaded.configurations) {
        Ok(steps) => steps,
        Err(problem) => return complain(MISUSED, &problem),
    };
    for step in steps {
        match step {
            Ok(line) => drop(print(&format!("{line}\n"))),
            Err(problem) => {
                failed += 1;
                complain(FAILED, &problem);
            }
        }
    }
    ExitCode::from(if failed == 0 { 0 } else { FAILED })
}

fn token(options: &Options, name: Option<&str>) -> ExitCode {
    let loaded = match secrets::load(&options.secrets_file) {
        Ok(loaded) => loaded,
        Err(errors) => return complain_all(errors.problems()),
    };
    let mut configurations = loaded.configurations.iter();
    let found = match name {
        None => configurations.next(),
        Some(name) => configurations.find(|one| *one.name == *name),
    };
    match found {
        Some(configuration) => print(&format!("{}\n", configuration.token())),
        None => {
            let names: Vec<_> = loaded
                .configurations
                .iter()
                .map(|one| format!("'{}'", one.name))
                .collect();
            let asked = name.unwrap_or_default();
            complain(
                MISUSED,
                &format!(
                    "there is no configuration '{asked}'; there are {}",
                    names.join(", ")
                ),
            )
        }
    }
}

/// Prints to standard output. A reader that has left is no failure.
fn print(text: &str) -> ExitCode {
    match io::stdout()
        .write_all(text.as_bytes())
        .and_then(|()| io::stdout().flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(FAILED, &format!("cannot write to standard output: {error}"))
        }
        _ => ExitCode::SUCCESS,
    }
}

fn complain(code: u8, problem: &dyn Display) -> ExitCode {
    eprintln_or_ignore(&format!("flow-proxy: {problem}"));
    ExitCode::from(code)
}

fn complain_all(problems: &[String]) -> ExitCode {
    for problem in problems {
        eprintln_or_ignore(&format!("flow-proxy: {problem}"));
    }
    ExitCode::from(MISUSED)
}

/// `eprintln!` panics where standard error is closed; the exit code must come out all the same.
fn eprintln_or_ignore(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
