//! What the server asks of the program behind it.

use std::net::TcpStream;
use std::sync::{Arc, Weak};
use std::time::Instant;

use http::{HeaderName, HeaderValue, Method};

use super::exchange::Exchange;
use crate::http1::error::HttpError;

/// Responds to requests. Shared by all workers.
pub trait Handler: Send + Sync + 'static {
    /// What each request in flight owns: buffers, an upstream connection.
    type Context: Send;

    /// Makes a context; called when more requests are in flight than ever before.
    fn new_context(&self) -> Self::Context;

    /// Responds to one request. It may return [`Progress::AwaitingUpstream`] where
    /// [`Exchange::may_wait`] allows it.
    fn handle(&self, context: &mut Self::Context, exchange: &mut Exchange<'_>) -> Progress;

    /// Goes on where [`Handler::handle`] returned: the upstream has sent something, or has been silent
    /// for so long that the handler must wait itself.
    fn resume(&self, context: &mut Self::Context, exchange: &mut Exchange<'_>) -> Progress {
        self.handle(context, exchange)
    }

    /// The socket of the context's upstream connection, whose bytes a waiting request waits for.
    fn upstream_socket<'c>(&'c self, context: &'c Self::Context) -> Option<&'c Weak<TcpStream>>;

    /// Whether the request that begins with these bytes counts as in flight. One that does not is
    /// handled even when all workers are taken, so its handler must not wait: a health check, say.
    fn needs_permit(&self, request: &[u8]) -> bool {
        let _ = request;
        true
    }

    /// The response to a request that the server rejects.
    fn reject(&self, rejected: &RejectedRequest<'_>) -> OwnResponse;
}

/// How far a handler has come with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Done,
    /// It waits for the upstream, and nothing of its response is started. What the handler knows of
    /// it is in its context.
    AwaitingUpstream,
}

/// A request that the server rejects. Its request line may be missing or malformed.
#[derive(Debug)]
pub struct RejectedRequest<'a> {
    /// The client's address, as it stands in the log.
    pub peer: Arc<str>,
    /// `-` where it could not be read.
    pub method: Method,
    /// `-` where it could not be read.
    pub target: Box<[u8]>,
    /// Its request id, as the client sent it: any bytes.
    pub id: Option<Box<[u8]>>,
    /// When its first bytes came.
    pub since: Instant,
    pub error: &'a HttpError,
}

/// The response to a [`RejectedRequest`], without status line and connection fields.
#[derive(Debug)]
pub struct OwnResponse {
    pub fields: Vec<(HeaderName, HeaderValue)>,
    pub body: Vec<u8>,
}
