//! What all upstream connections share, and how one is made.

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

use super::proxy_env::ProxySettings;
use super::socks::Socks;
use super::stream::{CallState, LateResolver, Tcp};
use super::tls::Tls;
use crate::config::target::Target;

/// Resolving, connecting and the TLS handshake together may take no longer.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a connection's input and output buffers. A response's head must fit in one.
const BUFFER_BYTES: usize = 16 * 1024;

/// The settings that all upstream connections share.
pub struct Upstream {
    config: Config,
    tls: Tls,
    /// Scheme and authority of the target.
    uri: Uri,
    pub(super) silence: Duration,
}

impl Upstream {
    /// `silence` is the longest time without a byte from the upstream, `ca_file` holds PEM roots to
    /// trust beside the Mozilla set.
    ///
    /// # Errors
    /// The CA file cannot be read or holds no certificate; the environment names a proxy whose
    /// URL is invalid; the target's host cannot stand in a URL.
    pub fn new(
        target: &Target,
        silence: Duration,
        ca_file: Option<&Path>,
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
            tls: Tls::new(ca_file)?,
            uri: uri
                .parse()
                .map_err(|_| format!("'{}' is not a host", target.authority))?,
            silence,
        }))
    }

    /// Makes a connection. Not inlined: its stack frames are large, and every page of a stack that a
    /// worker ever touches stays in memory.
    #[inline(never)]
    pub(super) fn connect(
        self: &Arc<Self>,
        call: &Arc<CallState>,
    ) -> Result<Box<dyn Transport>, ureq::Error> {
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
            // A call is not interrupted from outside: its waits watch the client themselves.
            register_shutdown: Arc::new(|_| Ok(())),
        };
        run(&details)
    }
}

/// The timeout for making a connection, all steps together.
fn in_all(longest: Duration) -> NextTimeout {
    NextTimeout {
        after: longest.into(),
        reason: Timeout::Connect,
        ..NextTimeout::default()
    }
}
