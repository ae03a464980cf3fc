//! `check --online`: whether the target resolves, connects, verifies and accepts each credential.

use std::collections::HashSet;
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::Instant;

use http::Method;

use crate::config::options::Options;
use crate::config::secrets::{Configuration, Credential};
use crate::config::target::Target;
use crate::http1::response::ResponseHead;
use crate::upstream::connection::{Upstream, UpstreamConnection, UpstreamError};
use crate::upstream::proxy_env::ProxySettings;
use crate::upstream::request::{Request, RequestBody};

/// The outcome of one step: a line to print, or what is wrong and what to do about it.
pub type Step = Result<String, String>;

/// The steps, each done when it is asked for.
///
/// # Errors
/// The options do not allow to ask at all: the CA file cannot be used.
pub fn check<'a>(
    options: &'a Options,
    configurations: &'a [Configuration],
) -> Result<impl Iterator<Item = Step> + 'a, String> {
    let proxy_settings = ProxySettings::FromEnvironment(options.target.clone());
    let factory = Upstream::new(
        &options.target,
        options.upstream_timeout,
        options.ca_file.as_deref(),
        &proxy_settings,
    )?;
    let mut upstream = UpstreamConnection::new(&factory);
    let mut seen: HashSet<Arc<Credential>> = HashSet::new();
    let each = configurations
        .iter()
        .filter(move |one| seen.insert(Arc::clone(&one.credential)))
        .map(move |one| ask(&mut upstream, &options.target, one));
    let proxy = proxy_settings.proxy_name()?;
    Ok(std::iter::once_with(|| resolve(&options.target, proxy)).chain(each))
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

/// One GET of the models, signed with the credential of `one`.
fn ask(upstream: &mut UpstreamConnection, target: &Target, one: &Configuration) -> Step {
    let name = &one.name;
    let path = format!("{}/v1/models", target.base_path);
    let fields: [&[u8]; 5] = [
        b"host: ",
        target.authority.as_bytes(),
        b"\r\nauthorization: ",
        one.credential.authorization().as_bytes(),
        b"\r\naccept: application/json\r\n",
    ];
    let started = Instant::now();
    let answered = loop {
        let request = Request {
            method: &Method::GET,
            target: path.as_bytes(),
            fields: fields.into_iter(),
            body: RequestBody::None,
        };
        let sent = upstream.send(request, None);
        match sent.and_then(|()| upstream.receive(&Method::GET)) {
            Ok(None) => {}
            Ok(Some(answer)) => break Ok(answer),
            Err(failure) => break Err(failure),
        }
    };
    upstream.end();
    let took = started.elapsed().as_millis();
    match answered {
        Ok(answer) => judge(name, &answer, took),
        Err(UpstreamError::TimedOut) => {
            Err(format!("'{name}': no answer after {took} ms: try again"))
        }
        Err(UpstreamError::Unreachable(why)) => Err(format!(
            "'{name}': {} cannot be reached: {why}. Check the network and --target-url; behind a \
             proxy that opens TLS give its root with --ca-file; set HTTPS_PROXY if one is needed",
            target.authority
        )),
        Err(UpstreamError::Broke(why)) => Err(format!(
            "'{name}': {} sent no valid answer: {why}. Is --target-url right?",
            target.authority
        )),
        Err(UpstreamError::NoDescriptors) => Err(format!("'{name}': no file descriptors left")),
        Err(UpstreamError::ClientClosed) => Err(format!("'{name}': interrupted")),
    }
}

fn judge(name: &str, answer: &ResponseHead, took: u128) -> Step {
    let status = answer.status.as_u16();
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
