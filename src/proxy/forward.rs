//! The attempts at one request: send, receive, judge, fail over, relay.
//!
//! A request that has been sent may be put aside until its response begins ([`Context::waiting`]); every
//! other wait blocks the worker.

use std::net::TcpStream;
use std::sync::{Arc, Weak};
use std::time::Instant;

use http::{HeaderValue, Method};

use super::access_log::{AccessLog, CLIENT_GONE_STATUS, ExchangeEnd};
use super::attempts::{Attempts, Verdict};
use super::balancer::Balancer;
use super::error::ProxyError;
use super::headers;
use super::relay::{self, Relayed};
use super::request_body::{self, Body, Streaming};
use super::route::TargetSlice;
use crate::config::secrets::Credential;
use crate::config::target::Target;
use crate::http1::error::HttpError;
use crate::http1::response::ResponseHead;
use crate::net::wait;
use crate::server::{ClientError, Exchange, Progress};
use crate::upstream::connection::{BodyRead, UpstreamConnection};
use crate::upstream::connector::Upstream;
use crate::upstream::error::UpstreamError;
use crate::upstream::request::{Request, RequestBody};

/// The most of a rejected response's body that is read so that its connection can be reused, in bytes.
const MAX_SKIPPED_BODY: usize = 64 * 1024;

/// Sends requests to the target. One for the process.
pub struct Forwarder {
    pub target: Target,
    /// The target's Host.
    host: HeaderValue,
    pub balancer: Arc<Balancer>,
    upstream: Arc<Upstream>,
}

/// What each request in flight owns: an upstream connection and a buffer for its body.
pub struct Context {
    connection: UpstreamConnection,
    body: Vec<u8>,
    /// A request that was sent and waits for its response.
    pub waiting: Option<InFlight>,
}

/// A request, and how far it is.
pub struct InFlight {
    pub log: AccessLog,
    /// Path and query for the upstream.
    pub path: TargetSlice,
    body: Body,
    attempts: Attempts,
}

impl InFlight {
    pub fn new(log: AccessLog) -> InFlight {
        InFlight {
            log,
            path: TargetSlice::In(0..0),
            body: Body::None,
            attempts: Attempts::new(),
        }
    }
}

impl Context {
    pub fn upstream_socket(&self) -> &Weak<TcpStream> {
        self.connection.socket()
    }

    /// Closes the upstream connection, unless it can be used again.
    pub fn end_exchange(&mut self) {
        self.connection.end_exchange();
    }
}

impl Forwarder {
    /// # Errors
    /// The target's host cannot stand in a Host field.
    pub fn new(
        target: Target,
        balancer: Arc<Balancer>,
        upstream: Arc<Upstream>,
    ) -> Result<Forwarder, String> {
        let host = HeaderValue::from_str(&target.authority).map_err(|error| error.to_string())?;
        Ok(Forwarder {
            target,
            host,
            balancer,
            upstream,
        })
    }

    pub fn new_context(&self) -> Context {
        Context {
            connection: UpstreamConnection::new(&self.upstream),
            body: Vec::new(),
            waiting: None,
        }
    }

    /// Reads the request's body and sends the request for the first time.
    pub fn start(
        &self,
        context: &mut Context,
        exchange: &mut Exchange<'_>,
        request: &mut InFlight,
    ) -> Result<Progress, ProxyError> {
        request.body = request_body::buffer_body(exchange, &mut context.body)?;
        let now = match request.body {
            // Nothing has been waited for since.
            Body::None => request.log.started,
            _ => Instant::now(),
        };
        request.attempts.next(&self.balancer, now);
        self.send_until_relayed(context, exchange, request)
    }

    /// Goes on with a request that was put aside after it was sent.
    pub fn resume(
        &self,
        context: &mut Context,
        exchange: &mut Exchange<'_>,
        request: &mut InFlight,
    ) -> Result<Progress, ProxyError> {
        if self.receive(context, exchange, request)? {
            return Ok(Progress::Done);
        }
        self.send_until_relayed(context, exchange, request)
    }

    /// Sends the request until a response is passed on. This is the main loop of a request.
    fn send_until_relayed(
        &self,
        context: &mut Context,
        exchange: &mut Exchange<'_>,
        request: &mut InFlight,
    ) -> Result<Progress, ProxyError> {
        loop {
            self.send(context, exchange, request)?;
            if exchange.may_wait() {
                return Ok(Progress::AwaitingUpstream);
            }
            if self.receive(context, exchange, request)? {
                return Ok(Progress::Done);
            }
        }
    }

    /// Receives the response and passes it on. False: the request must be sent once more.
    fn receive(
        &self,
        context: &mut Context,
        exchange: &mut Exchange<'_>,
        request: &mut InFlight,
    ) -> Result<bool, ProxyError> {
        let InFlight {
            log,
            body,
            attempts,
            ..
        } = request;
        let response = match context.connection.receive(&exchange.head.method) {
            Ok(Some(response)) => response,
            // An idle connection was closed before the request reached it.
            Ok(None) => return Ok(false),
            Err(error) => {
                log.config = attempts.conclude(&self.balancer, None);
                return Err(error.into());
            }
        };
        let verdict = Verdict::of(response.status, &response.fields);
        attempts.record_verdict(&self.balancer, verdict, response.status);
        let may_fail_over = verdict.allows_failover() && !matches!(body, Body::Streamed(_));
        if may_fail_over && attempts.next(&self.balancer, Instant::now()).is_some() {
            skip_body(&mut context.connection);
            return Ok(false);
        }
        log.config = attempts.conclude(&self.balancer, Some(response.status));
        log.time_to_first_byte = Some(log.started.elapsed());
        pass_on(exchange, context, &response, log);
        context.connection.reuse_fields(response.fields);
        Ok(true)
    }

