//! The proxy from start to stop: builds it, listens, reacts to signals, lets requests finish.
//!
//! Runs on the main thread. Requests run on the threads of [`crate::server`].

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use log::Level;

use super::listen::bind;
use super::process::{log_panics, max_connections, raise_descriptor_limit, signal_name};
use super::report::{Failure, print_problem};
use super::signals::{ServiceSignals, SignalRequest, stop_reason};
use crate::cli::Invocation;
use crate::config::file::Pipes;
use crate::config::options::{DOTENV, Options};
use crate::config::secrets::{self, Configuration, Loaded, SecretsSource};
use crate::config::shown::{shown, shown_path};
use crate::config::watch::{FileVersion, SecretsWatcher};
use crate::logging;
use crate::proxy::access::AccessPolicy;
use crate::proxy::access::host::is_loopback;
use crate::proxy::balancer::Balancer;
use crate::proxy::{self, Proxy};
use crate::server::{Limits, Running};
use crate::upstream::connector::Upstream;
use crate::upstream::proxy_env::ProxySettings;

/// How often a wait for something else looks for a signal.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);
/// How long the log lines of aborted requests are waited for.
const ABORT_GRACE: Duration = Duration::from_secs(1);
/// What the line with the options in force begins with, which a log at INFO has from each start.
pub(super) const OPTIONS: &str = "Options: ";
/// What a log at WARNING or ERROR has instead.
pub(super) const HIDES_SUCCESSES: &str = "The log level hides the lines of successful requests";

/// Runs the proxy with the credentials of the secrets file until a signal stops it.
pub(super) fn run(mut invocation: Invocation) -> Result<(), Failure> {
    // Before anything that may wait: as process 1 of a container, nothing else ends this one.
    let mut signals = ServiceSignals::register()?;
    let source = invocation.options.secrets.take();
    let watched = match &source {
        SecretsSource::File(path) => Some((path.clone(), FileVersion::of(path))),
        SecretsSource::Array(_) => None,
    };
    let Some(loaded) = load_secrets(source, &mut signals)? else {
        return Ok(());
    };
    let options = &invocation.options;
    let reloading = match watched {
        Some((path, version)) if loaded.is_watchable => Reloading::Watched(path, version),
        _ => Reloading::ReadOnce(options.secrets.to_string()),
    };
    let target = options.target.clone();
    let service = Service {
        invocation: &invocation,
        proxy_settings: ProxySettings::FromVariables(target, options.proxy_variables.clone()),
        reloading,
    };
    service.run(loaded, signals, |_| {})
}

/// Loads the secrets. Returns `None` if a signal asks to stop meanwhile: a pipe may have no writer yet.
fn load_secrets(
    source: SecretsSource,
    signals: &mut ServiceSignals,
) -> Result<Option<Loaded>, Failure> {
    let (sender, receiver) = mpsc::channel();
    let name = source.to_string();
    thread::Builder::new()
        .name("secrets".into())
        // Fails where the main thread has stopped waiting.
        .spawn(move || drop(sender.send(secrets::load(&source, Pipes::Wait))))
        .map_err(|error| Failure::Running(format!("cannot start a thread: {error}")))?;
    loop {
        match receiver.recv_timeout(SIGNAL_INTERVAL) {
            Ok(loaded) => return Ok(Some(loaded?)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::Running(format!("{name}: cannot be read")));
            }
        }
        if let Some(signal) = signals.try_stop() {
            let reason = stop_reason(signal);
            print_problem(&format!("{reason} while waiting for {name}, stopping"));
            return Ok(None);
        }
    }
}

/// What a proxy is started with.
pub(super) struct Service<'a> {
    pub(super) invocation: &'a Invocation,
    pub(super) proxy_settings: ProxySettings,
    pub(super) reloading: Reloading,
}

/// How new secrets are noticed.
pub(super) enum Reloading {
    /// The file is watched. This version of it was loaded.
    Watched(PathBuf, FileVersion),
    /// Not at all: the source, called so in messages, can be read only once.
    ReadOnce(String),
    /// There are none.
    Nothing,
}

