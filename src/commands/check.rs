//! The command `check`: validates the configuration and prints it. With `--online` it also asks the
//! target: whether it resolves, connects, verifies and accepts each credential.

use std::collections::HashSet;
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::Instant;

use http::{Method, StatusCode};

use super::report::{Failure, print, print_problem, print_warning};
use crate::cli::{Invocation, Setting};
use crate::config::options::Options;
use crate::config::secrets::{self, Configuration, Credential};
use crate::config::target::Target;
use crate::upstream::connection::UpstreamConnection;
use crate::upstream::connector::Upstream;
use crate::upstream::error::UpstreamError;
use crate::upstream::proxy_env::ProxySettings;
use crate::upstream::request::{Request, RequestBody};

/// Prints the configuration, or reports every problem of it.
pub(super) fn run(invocation: &Invocation, online: bool) -> Result<(), Failure> {
    let options = &invocation.options;
    let mut problems = Vec::new();
    let loaded = secrets::load(&options.secrets_file)
        .map_err(|errors| problems.extend_from_slice(errors.problems()))
        .ok();
    let proxy_settings = ProxySettings::FromEnvironment(options.target.clone());
    let upstream = Upstream::new(
        &options.target,
        options.upstream_timeout,
        options.ca_file.as_deref(),
        &proxy_settings,
    )
    .map_err(|problem| problems.push(problem))
    .ok();

    let secrets_warnings = loaded.iter().flat_map(|loaded| &loaded.warnings);
    for warning in invocation.warnings.iter().chain(secrets_warnings) {
        print_warning(warning);
    }
    let mut text = settings_text(&invocation.settings);
    if let Some(loaded) = &loaded {
        text += &configurations_text(&loaded.configurations);
    }
    let printed = print(&text);

    match (loaded, upstream) {
        (Some(loaded), Some(upstream)) if online => {
            let proxy = proxy_settings.proxy_name();
            let proxy = proxy.map_err(Failure::configuration)?;
            ask_target(options, &upstream, proxy, &loaded.configurations)
        }
        (Some(_), Some(_)) => printed,
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

/// The outcome of one step: a line to print, or what is wrong and what to do about it.
type Step = Result<String, String>;

/// Asks the target with each credential and prints the outcome of each step as soon as it is known.
fn ask_target(
    options: &Options,
    upstream: &Arc<Upstream>,
    proxy: Option<String>,
    configurations: &[Configuration],
) -> Result<(), Failure> {
    let mut connection = UpstreamConnection::new(upstream);
    let mut outcome = Ok(());
    let mut show = |step: Step| match step {
        Ok(line) => {
            // The exit code is about the target, not about standard output.
            let _ = print(&format!("{line}\n"));
        }
        Err(problem) => {
            print_problem(&problem);
            outcome = Err(Failure::Reported);
        }
    };
    show(resolve(&options.target, proxy));
    let mut done: HashSet<&Credential> = HashSet::new();
    for configuration in configurations {
        // Entries of the same identity share a credential: one request is enough.
        if done.insert(&configuration.credential) {
            show(ask(&mut connection, &options.target, configuration));
        }
    }
    outcome
}

fn resolve(target: &Target, proxy: Option<String>) -> Step {
    let (host, port) = (target.host.as_str(), target.port);
    if let Some(proxy) = proxy {
        return Ok(format!(
            "{host}: reached through the proxy {proxy}, which resolves it"
        ));
    }
    let started = Instant::now();
    match (host, port).to_socket_addrs() {
        Ok(addresses) => {
            let addresses: Vec<_> = addresses.map(|address| address.ip().to_string()).collect();
            let took = started.elapsed().as_millis();
            Ok(format!(
                "{host}: resolves to {} in {took} ms",
                addresses.join(", ")
            ))
        }
        Err(error) => Err(format!(
            "{host} does not resolve ({error}): check --target-url, the network, VPN and DNS, \
             or set HTTPS_PROXY"
        )),
    }
}

/// Asks for the list of models with the credential of `configuration`.
fn ask(
    connection: &mut UpstreamConnection,
    target: &Target,
    configuration: &Configuration,
) -> Step {
    let started = Instant::now();
    let status = get_models(connection, target, &configuration.credential);
    let took = started.elapsed().as_millis();
    let name = &configuration.name;
    match status {
        Ok(status) => judge(name, status, took),
        Err(UpstreamError::TimedOut) => {
            Err(format!("'{name}': no response after {took} ms: try again"))
        }
        Err(UpstreamError::Unreachable(why)) => Err(format!(
            "'{name}': {} cannot be reached: {why}. Check the network and --target-url; behind a \
             proxy that opens TLS give its root with --ca-file; set HTTPS_PROXY if one is needed",
            target.authority
        )),
        Err(UpstreamError::Broke(why)) => Err(format!(
            "'{name}': {} sent no valid response: {why}. Is --target-url right?",
            target.authority
        )),
        Err(UpstreamError::NoDescriptors) => Err(format!("'{name}': no file descriptors left")),
        Err(UpstreamError::ClientClosed) => Err(format!("'{name}': interrupted")),
    }
}

fn get_models(
    connection: &mut UpstreamConnection,
    target: &Target,
    credential: &Credential,
) -> Result<StatusCode, UpstreamError> {
    let path = format!("{}/v1/models", target.base_path);
    let fields: [&[u8]; 5] = [
        b"host: ",
        target.authority.as_bytes(),
        b"\r\nauthorization: ",
        credential.authorization().as_bytes(),
        b"\r\naccept: application/json\r\n",
    ];
    let received = loop {
        let request = Request {
            method: &Method::GET,
            target: path.as_bytes(),
            fields: fields.into_iter(),
            body: RequestBody::None,
        };
        let sent = connection.send(request, None);
        match sent.and_then(|_| connection.receive(&Method::GET)) {
            // The idle connection was closed meanwhile: the request goes out on a new one.
            Ok(None) => {}
            Ok(Some(response)) => break Ok(response.status),
            Err(error) => break Err(error),
        }
    };
    connection.end_exchange();
    received
}

fn judge(name: &str, status: StatusCode, took: u128) -> Step {
    let status = status.as_u16();
    match status {
        200..=299 => Ok(format!("'{name}': accepted, {status} in {took} ms")),
        401 | 403 => Err(format!(
            "'{name}': rejected, {status} in {took} ms: check clientId, clientSecret and tenant \
             of this entry, and whether the credential has expired or was revoked"
        )),
        429 => Ok(format!(
            "'{name}': accepted but rate limited, {status} in {took} ms"
        )),
        404 => Err(format!(
            "'{name}': {status} in {took} ms: there is no /v1/models there; is the path of \
             --target-url right?"
        )),
        _ => Err(format!(
            "'{name}': the upstream answered {status} in {took} ms: try again later"
        )),
    }
}
