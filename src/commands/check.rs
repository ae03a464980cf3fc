//! The command `check`: validates the configuration and prints it. With `--online` it also asks the
//! target (`online`).

use std::time::Duration;

use super::online;
use super::report::{Failure, print, print_warning};
use super::serve::{clear_text_warning, route};
use crate::cli::{Invocation, Setting};
use crate::config::file::Pipes;
use crate::config::secrets::{self, Configuration};
use crate::upstream::connector::Upstream;
use crate::upstream::proxy_env::ProxySettings;

/// How long a pipe with the secrets is waited for: a secret manager may ask its user first.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints the configuration, or reports every problem of it.
pub(super) fn run(invocation: &Invocation, online: bool) -> Result<(), Failure> {
    let options = &invocation.options;
    let mut problems = Vec::new();
    let loaded = secrets::load(&options.secrets, Pipes::WaitFor(PATIENCE))
        .map_err(|errors| problems.extend_from_slice(errors.problems()))
        .ok();
    let (target, variables) = (options.target.clone(), options.proxy_variables.clone());
    let proxy_settings = ProxySettings::FromVariables(target, variables);
    let upstream = Upstream::new(
        &options.target,
        options.upstream_timeout,
        &options.root_files(),
        &proxy_settings,
    )
    .map_err(|problem| problems.push(problem))
    .ok();

    let secrets_warnings = loaded.iter().flat_map(|loaded| &loaded.warnings);
    let warnings = invocation.warnings.iter().chain(secrets_warnings);
    for warning in warnings.chain(&clear_text_warning(options)) {
        print_warning(warning);
    }
    let proxy = proxy_settings.proxy_name();
    let mut text = settings_text(&invocation.settings);
    if let Some(loaded) = &loaded {
        text += &configurations_text(&loaded.configurations);
    }
    if let Ok(proxy) = &proxy {
        text += &format!("{}\n", route(proxy.as_deref()));
    }
    let printed = print(&text);

    match (loaded, upstream, proxy) {
        (Some(loaded), Some(upstream), Ok(proxy)) => {
            printed?;
            if online {
                online::run(&options.target, &upstream, proxy, &loaded.configurations)?;
            }
            Ok(())
        }
        _ => Err(Failure::Configuration(problems)),
    }
}

fn settings_text(settings: &[Setting]) -> String {
    let width = settings.iter().map(|setting| setting.name.len()).max();
    let width = width.unwrap_or_default();
    let line = |setting: &Setting| {
        let (name, value, source) = (setting.name, &setting.value, setting.source);
        format!("{name:width$} = {value}  ({source})\n")
    };
    settings.iter().map(line).collect()
}

fn configurations_text(configurations: &[Configuration]) -> String {
    let numbered = configurations.iter().enumerate();
    numbered
        .map(|(index, one)| format!("configuration {} = '{}'\n", index + 1, one.name))
        .collect()
}