impl Service<'_> {
    /// Runs the proxy until a signal stops it. Calls `on_listening` with the address that was bound
    /// first.
    pub(super) fn run(
        &self,
        loaded: Loaded,
        signals: ServiceSignals,
        on_listening: impl FnOnce(SocketAddr),
    ) -> Result<(), Failure> {
        let logger = self.start_log(&loaded.warnings)?;
        let served = self.serve(loaded.configurations, &logger, signals, on_listening);
        logger.flush();
        served
    }

    fn start_log(&self, secrets_warnings: &[String]) -> Result<logging::Handle, Failure> {
        let options = self.options();
        let log_file = options.log_file.as_ref().map(|file| logging::LogFile {
            path: file.path.clone(),
            name: shown_path(&file.path),
            is_required: file.is_required,
            max_size: options.log_max_size,
            keep: options.log_keep,
            read_files: options
                .read_files(Path::new(DOTENV))
                .into_iter()
                .map(|(kind, path)| (kind, path.to_owned()))
                .collect(),
        });
        let logger = logging::init(options.log_level, options.log_format, log_file)
            .map_err(Failure::configuration)?;
        log_panics();
        let warnings = self.invocation.warnings.iter().chain(secrets_warnings);
        for warning in warnings.chain(&clear_text_warning(options)) {
            log::warn!("{warning}");
        }
        Ok(logger)
    }

    fn serve(
        &self,
        configurations: Vec<Configuration>,
        logger: &logging::Handle,
        mut signals: ServiceSignals,
        on_listening: impl FnOnce(SocketAddr),
    ) -> Result<(), Failure> {
        let descriptors = raise_descriptor_limit();
        self.log_startup(&configurations);
        let balancer = Arc::new(Balancer::new(&configurations));
        // A reload wipes those that it replaces.
        drop(configurations);
        let is_file_valid = Arc::new(AtomicBool::new(true));
        let proxy = self.proxy(Arc::clone(&balancer), Arc::clone(&is_file_valid))?;
        let running = self.listen(proxy, max_connections(descriptors))?;
        let watcher = self.watch(Arc::clone(&balancer), is_file_valid)?;
        for address in running.addresses() {
            log::info!("Listening on http://{address}");
        }
        on_listening(running.address());

        self.wait_for_stop(&mut signals, watcher.as_deref(), &balancer, logger);
        let second_signal = signals.receive_second();
        stop(&running, &second_signal, self.options().shutdown_timeout);
        log::info!("Stopped");
        Ok(())
    }

    fn log_startup(&self, configurations: &[Configuration]) {
        log::info!(
            "flow-proxy {} starting, pid {}",
            env!("CARGO_PKG_VERSION"),
            std::process::id()
        );
        let settings: Vec<_> = self
            .invocation
            .settings
            .iter()
            .map(|setting| format!("{}={}", setting.name, setting.value))
            .collect();
        log::info!("{OPTIONS}{}", settings.join(" "));
        let level = self.options().log_level.to_level();
        if let Some(level) = level.filter(|level| *level < Level::Info) {
            log::log!(level, "{HIDES_SUCCESSES}");
        }
        log::info!(
            "Loaded {} configurations: {}",
            configurations.len(),
            secrets::quoted_names(configurations)
        );
        let host = self.options().host.first();
        if !is_loopback(host) {
            log::warn!(
                "Bound to {host}: anyone who reaches this port can use the credentials. \
                 Put a firewall or an authenticating proxy before it"
            );
        }
    }

    fn proxy(
        &self,
        balancer: Arc<Balancer>,
        is_file_valid: Arc<AtomicBool>,
    ) -> Result<Proxy, Failure> {
        let options = self.options();
        let proxy_name = self.proxy_settings.proxy_name();
        let proxy_name = proxy_name.map_err(Failure::configuration)?;
        log::info!("{}", route(proxy_name.as_deref()));
        let upstream = Upstream::new(
            &options.target,
            options.upstream_timeout,
            &options.root_files(),
            &self.proxy_settings,
        )
        .map_err(Failure::configuration)?;
        let proxy_options = proxy::Options {
            access: AccessPolicy::new(
                options.host.first(),
                &options.allow_host,
                &options.allow_origin,
                &options.admin_from,
            ),
            balancer,
            upstream,
            limit_wait: options.limit_wait,
            workers: options.workers,
            is_file_valid,
            log_lines_dropped: logging::lines_dropped,
        };
        Proxy::new(options.target.clone(), proxy_options).map_err(Failure::configuration)
    }

    fn listen(&self, proxy: Proxy, max_connections: usize) -> Result<Running, Failure> {
        let options = self.options();
        let limits = Limits {
            workers: options.workers,
            max_connections,
            client_timeout: options.client_timeout,
            max_body: options.max_body,
        };
        bind(options.host, options.port)?
            .start(Arc::new(proxy), limits)
            .map_err(|error| Failure::Running(format!("cannot start: {error}")))
    }

    fn watch(
        &self,
        balancer: Arc<Balancer>,
        is_file_valid: Arc<AtomicBool>,
    ) -> Result<Option<Arc<SecretsWatcher>>, Failure> {
        let Reloading::Watched(path, version) = &self.reloading else {
            return Ok(None);
        };
        let on_reload = Box::new(move |configurations: &[_]| balancer.replace(configurations));
        let within = self.options().secrets_within.clone();
        SecretsWatcher::start(path, within, *version, on_reload, is_file_valid)
            .map(Some)
            .map_err(|error| Failure::Running(format!("cannot start the reload thread: {error}")))
    }

    /// Returns when a signal asks to stop. Does what SIGHUP asks for meanwhile.
    fn wait_for_stop(
        &self,
        signals: &mut ServiceSignals,
        watcher: Option<&SecretsWatcher>,
        balancer: &Balancer,
        logger: &logging::Handle,
    ) {
        loop {
            match signals.wait() {
                SignalRequest::Stop(signal) => {
                    log::info!("{}, stopping", stop_reason(signal));
                    return;
                }
                SignalRequest::ReopenLog => {
                    logger.reopen();
                    continue;
                }
                SignalRequest::Ignore => continue,
                SignalRequest::Reload => {}
            }
            log::info!("Received SIGHUP: reloading the secrets, reopening the log");
            logger.reopen();
            balancer.end_rests();
            if let Some(watcher) = watcher {
                watcher.reload();
            }
            if let Reloading::ReadOnce(source) = &self.reloading {
                log::info!("{source} is read once: the configurations stay as they are");
            }
        }
    }

    fn options(&self) -> &Options {
        &self.invocation.options
    }
}

