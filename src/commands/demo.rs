//! The command `demo`: the proxy in front of a simulated Flow in the same process.

use super::report::{Failure, print};
use super::serve::{Reloading, Service};
use super::signals::ServiceSignals;
use crate::cli::Invocation;
use crate::config::secrets::Loaded;
use crate::demo::Demo;
use crate::upstream::proxy_env::ProxySettings;

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
        loaded: &loaded,
        // The target is in this process, whatever proxy the variables name.
        proxy_settings: ProxySettings::Direct,
        reloading: Reloading::Nothing,
    };
    service.run(signals, |address| {
        // Without its instructions the demo still serves.
        let _ = print(&Demo::instructions(address));
    })
}
