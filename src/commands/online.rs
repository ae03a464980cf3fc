//! What `check --online` asks of the target: whether it resolves, connects, verifies, accepts each
//! credential, and which models it has for it.

use std::collections::HashSet;
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::Instant;

use http::{Method, StatusCode};
use serde::Deserialize;

use super::report::{Failure, print, print_problem};
use crate::config::address::localhost_addresses;
use crate::config::secrets::{Configuration, Credential};
use crate::config::shown::shown;
use crate::config::target::Target;
use crate::net::wait::CallContext;
use crate::upstream::connection::UpstreamConnection;
use crate::upstream::connection::open::BodyRead;
use crate::upstream::connector::Upstream;
use crate::upstream::error::UpstreamError;
use crate::upstream::request::{Request, RequestBody};

/// How many models are printed by name.
const MAX_MODELS: usize = 20;
/// The most characters of a model's name that are printed.
const MAX_MODEL_CHARS: usize = 64;
/// The largest list of models that is read, in bytes.
const MAX_LIST_BYTES: usize = 4 << 20;

/// The outcome of one step: lines to print, or what is wrong and what to do about it.
type Step = Result<String, String>;

/// Asks the target with each credential and prints the outcome of each step as soon as it is known.
pub(super) fn run(
    target: &Target,
    upstream: &Arc<Upstream>,
    proxy: Option<String>,
    configurations: &[Configuration],
) -> Result<(), Failure> {
    let mut connection = UpstreamConnection::new(upstream);
    let mut outcome = Ok(());
    let mut show = |step: Step| match step {
        Ok(lines) => print(&format!("{lines}\n")),
        Err(problem) => {
            print_problem(&problem);
            outcome = Err(Failure::Reported);
            Ok(())
        }
    };
    show(resolve(target, proxy))?;
    let mut done: HashSet<&Credential> = HashSet::new();
    for configuration in configurations {
        // Entries of the same identity share a credential: one request is enough.
        if done.insert(&configuration.credential) {
            show(ask(&mut connection, target, configuration))?;
        }
    }
    outcome
}

fn resolve(target: &Target, proxy: Option<String>) -> Step {
    let host = shown(&target.host);
    if let Some(proxy) = proxy {
        return Ok(format!(
            "{host}: reached through the proxy {proxy}, which resolves it"
        ));
    }
    let started = Instant::now();
    let resolved = match localhost_addresses(&target.host, target.port) {
        Some(addresses) => Ok(addresses.into_iter()),
        None => (target.host.as_str(), target.port).to_socket_addrs(),
    };
    match resolved {
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
    let response = get_models(connection, target, &configuration.credential);
    let took = started.elapsed().as_millis();
    let name = &configuration.name;
    match response {
        Ok((status, list)) => {
            let line = judge(name, status, took)?;
            if status.is_success() {
                Ok(format!("{line}\n{}", models_line(name, list.as_deref())))
            } else {
                Ok(line)
            }
        }
        Err(UpstreamError::TimedOut) => {
            Err(format!("'{name}': no response after {took} ms: try again"))
        }
        Err(UpstreamError::Unreachable(why)) => Err(format!(
            "'{name}': {} cannot be reached: {why}. Check the network and --target-url; behind a \
             proxy that opens TLS give its root with --ca-file; set HTTPS_PROXY if one is needed",
            shown(&target.authority)
        )),
        Err(UpstreamError::Broke(why)) => Err(format!(
            "'{name}': {} sent no valid response: {why}. Is --target-url right?",
            shown(&target.authority)
        )),
        Err(UpstreamError::NoDescriptors) => Err(format!("'{name}': no file descriptors left")),
        Err(UpstreamError::ClientClosed) => Err(format!("'{name}': interrupted")),
    }
}

/// Returns the status, and the body if it could be read.
fn get_models(
    connection: &mut UpstreamConnection,
    target: &Target,
    credential: &Credential,
) -> Result<(StatusCode, Option<Vec<u8>>), UpstreamError> {
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
        let sent = connection.send(request, CallContext::UNWATCHED);
        match sent.and_then(|_| connection.receive(&Method::GET, CallContext::UNWATCHED)) {
            // The idle connection was closed meanwhile: the request goes out on a new one.
            Ok(None) => {}
            Ok(Some(response)) => break Ok((response.status, read_body(connection))),
            Err(error) => break Err(error),
        }
    };
    connection.end_exchange();
    received
}

/// Returns the body; `None` if it is too long or breaks off.
fn read_body(connection: &mut UpstreamConnection) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    let mut piece = vec![0; 16 << 10];
    loop {
        match connection.read(&mut piece, CallContext::UNWATCHED) {
            Ok(BodyRead::Data(length)) if body.len() + length <= MAX_LIST_BYTES => {
                body.extend_from_slice(&piece[..length]);
            }
            Ok(BodyRead::End) => return Some(body),
            _ => return None,
        }
    }
}

/// The part of a list of models that is read.
#[derive(Deserialize)]
struct ModelList {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
}

/// Returns the line about the models of a credential.
fn models_line(name: &str, list: Option<&[u8]>) -> String {
    let list: Option<ModelList> = list.and_then(|list| serde_json::from_slice(list).ok());
    let Some(ModelList { data }) = list else {
        return format!("'{name}': its list of models cannot be read");
    };
    let shown: Vec<String> = data.iter().take(MAX_MODELS).map(escaped_id).collect();
    match data.len() {
        0 => format!("'{name}': may use no model"),
        1..=MAX_MODELS => format!("'{name}': may use {}", shown.join(", ")),
        count => {
            let more = count - MAX_MODELS;
            format!("'{name}': may use {} and {more} more", shown.join(", "))
        }
    }
}

/// Returns the name in printable ASCII.
fn escaped_id(model: &Model) -> String {
    let mut text = String::new();
    for char in model.id.chars().take(MAX_MODEL_CHARS) {
        match char {
            '\\' => text.push_str("\\\\"),
            ' '..='~' => text.push(char),
            _ => text.extend(char.escape_default()),
        }
    }
    if model.id.chars().nth(MAX_MODEL_CHARS).is_some() {
        text.push_str("...");
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    fn line(ids: &[String]) -> String {
        let data: Vec<_> = ids.iter().map(|id| serde_json::json!({"id": id})).collect();
        let list = serde_json::json!({"object": "list", "data": data});
        models_line("one", Some(list.to_string().as_bytes()))
    }

    #[test]
    fn the_first_20_models_are_listed_and_the_rest_is_counted() {
        let ids: Vec<String> = (1..=22).map(|number| format!("m{number}")).collect();
        assert_eq!(line(&ids[..2]), "'one': may use m1, m2");
        assert!(line(&ids[..20]).ends_with(", m20"));
        assert!(line(&ids).ends_with(", m20 and 2 more"));
        assert_eq!(line(&[]), "'one': may use no model");
    }

    #[test]
    fn names_are_printable_ascii_and_cut() {
        let ids = ["a\n\u{1b}[31m\u{e9}\\".to_owned(), "x".repeat(65)];
        let expected = format!(
            "'one': may use a\\n\\u{{1b}}[31m\\u{{e9}}\\\\, {}...",
            "x".repeat(64)
        );
        assert_eq!(line(&ids), expected);
    }

    #[test]
    fn what_is_no_list_is_told() {
        for list in [
            None,
            Some(&b"<html>"[..]),
            Some(b"{\"data\":1}"),
            Some(b"[]"),
        ] {
            assert_eq!(
                models_line("one", list),
                "'one': its list of models cannot be read"
            );
        }
    }
}
