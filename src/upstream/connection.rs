//! A request's way to the upstream, on a connection that is kept for the next one.
//!
//! What lies on the way (TCP, TLS, proxies) are ureq's connectors and transports, some of them ours
//! (`transport`, `tls`, `socks`); what goes over it is written and read here, into their buffers.
//! ureq's own calls are not used: they were measured at two thirds of all instructions that a
//! request takes in this program.

use std::fmt;
use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use http::{Method, Uri};
use ureq::config::Config;
use ureq::unversioned::resolver::Resolver;
use ureq::unversioned::transport::{
    ConnectProxyConnector, ConnectionDetails, Connector, NextTimeout, Transport, time,
};
use ureq::{Agent, Timeout};

use super::proxy_env::ProxySettings;
use super::request::{Output, Request, RequestBody};
use super::socks::Socks;
use super::stream::{CallState, LateResolver, ReadMode, StopReason, Tcp};
use super::tls::Tls;
use crate::config::target::Target;
use crate::http1::headers::HeaderBlock;
use crate::http1::response::{self, Parsed, ResponseBody, ResponseHead};

/// Resolving, connecting and the TLS handshake: none of them may take longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection is kept. Most load balancers close theirs after 60 s.
const MAX_IDLE_AGE: Duration = Duration::from_secs(50);
/// Bytes of a connection's buffers. An answer's head must fit in the input buffer.
const BUFFER: usize = 16 * 1024;

/// Makes the upstreams of all workers alike.
pub struct Upstream {
    config: Config,
    tls: Tls,
    /// Scheme and authority of the target.
    uri: Uri,
    silence: Duration,
}

/// A request's way to the upstream.
pub struct UpstreamConnection {
    factory: Arc<Upstream>,
    call: Arc<CallState>,
    /// What `wire` knows too, behind a lock.
    client: Weak<TcpStream>,
    /// That of the connection that was made last.
    socket: Weak<TcpStream>,
    connection: Option<Connection>,
    /// Of the last answer.
    fields: HeaderBlock,
}

/// A connection to the upstream, in the middle of an answer or idle.
struct Connection {
    transport: Box<dyn Transport>,
    /// What is still to be read of the last answer.
    body: ResponseBody,
    /// Whether it can carry another request after that.
    persists: bool,
    /// Whether any byte of an answer to the request that is under way has arrived.
    is_answering: bool,
    /// Whether it has carried another request before this one.
    is_reused: bool,
    last_used: Instant,
}

/// A piece of an answer's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyRead {
    Data(usize),
    /// Nothing is there at the moment. Only without waiting.
    NotYet,
    End,
}

/// Why there is no answer, or no more of it.
#[derive(Debug)]
pub enum UpstreamError {
    /// The client left while we were waiting for the upstream.
    ClientClosed,
    /// The upstream was silent for too long.
    TimedOut,
    /// No connection: DNS, TCP, TLS, a proxy in between.
    Unreachable(String),
    /// No connection, because this process may open no more files.
    NoDescriptors,
    /// The upstream closed too early, or what it sent is no HTTP answer.
    Broke(String),
}

impl Upstream {
    /// `silence`: the longest silence of the upstream. `ca_file`: PEM roots to trust beside the
    /// Mozilla set. `way`: whether there may be a proxy on it.
    ///
    /// # Errors
    /// The CA file cannot be read or holds no certificate; the environment names a proxy that makes
    /// no sense; the target's host cannot stand in a URL.
    pub fn new(
        target: &Target,
        silence: Duration,
        ca_file: Option<&Path>,
        proxy_settings: &ProxySettings,
    ) -> Result<Arc<Upstream>, String> {
        let config = Agent::config_builder()
            .proxy(proxy_settings.proxy()?)
            .user_agent("")
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .build();
        let scheme = if target.https { "https" } else { "http" };
        let uri = format!("{scheme}://{}/", target.authority);
        Ok(Arc::new(Upstream {
            config,
            tls: Tls::new(ca_file)?,
            uri: uri
                .parse()
                .map_err(|_| format!("'{}' is not a host", target.authority))?,
            silence,
        }))
    }

