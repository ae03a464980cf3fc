//! TLS over a stream to the upstream: rustls with the Mozilla roots and those of `--ca-file` and
//! `SSL_CERT_FILE`.
//!
//! All workers share one client configuration, with one set of roots and one store of resumable sessions.

use std::io::{self, BufRead, IoSlice, Read, Write};
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::stream::{Stream, StreamIo, Wait};
use super::tls_sessions::TicketStore;
use crate::config::file::{self, PIPE_PATIENCE, Pipes};
use crate::config::shown::shown_path;
use crate::net::wait::{CallContext, WaitError};

/// The most bytes that are encrypted before they are written, so that a large body takes few writes.
const MAX_ENCRYPTED: usize = 256 * 1024;

/// What all TLS connections share.
pub(super) struct TlsClient(Arc<ClientConfig>);

impl TlsClient {
    /// `root_files` are PEM files with roots that are trusted beside the Mozilla set, each with what
    /// messages call its source.
    ///
    /// # Errors
    /// One line for the user: a file cannot be read, or has no certificate that can be a root.
    pub(super) fn new(root_files: &[(&str, &Path)]) -> Result<TlsClient, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots(root_files)?)
            .with_no_client_auth();
        // Some fronts reject a client that offers none; to others HTTP/2 would be the first choice.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::store(Arc::new(TicketStore::new()));
        Ok(TlsClient(Arc::new(config)))
    }

    /// Does the handshake with `host` over `below`. Not inlined: its stack frame is large, and a page of
    /// a worker's stack that has once been touched stays in memory.
    ///
    /// # Errors
    /// The certificate is not valid for `host`, the stream fails, the time passes, or the client
    /// disconnects.
    #[inline(never)]
    pub(super) fn connect(
        &self,
        host: &str,
        mut below: Stream,
        wait: Wait,
        call: CallContext<'_>,
    ) -> Result<Stream, WaitError> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::other("the target's host is no name for TLS"));
        let session = name.and_then(|name| {
            ClientConnection::new(Arc::clone(&self.0), name).map_err(io::Error::other)
        });
        let mut session = session.map_err(WaitError::Io)?;
        session.set_buffer_limit(Some(MAX_ENCRYPTED));
        let mut io = StreamIo::new(&mut below, wait, call);
        if let Err(error) = session.complete_io(&mut io) {
            return Err(io.failure(error));
        }
        Ok(Stream::Tls(Box::new(TlsStream { session, below })))
    }
}

/// TLS over another stream.
pub(super) struct TlsStream {
    session: ClientConnection,
    pub(super) below: Stream,
}

impl TlsStream {
    /// As [`Stream::read`]. A stream that ends without TLS's own end has failed: it may be cut short.
    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        wait: Wait,
        call: CallContext<'_>,
    ) -> Result<Option<usize>, WaitError> {
        loop {
            match self.session.reader().read(buffer) {
                Ok(length) => return Ok(Some(length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(WaitError::Io(error)),
            }
            if !self.receive(wait, call)? {
                return Ok(None);
            }
        }
    }

    /// Receives and decrypts what has arrived. False: nothing has.
    fn receive(&mut self, wait: Wait, call: CallContext<'_>) -> Result<bool, WaitError> {
        let mut below = StreamIo::new(&mut self.below, wait, call);
        match self.session.read_tls(&mut below) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(below.failure(error)),
        }
        let processed = self.session.process_new_packets();
        // An alert, or the response to a change of keys. What cannot be written now waits for later.
        self.flush(Wait::Never, call)?;
        processed.map_err(|error| WaitError::Io(io::Error::other(error)))?;
        Ok(true)
    }

    /// As [`Stream::write`].
    pub(super) fn write(
        &mut self,
        pieces: &[IoSlice<'_>],
        wait: Wait,
        call: CallContext<'_>,
    ) -> Result<Option<usize>, WaitError> {
        if !self.flush(wait, call)? {
            return Ok(None);
        }
        let mut writer = self.session.writer();
        let taken = writer.write_vectored(pieces).map_err(WaitError::Io)?;
        self.flush(wait, call)?;
        Ok(Some(taken))
    }

    /// Writes what is encrypted. False: not all of it was taken.
    fn flush(&mut self, wait: Wait, call: CallContext<'_>) -> Result<bool, WaitError> {
        while self.session.wants_write() {
            let mut below = StreamIo::new(&mut self.below, wait, call);
            match self.session.write_tls(&mut below) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(below.failure(error)),
            }
        }
        Ok(self.below.write(&[], wait, call)?.is_some())
    }

    /// As [`Stream::is_idle_and_open`]. Tickets for later sessions are no response.
    pub(super) fn is_idle_and_open(&mut self) -> bool {
        let is_empty = |session: &mut ClientConnection| {
            let decrypted = session.reader().fill_buf().map(|_| ());
            decrypted.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        while is_empty(&mut self.session) {
            match self.receive(Wait::Never, CallContext::UNWATCHED) {
                Ok(true) => {}
                Ok(false) => return self.below.is_idle_and_open(),
                Err(_) => return false,
            }
        }
        false
    }
}

/// Tells the server that the end is meant (RFC 8446 section 6.1), if it is there and that can be sent at
/// once.
impl Drop for TlsStream {
    fn drop(&mut self) {
        if !self.session.wants_write() && self.below.is_idle_and_open() {
            self.session.send_close_notify();
            let _ = self.flush(Wait::Never, CallContext::UNWATCHED);
        }
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
