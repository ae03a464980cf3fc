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

use super::proxy_env::Way;
use super::request::{Output, Request, RequestBody};
use super::socks::Socks;
use super::stream::{Fault, LateResolver, Mode, Tcp, Wire};
use super::tls::Tls;
use crate::config::target::Target;
use crate::http1::headers::Fields;
use crate::http1::response::{self, Answer, Body, Parsed};

/// Resolving, connecting and the TLS handshake: none of them may take longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection is kept. Most load balancers close theirs after 60 s.
const MAX_IDLE_AGE: Duration = Duration::from_secs(50);
/// Bytes of a connection's buffers. An answer's head must fit in the input buffer.
const BUFFER: usize = 16 * 1024;

/// Makes the upstreams of all workers alike.
pub struct UpstreamFactory {
    config: Config,
    tls: Tls,
    /// Scheme and authority of the target.
    uri: Uri,
    silence: Duration,
}

/// A request's way to the upstream.
pub struct Upstream {
    factory: Arc<UpstreamFactory>,
    wire: Arc<Wire>,
    /// What `wire` knows too, behind a lock.
    client: Weak<TcpStream>,
    /// That of the connection that was made last.
    socket: Weak<TcpStream>,
    connection: Option<Connection>,
    /// Of the last answer.
    fields: Fields,
}

