//! The command `demo`: a simulated Flow in this process, so that the proxy can be tried without
//! credentials and without a network.
//!
//! Owns the simulated service: its port on loopback, its three accounts, and the commands to try
//! it with. What it can do is what clients of the real one do most: list models, chat (OpenAI),
//! messages (Anthropic), both whole or streamed, tool calls, embeddings. Any model name will do.
//! Out of scope: the proxy in front of it. [`Demo::start`] is called by the main thread; requests
//! are answered on the worker threads of a [`Server`] of its own.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::json;

use crate::config::secrets::{Configuration, Credential};
use crate::config::target::Target;
use crate::http1::encode::{ResponseLength, field_lines};
use crate::http1::headers::KnownHeader;
use crate::net::wait;
use crate::server::{
    ClientError, Exchange, Handler, Limits, OwnResponse, Progress, RejectedRequest, Running, Server,
};

mod anthropic;
mod fault;
mod openai;
mod routes;
mod speech;
mod token;

use fault::Fault;
use routes::{Answer, Asked, BASE_PATH, ResponseId};
use token::{Account, Standing};

/// Whom the simulated Flow knows. The second one is turned away, so that a failover can be seen.
const ACCOUNTS: [Account; 3] = [
    Account {
        name: "demo-1",
        client_id: "demo-client-1",
        client_secret: "demo-secret-1-not-real",
        tenant: "demo-tenant",
        standing: Standing::Good,
    },
    Account {
        name: "demo-revoked",
        client_id: "demo-client-2",
        client_secret: "demo-secret-2-not-real",
        tenant: "demo-tenant",
        standing: Standing::Revoked,
    },
    Account {
        name: "demo-3",
        client_id: "demo-client-3",
        client_secret: "demo-secret-3-not-real",
        tenant: "demo-tenant",
        standing: Standing::Good,
    },
];

/// Between two events of a stream: slow enough to be seen, fast enough not to bore.
const EVENT_INTERVAL: Duration = Duration::from_millis(40);

/// A client is the proxy on the same machine: generous, but not without end.
const LIMITS: Limits = Limits {
    workers: 256,
    max_connections: 16 * 1024,
    client_timeout: Duration::from_secs(60),
    max_body: Some(32 << 20),
};

/// A running simulated Flow. It serves until the process ends; [`Running::stop`] is not needed,
/// since nobody but the proxy in front knows its port.
pub struct Demo {
    running: Running,
}

impl Demo {
    /// Starts the simulated Flow on any free loopback port.
    ///
    /// # Errors
    /// What the system says: no loopback address, no port, not so many threads.
    pub fn start() -> io::Result<Demo> {
        let server = Server::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let running = server.start(Arc::new(Flow::default()), LIMITS)?;
        Ok(Demo { running })
    }

    /// Where the proxy has to forward to.
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

    /// What the proxy has to sign with: three configurations, the second of which is revoked.
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

    /// What to try against a proxy that listens on `proxy`: three commands for a POSIX shell, a
    /// line each, and what the log shows then. Ends with a line end.
    pub fn instructions(proxy: SocketAddr) -> String {
        let url = format!("http://{}", reachable(proxy));
        let post = "-H 'Content-Type: application/json' -d";
        let chat = r#"{"model":"demo-gpt","stream":true,"messages":[{"role":"user","content":"Good morning, Flow!"}]}"#;
        let message = r#"{"model":"demo-claude","max_tokens":256,"stream":true,"messages":[{"role":"user","content":"Bom dia, Flow!"}]}"#;
        let lines = [
            "Try it from another terminal: no key is needed, the proxy signs each request.".into(),
            String::new(),
            format!("  curl -s '{url}/v1/models'"),
            format!("  curl -sN '{url}/v1/chat/completions' {post} '{chat}'"),
            format!("  curl -sN '{url}/v1/messages' {post} '{message}'"),
            String::new(),
            "The log shows whose turn it is, and at the second command a failover: the simulated"
                .into(),
            "Flow answers 401 to 'demo-revoked', and the proxy goes on with 'demo-3'.".into(),
        ];
        lines.join("\n") + "\n"
    }
}

/// An address to connect to: loopback where the proxy listens on all addresses.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// The simulated service.
#[derive(Default)]
struct Flow {
    /// How many requests were answered: answers have ids.
    answered: AtomicU64,
}

