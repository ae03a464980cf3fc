//! The upstream: the only file that names ureq's client API.
//!
//! Each worker has an [`Upstream`] with an agent and at most one idle connection of its own. All of
//! them share the TLS configuration, the roots and the resumable sessions.

use std::env;
use std::io::{self, Read};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, StatusCode, Version, header};
use ureq::config::Config;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector};
use ureq::{Agent, BodyReader, Proxy, SendBody};

use crate::target::Target;

use super::socks::Socks;
use super::tls::Tls;
use super::transport::{Fault, LateResolver, Mode, Noting, Progress, Tcp, Wire};

/// Resolving, connecting and the TLS handshake together must take no longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection is kept. Most load balancers close theirs after 60 s.
const MAX_IDLE_AGE: Duration = Duration::from_secs(50);
/// Bytes of a connection's buffers. An answer's head must fit in the input buffer.
const BUFFER: usize = 16 * 1024;
/// A field line that a connection's output buffer has no room for goes on a connection with larger
/// ones. Room for the rest of the line is left.
const LONG_LINE: usize = BUFFER - 512;
/// The buffers of such a connection: larger than any head that the server accepts.
const LONG_BUFFER: usize = 80 * 1024;

/// Makes the upstreams of all workers alike.
pub struct UpstreamFactory {
    config: Config,
    long_config: Config,
    tls: Tls,
}

/// A worker's way to the upstream.
pub struct Upstream {
    agent: Agent,
    wire: Arc<Wire>,
    factory: Arc<UpstreamFactory>,
}

/// Whether a proxy lies on the way to the upstream.
#[derive(Debug, Clone)]
pub enum Way {
    /// None, whatever the environment says.
    Direct,
    /// The one that the environment names for this target, if any.
    FromEnvironment(Target),
}

/// The variables that can name a proxy, as the HTTP client reads them: the first one counts.
const PROXY_VARIABLES: [&str; 6] = [
    "ALL_PROXY",
    "all_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
];

impl Way {
    fn proxy(&self) -> Result<Option<Proxy>, String> {
        let Way::FromEnvironment(target) = self else {
            return Ok(None);
        };
        for name in PROXY_VARIABLES {
            // The value is not quoted: it may hold a password.
            match env::var(name) {
                Ok(value) if value.to_ascii_lowercase().starts_with("socks4") => {
                    return Err(format!(
                        "{name}: SOCKS version 4 is not supported, use socks5://"
                    ));
                }
                Ok(value) if !value.is_empty() && Proxy::new(&value).is_err() => {
                    return Err(format!(
                        "{name}: its value is not a proxy's URL (http://host:port, socks5://host:port)"
                    ));
                }
                _ => {}
            }
        }
        let uri = target.to_string().parse::<http::Uri>().unwrap_or_default();
        Ok(Proxy::try_from_env().filter(|proxy| !proxy.is_no_proxy(&uri)))
    }

    /// The proxy on the way as `host:port`, if there is one.
    ///
    /// # Errors
    /// The environment names one that makes no sense.
    pub fn proxy_name(&self) -> Result<Option<String>, String> {
        let proxy = self.proxy()?;
        Ok(proxy.map(|proxy| format!("{}:{}", proxy.host(), proxy.port())))
    }
}

/// The body of a request.
pub enum RequestBody<'a> {
    /// No body, and no Content-Length.
    None,
    /// All of it.
    Held(&'a [u8]),
    /// It comes from a reader; its length is in the request's Content-Length, or else it is chunked.
    Streamed(&'a mut dyn Read),
}

/// The upstream's answer, with its body still to be read.
pub struct Answer {
    pub status: StatusCode,
    pub fields: HeaderMap,
    reader: BodyReader<'static>,
}

/// A piece of an answer's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    Data(usize),
    /// Nothing is there at the moment. Only without waiting.
    NotYet,
    End,
}

/// Why there is no answer, or no more of it.
#[derive(Debug)]
pub enum Failure {
    /// The client left while we were waiting for the upstream.
    ClientLeft,
    /// The upstream was silent for too long.
    TimedOut,
    /// No connection: DNS, TCP, TLS, a proxy in between.
    Unreachable(String),
    /// No connection, because this process may open no more files.
    NoDescriptors,
    /// The upstream closed too early, or what it sent is no HTTP answer.
    Broke(String),
}

