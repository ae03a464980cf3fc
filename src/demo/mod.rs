//! The command `demo`: a simulated Flow in this process, so that the proxy can be tried without
//! credentials and without a network.
//!
//! Owns the simulated service: its loopback port, its three accounts, and the commands to try. It does
//! what clients need most: lists models, chat completions and responses (OpenAI) and messages (Anthropic),
//! all whole or streamed, with their usage and cost, tool calls, embeddings. It takes any model name, and
//! rejects as a LiteLLM does: a revoked token, a denied model, a limit, a spent budget. Out of scope: the
//! proxy in front of it. The main thread calls [`Demo::start`]; requests run on the worker threads of a [`Server`] of its
//! own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::json;

use crate::config::address::connectable;
use crate::config::secrets::{Configuration, Credential};
use crate::config::target::Target;
use crate::http1::body::BodyLength;
use crate::http1::encode::field_lines;
use crate::http1::headers::KnownHeader;
use crate::server::{
    ClientError, Exchange, Handler, Limits, OwnResponse, Progress, RejectedRequest, Running, Server,
};

mod accounts;
mod anthropic;
mod api;
mod error;
mod openai;
mod responses;
mod routes;
mod speech;
mod state;
mod token;
mod tools;
mod usage;

use accounts::{ACCOUNTS, Account, VIP_MODEL};
use api::{Body, Request, ResponseId};
use error::ApiError;
use routes::BASE_PATH;
use state::State;

/// The pause between two events of a stream: long enough to be seen, short enough not to bore.
const EVENT_INTERVAL: Duration = Duration::from_millis(40);

/// The only client is the proxy in the same process: generous, but bounded.
const LIMITS: Limits = Limits {
    workers: 256,
    max_connections: 16 * 1024,
    client_timeout: Duration::from_secs(60),
    max_body: Some(32 << 20),
};

const EVENT_STREAM_HEADERS: [(HeaderName, HeaderValue); 2] = [
    (
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    ),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
];

/// A running simulated Flow. It serves until the process ends. [`Running::stop`] is not needed, because
/// only the proxy in front knows its port.
pub struct Demo {
    running: Running,
}

impl Demo {
    /// Starts the simulated Flow on any free loopback port.
    ///
    /// # Errors
    /// What the system says: no loopback address, no port, or too few threads.
    pub fn start() -> io::Result<Demo> {
        let server = Server::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let running = server.start(Arc::new(SimulatedFlow::default()), LIMITS)?;
        Ok(Demo { running })
    }

    /// Returns the target of the proxy.
    pub fn target(&self) -> Target {
        let address = self.running.address();
        Target {
            https: false,
            authority: address.to_string(),
            host: address.ip().to_string(),
            port: address.port(),
            base_path: BASE_PATH.to_owned(),
        }
    }

    /// Returns the configurations of the proxy, one for each account.
    pub fn configurations(&self) -> Vec<Configuration> {
        let configuration = |account: &Account| Configuration {
            name: account.name.into(),
            credential: Arc::new(Credential::new(
                account.client_id,
                account.client_secret,
                account.tenant,
            )),
        };
        ACCOUNTS.iter().map(configuration).collect()
    }

