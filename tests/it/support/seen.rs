//! What both stand-in upstreams tell: where they listen, and which requests they have read.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use super::headers::{single_value, values};
use super::verified_client_id;

/// A request as the upstream saw it.
#[derive(Debug, Clone)]
pub struct SeenRequest {
    pub method: String,
    pub target: String,
    pub version: String,
    /// In the order in which they came. Bytes above 127 are read as Latin-1.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl SeenRequest {
    /// Returns the values of a header, in order.
    pub fn values(&self, name: &str) -> Vec<&str> {
        values(&self.headers, name)
    }

    /// Returns the value of a header that must not be repeated.
    pub fn header(&self, name: &str) -> Option<&str> {
        single_value(&self.headers, name)
    }

    /// Returns the names of all headers in lower case, in order.
    pub fn header_names(&self) -> Vec<String> {
        self.headers
            .iter()
            .map(|(name, _)| name.to_ascii_lowercase())
            .collect()
    }

    /// Returns the client id of the only and correctly signed Authorization.
    pub fn verified_client_id(&self) -> Option<String> {
        verified_client_id(self.header("authorization")?)
    }

    /// Returns the same, or `unsigned`.
    pub fn client_id(&self) -> String {
        self.verified_client_id()
            .unwrap_or_else(|| "unsigned".to_owned())
    }
}

/// The address of a stand-in upstream and its requests so far.
#[derive(Clone)]
pub struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<SeenRequest>>>,
}

impl Upstream {
    pub fn at(address: SocketAddr) -> Upstream {
        Upstream {
            address,
            seen: Arc::default(),
        }
    }

    pub fn record(&self, request: SeenRequest) {
        self.seen
            .lock()
            .expect("no panic under this lock")
            .push(request);
    }

    /// Returns the target URL for the proxy, with Flow's path.
    pub fn url(&self) -> String {
        format!("http://{}/flow-llm-proxy", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn requests(&self) -> Vec<SeenRequest> {
        self.seen.lock().expect("no panic under this lock").clone()
    }

    /// Returns the only request that was seen.
    pub fn request(&self) -> SeenRequest {
        let mut requests = self.requests();
        assert_eq!(
            requests.len(),
            1,
            "requests seen by the upstream: {requests:?}"
        );
        requests.remove(0)
    }

    /// Returns the client ids of all requests, in the order in which they came.
    pub fn client_ids(&self) -> Vec<String> {
        self.requests().iter().map(SeenRequest::client_id).collect()
    }

    /// Returns the targets of all requests, in the order in which they came.
    pub fn targets(&self) -> Vec<String> {
        self.requests()
            .into_iter()
            .map(|seen| seen.target)
            .collect()
    }
}
