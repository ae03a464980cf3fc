//! One request's life: access, route, body, attempts, relay, log line. Read this first.
//!
//! Called by the workers of [`crate::server`], as their [`Handler`]. Each step's rules stand in a file
//! of its own; `forward` holds the loop over the attempts.

use std::net::TcpStream;
use std::sync::{Arc, Weak};
use std::time::Instant;

use http::{HeaderName, HeaderValue};

pub mod access;
mod access_log;
pub mod admin;
mod attempts;
pub mod balancer;
pub mod error;
mod forward;
mod headers;
mod own_response;
mod relay;
mod request_body;
mod request_id;
mod route;
mod sse;

use self::access::AccessPolicy;
use self::access_log::{AccessLog, CLIENT_GONE_STATUS};
use self::admin::Readiness;
use self::balancer::Balancer;
use self::error::{Dialect, ProxyError};
use self::forward::{Context, Forwarder, InFlight};
use self::request_id::RequestIds;
use self::route::Route;
use crate::config::target::Target;
use crate::server::{Exchange, Handler, OwnResponse, Progress, RejectedRequest};
use crate::upstream::connector::Upstream;

/// Forwards requests to the target. One for the process.
pub struct Proxy {
    access: AccessPolicy,
    forwarder: Forwarder,
    ids: RequestIds,
}

impl Handler for Proxy {
    type Context = Context;

    fn new_context(&self) -> Context {
        self.forwarder.new_context()
    }

    fn handle(&self, context: &mut Context, exchange: &mut Exchange<'_>) -> Progress {
        let id = self.ids.of_request(&exchange.head.fields);
        let method = exchange.head.method.clone();
        let mut request = InFlight::new(AccessLog::new(method, id, Instant::now()));
        let result = self.respond(context, exchange, &mut request);
        self.conclude(context, exchange, request, result)
    }

    fn resume(&self, context: &mut Context, exchange: &mut Exchange<'_>) -> Progress {
        let Some(mut request) = context.waiting.take() else {
            unreachable!("a request that waits is in its context");
        };
        let result = self.forwarder.resume(context, exchange, &mut request);
        self.conclude(context, exchange, request, result)
    }

    fn upstream_socket<'c>(&self, context: &'c Context) -> Option<&'c Weak<TcpStream>> {
        Some(context.upstream_socket())
    }

    fn needs_permit(&self, request: &[u8]) -> bool {
        !request.starts_with(b"GET /-/")
    }

    fn reject(&self, rejected: &RejectedRequest<'_>) -> OwnResponse {
        let id = self.ids.of_rejected(rejected.id.as_deref());
        let mut log = AccessLog::new(rejected.method.clone(), id, rejected.since);
        log.path = route::path_of(&rejected.target);
        let dialect = self.dialect(log.path.of(&rejected.target));
        let (mut fields, body) = dialect.response(rejected.error);
        if let Ok(value) = HeaderValue::from_bytes(log.id.as_bytes()) {
            fields.push((HeaderName::from_static(headers::REQUEST_ID), value));
        }
        log.status = rejected.error.status.as_u16();
        log.end = error::end_of(rejected.error);
        log.bytes_out = match rejected.method {
            http::Method::HEAD => 0,
            _ => body.len() as u64,
        };
        log.write(&rejected.peer, &rejected.target);
        OwnResponse { fields, body }
    }
}

impl Proxy {
    /// A proxy for `target` that chooses with `balancer` and lets in what `access` allows.
    ///
    /// # Errors
    /// The target's host cannot stand in a Host field.
    pub fn new(
        target: Target,
        access: AccessPolicy,
        balancer: Arc<Balancer>,
        upstream: Arc<Upstream>,
    ) -> Result<Proxy, String> {
        Ok(Proxy {
            access,
            forwarder: Forwarder::new(target, balancer, upstream)?,
            ids: RequestIds::new(),
        })
    }

    /// Responds with an admin page, or forwards the request.
    fn respond(
        &self,
        context: &mut Context,
        exchange: &mut Exchange<'_>,
        request: &mut InFlight,
    ) -> Result<Progress, ProxyError> {
        let head = &exchange.head;
        let target = &self.forwarder.target;
        let route = Route::of(&head.method, &head.target, target).inspect_err(|_| {
            request.log.path = route::path_of(&head.target);
        })?;
        request.log.path = route.path.clone();
        let path = route.path.of(&head.target);
        if path.starts_with(b"/-") {
            let readiness = Readiness {
                remaining: self.forwarder.balancer.available(Instant::now()),
                is_stopping: exchange.is_stopping(),
            };
            if let Some(page) = admin::page(path, &head.method, readiness) {
                own_response::send_page(exchange, &mut request.log, &page?);
                return Ok(Progress::Done);
            }
        }
        self.access.check(&head.fields, route.form)?;
        request.path = route.upstream_path(&head.target, target);
        self.forwarder.start(context, exchange, request)
    }

    /// Ends the request, unless it waits for the upstream.
    fn conclude(
        &self,
        context: &mut Context,
        exchange: &mut Exchange<'_>,
        mut request: InFlight,
        result: Result<Progress, ProxyError>,
    ) -> Progress {
        match result {
            Ok(Progress::AwaitingUpstream) => {
                context.waiting = Some(request);
                return Progress::AwaitingUpstream;
            }
            Ok(Progress::Done) => {}
            Err(error) => self.respond_with_error(exchange, &mut request.log, error),
        }
        context.end_exchange();
        let log = &mut request.log;
        log.bytes_in = exchange.body_bytes_in();
        log.bytes_out = exchange.body_bytes_out();
        log.write(exchange.peer(), &exchange.head.target);
        Progress::Done
    }

    #[inline(never)]
    fn respond_with_error(
        &self,
        exchange: &mut Exchange<'_>,
        log: &mut AccessLog,
        error: ProxyError,
    ) {
        let host = &self.forwarder.target.authority;
        let (response, end) = error.response(host, exchange.is_aborting());
        log.end = end;
        match response {
            Some(error) if !exchange.is_started() => {
                log.status = error.status.as_u16();
                if error.status == http::StatusCode::BAD_GATEWAY {
                    log::error!("{}", error.message);
                }
                let dialect = self.dialect(log.path.of(&exchange.head.target));
                let (fields, body) = dialect.response(&error);
                own_response::send(exchange, log, error.status, &fields, &body);
            }
            _ => log.status = CLIENT_GONE_STATUS,
        }
    }

    fn dialect(&self, path: &[u8]) -> Dialect {
        Dialect::of(path, &self.forwarder.target.base_path)
    }
}