/// Returns the warning about a target that is reached without encryption.
pub(super) fn clear_text_warning(options: &Options) -> Option<String> {
    let target = &options.target;
    target.sends_in_clear().then(|| {
        let (url, host) = (shown(&target.to_string()), shown(&target.host));
        format!(
            "The target is {url}: the clientSecret travels in clear text, and every machine between \
             here and {host} can read it"
        )
    })
}

/// Returns the line that tells how the upstream is reached.
pub(super) fn route(proxy_name: Option<&str>) -> String {
    match proxy_name {
        Some(name) => format!("The upstream is reached through the proxy {name}"),
        None => "The upstream is reached directly".to_owned(),
    }
}

/// Stops accepting and returns when no request is in flight, after `grace` at the latest, or at a
/// second signal.
fn stop(running: &Running, second_signal: &Receiver<i32>, grace: Duration) {
    running.stop();
    let deadline = Instant::now() + grace;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if running.wait_until_idle(left.min(SIGNAL_INTERVAL)) {
            return;
        }
        if let Ok(signal) = second_signal.try_recv() {
            log::warn!("Received {} again, stopping at once", signal_name(signal));
            return;
        }
        if left.is_zero() {
            break;
        }
    }
    let seconds = grace.as_secs_f32();
    log::warn!("Cutting off requests that are still in flight after {seconds} s");
    running.abort();
    running.wait_until_idle(ABORT_GRACE);
}
