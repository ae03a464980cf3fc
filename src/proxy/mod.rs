//! One request's life: access, route, body, attempts, relay, log line. Read this first.
//!
//! Called by the workers of [`crate::server`], as their [`Handler`]. Each step's rules stand in a file
//! of its own; `forward` holds the loop over the attempts.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderName, HeaderValue, Method, StatusCode, header};

pub mod access;
mod access_line;
pub mod access_log;
pub mod admin;
mod api;
pub mod balancer;
pub mod error;
mod forward;
mod headers;
mod ledger;
mod own_response;
#[cfg(test)]
mod recorded;
pub mod rejection_log;
mod request_id;
mod route;
mod sse;
mod unpack;
pub mod usage;

use self::access::{AccessPolicy, fetch_metadata};
use self::access_log::{AccessLog, CLIENT_GONE_STATUS};
use self::admin::look::Look;
use self::api::Api;
use self::balancer::Balancer;
use self::error::ProxyError;
use self::forward::Forwarder;
use self::forward::in_flight::{Context, InFlight};
use self::headers::ResponseRules;
use self::ledger::Ledger;
use self::ledger::recent::Ended;
use self::rejection_log::RejectionLog;
use self::request_id::RequestIds;
use self::route::{Route, TargetForm};
use crate::config::target::Target;
use crate::http1::error::HttpError;
use crate::http1::headers::{HeaderBlock, KnownHeader};
use crate::server::{Exchange, Handler, OwnResponse, Progress, RejectedRequest};
use crate::upstream::connector::Upstream;

/// Forwards requests to the target. One for the process.
pub struct Proxy {
    access: AccessPolicy,
    forwarder: Forwarder,
    ids: RequestIds,
    rejections: Arc<RejectionLog>,
    ledger: Ledger,
    is_file_valid: Arc<AtomicBool>,
    log_lines_dropped: fn() -> u64,
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
        request.log.note_client(&exchange.head.fields);
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
        !request.starts_with(b"GET /-/") && !request.starts_with(b"HEAD /-/")
    }

    fn reject(&self, rejected: &RejectedRequest<'_>) -> OwnResponse {
        let id = self.ids.of_rejected(rejected.id.as_deref());
        let mut log = AccessLog::new(rejected.method.clone(), id, rejected.since);
        log.path = route::path_of(&rejected.target);
        let path = log.path.of(&rejected.target);
        let api = Api::of(path, &self.forwarder.target.base_path);
        let (mut fields, body) = api.error_response(rejected.error, log.id.as_bytes());
        if let Ok(value) = HeaderValue::from_bytes(log.id.as_bytes()) {
            fields.push((HeaderName::from_static(headers::REQUEST_ID), value));
        }
        let cors = self.access.cors(rejected.origin.as_deref(), path);
        fields.extend(cors.fields(None));
        log.status = rejected.error.status.as_u16();
        log.error = Some(rejected.error.code);
        log.end = error::end_of(rejected.error);
        log.bytes_out = match rejected.method {
            Method::HEAD => 0,
            _ => body.len() as u64,
        };
        log.hide_secrets(&rejected.target);
        if self.rejections.admits() {
            access_line::write(&log, &rejected.peer, &rejected.target);
        }
        let attempts = std::iter::empty();
        self.ledger.add(Ended::of(log, &rejected.target), attempts);
        OwnResponse { fields, body }
    }
}

/// What a [`Proxy`] needs beside the settings of its parts.
pub struct Options {
    pub access: AccessPolicy,
    pub balancer: Arc<Balancer>,
    pub upstream: Arc<Upstream>,
    /// How long a request may wait where all credentials are limited; zero: not at all.
    pub limit_wait: Duration,
    /// Requests that may be in flight at once.
    pub workers: usize,
    /// Whether the secrets file on disk could be loaded.
    pub is_file_valid: Arc<AtomicBool>,
    /// Returns how many lines the log has lost.
    pub log_lines_dropped: fn() -> u64,
}

impl Proxy {
    /// A proxy for `target`.
    ///
    /// # Errors
    /// The target's host cannot stand in a Host field.
    pub fn new(target: Target, options: Options) -> Result<Proxy, String> {
        let Options {
            access,
            balancer,
            upstream,
            limit_wait,
            workers,
            is_file_valid,
            log_lines_dropped,
        } = options;
        Ok(Proxy {
            access,
            forwarder: Forwarder::new(target, balancer, upstream, limit_wait, workers)?,
            ids: RequestIds::new(),
            rejections: RejectionLog::new(),
            ledger: Ledger::new(),
            is_file_valid,
            log_lines_dropped,
        })
    }

    /// Responds with something of our own, or forwards the request.
    fn respond(
        &self,
        context: &mut Context,
        exchange: &mut Exchange<'_>,
        request: &mut InFlight,
    ) -> Result<Progress, ProxyError> {
        let head = &exchange.head;
        let target = &self.forwarder.target;
        let route = Route::of(&head.method, &head.target, target);
        request.log.path = match &route {
            Ok(route) => route.path.clone(),
            Err(_) => route::path_of(&head.target),
        };
        let path = request.log.path.of(&head.target);
        let origin = head.fields.value(KnownHeader::Origin);
        request.rules = ResponseRules {
            api: Api::of(path, &target.base_path),
            cors: self.access.cors(origin, path),
            is_navigation: fetch_metadata::is_navigation(&head.fields),
            ..ResponseRules::default()
        };
        let route = route?;
        request.rules.form = route.form;
        if !admin::is_open_to_all(path) {
            self.access
                .check(&head.method, &head.fields, path, route.form)?;
        }
        if self.respond_itself(exchange, request)? {
            return Ok(Progress::Done);
        }
        let head = &exchange.head;
        if head.method == Method::GET && asks_for_web_socket(&head.fields) {
            return Err(HttpError::upgrade_not_supported(
                "WebSocket is not forwarded: use HTTP (Codex does so by itself)",
            )
            .into());
        }
        request.path = route.upstream_path(&head.target, target);
        self.forwarder.start(context, exchange, request)
    }