    /// Sends the request with the credential that was chosen last.
    fn send(
        &self,
        context: &mut Context,
        exchange: &mut Exchange<'_>,
        request: &mut InFlight,
    ) -> Result<(), ProxyError> {
        let InFlight {
            log,
            path,
            body,
            attempts,
        } = request;
        log.attempts = attempts.count();
        let Some(selection) = attempts.current() else {
            // The secrets loader rejects an empty file, so that there is always one.
            return Err(HttpError::internal_error("no configuration").into());
        };
        let credential = &selection.configuration.credential;
        let sent = self.send_with(
            context,
            exchange,
            path,
            *body,
            credential,
            log.id.as_bytes(),
        );
        if sent.is_err() {
            log.config = attempts.conclude(&self.balancer, None);
        }
        sent
    }

    fn send_with(
        &self,
        context: &mut Context,
        exchange: &mut Exchange<'_>,
        path: &TargetSlice,
        body: Body,
        credential: &Credential,
        id: &[u8],
    ) -> Result<(), ProxyError> {
        let own = (credential.authorization(), &self.host, id);
        if let Body::Streamed(length) = body {
            return send_streamed(context, exchange, path, length, own);
        }
        let head = &*exchange.head;
        // RFC 9110 section 8.6: these state a length of 0 when they have no body.
        let has_empty_body = [Method::POST, Method::PUT, Method::PATCH].contains(&head.method);
        let request = Request {
            method: &head.method,
            target: path.of(&head.target),
            fields: headers::for_upstream(&head.fields, own),
            body: match body {
                Body::None if has_empty_body => RequestBody::Buffered(b""),
                Body::None => RequestBody::None,
                _ => RequestBody::Buffered(&context.body),
            },
        };
        context
            .connection
            .send(request, Some(exchange.client()))
            .map_err(ProxyError::Upstream)
    }
}

/// Sends a request whose body still comes, `length` bytes of it where that is known, with the header
/// fields `own` that [`headers::for_upstream`] sets.
fn send_streamed(
    context: &mut Context,
    exchange: &mut Exchange<'_>,
    path: &TargetSlice,
    length: Option<u64>,
    own: headers::Own<'_>,
) -> Result<(), ProxyError> {
    // A long computation, even where neither side makes it wait.
    wait::before_blocking();
    // The exchange itself is needed for reading the body.
    let client = Arc::clone(exchange.client());
    let path = path.of(&exchange.head.target).to_vec();
    let method = exchange.head.method.clone();
    let fields = std::mem::take(&mut exchange.head.fields);
    let mut reader = Streaming::new(&context.body, exchange);
    let request = Request {
        method: &method,
        target: &path,
        fields: headers::for_upstream(&fields, own),
        body: RequestBody::Streamed {
            reader: &mut reader,
            length,
        },
    };
    let sent = context.connection.send(request, Some(&client));
    match reader.error.take() {
        Some(error) => Err(ProxyError::Client(error)),
        None => sent.map_err(ProxyError::Upstream),
    }
}

/// Passes the upstream's response on and notes how that ended.
fn pass_on(
    exchange: &mut Exchange<'_>,
    context: &mut Context,
    response: &ResponseHead,
    log: &mut AccessLog,
) {
    log.status = response.status.as_u16();
    let relayed = relay::relay(
        exchange,
        &mut context.connection,
        response,
        log.id.as_bytes(),
    );
    log.end = match relayed {
        Relayed::Whole => ExchangeEnd::Ok,
        Relayed::Client(ClientError::TimedOut) => ExchangeEnd::ClientTimeout,
        Relayed::Client(_) | Relayed::Upstream(UpstreamError::ClientClosed) => {
            if exchange.is_aborting() {
                ExchangeEnd::Shutdown
            } else {
                ExchangeEnd::ClientGone
            }
        }
        Relayed::Upstream(UpstreamError::TimedOut) => ExchangeEnd::UpstreamTimeout,
        Relayed::Upstream(_) => ExchangeEnd::UpstreamBroke,
    };
    match log.end {
        ExchangeEnd::ClientGone => {
            log.status = CLIENT_GONE_STATUS;
            exchange.mark_client_gone();
        }
        ExchangeEnd::UpstreamBroke | ExchangeEnd::UpstreamTimeout => {
            log::error!(
                "The upstream broke off in the middle of an answer ({})",
                log.end
            );
        }
        _ => {}
    }
}

/// Reads what is left of a rejected response, if it is short and has arrived, so that its connection
/// can be reused. Apart from its caller, whose stack frame lasts as long as a response.
#[inline(never)]
fn skip_body(connection: &mut UpstreamConnection) {
    let mut scratch = [0; 4096];
    let mut skipped = 0;
    while skipped <= MAX_SKIPPED_BODY {
        match connection.try_read(&mut scratch) {
            Ok(BodyRead::Data(length)) => skipped += length,
            Ok(BodyRead::NotYet | BodyRead::End) | Err(_) => return,
        }
    }
}
