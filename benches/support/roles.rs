//! Starts this binary again in a role: upstream, relay, load client or stream client. Input is the
//! arguments, output is one line on stdout. A role ends when its stdin is closed, so none outlives
//! the parent. Other programs are started through the role [`GUARD`], for the same reason.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Signal, getrlimit, set_parent_process_death_signal, setrlimit};

use super::load::{self, Load, LoadResult};
use super::process::Process;
use super::streams::{self, Streams, StreamsResult};
use super::{relay, upstream};

/// The first argument of a child in a role.
const FLAG: &str = "--role";

/// The role that replaces itself with another program, which then ends with the parent.
const GUARD: &str = "guard";

/// Runs the role that the arguments name; false if they name none.
pub fn run_if_asked() -> bool {
    let arguments: Vec<String> = std::env::args().collect();
    let Some(at) = arguments.iter().position(|argument| argument == FLAG) else {
        return false;
    };
    if let Some(program) = arguments[at + 1..].strip_prefix(&[GUARD.to_owned()]) {
        become_guarded(program);
    }
    end_with_stdin();
    raise_descriptor_limit();
    if let Err(error) = run(&arguments[at + 1..]) {
        eprintln!("bench: {}: {error}", arguments[at + 1..].join(" "));
        std::process::exit(1);
    }
    true
}

/// A command that runs `program` and sends it SIGTERM when this process ends for any reason. The
/// child's process id is the program's.
pub fn guarded(program: impl AsRef<OsStr>) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([FLAG, GUARD]).arg(program);
    Ok(command)
}

fn become_guarded(program: &[String]) -> ! {
    // prctl(2): PR_SET_PDEATHSIG survives execve.
    let set = set_parent_process_death_signal(Some(Signal::TERM));
    let error = match (set, program) {
        (Err(error), _) => error.into(),
        (Ok(()), [name, arguments @ ..]) => Command::new(name).args(arguments).exec(),
        (Ok(()), []) => io::Error::other("no program"),
    };
    eprintln!("{}: {error}", program.join(" "));
    std::process::exit(1);
}

/// Raises the soft limit of open descriptors to the hard limit; children inherit it.
pub fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If it fails, the old limit may be enough for a small run.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn end_with_stdin() {
    thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
}

fn run(arguments: &[String]) -> io::Result<()> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["upstream"] => upstream::serve(&listen()?),
        ["relay", address, spins] => relay::serve(&listen()?, parse(address)?, parse(spins)?),
        ["load", address, path, connections, ms] => {
            let result = load::run(&Load {
                address: parse(address)?,
                path: path.to_owned(),
                connections: parse(connections)?,
                duration: Duration::from_millis(parse(ms)?),
            })?;
            println!(
                "{} {} {} {} {} {}",
                result.requests,
                result.errors,
                result.seconds,
                result.body_bytes,
                result.p50_ns,
                result.p99_ns
            );
            Ok(())
        }
        ["streams", address, count, events, ramp_ms] => {
            let result = streams::run(&Streams {
                address: parse(address)?,
                streams: parse(count)?,
                events: parse(events)?,
                ramp: Duration::from_millis(parse(ramp_ms)?),
            })?;
            println!(
                "{} {} {} {} {} {} {}",
                result.whole,
                result.first_p50_ns,
                result.first_p99_ns,
                result.gap_p50_ns,
                result.gap_p99_ns,
                result.delay_p50_ns,
                result.delay_p99_ns
            );
            Ok(())
        }
        _ => Err(io::Error::other("no such role")),
    }
}

/// Binds a free loopback port and prints the address for the parent.
fn listen() -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?);
    Ok(listener)
}

fn parse<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse()
        .map_err(|_| io::Error::other(format!("'{text}' cannot be read")))
}

/// Starts the upstream, which serves until the handle is dropped.
pub fn start_upstream() -> io::Result<(Process, SocketAddr)> {
    start_server(&["upstream"])
}

/// Starts the relay, which serves until the handle is dropped. `spins`: reads that it tries before it
/// blocks.
pub fn start_relay(upstream: SocketAddr, spins: u32) -> io::Result<(Process, SocketAddr)> {
    start_server(&["relay", &upstream.to_string(), &spins.to_string()])
}

fn start_server(role: &[&str]) -> io::Result<(Process, SocketAddr)> {
    let mut process = spawn(role)?;
    let address = parse(first_line(&mut process)?.trim())?;
    Ok((process, address))
}

/// Runs a load client to its end.
pub fn load(plan: &Load) -> io::Result<LoadResult> {
    let mut process = spawn(&[
        "load",
        &plan.address.to_string(),
        &plan.path,
        &plan.connections.to_string(),
        &plan.duration.as_millis().to_string(),
    ])?;
    let line = first_line(&mut process)?;
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [requests, errors, seconds, bytes, p50, p99] = fields[..] else {
        return Err(io::Error::other("the load client failed"));
    };
    Ok(LoadResult {
        requests: parse(requests)?,
        errors: parse(errors)?,
        seconds: parse(seconds)?,
        body_bytes: parse(bytes)?,
        p50_ns: parse(p50)?,
        p99_ns: parse(p99)?,
    })
}

/// Runs a stream client to its end.
pub fn streams(plan: &Streams) -> io::Result<StreamsResult> {
    let mut process = spawn(&[
        "streams",
        &plan.address.to_string(),
        &plan.streams.to_string(),
        &plan.events.to_string(),
        &plan.ramp.as_millis().to_string(),
    ])?;
    let line = first_line(&mut process)?;
    let numbers: io::Result<Vec<u64>> = line.split_ascii_whitespace().map(parse).collect();
    let [whole, first50, first99, gap50, gap99, delay50, delay99] = numbers?[..] else {
        return Err(io::Error::other("the stream client failed"));
    };
    Ok(StreamsResult {
        whole,
        first_p50_ns: first50,
        first_p99_ns: first99,
        gap_p50_ns: gap50,
        gap_p99_ns: gap99,
        delay_p50_ns: delay50,
        delay_p99_ns: delay99,
    })
}

fn spawn(role: &[&str]) -> io::Result<Process> {
    Process::spawn(
        Command::new(std::env::current_exe()?)
            .arg(FLAG)
            .args(role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped()),
    )
}

fn first_line(process: &mut Process) -> io::Result<String> {
    let stdout = process.child.stdout.take();
    let stdout = stdout.expect("the child's stdout is piped");
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    Ok(line)
}
