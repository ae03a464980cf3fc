//! The signals that stop the proxy or make it reload.

use std::sync::mpsc::{self, Receiver};
use std::thread;

use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use super::process::signal_name;
use super::report::Failure;
use super::terminal::Terminal;

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SignalRequest {
    /// Stop, with the signal that asks for it.
    Stop(i32),
    Reload,
    /// As nginx, for recipes of logrotate.
    ReopenLog,
    /// Nothing: where it is not handled, the signal would end the process.
    Ignore,
}

/// The signals that have arrived since [`ServiceSignals::register`].
pub(super) struct ServiceSignals {
    signals: Signals,
    /// The terminal that the proxy was started in.
    terminal: Option<Terminal>,
}

impl ServiceSignals {
    /// Handles the signals from now on. Until they are asked for, they are kept.
    pub(super) fn register() -> Result<ServiceSignals, Failure> {
        let terminal = Terminal::find();
        let signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM])
            .map_err(|error| Failure::Running(format!("cannot handle signals: {error}")))?;
        Ok(ServiceSignals { signals, terminal })
    }

    /// Waits for the next signal.
    pub(super) fn wait(&mut self) -> SignalRequest {
        let signal = self.signals.forever().next();
        // The iterator ends only if it is closed, and nothing closes it.
        self.request_of(signal.unwrap_or(SIGTERM))
    }

    /// Returns the signal that asks to stop, if one has arrived. Drops all others.
    pub(super) fn try_stop(&mut self) -> Option<i32> {
        let arrived: Vec<i32> = self.signals.pending().collect();
        arrived
            .into_iter()
            .find(|&signal| matches!(self.request_of(signal), SignalRequest::Stop(_)))
    }

    /// Returns a channel for the next signal that asks to stop. A thread waits for it, because the main
    /// thread waits for requests to finish. SIGHUP does not count: where a terminal is closed, the
    /// kernel and the shell send one each.
    pub(super) fn receive_second(mut self) -> Receiver<i32> {
        let (sender, receiver) = mpsc::channel();
        let spawned = thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                let mut signals = self.signals.forever();
                if let Some(signal) = signals.find(|signal| [SIGINT, SIGTERM].contains(signal)) {
                    // Fails where the main thread has finished meanwhile.
                    let _ = sender.send(signal);
                }
            });
        if let Err(error) = spawned {
            log::warn!("A second signal will not be noticed: {error}");
        }
        receiver
    }

    fn request_of(&self, signal: i32) -> SignalRequest {
        match signal {
            SIGUSR1 => SignalRequest::ReopenLog,
            SIGUSR2 | SIGALRM => SignalRequest::Ignore,
            SIGHUP if !self.terminal.is_some_and(Terminal::is_gone) => SignalRequest::Reload,
            _ => SignalRequest::Stop(signal),
        }
    }
}

/// Returns why the proxy stops, for its log.
pub(super) fn stop_reason(signal: i32) -> String {
    match signal {
        SIGHUP => "Received SIGHUP, and the terminal is gone".to_owned(),
        other => format!("Received {}", signal_name(other)),
    }
}