impl UpstreamFactory {
    /// `silence`: the longest silence of the upstream. `ca_file`: PEM roots to trust beside the
    /// Mozilla set. `way`: whether there may be a proxy on it.
    ///
    /// # Errors
    /// The CA file cannot be read or holds no certificate; the environment names a proxy that makes
    /// no sense.
    pub fn new(
        silence: Duration,
        ca_file: Option<&Path>,
        way: &Way,
    ) -> Result<Arc<UpstreamFactory>, String> {
        let proxy = way.proxy()?;
        let tls = Tls::new(ca_file)?;
        let config = |buffer: usize, idle: usize| {
            Agent::config_builder()
                // 4xx and 5xx are answers like all others.
                .http_status_as_error(false)
                // 3xx are passed on.
                .max_redirects(0)
                .max_redirects_will_error(false)
                // Nothing is added to a request.
                .user_agent("")
                .accept("")
                .accept_encoding("")
                .allow_non_standard_methods(true)
                .proxy(proxy.clone())
                .timeout_connect(Some(CONNECT_TIMEOUT))
                // No limit on a whole answer: that would cut streams that are alive.
                .timeout_per_read(Some(silence))
                .timeout_per_write(Some(silence))
                .max_response_header_size(buffer)
                .input_buffer_size(buffer)
                .output_buffer_size(buffer)
                .max_idle_connections(idle)
                .max_idle_connections_per_host(idle)
                .max_idle_age(MAX_IDLE_AGE)
                .build()
        };
        Ok(Arc::new(UpstreamFactory {
            config: config(BUFFER, 1),
            long_config: config(LONG_BUFFER, 0),
            tls,
        }))
    }

    fn agent(&self, config: &Config, wire: &Arc<Wire>) -> Agent {
        let tcp = Tcp {
            wire: Arc::clone(wire),
        };
        let wire_of = || Arc::clone(wire);
        if config.proxy().is_none() {
            // Apart, because what connects through proxies has large stack frames.
            let inner = ().chain(tcp).chain(self.tls.clone());
            let connector = Noting {
                inner,
                wire: wire_of(),
            };
            return Agent::with_parts(config.clone(), connector, LateResolver);
        }
        let inner =
            ().chain(Socks { wire: wire_of() })
                .chain(ConnectProxyConnector::default())
                .chain(tcp)
                .chain(self.tls.clone());
        let connector = Noting {
            inner,
            wire: wire_of(),
        };
        Agent::with_parts(config.clone(), connector, LateResolver)
    }
}

impl Upstream {
    pub fn new(factory: &Arc<UpstreamFactory>) -> Upstream {
        let wire = Arc::new(Wire::default());
        let agent = factory.agent(&factory.config, &wire);
        Upstream {
            agent,
            wire,
            factory: Arc::clone(factory),
        }
    }

    /// Sends a request and waits for the head of the answer, for as long as `client` does.
    ///
    /// An idle connection that turns out to be closed costs nothing: where no byte of an answer has
    /// arrived on a connection from before, and the body is held, the request that `request` makes
    /// is sent once more on a new connection. A streamed body always goes on a new connection,
    /// because it cannot be repeated.
    ///
    /// # Errors
    /// A [`Failure`]; what happened to a streamed body its reader knows.
    pub fn send(
        &mut self,
        request: impl Fn() -> Request<()>,
        mut body: RequestBody<'_>,
        client: Option<&Arc<TcpStream>>,
    ) -> Result<Answer, Failure> {
        if let RequestBody::Streamed(_) = body {
            self.drop_idle_connection();
        }
        let mut is_first = true;
        loop {
            self.wire.begin(client);
            let result = self.run(request(), &mut body);
            let may_repeat = std::mem::take(&mut is_first)
                && !matches!(body, RequestBody::Streamed(_))
                && self.wire.progress() == Progress::Reused
                && self.wire.fault() == Fault::None;
            match result {
                Err(error) if may_repeat => {
                    log::debug!("an idle upstream connection was closed: {error}");
                    self.drop_idle_connection();
                }
                Err(error) => {
                    let failure = self.failure(error);
                    self.wire.end();
                    return Err(failure);
                }
                Ok(answer) => return Ok(answer),
            }
        }
    }

