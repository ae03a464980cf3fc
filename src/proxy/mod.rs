//! One request's life: admit, route, hold the body, pick, send, judge, relay, log. Read this first.
//!
//! Called by the workers of [`crate::server`]. What each step decides stands in a file of its own;
//! only [`crate::upstream`] knows ureq. A request that has been sent up can be set aside
//! until its answer comes ([`Kit`]); all other waits block the kit.

use std::net::TcpStream;
use std::sync::{Arc, Weak};
use std::time::Instant;

use http::{HeaderName, HeaderValue, Method};

pub mod access;
mod access_log;
pub mod admin;
mod attempts;
pub mod balancer;
pub mod error;
mod headers;
mod own_response;
mod relay;
mod request_body;
mod route;
mod sse;
mod trouble;

use self::access::AccessPolicy;
use self::access_log::{AccessLog, CLIENT_GONE_STATUS, ExchangeEnd, RequestId, RequestIds};
use self::admin::Readiness;
use self::attempts::{Attempts, Verdict};
use self::balancer::Balancer;
use self::error::{Code, Dialect, ProxyError};
use self::relay::Relayed;
use self::request_body::{Body, Streaming};
use self::route::{Route, TargetForm, TargetSlice};
use self::trouble::ProxyError_;
use crate::config::secrets::Credential;
use crate::config::target::Target;
use crate::http1::error::Reason;
use crate::http1::headers::KnownHeader;
use crate::http1::response::ResponseHead;
use crate::net::socket;
use crate::server::{ClientError, Exchange, Handler, OwnResponse, Progress, RejectedRequest};
use crate::upstream::connection::{BodyRead, Upstream, UpstreamConnection, UpstreamError};
use crate::upstream::request::{Request, RequestBody};

/// A longer request id is not returned with a refusal, which is to be short: bytes.
const MAX_REFUSED_ID: usize = 1024;
/// The most of a rejected answer's body that is read so that its connection can be used again.
const MAX_SKIPPED: usize = 64 * 1024;

/// Forwards requests to the target. One for the process.
pub struct Proxy {
    target: Target,
    host: HeaderValue,
    access: AccessPolicy,
    balancer: Arc<Balancer>,
    upstream: Arc<Upstream>,
    ids: RequestIds,
}

/// What each request in flight has for itself.
pub struct Context {
    upstream: UpstreamConnection,
    body: Vec<u8>,
    /// A request that has been sent up and waits for its answer.
    waiting: Option<InFlight>,
}

/// A request, and how far it is.
struct InFlight {
    access_log: AccessLog,
    /// Path and query that the upstream is asked for.
    path: TargetSlice,
    body: Body,
    attempts: Attempts,
}

/// What [`Proxy::forward`] begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Send,
    Receive,
}

impl Handler for Proxy {
    type Context = Context;

    fn context(&self) -> Context {
        Context {
            upstream: UpstreamConnection::new(&self.upstream),
            body: Vec::new(),
            waiting: None,
        }
    }

    fn handle(&self, context: &mut Context, exchange: &mut Exchange<'_>) -> Progress {
        let mut request = InFlight {
            access_log: self.access_log(exchange),
            path: TargetSlice::In(0..0),
            body: Body::None,
            attempts: Attempts::new(),
        };
        let result = self.answer(context, exchange, &mut request);
        self.conclude(context, exchange, request, result)
    }

    fn resume(&self, context: &mut Context, exchange: &mut Exchange<'_>) -> Progress {
        let Some(mut request) = context.waiting.take() else {
            unreachable!("a request that waits is in the kit");
        };
        let result = self.forward(context, exchange, &mut request, Step::Receive);
        self.conclude(context, exchange, request, result)
    }