    /// Responds with a page, or to what the upstream need not be asked. False: it is to be forwarded.
    fn respond_itself(
        &self,
        exchange: &mut Exchange<'_>,
        request: &mut InFlight,
    ) -> Result<bool, ProxyError> {
        let head = &exchange.head;
        let path = request.log.path.of(&head.target);
        if path.starts_with(b"/-")
            && let Some(page) = admin::page(
                path,
                &head.method,
                || {
                    // It may take a while to make.
                    exchange.call().before_blocking();
                    self.access.check_admin(exchange.peer(), &head.fields)
                },
                &self.look(exchange),
            )
        {
            let page = page?;
            request.log.is_own_page = true;
            own_response::send_page(exchange, &mut request.log, &page);
            return Ok(true);
        }
        if let Some(fields) = request.rules.cors.preflight(head) {
            let status = StatusCode::NO_CONTENT;
            own_response::send(exchange, &mut request.log, status, &fields, b"");
            return Ok(true);
        }
        if path == b"/" && self.is_led_to_the_page(exchange, request.rules.form) {
            let page = (header::LOCATION, HeaderValue::from_static("/-/"));
            let empty = (header::CONTENT_LENGTH, HeaderValue::from_static("0"));
            own_response::send(
                exchange,
                &mut request.log,
                StatusCode::FOUND,
                &[page, empty],
                b"",
            );
            return Ok(true);
        }
        if head.method == Method::HEAD && path == b"/" {
            // Claude Code asks so whether the server is there.
            let fields = request.rules.cors.fields(None);
            own_response::send(exchange, &mut request.log, StatusCode::OK, &fields, b"");
            return Ok(true);
        }
        Ok(false)
    }

    fn look(&self, exchange: &Exchange<'_>) -> Look<'_> {
        Look {
            balancer: &self.forwarder.balancer,
            ledger: &self.ledger,
            target: &self.forwarder.target,
            server: exchange.server_load(),
            is_file_valid: self.is_file_valid.load(Ordering::Relaxed),
            is_stopping: exchange.is_stopping(),
            log_lines_dropped: (self.log_lines_dropped)(),
            now: Instant::now(),
            at: SystemTime::now(),
        }
    }

    /// Whether a browser asks for `/` whose user may see the page. The upstream's own start page is of
    /// no use to it: it could load nothing.
    fn is_led_to_the_page(&self, exchange: &Exchange<'_>, form: TargetForm) -> bool {
        let head = &exchange.head;
        let accept = head.fields.find(b"accept").unwrap_or_default();
        head.method == Method::GET
            && form == TargetForm::Origin
            && memchr::memmem::find(accept, b"text/html").is_some()
            && self
                .access
                .check_admin(exchange.peer(), &head.fields)
                .is_ok()
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
            Err(error) => self.respond_with_error(exchange, &mut request, error),
        }
        request.note_model(context, exchange);
        context.end_exchange();
        let log = &mut request.log;
        log.bytes_in = exchange.body_bytes_in();
        log.bytes_out = exchange.body_bytes_out();
        log.hide_secrets(&exchange.head.target);
        if !log.is_rejection() || self.rejections.admits() {
            access_line::write(log, exchange.peer(), &exchange.head.target);
        }
        if log.status == 404
            && let Some(hint) = api::base_url_hint(log.path.of(&exchange.head.target))
        {
            log::warn!("A request was answered 404: {hint}");
        }
        if !log.is_own_page {
            let ended = Ended::of(request.log, &exchange.head.target);
            self.ledger.add(ended, request.attempts.outcomes());
        }
        Progress::Done
    }

    #[inline(never)]
    fn respond_with_error(
        &self,
        exchange: &mut Exchange<'_>,
        request: &mut InFlight,
        error: ProxyError,
    ) {
        let log = &mut request.log;
        let host = &self.forwarder.target.authority;
        let (response, end) = error.response(host, exchange.is_aborting());
        log.end = end;
        match response {
            Some(error) if !exchange.is_started() => {
                log.error = Some(error.code);
                if error.status == StatusCode::BAD_GATEWAY {
                    log::error!("{}", error.message);
                }
                let ResponseRules { api, cors, .. } = &request.rules;
                let (mut fields, body) = api.error_response(&error, log.id.as_bytes());
                fields.extend(cors.fields(None));
                own_response::send(exchange, log, error.status, &fields, &body);
            }
            _ => log.status = CLIENT_GONE_STATUS,
        }
    }
}

/// RFC 6455 section 4.1. Other upgrades are ignored, as RFC 9110 section 7.8 allows.
fn asks_for_web_socket(fields: &HeaderBlock) -> bool {
    let mut protocols = fields
        .values(KnownHeader::Upgrade)
        .flat_map(|value| value.split(|&byte| byte == b','));
    protocols.any(|protocol| protocol.trim_ascii().eq_ignore_ascii_case(b"websocket"))
}
