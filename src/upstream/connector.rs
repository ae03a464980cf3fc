//! The settings that all upstream connections share, and how a connection is made.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use ureq::{Proxy, ProxyProtocol};

use super::connect::{Endpoint, Resolver, connect_any};
use super::error::{UpstreamError, reason};
use super::proxy_env::{self, ProxySettings};
use super::stream::{Stream, StreamIo, Tcp, Wait};
use super::tls::TlsClient;
use super::{http_connect, socks};
use crate::config::target::Target;
use crate::net::wait::{CallContext, WaitError};

/// The longest time for resolving, connecting and the TLS handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The settings that all upstream connections share.
pub struct Upstream {
    target: Endpoint,
    /// Whether the target speaks TLS.
    is_https: bool,
    tls: TlsClient,
    proxy: Option<Proxy>,
    /// For the proxy, or else the target.
    resolver: Resolver,
    /// The longest time without a byte from the upstream.
    pub(super) timeout: Duration,
}

impl Upstream {
    /// `timeout` is the longest time without a byte from the upstream. `root_files` have PEM roots that
    /// are trusted beside the Mozilla set, each with what messages call its source.
    ///
    /// # Errors
    /// One line for the user: such a file cannot be read or has no certificate, or a variable names a
    /// proxy whose URL is invalid.
    pub fn new(
        target: &Target,
        timeout: Duration,
        root_files: &[(&str, &Path)],
        proxy_settings: &ProxySettings,
    ) -> Result<Arc<Upstream>, String> {
        let proxy = proxy_settings.proxy()?;
        let endpoint = || Endpoint::new(&target.host, target.port);
        let of_proxy = |proxy: &Proxy| Endpoint::new(proxy.host(), proxy_env::port(proxy));
        Ok(Arc::new(Upstream {
            resolver: Resolver::new(proxy.as_ref().map_or_else(endpoint, of_proxy)),
            target: endpoint(),
            is_https: target.https,
            proxy,
            tls: TlsClient::new(root_files)?,
            timeout,
        }))
    }

    /// Makes a connection.
    ///
    /// # Errors
    /// There is none, or the client disconnects.
    pub(super) fn connect(&self, call: CallContext<'_>) -> Result<Stream, UpstreamError> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        self.connect_until(deadline, call)
            .map_err(|error| match error {
                WaitError::TimedOut => {
                    let seconds = CONNECT_TIMEOUT.as_secs();
                    UpstreamError::Unreachable(format!("no connection within {seconds} s"))
                }
                WaitError::ClientClosed => UpstreamError::ClientClosed,
                WaitError::Io(error) => match Errno::from_io_error(&error) {
                    Some(Errno::MFILE | Errno::NFILE) => UpstreamError::NoDescriptors,
                    _ => UpstreamError::Unreachable(reason(&error)),
                },
            })
    }

    fn connect_until(&self, deadline: Instant, call: CallContext<'_>) -> Result<Stream, WaitError> {
        let stream = match &self.proxy {
            None => self.connect_tcp(deadline, call)?,
            Some(proxy) => self.connect_through(proxy, deadline, call)?,
        };
        if !self.is_https {
            return Ok(stream);
        }
        let wait = Wait::Until(deadline);
        self.tls.connect(&self.target.host, stream, wait, call)
    }

    /// Makes a connection to the target through `proxy`.
    fn connect_through(
        &self,
        proxy: &Proxy,
        deadline: Instant,
        call: CallContext<'_>,
    ) -> Result<Stream, WaitError> {
        let wait = Wait::Until(deadline);
        let mut stream = self.connect_tcp(deadline, call)?;
        if proxy.protocol() == ProxyProtocol::Https {
            stream = self
                .tls
                .connect(&self.resolver.endpoint().host, stream, wait, call)?;
        }
        let mut io = StreamIo::new(&mut stream, wait, call);
        let asked = match proxy.protocol() {
            ProxyProtocol::Http | ProxyProtocol::Https => {
                http_connect::ask(&mut io, proxy, &self.target)
            }
            _ => socks::ask(&mut io, proxy, &self.target),
        };
        match asked {
            Ok(()) => Ok(stream),
            Err(error) => Err(io.failure(error)),
        }
    }

    /// Connects to the proxy, or else the target.
    fn connect_tcp(&self, deadline: Instant, call: CallContext<'_>) -> Result<Stream, WaitError> {
        let addresses = self.resolver.resolve(deadline, call)?;
        let started = Instant::now();
        let socket = connect_any(&addresses, deadline, call)?;
        Tcp::new(socket, started.elapsed())
            .map(Stream::Plain)
            .map_err(WaitError::Io)
    }
}
