//! Certificates and TLS servers of the tests' own.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;

/// Makes a server's configuration with a self-signed certificate for `name`; returns the certificate, too,
/// in PEM.
pub fn tls_server(name: &str) -> (ServerConfig, String) {
    tls_server_of_many(vec![name.to_owned()])
}

/// As [`tls_server`], for many names.
pub fn tls_server_of_many(names: Vec<String>) -> (ServerConfig, String) {
    let certified = rcgen::generate_simple_self_signed(names).expect("valid names");
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring knows them")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .expect("the key is the certificate's");
    (config, certified.cert.pem())
}