impl Handler for Flow {
    type Context = ();

    fn new_context(&self) {}

    fn handle(&self, (): &mut (), exchange: &mut Exchange<'_>) -> Progress {
        if let Err(fault) = self.answer(exchange) {
            // The server closes the connection of an answer that is not finished.
            log::debug!("simulated Flow: broken off: {fault:?}");
        }
        Progress::Done
    }

    fn upstream_socket<'c>(&self, (): &'c ()) -> Option<&'c Weak<TcpStream>> {
        None
    }

    fn reject(&self, rejected: &RejectedRequest<'_>) -> OwnResponse {
        let body = body_of(&json!({"error": {"message": rejected.error.message}}));
        OwnResponse {
            fields: fields_of_json(&body),
            body,
        }
    }
}

impl Flow {
    /// This is the core: read all, decide, send.
    fn answer(&self, exchange: &mut Exchange<'_>) -> Result<(), ClientError> {
        let answer = match read_body(exchange) {
            Ok(body) => routes::answer(&asked(exchange, &body), self.response_id()),
            Err(ClientError::Rejected(error)) => {
                let fault = Fault::new(error.status, error.message);
                routes::error(&asked(exchange, &[]), &fault)
            }
            Err(gone) => return Err(gone),
        };
        match answer {
            Answer::Whole {
                status,
                allow,
                body,
            } => {
                let body = body_of(&body);
                let mut fields = fields_of_json(&body);
                fields.extend(allow.map(|allow| (header::ALLOW, HeaderValue::from_static(allow))));
                send(exchange, status, fields, &body)
            }
            Answer::Events(events) => stream(exchange, &events),
        }
    }

    fn response_id(&self) -> ResponseId {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        ResponseId {
            serial: self.answered.fetch_add(1, Ordering::Relaxed) + 1,
            created: now.unwrap_or_default().as_secs(),
        }
    }
}

fn asked<'a>(exchange: &'a Exchange<'_>, body: &'a [u8]) -> Asked<'a> {
    let head = &exchange.head;
    Asked {
        method: &head.method,
        target: &head.target,
        authorization: head.fields.value(KnownHeader::Authorization),
        body,
    }
}

/// The whole body, also before a error: a client that still sends may not read its answer.
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

/// The line end is for those who read the answer in a terminal.
fn body_of(json: &serde_json::Value) -> Vec<u8> {
    format!("{json}\n").into_bytes()
}

fn fields_of_json(body: &[u8]) -> Vec<(HeaderName, HeaderValue)> {
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
    fields: Vec<(HeaderName, HeaderValue)>,
    body: &[u8],
) -> Result<(), ClientError> {
    let fields = field_lines(&fields);
    if exchange.head.method == Method::HEAD {
        exchange.start(status, fields, ResponseLength::None);
    } else {
        exchange.start(status, fields, ResponseLength::Length(body.len() as u64));
        exchange.write(body);
    }
    exchange.finish()
}

/// Sends server-sent events, each on its own and in its own time.
fn stream(exchange: &mut Exchange<'_>, events: &[String]) -> Result<(), ClientError> {
    let fields = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream; charset=utf-8"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    let fields = field_lines(&fields);
    exchange.start(StatusCode::OK, fields, ResponseLength::Unknown);
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            wait::before_blocking();
            thread::sleep(EVENT_INTERVAL);
        }
        exchange.write(event.as_bytes());
        exchange.flush()?;
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
            .filter(|line| line.trim_start().starts_with("curl "));
        commands
            .filter_map(|line| line.split('\'').nth(1))
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
            assert_eq!(urls.len(), 3, "{instructions}");
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
    fn all_configurations_but_the_revoked_one_are_let_in() {
        let demo = Demo::start().unwrap();
        let let_in = |configuration: &Configuration| {
            let field = configuration.credential.authorization().as_bytes();
            token::account(Some(field), &ACCOUNTS).is_ok()
        };
        let configurations = demo.configurations();
        let verdicts: Vec<(&str, bool)> = configurations
            .iter()
            .map(|it| (&*it.name, let_in(it)))
            .collect();
        let expected = [("demo-1", true), ("demo-revoked", false), ("demo-3", true)];
        assert_eq!(verdicts, expected);
        demo.running.stop();
    }
}