    /// Returns what to try against a proxy that listens on `proxy`: its page, four commands for a POSIX
    /// shell, one line each, and what the log shows then. Ends with a line end.
    pub fn instructions(proxy: SocketAddr) -> String {
        let url = format!("http://{}", connectable(proxy));
        let post = "-H 'Content-Type: application/json' -d";
        let said = |text: &str| format!(r#""messages":[{{"role":"user","content":"{text}"}}]"#);
        let morning = said("Good morning, Flow!");
        let options = r#""stream":true,"stream_options":{"include_usage":true}"#;
        let chat = format!(r#"'{{"model":"demo-gpt",{options},{morning}}}'"#);
        let day = said("Bom dia, Flow!");
        let messages =
            format!(r#"'{{"model":"demo-claude","max_tokens":256,"stream":true,{day}}}'"#);
        let vip =
            format!(r#"'{{"model":"{VIP_MODEL}","stream":true,"input":"Hello again, Flow!"}}'"#);
        let many = format!(r#"'{{"model":"demo-gpt",{morning}}}'"#);
        let lines = [
            format!("See what the proxy does: {url}/-/"),
            "Try it from another terminal: no key is needed, the proxy signs each request.".into(),
            String::new(),
            format!("  curl -sN '{url}/v1/chat/completions' {post} {chat}"),
            format!("  curl -sN '{url}/v1/messages' {post} {messages}"),
            format!("  curl -sN '{url}/v1/responses' {post} {vip}"),
            format!(
                "  for n in 1 2 3 4 5 6 7 8; do curl -s '{url}/v1/chat/completions' -o /dev/null \
                 -w '%{{http_code}}\\n' {post} {many}; done"
            ),
            String::new(),
            "All succeed. In this order, the log shows what the simulated Flow rejects:".into(),
            "  2: 'demo-revoked' gets 401, is marked as failed, and 'demo-3' takes over;".into(),
            format!("  3: 'demo-1' may not use {VIP_MODEL}, and is passed over for this model;"),
            "  4: 'demo-1' is over its limit and rests for 5 s; repeated, its budget is spent."
                .into(),
        ];
        lines.join("\n") + "\n"
    }
}

/// The simulated service.
#[derive(Default)]
struct SimulatedFlow {
    /// The number of responses so far: each has a serial number.
    responses: AtomicU64,
    state: State,
}

impl Handler for SimulatedFlow {
    type Context = ();

    fn new_context(&self) {}

    fn handle(&self, (): &mut (), exchange: &mut Exchange<'_>) -> Progress {
        if let Err(error) = self.respond(exchange) {
            // The server closes the connection of a response that is not finished.
            log::debug!("simulated Flow: broken off: {error:?}");
        }
        Progress::Done
    }

    fn upstream_socket<'c>(&self, (): &'c ()) -> Option<&'c Weak<TcpStream>> {
        None
    }

    fn reject(&self, rejected: &RejectedRequest<'_>) -> OwnResponse {
        let body = json_body(&json!({"error": {"message": rejected.error.message}}));
        OwnResponse {
            fields: json_headers(&body),
            body,
        }
    }
}

impl SimulatedFlow {
    /// Serves one request: reads all of it, decides, sends the response.
    fn respond(&self, exchange: &mut Exchange<'_>) -> Result<(), ClientError> {
        let response = match read_body(exchange) {
            Ok(body) => routes::respond(&request(exchange, &body), self.response_id(), &self.state),
            Err(ClientError::Rejected(rejection)) => {
                let error = ApiError::new(rejection.status, rejection.message);
                routes::error_response(&request(exchange, &[]), error)
            }
            Err(error) => return Err(error),
        };
        let mut headers = response.headers;
        match response.body {
            Body::Json(body) => {
                let body = json_body(&body);
                headers.extend(json_headers(&body));
                send(exchange, response.status, &headers, &body)
            }
            Body::Events(events) => {
                headers.extend(EVENT_STREAM_HEADERS);
                stream(exchange, response.status, &headers, &events)
            }
        }
    }

    fn response_id(&self) -> ResponseId {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        ResponseId {
            serial: self.responses.fetch_add(1, Ordering::Relaxed) + 1,
            created: now.unwrap_or_default().as_secs(),
        }
    }
}

fn request<'a>(exchange: &'a Exchange<'_>, body: &'a [u8]) -> Request<'a> {
    let head = &exchange.head;
    Request {
        method: &head.method,
        target: &head.target,
        authorization: head.fields.value(KnownHeader::Authorization),
        body,
    }
}

/// Reads the whole body, also where the response does not depend on it: a client that still sends may
/// not read its response.
fn read_body(exchange: &mut Exchange<'_>) -> Result<Vec<u8>, ClientError> {
    let mut body = Vec::new();
    let mut piece = vec![0; 16 * 1024];
    loop {
        match exchange.read_body(&mut piece)? {
            0 => return Ok(body),
            length => body.extend_from_slice(&piece[..length]),
        }
    }
}

/// Writes the body of a response. The line end is for reading it in a terminal.
fn json_body(json: &serde_json::Value) -> Vec<u8> {
    format!("{json}\n").into_bytes()
}

fn json_headers(body: &[u8]) -> Vec<(HeaderName, HeaderValue)> {
    vec![
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
        (header::CONTENT_LENGTH, HeaderValue::from(body.len())),
    ]
}

fn send(
    exchange: &mut Exchange<'_>,
    status: StatusCode,
    headers: &[(HeaderName, HeaderValue)],
    body: &[u8],
) -> Result<(), ClientError> {
    let lines = field_lines(headers);
    if exchange.head.method == Method::HEAD {
        exchange.start(status, lines, BodyLength::None);
    } else {
        exchange.start(status, lines, BodyLength::Known(body.len() as u64));
        exchange.write(body);
    }
    exchange.finish()
}

/// Sends server-sent events, each by itself, with a pause before the next one. The last one says only
/// that this was all, and comes with the one before: clients like Codex do not wait for it.
fn stream(
    exchange: &mut Exchange<'_>,
    status: StatusCode,
    headers: &[(HeaderName, HeaderValue)],
    events: &[String],
) -> Result<(), ClientError> {
    exchange.start(status, field_lines(headers), BodyLength::Chunked);
    for (index, event) in events.iter().enumerate() {
        if index > 0 && index + 1 < events.len() {
            exchange.flush()?;
            exchange.call().before_blocking();
            thread::sleep(EVENT_INTERVAL);
        }
        exchange.write(event.as_bytes());
    }
    exchange.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The single-quoted URL of each curl command.
    fn urls(instructions: &str) -> Vec<&str> {
        let commands = instructions
            .lines()
            .filter_map(|line| line.split_once("curl "));
        commands
            .filter_map(|(_, command)| command.split('\'').nth(1))
            .collect()
    }

    #[test]
    fn the_commands_name_an_address_that_can_be_connected_to() {
        for (listening, url) in [
            ("127.0.0.1:8899", "http://127.0.0.1:8899/"),
            ("0.0.0.0:1", "http://127.0.0.1:1/"),
            ("[::]:2", "http://[::1]:2/"),
            ("192.168.0.7:3", "http://192.168.0.7:3/"),
        ] {
            let instructions = Demo::instructions(listening.parse().unwrap());
            let urls = urls(&instructions);
            assert_eq!(urls.len(), 4, "{instructions}");
            let page = format!("See what the proxy does: {url}-/\n");
            assert!(instructions.starts_with(&page), "{instructions}");
            assert!(urls.iter().all(|it| it.starts_with(url)), "{instructions}");
        }
    }

    #[test]
    fn the_target_is_what_its_own_url_is_parsed_to() {
        let demo = Demo::start().unwrap();
        let target = demo.target();
        assert_eq!(Target::parse(&target.to_string()), Ok(target));
        demo.running.stop();
    }

    #[test]
    fn all_configurations_but_the_revoked_one_are_accepted() {
        let demo = Demo::start().unwrap();
        let is_accepted = |configuration: &Configuration| {
            let field = configuration.credential.authorization().as_bytes();
            token::authenticate(Some(field), &ACCOUNTS).is_ok()
        };
        let configurations = demo.configurations();
        let verdicts: Vec<(&str, bool)> = configurations
            .iter()
            .map(|it| (&*it.name, is_accepted(it)))
            .collect();
        let expected = [("demo-1", true), ("demo-revoked", false), ("demo-3", true)];
        assert_eq!(verdicts, expected);
        demo.running.stop();
    }
}
