//! TLS to the upstream: rustls with the Mozilla roots and those of `--ca-file` and `SSL_CERT_FILE`.
//!
//! All workers share one client configuration, with one set of roots and one store of resumable
//! sessions. ureq's own connector has a configuration per agent, accepts other roots only instead of the
//! Mozilla set, and writes zeros to buffers that are hardly used.

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, NextTimeout, Transport, TransportAdapter,
};

use super::buffers::TransportBuffers;
use super::tls_sessions::TicketStore;
use crate::config::file::{self, PIPE_PATIENCE, Pipes};
use crate::config::shown::shown_path;

/// Adds TLS to connections to `https` targets. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct TlsConnector(Arc<ClientConfig>);

impl TlsConnector {
    /// `root_files` are PEM files with roots that are trusted beside the Mozilla set, each with what
    /// messages call its source.
    ///
    /// # Errors
    /// One line for the user: a file cannot be read, or has no certificate that can be a root.
    pub(super) fn new(root_files: &[(&str, &Path)]) -> Result<TlsConnector, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots(root_files)?)
            .with_no_client_auth();
        // Some fronts reject a client that offers none; to others HTTP/2 would be the first choice.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::store(Arc::new(TicketStore::new()));
        Ok(TlsConnector(Arc::new(config)))
    }

    /// Does the TLS handshake over `transport`. Not inlined: its stack frame is large, and a page of a
    /// worker's stack that has once been touched stays in memory.
    #[inline(never)]
    fn handshake(
        &self,
        details: &ConnectionDetails,
        transport: impl Transport,
    ) -> Result<TlsTransport, ureq::Error> {
        let host = details.uri.host().unwrap_or_default();
        let bare_host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare_host.to_owned())
            .map_err(|_| ureq::Error::Tls("the target's host is no name for TLS"))?;
        let mut connection = ClientConnection::new(Arc::clone(&self.0), name)?;
        let mut socket = TransportAdapter::new(
            Box::new(transport) as Box<dyn Transport>,
            Arc::clone(&details.current_time),
        );
        socket.set_timeout(details.timeout);
        connection.complete_io(&mut socket)?;
        let config = details.config;
        Ok(TlsTransport {
            stream: StreamOwned::new(connection, socket),
            buffers: TransportBuffers::new(config.input_buffer_size(), config.output_buffer_size()),
        })
    }
}

/// Returns the Mozilla set and the roots in the files.
fn roots(files: &[(&str, &Path)]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    for (source, path) in files {
        add_roots(&mut roots, path)
            .map_err(|error| format!("{source} {}: {error}", shown_path(path)))?;
    }
    Ok(roots)
}

fn add_roots(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let pem = file::read(path, Pipes::WaitFor(PIPE_PATIENCE)).map_err(|error| error.to_string())?;
    let mut added = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem.bytes) {
        let certificate = certificate.map_err(|error| format!("not a PEM file: {error:?}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("a certificate in it cannot be a root: {error}"))?;
        added += 1;
    }
    if added == 0 {
        return Err("it holds no certificate (-----BEGIN CERTIFICATE-----)".into());
    }
    Ok(())
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        match chained {
            Some(transport) if details.needs_tls() && !transport.is_tls() => {
                let wrapped = self.handshake(details, transport)?;
                Ok(Some(Either::B(wrapped)))
            }
            chained => Ok(chained.map(Either::A)),
        }
    }
}

/// A TLS connection over another transport.
pub(super) struct TlsTransport {
    stream: StreamOwned<ClientConnection, TransportAdapter>,
    buffers: TransportBuffers,
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let amount = self.stream.read(self.buffers.space()?)?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    /// Whether the connection is open and has no received bytes left: not in the socket, not encrypted
    /// in the transport below, not decrypted in rustls. They would be read as the next response.
    fn is_open(&mut self) -> bool {
        let below = self.stream.sock.get_mut();
        let is_open_below = below.buffers().input().is_empty() && below.is_open();
        let decrypted = self.stream.conn.reader().fill_buf().map(|_| ());
        let is_open = decrypted.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        is_open && is_open_below
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TlsTransport")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn each_file_adds_its_roots_to_the_mozilla_set() {
        let path = |name: &str| {
            std::env::temp_dir().join(format!("flow-proxy-{name}-{}.pem", std::process::id()))
        };
        let (one, other) = (path("one"), path("other"));
        for path in [&one, &other] {
            let certified = rcgen::generate_simple_self_signed(["ca.test".to_owned()]).unwrap();
            fs::write(path, certified.cert.pem()).unwrap();
        }
        let mozilla = roots(&[]).unwrap().len();
        let both = roots(&[("--ca-file", &one), ("SSL_CERT_FILE", &other)]).unwrap();
        fs::write(&one, "no certificate").unwrap();
        let without = roots(&[("--ca-file", &one)]);
        fs::remove_file(&one).unwrap();
        fs::remove_file(&other).unwrap();
        assert!(mozilla > 50);
        assert_eq!(both.len(), mozilla + 2);
        assert!(without.unwrap_err().contains("holds no certificate"));
        let missing = roots(&[("SSL_CERT_FILE", &other)]).unwrap_err();
        assert!(missing.starts_with("SSL_CERT_FILE "), "{missing}");
    }
}