    fn awaited<'k>(&self, context: &'k Context) -> Option<&'k Weak<TcpStream>> {
        Some(context.upstream.socket())
    }

    fn is_quick(&self, request: &[u8]) -> bool {
        request.starts_with(b"GET /-/")
    }

    fn reject(&self, rejected: &RejectedRequest<'_>) -> OwnResponse {
        let error = ProxyError::from(rejected.refusal);
        let path = route::path_of(&rejected.target);
        let dialect = Dialect::of(path.of(&rejected.target), &self.target.base_path);
        let (mut fields, body) = error.answer(dialect);
        let is_usable = |id: &[u8]| {
            (1..=MAX_REFUSED_ID).contains(&id.len()) && HeaderValue::from_bytes(id).is_ok()
        };
        let theirs = rejected.id.clone().filter(|id| is_usable(id));
        let own = || self.ids.make();
        let id = theirs.map_or_else(own, RequestId::Client);
        if let Ok(value) = HeaderValue::from_bytes(id.as_bytes()) {
            fields.push((HeaderName::from_static(headers::REQUEST_ID), value));
        }
        let end = match rejected.refusal.reason {
            Reason::RequestTimeout => ExchangeEnd::ClientTimeout,
            _ => ExchangeEnd::Ok,
        };
        AccessLog {
            method: rejected.method.clone(),
            path,
            status: error.code.status(),
            config: None,
            attempts: 0,
            started: rejected.since,
            time_to_first_byte: None,
            bytes_in: 0,
            bytes_out: match rejected.method {
                Method::HEAD => 0,
                _ => body.len() as u64,
            },
            end,
            id,
        }
        .log(&rejected.peer, &rejected.target);
        OwnResponse { fields, body }
    }
}

impl Proxy {
    /// A proxy for `target` that chooses with `balancer` and lets in whom `gate` admits.
    ///
    /// # Errors
    /// The target's host cannot stand in a Host field.
    pub fn new(
        target: Target,
        access: AccessPolicy,
        balancer: Arc<Balancer>,
        upstream: Arc<Upstream>,
    ) -> Result<Proxy, String> {
        let host = HeaderValue::from_str(&target.authority).map_err(|error| error.to_string())?;
        let ids = RequestIds::new();
        Ok(Proxy {
            target,
            host,
            access,
            balancer,
            upstream,
            ids,
        })
    }

    fn access_log(&self, exchange: &Exchange<'_>) -> AccessLog {
        let head = &exchange.head;
        let id = head.fields.value(KnownHeader::XRequestId);
        let id = id.filter(|id| !id.is_empty());
        let id = id.map(|id| RequestId::Client(id.into()));
        AccessLog {
            method: head.method.clone(),
            path: TargetSlice::In(0..0),
            status: 0,
            config: None,
            attempts: 0,
            started: Instant::now(),
            time_to_first_byte: None,
            bytes_in: 0,
            bytes_out: 0,
            end: ExchangeEnd::Ok,
            id: id.unwrap_or_else(|| self.ids.make()),
        }
    }

    /// Ends the request, unless it waits.
    fn conclude(
        &self,
        context: &mut Context,
        exchange: &mut Exchange<'_>,
        mut request: InFlight,
        result: Result<Progress, ProxyError_>,
    ) -> Progress {
        let access_log = &mut request.access_log;
        match result {
            Ok(Progress::AwaitingUpstream) => {
                context.waiting = Some(request);
                return Progress::AwaitingUpstream;
            }
            Ok(Progress::Done) => {}
            Err(trouble) => self.respond_with_error(exchange, access_log, trouble),
        }
        context.upstream.end();
        access_log.bytes_in = exchange.body_bytes_in();
        access_log.bytes_out = exchange.body_bytes_out();
        access_log.log(exchange.peer(), &exchange.head.target);
        Progress::Done
    }

    fn answer(
        &self,
        context: &mut Context,
        exchange: &mut Exchange<'_>,
        request: &mut InFlight,
    ) -> Result<Progress, ProxyError_> {
        let head = &exchange.head;
        let route = Route::of(&head.method, &head.target, &self.target).inspect_err(|_| {
            request.access_log.path = route::path_of(&head.target);
        })?;
        request.access_log.path = route.path.clone();
        let asked = route.path.of(&head.target);
        let status = || Readiness {
            remaining: self.balancer.available(Instant::now()),
            is_stopping: exchange.is_stopping(),
        };
        if asked.starts_with(b"/-")
            && let Some(page) = admin::page(asked, &head.method, status())
        {
            own_response::show(exchange, &mut request.access_log, &page?);
            return Ok(Progress::Done);
        }
        self.admit(exchange, &route)?;
        request.path = route.upstream_path(&head.target, &self.target);
        request.body = request_body::buffer_body(exchange, &mut context.body)?;
        let now = match request.body {
            // Nobody has been waited for.
            Body::None => request.access_log.started,
            _ => Instant::now(),
        };
        request.attempts.next(&self.balancer, now);
        self.forward(context, exchange, request, Step::Send)
    }