    /// Makes a connection. Apart, because its stack frames are large: every page that a worker ever
    /// touches stays in memory.
    #[inline(never)]
    fn connect(self: &Arc<Self>, call: &Arc<CallState>) -> Result<Box<dyn Transport>, ureq::Error> {
        let (tls, call) = (self.tls.clone(), Arc::clone(call));
        let run = move |details: &ConnectionDetails| {
            let tcp = Tcp {
                call: Arc::clone(&call),
            };
            let made = if details.config.proxy().is_none() {
                let chain = ().chain(tcp).chain(tls.clone());
                chain.connect(details, None)?.map(Transport::boxed)
            } else {
                let socks = Socks {
                    call: Arc::clone(&call),
                };
                let chain =
                    ().chain(socks)
                        .chain(ConnectProxyConnector::default())
                        .chain(tcp)
                        .chain(tls.clone());
                chain.connect(details, None)?.map(Transport::boxed)
            };
            made.ok_or(ureq::Error::ConnectionFailed)
        };
        let run = Arc::new(run);
        let details = ConnectionDetails {
            uri: &self.uri,
            addrs: LateResolver.empty(),
            config: &self.config,
            request_level: false,
            resolver: &LateResolver,
            now: time::Instant::now(),
            timeout: in_all(CONNECT_TIMEOUT),
            current_time: Arc::new(time::Instant::now),
            run_connector: Arc::clone(&run) as _,
            // Nobody interrupts a call from outside: a wait sees the client itself.
            register_shutdown: Arc::new(|_| Ok(())),
        };
        run(&details)
    }
}

/// For a connection: all that it takes together.
fn in_all(longest: Duration) -> NextTimeout {
    NextTimeout {
        after: longest.into(),
        reason: Timeout::Connect,
        ..NextTimeout::default()
    }
}

/// For an exchange: each read and each write of the socket, however many a TLS record takes.
fn each_time(longest: Duration) -> NextTimeout {
    NextTimeout {
        per_read: Some(longest.into()),
        per_write: Some(longest.into()),
        ..NextTimeout::default()
    }
}

/// What went wrong, without any value of a request in it.
enum ExchangeError {
    /// The connection was not there yet.
    Connecting(ureq::Error),
    Exchanging(ureq::Error),
    NotHttp(String),
    ClosedEarly,
}

impl From<ureq::Error> for ExchangeError {
    fn from(error: ureq::Error) -> Self {
        ExchangeError::Exchanging(error)
    }
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExchangeError::Connecting(ureq::Error::HostNotFound) => {
                formatter.write_str("the name does not resolve")
            }
            ExchangeError::Connecting(ureq::Error::Io(error))
            | ExchangeError::Exchanging(ureq::Error::Io(error)) => match error.get_ref() {
                Some(inner) => write!(formatter, "{inner}"),
                None => write!(formatter, "{error}"),
            },
            ExchangeError::Connecting(error) | ExchangeError::Exchanging(error) => {
                write!(formatter, "{error}")
            }
            ExchangeError::NotHttp(what) => write!(formatter, "not a valid HTTP answer: {what}"),
            ExchangeError::ClosedEarly => formatter.write_str("it closed the connection too early"),
        }
    }
}

impl UpstreamConnection {
    pub fn new(factory: &Arc<Upstream>) -> UpstreamConnection {
        UpstreamConnection {
            factory: Arc::clone(factory),
            call: Arc::new(CallState::default()),
            client: Weak::new(),
            socket: Weak::new(),
            connection: None,
            fields: HeaderBlock::default(),
        }
    }

