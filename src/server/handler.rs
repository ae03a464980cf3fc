//! What the server asks of the program behind it. Called by the worker threads, and by the accept thread
//! for requests that need no permit and for those that the server rejects.

use std::net::TcpStream;
use std::sync::{Arc, Weak};
use std::time::Instant;

use http::{HeaderName, HeaderValue, Method};

use super::exchange::Exchange;
use crate::http1::error::HttpError;

/// Responds to requests. One for the server, shared by all its threads.
pub trait Handler: Send + Sync + 'static {
    /// What a request in flight owns: buffers, an upstream connection.
    type Context: Send;

    /// Makes a context. Called when no spare one is left.
    fn new_context(&self) -> Self::Context;

    /// Responds to one request. May return [`Progress::AwaitingUpstream`] if [`Exchange::may_wait`]
    /// says so.
    fn handle(&self, context: &mut Self::Context, exchange: &mut Exchange<'_>) -> Progress;

    /// Goes on with a request for which [`Progress::AwaitingUpstream`] was returned. Either the upstream
    /// has sent something, or it has been silent for long enough that the handler should wait itself.
    fn resume(&self, context: &mut Self::Context, exchange: &mut Exchange<'_>) -> Progress {
        self.handle(context, exchange)
    }

    /// Returns the socket of the context's upstream connection. The event loop watches it while the
    /// request waits.
    fn upstream_socket<'c>(&'c self, context: &'c Self::Context) -> Option<&'c Weak<TcpStream>>;

    /// Whether the request that begins with these bytes needs a permit. One that needs none, such as a
    /// health check, is handled even while all permits are taken, so its handler must not wait.
    fn needs_permit(&self, request: &[u8]) -> bool {
        let _ = request;
        true
    }

    /// Makes the response to a request that the server rejects.
    fn reject(&self, rejected: &RejectedRequest<'_>) -> OwnResponse;
}

/// How far a handler has come with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Done,
    /// The request waits for the upstream, and its response is not started. The handler keeps what it
    /// needs to go on in its context.
    AwaitingUpstream,
}

/// A request that the server rejects. Its request line may be missing or malformed.
#[derive(Debug)]
pub struct RejectedRequest<'a> {
    /// The client's address, as the log shows it.
    pub peer: Arc<str>,
    /// `-` if it could not be read.
    pub method: Method,
    /// `-` if it could not be read.
    pub target: Box<[u8]>,
    /// The request id that the client has sent: any bytes.
    pub id: Option<Box<[u8]>>,
    /// The origin of the web page that asks: any bytes.
    pub origin: Option<Box<[u8]>>,
    /// When its first bytes arrived.
    pub since: Instant,
    pub error: &'a HttpError,
}

/// The response to a [`RejectedRequest`], without status line and `Connection` header.
#[derive(Debug)]
pub struct OwnResponse {
    pub fields: Vec<(HeaderName, HeaderValue)>,
    pub body: Vec<u8>,
}