    /// Section 9 of the contract: a web page must not spend the user's credentials.
    fn admit(&self, exchange: &Exchange<'_>, route: &Route) -> Result<(), ProxyError> {
        let forbidden = |what: String| Err(ProxyError::new(Code::Forbidden, what));
        if route.form == TargetForm::Origin {
            let host = exchange.head.fields.value(KnownHeader::Host);
            if !self.access.allows_host(host) {
                return forbidden(
                    "the Host field names neither this machine nor a private address: \
                     use http://localhost:PORT or the machine's own name as the base URL"
                        .into(),
                );
            }
        }
        for origin in exchange.head.fields.values(KnownHeader::Origin) {
            if !std::str::from_utf8(origin).is_ok_and(|origin| self.access.allows_origin(origin)) {
                return forbidden(
                    "requests from web pages are not let in (Origin): \
                     they would spend the credentials of whoever visits the page"
                        .into(),
                );
            }
        }
        Ok(())
    }

    /// Sends the request until an answer can be passed on. This is the main loop of a request.
    fn forward(
        &self,
        context: &mut Context,
        exchange: &mut Exchange<'_>,
        request: &mut InFlight,
        mut step: Step,
    ) -> Result<Progress, ProxyError_> {
        loop {
            if step == Step::Send {
                self.send_attempt(context, exchange, request)?;
                if exchange.may_wait() {
                    return Ok(Progress::AwaitingUpstream);
                }
            }
            let InFlight {
                access_log,
                body,
                attempts,
                ..
            } = &mut *request;
            let answer = match context.upstream.receive(&exchange.head.method) {
                Ok(Some(answer)) => answer,
                Ok(None) => {
                    step = Step::Send;
                    continue;
                }
                Err(failure) => {
                    access_log.config = attempts.conclude(&self.balancer, None);
                    return Err(ProxyError_::UpstreamConnection(failure));
                }
            };
            let verdict = Verdict::of(answer.status, &answer.fields);
            attempts.record_verdict(&self.balancer, verdict, answer.status);
            let may_fail_over = matches!(verdict, Verdict::Rejected | Verdict::Limited(_))
                && !matches!(body, Body::Streamed(_));
            if !may_fail_over || attempts.next(&self.balancer, Instant::now()).is_none() {
                access_log.config = attempts.conclude(&self.balancer, Some(answer.status));
                access_log.time_to_first_byte = Some(access_log.started.elapsed());
                pass_on(exchange, context, &answer, access_log);
                context.upstream.take_back(answer.fields);
                return Ok(Progress::Done);
            }
            skip_body(&mut context.upstream);
            step = Step::Send;
        }
    }

    /// Sends the request with the credential whose turn it is.
    fn send_attempt(
        &self,
        context: &mut Context,
        exchange: &mut Exchange<'_>,
        request: &mut InFlight,
    ) -> Result<(), ProxyError_> {
        let InFlight {
            access_log,
            path,
            body,
            attempts,
        } = request;
        access_log.attempts = attempts.count();
        let Some(selection) = attempts.current() else {
            // The secrets loader refuses an empty file, so there is always somebody.
            return Err(ProxyError::new(Code::InternalError, "no configuration").into());
        };
        let sent = self.send(
            context,
            exchange,
            path,
            *body,
            &selection.configuration.credential,
            access_log.id.as_bytes(),
        );
        if sent.is_err() {
            access_log.config = attempts.conclude(&self.balancer, None);
        }
        sent
    }