    /// Sends a request, for as long as `client` waits. [`Upstream::receive`] is to follow.
    ///
    /// An idle connection is used where there is one, but not for a streamed body: that could not be
    /// sent once more if the connection turned out to be closed.
    ///
    /// # Errors
    /// A [`Failure`]; what happened to a streamed body its reader knows.
    pub fn send<'f>(
        &mut self,
        mut request: Request<'_, impl Iterator<Item = &'f [u8]> + Clone>,
        client: Option<&Arc<TcpStream>>,
    ) -> Result<(), UpstreamError> {
        let is_streamed = matches!(request.body, RequestBody::Streamed { .. });
        let silence = each_time(self.factory.silence);
        self.begin(client);
        let idle = self.connection.as_mut().filter(|_| !is_streamed);
        if let Some(connection) = idle
            && connection.is_still_usable()
        {
            connection.is_reused = true;
            match connection.put(&mut request, silence) {
                Ok(()) => return Ok(()),
                Err(error) if self.call.stop_reason() == StopReason::None => {
                    log::debug!("an idle upstream connection was closed: {error}");
                    self.call.begin();
                }
                Err(error) => return Err(self.failed(error)),
            }
        }
        self.connection = None;
        let made = self.connect().map(|made| self.connection.insert(made));
        let result = made.and_then(|connection| connection.put(&mut request, silence));
        result.map_err(|error| self.failed(error))
    }

    /// A call for `client` begins.
    fn begin(&mut self, client: Option<&Arc<TcpStream>>) {
        // As a rule it is the last call's client: a kit stays with its connection.
        if self.client.as_ptr() != client.map_or(Weak::new().as_ptr(), Arc::as_ptr) {
            self.client = client.map_or_else(Weak::new, Arc::downgrade);
            self.call.set_client(Weak::clone(&self.client));
        }
        self.call.begin();
    }

    /// Waits for the head of the answer to the request that was sent. `None`: the idle connection
    /// that it went on turned out to be closed before a byte of an answer came, so it is to be sent
    /// once more; that costs the client nothing.
    ///
    /// # Errors
    /// A [`Failure`].
    pub fn receive(&mut self, method: &Method) -> Result<Option<ResponseHead>, UpstreamError> {
        let silence = each_time(self.factory.silence);
        let Some(connection) = &mut self.connection else {
            return Err(UpstreamError::Broke("nothing was sent".into()));
        };
        match connection.read_head(method, silence, &mut self.fields) {
            Ok(answer) => {
                self.call.head_is_whole();
                Ok(Some(answer))
            }
            Err(error)
                if connection.was_idle_and_silent()
                    && self.call.stop_reason() == StopReason::None =>
            {
                log::debug!("an idle upstream connection was closed: {error}");
                self.connection = None;
                Ok(None)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// The socket on which an answer comes.
    pub fn socket(&self) -> &Weak<TcpStream> {
        &self.socket
    }

    fn connect(&mut self) -> Result<Connection, ExchangeError> {
        let made = self.factory.connect(&self.call);
        let transport = made.map_err(ExchangeError::Connecting)?;
        self.socket = self.call.upstream();
        Ok(Connection {
            transport,
            body: ResponseBody::Ended,
            persists: true,
            is_answering: false,
            is_reused: false,
            last_used: Instant::now(),
        })
    }

    /// Reads a piece of the answer's body, waiting for one as long as the client does.
    ///
    /// # Errors
    /// A [`Failure`]: what was read so far is not the whole body.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<BodyRead, UpstreamError> {
        self.call.set_mode(ReadMode::WaitOptions);
        self.take(buffer)
    }

    /// As [`Upstream::read`], of what is there already.
    ///
    /// # Errors
    /// As [`Upstream::read`].
    pub fn try_read(&mut self, buffer: &mut [u8]) -> Result<BodyRead, UpstreamError> {
        self.call.set_mode(ReadMode::Look);
        self.take(buffer)
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<BodyRead, UpstreamError> {
        let Some(connection) = &mut self.connection else {
            return Ok(BodyRead::End);
        };
        let result = connection.take(buffer, each_time(self.factory.silence));
        result.map_err(|error| self.failure(error))
    }

    /// Takes back the fields of an answer that nobody needs any more: the next one's come there.
    pub fn take_back(&mut self, fields: HeaderBlock) {
        self.fields = fields.reusable();
    }

    /// The exchange with the client is over. A connection that cannot be used again is closed.
    pub fn end(&mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let was_used = std::mem::take(&mut connection.is_answering);
        if was_used {
            connection.last_used = Instant::now();
        }
        if !connection.is_reusable() || !(was_used || connection.is_young()) {
            self.connection = None;
        }
    }

    /// The exchange has failed; its connection is closed.
    #[cold]
    fn failed(&mut self, error: ExchangeError) -> UpstreamError {
        self.connection = None;
        self.failure(error)
    }

    #[cold]
    fn failure(&self, error: ExchangeError) -> UpstreamError {
        use rustix::io::Errno;
        let is_connecting = matches!(error, ExchangeError::Connecting(_));
        if let ExchangeError::Connecting(ureq::Error::Io(error)) = &error
            && [Errno::MFILE, Errno::NFILE]
                .iter()
                .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
        {
            return UpstreamError::NoDescriptors;
        }
        match self.call.stop_reason() {
            StopReason::ClientClosed => UpstreamError::ClientClosed,
            StopReason::TimedOut if is_connecting => {
                let seconds = CONNECT_TIMEOUT.as_secs();
                UpstreamError::Unreachable(format!("no connection within {seconds} s"))
            }
            StopReason::TimedOut => UpstreamError::TimedOut,
            StopReason::None if is_connecting => UpstreamError::Unreachable(error.to_string()),
            StopReason::None => UpstreamError::Broke(error.to_string()),
        }
    }
}

impl Connection {
    /// Whether it was idle and still is.
    fn is_still_usable(&mut self) -> bool {
        self.is_young() && self.is_reusable() && self.transport.is_open()
    }

    fn is_young(&self) -> bool {
        self.last_used.elapsed() < MAX_IDLE_AGE
    }

    fn put<'f>(
        &mut self,
        request: &mut Request<'_, impl Iterator<Item = &'f [u8]> + Clone>,
        silence: NextTimeout,
    ) -> Result<(), ExchangeError> {
        self.is_answering = false;
        // Until its answer has been taken whole, nobody else may have it.
        self.persists = false;
        Ok(Output::new(&mut *self.transport, silence).send(request)?)
    }

    /// Whether it can have been closed before the request came to it.
    fn was_idle_and_silent(&self) -> bool {
        self.is_reused && !self.is_answering
    }

    /// Whether the last answer was taken whole, with nothing behind it.
    fn is_reusable(&mut self) -> bool {
        let is_between = self.persists && matches!(self.body, ResponseBody::Ended);
        is_between && self.transport.buffers().input().is_empty()
    }

    /// Reads until the head of the final answer is whole.
    fn read_head(
        &mut self,
        method: &Method,
        silence: NextTimeout,
        spare: &mut HeaderBlock,
    ) -> Result<ResponseHead, ExchangeError> {
        loop {
            let buffers = self.transport.buffers();
            if !buffers.input().is_empty() {
                let parsed = response::parse(buffers.input(), method, spare);
                match parsed.map_err(|what| ExchangeError::NotHttp(what.into()))? {
                    Parsed::NotYet => {}
                    // RFC 9110 section 15.2: as many as it likes.
                    Parsed::Interim(length) => {
                        buffers.input_consume(length);
                        continue;
                    }
                    Parsed::Final(length, answer) => {
                        buffers.input_consume(length);
                        self.body = ResponseBody::new(answer.framing);
                        self.persists = answer.persists;
                        return Ok(answer);
                    }
                }
            }
            if !self.transport.await_input(silence)? {
                return Err(ExchangeError::ClosedEarly);
            }
            self.is_answering = true;
        }
    }

    /// Takes a piece of the body from what has arrived, or from what arrives next.
    fn take(&mut self, buffer: &mut [u8], silence: NextTimeout) -> Result<BodyRead, ExchangeError> {
        loop {
            if matches!(self.body, ResponseBody::Ended) {
                return Ok(BodyRead::End);
            }
            let buffers = self.transport.buffers();
            let taken = self.body.take(buffers.input(), buffer);
            let (used, filled) = taken.map_err(ExchangeError::NotHttp)?;
            buffers.input_consume(used);
            if filled > 0 {
                return Ok(BodyRead::Data(filled));
            }
            if used > 0 {
                continue;
            }
            match self.transport.await_input(silence) {
                Ok(true) => {}
                Ok(false) if matches!(self.body, ResponseBody::UntilClose) => {
                    self.body = ResponseBody::Ended
                }
                Ok(false) => return Err(ExchangeError::ClosedEarly),
                Err(ureq::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(BodyRead::NotYet);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
