//! The settings that all upstream connections share, and how a connection is made.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use ureq::config::Config;
use ureq::unversioned::resolver::Resolver;
use ureq::unversioned::transport::{
    ConnectProxyConnector, ConnectionDetails, Connector, NextTimeout, Transport, time,
};
use ureq::{Agent, Timeout};

use super::call_state::CallState;
use super::proxy_env::ProxySettings;
use super::socks::SocksConnector;
use super::stream::{DeferredResolver, TcpConnector};
use super::tls::TlsConnector;
use crate::config::target::Target;

/// The longest time for resolving, connecting and the TLS handshake together.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The size of a connection's input and output buffers, in bytes. A response's head must fit in one.
const BUFFER_BYTES: usize = 16 * 1024;

/// The settings that all upstream connections share.
pub struct Upstream {
    config: Config,
    tls: TlsConnector,
    /// Scheme and authority of the target.
    uri: Uri,
    /// The longest time without a byte from the upstream.
    pub(super) timeout: Duration,
}

impl Upstream {
    /// `timeout` is the longest time without a byte from the upstream. `root_files` have PEM roots that
    /// are trusted beside the Mozilla set, each with what messages call its source.
    ///
    /// # Errors
    /// One line for the user: such a file cannot be read or has no certificate, a variable names a proxy
    /// whose URL is invalid, or the target's host is not valid in a URL.
    pub fn new(
        target: &Target,
        timeout: Duration,
        root_files: &[(&str, &Path)],
        proxy_settings: &ProxySettings,
    ) -> Result<Arc<Upstream>, String> {
        let config = Agent::config_builder()
            .proxy(proxy_settings.proxy()?)
            .user_agent("")
            .input_buffer_size(BUFFER_BYTES)
            .output_buffer_size(BUFFER_BYTES)
            .build();
        let scheme = if target.https { "https" } else { "http" };
        let uri = format!("{scheme}://{}/", target.authority);
        Ok(Arc::new(Upstream {
            config,
            tls: TlsConnector::new(root_files)?,
            uri: uri
                .parse()
                .map_err(|_| format!("'{}' is not a host", target.authority))?,
            timeout,
        }))
    }

    /// Makes a connection. Not inlined: its stack frames are large, and a page of a worker's stack that
    /// has once been touched stays in memory.
    #[inline(never)]
    pub(super) fn connect(
        self: &Arc<Self>,
        call: &Arc<CallState>,
    ) -> Result<Box<dyn Transport>, ureq::Error> {
        let (tls, call) = (self.tls.clone(), Arc::clone(call));
        let run = move |details: &ConnectionDetails| {
            let tcp = TcpConnector {
                call: Arc::clone(&call),
            };
            let transport = if details.config.proxy().is_none() {
                let chain = ().chain(tcp).chain(tls.clone());
                chain.connect(details, None)?.map(Transport::boxed)
            } else {
                let socks = SocksConnector {
                    call: Arc::clone(&call),
                };
                let chain =
                    ().chain(socks)
                        .chain(ConnectProxyConnector::default())
                        .chain(tcp)
                        .chain(tls.clone());
                chain.connect(details, None)?.map(Transport::boxed)
            };
            transport.ok_or(ureq::Error::ConnectionFailed)
        };
        let run = Arc::new(run);
        let details = ConnectionDetails {
            uri: &self.uri,
            addrs: DeferredResolver.empty(),
            config: &self.config,
            request_level: false,
            resolver: &DeferredResolver,
            now: time::Instant::now(),
            timeout: total_timeout(CONNECT_TIMEOUT),
            current_time: Arc::new(time::Instant::now),
            run_connector: Arc::clone(&run) as _,
            // No call is shut down from outside: its waits watch the client.
            register_shutdown: Arc::new(|_| Ok(())),
        };
        run(&details)
    }
}

/// Returns a timeout for all steps of making a connection together.
fn total_timeout(timeout: Duration) -> NextTimeout {
    NextTimeout {
        after: timeout.into(),
        reason: Timeout::Connect,
        ..NextTimeout::default()
    }
}