    fn send(
        &self,
        context: &mut Context,
        exchange: &mut Exchange<'_>,
        path: &TargetSlice,
        body: Body,
        credential: &Credential,
        id: &[u8],
    ) -> Result<(), ProxyError_> {
        let fields = (credential.authorization(), &self.host, id);
        if let Body::Streamed(length) = body {
            return send_streamed(context, exchange, path, length, fields);
        }
        let head = &*exchange.head;
        // RFC 9110 section 8.6: these say so when they have no body.
        let has_empty_body = [Method::POST, Method::PUT, Method::PATCH].contains(&head.method);
        let request = Request {
            method: &head.method,
            target: path.of(&head.target),
            fields: headers::for_upstream(&head.fields, fields),
            body: match body {
                Body::None if has_empty_body => RequestBody::Held(b""),
                Body::None => RequestBody::None,
                _ => RequestBody::Held(&context.body),
            },
        };
        context
            .upstream
            .send(request, Some(exchange.client()))
            .map_err(ProxyError_::UpstreamConnection)
    }
}

/// Sends a request whose body still comes, `length` bytes of it if that is known, with the `fields` that
/// [`headers::for_upstream`] sets.
fn send_streamed(
    context: &mut Context,
    exchange: &mut Exchange<'_>,
    path: &TargetSlice,
    length: Option<u64>,
    fields: headers::Own<'_>,
) -> Result<(), ProxyError_> {
    // Work for a while, even where neither side makes it wait.
    socket::before_blocking();
    // The exchange is needed for reading the body.
    let client = Arc::clone(exchange.client());
    let path = path.of(&exchange.head.target).to_vec();
    let method = exchange.head.method.clone();
    let theirs = std::mem::take(&mut exchange.head.fields);
    let mut reader = Streaming::new(&context.body, exchange);
    let request = Request {
        method: &method,
        target: &path,
        fields: headers::for_upstream(&theirs, fields),
        body: RequestBody::Streamed {
            reader: &mut reader,
            length,
        },
    };
    let sent = context.upstream.send(request, Some(&client));
    match reader.fault.take() {
        Some(fault) => Err(ProxyError_::Client(fault)),
        None => sent.map_err(ProxyError_::UpstreamConnection),
    }
}

/// Passes the upstream's answer on and notes how that ended.
fn pass_on(
    exchange: &mut Exchange<'_>,
    context: &mut Context,
    answer: &ResponseHead,
    access_log: &mut AccessLog,
) {
    access_log.status = answer.status.as_u16();
    access_log.end = match relay::relay(
        exchange,
        &mut context.upstream,
        answer,
        access_log.id.as_bytes(),
    ) {
        Relayed::Whole => ExchangeEnd::Ok,
        Relayed::Client(ClientError::TimedOut) => ExchangeEnd::ClientTimeout,
        Relayed::Client(_) | Relayed::UpstreamConnection(UpstreamError::ClientClosed)
            if exchange.is_aborting() =>
        {
            ExchangeEnd::Shutdown
        }
        Relayed::Client(_) | Relayed::UpstreamConnection(UpstreamError::ClientClosed) => {
            ExchangeEnd::ClientGone
        }
        Relayed::UpstreamConnection(UpstreamError::TimedOut) => ExchangeEnd::UpstreamTimeout,
        Relayed::UpstreamConnection(_) => ExchangeEnd::UpstreamBroke,
    };
    match access_log.end {
        ExchangeEnd::ClientGone => {
            access_log.status = CLIENT_GONE_STATUS;
            exchange.mark_client_gone();
        }
        ExchangeEnd::UpstreamBroke | ExchangeEnd::UpstreamTimeout => {
            log::error!(
                "The upstream broke off in the middle of an answer ({})",
                access_log.end
            );
        }
        _ => {}
    }
}

/// Reads what is left of a rejected answer, if it is here and short, so that its connection can be
/// used again. Apart from its caller, whose stack frame would hold the scratch buffer for as long
/// as an answer lasts.
#[inline(never)]
fn skip_body(upstream: &mut UpstreamConnection) {
    let mut scratch = [0; 4096];
    let mut skipped = 0;
    while skipped <= MAX_SKIPPED {
        match upstream.try_read(&mut scratch) {
            Ok(BodyRead::Data(length)) => skipped += length,
            Ok(BodyRead::NotYet | BodyRead::End) | Err(_) => return,
        }
    }
}
