//! The proxy from start to stop: binds, serves, reacts to signals. Called by the main thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cli::Setting;
use crate::config::options::Options;
use crate::config::secrets::Configuration;
use crate::config::watch::{FileVersion, Reloader};
use crate::logging;
use crate::proxy::Proxy;
use crate::proxy::access::{self, AccessPolicy};
use crate::proxy::balancer::Balancer;
use crate::server::{Limits, Running, Server};
use crate::upstream::connection::Upstream;
use crate::upstream::proxy_env::ProxySettings;

/// After cutting off what is in flight, how long its log lines are waited for.
const ABORT_GRACE: Duration = Duration::from_secs(1);
/// Descriptors that are neither a client's nor an upstream's: log, listener, waker, standard ones.
const OWN_DESCRIPTORS: usize = 16;

/// Why the process ends with a failure.
#[derive(Debug)]
pub enum Failure {
    /// Exit code 2.
    Configuration(String),
    /// Exit code 1.
    Running(String),
}

/// Where the configurations come from.
pub enum Source {
    /// A file, watched for changes; it looked like this before it was loaded.
    SecretsFile(Option<FileVersion>),
    /// The demo's own.
    Fixed,
}

/// Runs the proxy until a signal stops it.
///
/// `on_listening` is told the address that was bound.
///
/// # Errors
/// A [`Failure`] at start.
pub fn serve(
    options: &Options,
    settings: &[Setting],
    configurations: &[Configuration],
    source: &Source,
    logger: &logging::Handle,
    on_listening: impl FnOnce(SocketAddr),
) -> Result<(), Failure> {
    // Before the port is bound: whoever sees it open may send signals.
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|error| Failure::Running(format!("cannot handle signals: {error}")))?;
    let descriptors = raise_descriptor_limit();
    log_startup(options, settings, configurations);
    let balancer = Arc::new(Balancer::new(configurations));
    let proxy_settings = match source {
        Source::SecretsFile(_) => ProxySettings::FromEnvironment(options.target.clone()),
        // The simulated Flow is in this process.
        Source::Fixed => ProxySettings::Direct,
    };
    if let Some(proxy) = proxy_settings
        .proxy_name()
        .map_err(Failure::Configuration)?
    {
        log::info!("The upstream is reached through the proxy {proxy}");
    }
    let ca_file = options.ca_file.as_deref();
    let upstream = Upstream::new(
        &options.target,
        options.upstream_timeout,
        ca_file,
        &proxy_settings,
    )
    .map_err(Failure::Configuration)?;
    let access = AccessPolicy::for_address(options.host);
    let target = options.target.clone();
    let proxy = Proxy::new(target, access, Arc::clone(&balancer), upstream)
        .map_err(Failure::Configuration)?;
    let server = bind(options)?;
    let limits = Limits {
        workers: options.workers,
        max_connections: max_connections(descriptors),
        client_timeout: options.client_timeout,
        max_body: options.max_body,
    };
    let running = server
        .start(Arc::new(proxy), limits)
        .map_err(|error| Failure::Running(format!("cannot start: {error}")))?;
    let reloader = match source {
        Source::SecretsFile(seen) => {
            let reloader = Reloader::new(&options.secrets_file, *seen, balancer);
            reloader.watch().map_err(|error| {
                Failure::Running(format!("cannot start the reload thread: {error}"))
            })?;
            Some(reloader)
        }
        Source::Fixed => None,
    };
    log::info!("Listening on http://{}", running.address());
    on_listening(running.address());
    run_until_stopped(
        &running,
        signals,
        reloader.as_deref(),
        logger,
        options.shutdown_timeout,
    );
    Ok(())
}

fn log_startup(options: &Options, settings: &[Setting], configurations: &[Configuration]) {
    log::info!(
        "flow-proxy {} starting, pid {}",
        env!("CARGO_PKG_VERSION"),
        std::process::id()
    );
    let shown: Vec<_> = settings
        .iter()
        .map(|setting| format!("{}={}", setting.name, setting.value))
        .collect();
    log::info!("Options: {}", shown.join(" "));
    let names: Vec<_> = configurations
        .iter()
        .map(|one| format!("'{}'", one.name))
        .collect();
    log::info!(
        "Loaded {} configurations: {}",
        names.len(),
        names.join(", ")
    );
    if !access::is_loopback(options.host) {
        log::warn!(
            "Bound to {}: anyone who reaches this port can use the credentials. \
             Put a firewall or an authenticating proxy before it",
            options.host
        );
    }
}

fn bind(options: &Options) -> Result<Server, Failure> {
    let address = SocketAddr::new(options.host, options.port);
    Server::bind(address).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "; another process listens there: stop it (ss -ltnp tells which) or choose \
                 another --port"
            }
            std::io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges",
            std::io::ErrorKind::AddrNotAvailable => "; no interface of this machine has it",
            _ => "",
        };
        Failure::Running(format!("cannot listen on {address}: {error}{hint}"))
    })
}

/// Raises the soft limit on descriptors to the hard one. Returns what is in force.
fn raise_descriptor_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let in_force = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            log::warn!(
                "The limit on descriptors stays at {:?}: {error}",
                limit.current
            );
            limit.current
        }
    };
    // No limit at all is as good as a large one.
    in_force
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(1 << 20)
}

/// Nearly half of the descriptors are for clients: each request in flight needs one for its upstream,
/// and eight connections have two for the lane that awaits them.
fn max_connections(descriptors: usize) -> usize {
    (descriptors.saturating_sub(OWN_DESCRIPTORS) / 9 * 4).max(1)
}

/// Waits for signals and does what they ask for.
fn run_until_stopped(
    running: &Running,
    mut signals: Signals,
    reloader: Option<&Reloader>,
    logger: &logging::Handle,
    shutdown_timeout: Duration,
) {
    for signal in &mut signals {
        if signal != SIGHUP {
            log::info!("Received {}, stopping", signal_name(signal));
            break;
        }
        log::info!("Received SIGHUP: reloading the secrets, reopening the log");
        logger.reopen();
        if let Some(reloader) = reloader {
            reloader.reload();
        }
    }
    let (sender, second) = mpsc::channel();
    // Without this thread a second signal would be noticed only at the end.
    let watcher = thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if let Some(signal) = signals.forever().find(|signal| *signal != SIGHUP) {
                // The main thread is gone if it was faster.
                let _ = sender.send(signal);
            }
        });
    if let Err(error) = watcher {
        log::warn!("A second signal will not be noticed: {error}");
    }
    stop(running, &second, shutdown_timeout);
    log::info!("Stopped");
}

fn stop(running: &Running, second: &mpsc::Receiver<i32>, shutdown_timeout: Duration) {
    running.stop();
    let deadline = Instant::now() + shutdown_timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if running.wait_until_idle(left.min(Duration::from_millis(50))) {
            return;
        }
        if let Ok(signal) = second.try_recv() {
            log::warn!("Received {} again, stopping at once", signal_name(signal));
            return;
        }
        if left.is_zero() {
            break;
        }
    }
    let seconds = shutdown_timeout.as_secs_f32();
    log::warn!("Cutting off requests that are still in flight after {seconds} s");
    running.abort();
    running.wait_until_idle(ABORT_GRACE);
}

fn signal_name(signal: i32) -> &'static str {
    signal_hook::low_level::signal_name(signal).unwrap_or("a signal")
}