/// A connection to the upstream, in the middle of an answer or idle.
struct Connection {
    transport: Box<dyn Transport>,
    /// What is still to be read of the last answer.
    body: Body,
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
    /// no sense; the target's host cannot stand in a URL.
    pub fn new(
        target: &Target,
        silence: Duration,
        ca_file: Option<&Path>,
        way: &Way,
    ) -> Result<Arc<UpstreamFactory>, String> {
        let config = Agent::config_builder()
            .proxy(way.proxy()?)
            .user_agent("")
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .build();
        let scheme = if target.https { "https" } else { "http" };
        let uri = format!("{scheme}://{}/", target.authority);
        Ok(Arc::new(UpstreamFactory {
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
    fn connect(self: &Arc<Self>, wire: &Arc<Wire>) -> Result<Box<dyn Transport>, ureq::Error> {
        let (tls, wire) = (self.tls.clone(), Arc::clone(wire));
        let run = move |details: &ConnectionDetails| {
            let tcp = Tcp {
                wire: Arc::clone(&wire),
            };
            let made = if details.config.proxy().is_none() {
                let chain = ().chain(tcp).chain(tls.clone());
                chain.connect(details, None)?.map(Transport::boxed)
            } else {
                let socks = Socks {
                    wire: Arc::clone(&wire),
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
enum Trouble {
    /// The connection was not there yet.
    Connecting(ureq::Error),
    Exchanging(ureq::Error),
    NotHttp(String),
    ClosedEarly,
}

impl From<ureq::Error> for Trouble {
    fn from(error: ureq::Error) -> Self {
        Trouble::Exchanging(error)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Connecting(ureq::Error::HostNotFound) => {
                formatter.write_str("the name does not resolve")
            }
            Trouble::Connecting(ureq::Error::Io(error))
            | Trouble::Exchanging(ureq::Error::Io(error)) => match error.get_ref() {
                Some(inner) => write!(formatter, "{inner}"),
                None => write!(formatter, "{error}"),
            },
            Trouble::Connecting(error) | Trouble::Exchanging(error) => write!(formatter, "{error}"),
            Trouble::NotHttp(what) => write!(formatter, "not a valid HTTP answer: {what}"),
            Trouble::ClosedEarly => formatter.write_str("it closed the connection too early"),
        }
    }
}

impl Upstream {
    pub fn new(factory: &Arc<UpstreamFactory>) -> Upstream {
        Upstream {
            factory: Arc::clone(factory),
            wire: Arc::new(Wire::default()),
            client: Weak::new(),
            socket: Weak::new(),
            connection: None,
            fields: Fields::default(),
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
    ) -> Result<(), Failure> {
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
                Err(trouble) if self.wire.fault() == Fault::None => {
                    log::debug!("an idle upstream connection was closed: {trouble}");
                    self.wire.begin();
                }
                Err(trouble) => return Err(self.failed(trouble)),
            }
        }
        self.connection = None;
        let made = self.connect().map(|made| self.connection.insert(made));
        let result = made.and_then(|connection| connection.put(&mut request, silence));
        result.map_err(|trouble| self.failed(trouble))
    }

    /// A call for `client` begins.
    fn begin(&mut self, client: Option<&Arc<TcpStream>>) {
        // As a rule it is the last call's client: a kit stays with its connection.
        if self.client.as_ptr() != client.map_or(Weak::new().as_ptr(), Arc::as_ptr) {
            self.client = client.map_or_else(Weak::new, Arc::downgrade);
            self.wire.set_client(Weak::clone(&self.client));
        }
        self.wire.begin();
    }

    /// Waits for the head of the answer to the request that was sent. `None`: the idle connection
    /// that it went on turned out to be closed before a byte of an answer came, so it is to be sent
    /// once more; that costs the client nothing.
    ///
    /// # Errors
    /// A [`Failure`].
    pub fn receive(&mut self, method: &Method) -> Result<Option<Answer>, Failure> {
        let silence = each_time(self.factory.silence);
        let Some(connection) = &mut self.connection else {
            return Err(Failure::Broke("nothing was sent".into()));
        };
        match connection.read_head(method, silence, &mut self.fields) {
            Ok(answer) => {
                self.wire.head_is_whole();
                Ok(Some(answer))
            }
            Err(trouble)
                if connection.was_idle_and_silent() && self.wire.fault() == Fault::None =>
            {
                log::debug!("an idle upstream connection was closed: {trouble}");
                self.connection = None;
                Ok(None)
            }
            Err(trouble) => Err(self.failed(trouble)),
        }
    }

    /// The socket on which an answer comes.
    pub fn socket(&self) -> &Weak<TcpStream> {
        &self.socket
    }

    fn connect(&mut self) -> Result<Connection, Trouble> {
        let made = self.factory.connect(&self.wire);
        let transport = made.map_err(Trouble::Connecting)?;
        self.socket = self.wire.upstream();
        Ok(Connection {
            transport,
            body: Body::Ended,
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
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<Piece, Failure> {
        self.wire.set_mode(Mode::Wait);
        self.take(buffer)
    }

    /// As [`Upstream::read`], of what is there already.
    ///
    /// # Errors
    /// As [`Upstream::read`].
    pub fn read_now(&mut self, buffer: &mut [u8]) -> Result<Piece, Failure> {
        self.wire.set_mode(Mode::Look);
        self.take(buffer)
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<Piece, Failure> {
        let Some(connection) = &mut self.connection else {
            return Ok(Piece::End);
        };
        let result = connection.take(buffer, each_time(self.factory.silence));
        result.map_err(|trouble| self.failure(trouble))
    }

    /// Takes back the fields of an answer that nobody needs any more: the next one's come there.
    pub fn take_back(&mut self, fields: Fields) {
        self.fields = fields.if_small();
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
    fn failed(&mut self, trouble: Trouble) -> Failure {
        self.connection = None;
        self.failure(trouble)
    }

    #[cold]
    fn failure(&self, trouble: Trouble) -> Failure {
        use rustix::io::Errno;
        let is_connecting = matches!(trouble, Trouble::Connecting(_));
        if let Trouble::Connecting(ureq::Error::Io(error)) = &trouble
            && [Errno::MFILE, Errno::NFILE]
                .iter()
                .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
        {
            return Failure::NoDescriptors;
        }
        match self.wire.fault() {
            Fault::ClientLeft => Failure::ClientLeft,
            Fault::TimedOut if is_connecting => {
                let seconds = CONNECT_TIMEOUT.as_secs();
                Failure::Unreachable(format!("no connection within {seconds} s"))
            }
            Fault::TimedOut => Failure::TimedOut,
            Fault::None if is_connecting => Failure::Unreachable(trouble.to_string()),
            Fault::None => Failure::Broke(trouble.to_string()),
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
    ) -> Result<(), Trouble> {
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
        let is_between = self.persists && matches!(self.body, Body::Ended);
        is_between && self.transport.buffers().input().is_empty()
    }

    /// Reads until the head of the final answer is whole.
    fn read_head(
        &mut self,
        method: &Method,
        silence: NextTimeout,
        spare: &mut Fields,
    ) -> Result<Answer, Trouble> {
        loop {
            let buffers = self.transport.buffers();
            if !buffers.input().is_empty() {
                let parsed = response::parse(buffers.input(), method, spare);
                match parsed.map_err(|what| Trouble::NotHttp(what.into()))? {
                    Parsed::NotYet => {}
                    // RFC 9110 section 15.2: as many as it likes.
                    Parsed::Interim(length) => {
                        buffers.input_consume(length);
                        continue;
                    }
                    Parsed::Final(length, answer) => {
                        buffers.input_consume(length);
                        self.body = Body::new(answer.framing);
                        self.persists = answer.persists;
                        return Ok(answer);
                    }
                }
            }
            if !self.transport.await_input(silence)? {
                return Err(Trouble::ClosedEarly);
            }
            self.is_answering = true;
        }
    }

    /// Takes a piece of the body from what has arrived, or from what arrives next.
    fn take(&mut self, buffer: &mut [u8], silence: NextTimeout) -> Result<Piece, Trouble> {
        loop {
            if matches!(self.body, Body::Ended) {
                return Ok(Piece::End);
            }
            let buffers = self.transport.buffers();
            let taken = self.body.take(buffers.input(), buffer);
            let (used, filled) = taken.map_err(Trouble::NotHttp)?;
            buffers.input_consume(used);
            if filled > 0 {
                return Ok(Piece::Data(filled));
            }
            if used > 0 {
                continue;
            }
            match self.transport.await_input(silence) {
                Ok(true) => {}
                Ok(false) if matches!(self.body, Body::UntilClose) => self.body = Body::Ended,
                Ok(false) => return Err(Trouble::ClosedEarly),
                Err(ureq::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Piece::NotYet);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