    fn run(
        &mut self,
        request: Request<()>,
        body: &mut RequestBody<'_>,
    ) -> Result<Answer, ureq::Error> {
        let longest = request
            .headers()
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len());
        let target = request
            .uri()
            .path_and_query()
            .map_or(0, |target| target.as_str().len());
        let is_long = longest.chain([target]).max().unwrap_or(0) > LONG_LINE;
        if is_long {
            // Its descriptor may be the last one.
            self.drop_idle_connection();
        }
        let long_agent = is_long.then(|| self.factory.agent(&self.factory.long_config, &self.wire));
        let agent = long_agent.as_ref().unwrap_or(&self.agent);
        let (parts, ()) = request.into_parts();
        let answer = match body {
            RequestBody::None => agent.run(Request::from_parts(parts, ())),
            RequestBody::Held(bytes) => agent.run(Request::from_parts(parts, *bytes)),
            RequestBody::Streamed(reader) => {
                agent.run(Request::from_parts(parts, SendBody::from_reader(*reader)))
            }
        }?;
        self.wire.head_is_whole();
        let (mut parts, body) = answer.into_parts();
        check_framing(parts.version, parts.status, &mut parts.headers)
            .map_err(|what| ureq::Error::Io(io::Error::other(what)))?;
        Ok(Answer {
            status: parts.status,
            fields: parts.headers,
            reader: body.into_reader(),
        })
    }

    /// Reads a piece of `answer`'s body, waiting for one as long as the client does.
    ///
    /// # Errors
    /// A [`Failure`]: what was read so far is not the whole body.
    pub fn read(&self, answer: &mut Answer, buffer: &mut [u8]) -> Result<Piece, Failure> {
        self.wire.set_mode(Mode::Wait);
        match answer.reader.read(buffer) {
            Ok(0) => Ok(Piece::End),
            Ok(length) => Ok(Piece::Data(length)),
            Err(error) => Err(self.failure(error.into())),
        }
    }

    /// As [`Upstream::read`], of what is there already.
    ///
    /// # Errors
    /// As [`Upstream::read`].
    pub fn read_now(&self, answer: &mut Answer, buffer: &mut [u8]) -> Result<Piece, Failure> {
        self.wire.set_mode(Mode::Look);
        match answer.reader.read(buffer) {
            Ok(0) => Ok(Piece::End),
            Ok(length) => Ok(Piece::Data(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Piece::NotYet),
            Err(error) => Err(self.failure(error.into())),
        }
    }

    /// The exchange with the client is over.
    pub fn end(&self) {
        self.wire.end();
    }

    fn drop_idle_connection(&mut self) {
        self.agent = self.factory.agent(&self.factory.config, &self.wire);
    }

    fn failure(&self, error: ureq::Error) -> Failure {
        use rustix::io::Errno;
        let is_connecting = self.wire.is_connecting();
        if let ureq::Error::Io(error) = &error
            && [Errno::MFILE, Errno::NFILE]
                .iter()
                .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
        {
            return Failure::NoDescriptors;
        }
        match (self.wire.fault(), &error) {
            (Fault::ClientLeft, _) => Failure::ClientLeft,
            (Fault::TimedOut, _) | (_, ureq::Error::Timeout(_)) if is_connecting => {
                let seconds = CONNECT_TIMEOUT.as_secs();
                Failure::Unreachable(format!("no connection within {seconds} s"))
            }
            (Fault::TimedOut, _) | (_, ureq::Error::Timeout(_)) => Failure::TimedOut,
            _ if is_connecting => Failure::Unreachable(describe(&error)),
            _ => Failure::Broke(describe(&error)),
        }
    }
}

/// Refuses what the client would understand otherwise than we do, and makes one Content-Length of
/// several that agree.
fn check_framing(
    version: Version,
    status: StatusCode,
    fields: &mut HeaderMap,
) -> Result<(), &'static str> {
    if status.is_informational() {
        // RFC 9110 section 15.2.2: Upgrade is never forwarded.
        return Err("it switches protocols without having been asked to");
    }
    let mut codings = fields.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        // RFC 9112 section 6.1; HTTP/1.0 knows no transfer codings.
        let is_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !is_chunked || codings.next().is_some() || version != Version::HTTP_11 {
            return Err("its transfer coding is not just chunked");
        }
        // RFC 9112 section 6.3: it overrides a Content-Length.
        fields.remove(header::CONTENT_LENGTH);
    }
    let length = fields.get(header::CONTENT_LENGTH);
    let Some(first) = length.and_then(|length| length.as_bytes().split(|b| *b == b',').next())
    else {
        return Ok(());
    };
    let number = std::str::from_utf8(first).ok();
    match number.and_then(|number| number.trim().parse::<u64>().ok()) {
        // RFC 9110 section 8.6: not in an answer that never has a body.
        _ if status == StatusCode::NO_CONTENT => drop(fields.remove(header::CONTENT_LENGTH)),
        // The HTTP client has seen that they all agree.
        Some(number) => drop(fields.insert(header::CONTENT_LENGTH, HeaderValue::from(number))),
        None => return Err("its Content-Length is not a number"),
    }
    Ok(())
}

/// What went wrong, without any value of a request in it.
fn describe(error: &ureq::Error) -> String {
    match error {
        ureq::Error::HostNotFound => "the name does not resolve".into(),
        ureq::Error::Io(error) => match error.get_ref() {
            Some(inner) => inner.to_string(),
            None => error.to_string(),
        },
        ureq::Error::Protocol(error) => format!("not a valid HTTP answer: {error}"),
        error => error.to_string(),
    }
}
