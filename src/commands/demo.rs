//! The command `demo`: the proxy in front of a simulated Flow in the same process.

use std::{fs, io};

use super::report::{Failure, print};
use super::serve::{self, Reloading, Service};
use super::signals::ServiceSignals;
use crate::cli::Invocation;
use crate::config::secrets::{Loaded, SecretsSource};
use crate::config::shown::shown_path;
use crate::demo::Demo;
use crate::upstream::proxy_env::ProxySettings;

/// Runs the proxy where the secrets are there, else the demo, after a line that says so.
pub(super) fn run_unless_secrets(invocation: Invocation) -> Result<(), Failure> {
    let SecretsSource::File(path) = &invocation.options.secrets else {
        return serve::run(invocation);
    };
    let is_missing = fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    if !is_missing {
        return serve::run(invocation);
    }
    let file = shown_path(path);
    // Without the line the demo still serves.
    let _ = print(&format!(
        "No {file} here: starting the demo. For the real thing: cp secrets.json.template {file}\n"
    ));
    run(invocation)
}

/// Starts the simulated Flow, runs the proxy against it until a signal stops it, and prints what to
/// try.
pub(super) fn run(mut invocation: Invocation) -> Result<(), Failure> {
    let signals = ServiceSignals::register()?;
    let demo = Demo::start()
        .map_err(|error| Failure::Running(format!("cannot start the demo: {error}")))?;
    invocation.options.target = demo.target();
    // Nothing of what it names is needed.
    invocation.options.ssl_cert_file = None;
    for setting in &mut invocation.settings {
        if setting.name == "target-url" {
            setting.value = demo.target().to_string();
        }
    }
    let loaded = Loaded {
        configurations: demo.configurations(),
        warnings: Vec::new(),
        is_watchable: false,
    };
    let service = Service {
        invocation: &invocation,
        // The target is in this process, whatever proxy the variables name.
        proxy_settings: ProxySettings::Direct,
        reloading: Reloading::Nothing,
    };
    service.run(loaded, signals, |address| {
        // Without its instructions the demo still serves.
        let _ = print(&Demo::instructions(address));
    })
}
