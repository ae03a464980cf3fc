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

use self::access::Gate;
use self::access_log::{CLIENT_GONE_STATUS, End, Record, RequestId, RequestIds};
use self::admin::{self as pages, Status};
use self::attempts::{Attempts, Verdict};
use self::balancer::Balancer;
use self::error::{Code, Dialect, ProxyError};
use self::relay::Relayed;
use self::request_body::{Body, Streaming};
use self::route::{Form, Piece as TargetPiece, Route};
use self::trouble::Trouble;
use crate::config::secrets::Credential;
use crate::config::target::Target;
use crate::http1::error::Reason;
use crate::http1::headers::Name;
use crate::http1::response::Answer;
use crate::net::socket;
use crate::server::{ClientFault, Exchange, Handler, Progress, RefusalAnswer, Refused};
use crate::upstream::connection::{Failure, Piece, Upstream, UpstreamFactory};
use crate::upstream::request::{Request, RequestBody};

/// A longer request id is not returned with a refusal, which is to be short: bytes.
const MAX_REFUSED_ID: usize = 1024;
/// The most of a rejected answer's body that is read so that its connection can be used again.
const MAX_SKIPPED: usize = 64 * 1024;

/// Forwards requests to the target. One for the process.
pub struct Proxy {
    target: Target,
    host: HeaderValue,
    gate: Gate,
    balancer: Arc<Balancer>,
    upstreams: Arc<UpstreamFactory>,
    ids: RequestIds,
}

/// What each request in flight has for itself.
pub struct Kit {
    upstream: Upstream,
    body: Vec<u8>,
    /// A request that has been sent up and waits for its answer.
    waiting: Option<InFlight>,
}

/// A request, and how far it is.
struct InFlight {
    record: Record,
    /// Path and query that the upstream is asked for.
    path: TargetPiece,
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
    type Kit = Kit;

    fn kit(&self) -> Kit {
        Kit {
            upstream: Upstream::new(&self.upstreams),
            body: Vec::new(),
            waiting: None,
        }
    }

    fn handle(&self, kit: &mut Kit, exchange: &mut Exchange<'_>) -> Progress {
        let mut request = InFlight {
            record: self.record(exchange),
            path: TargetPiece::In(0..0),
            body: Body::None,
            attempts: Attempts::new(),
        };
        let result = self.answer(kit, exchange, &mut request);
        self.conclude(kit, exchange, request, result)
    }

    fn resume(&self, kit: &mut Kit, exchange: &mut Exchange<'_>) -> Progress {
        let Some(mut request) = kit.waiting.take() else {
            unreachable!("a request that waits is in the kit");
        };
        let result = self.forward(kit, exchange, &mut request, Step::Receive);
        self.conclude(kit, exchange, request, result)
    }

    fn awaited<'k>(&self, kit: &'k Kit) -> Option<&'k Weak<TcpStream>> {
        Some(kit.upstream.socket())
    }

    fn is_quick(&self, request: &[u8]) -> bool {
        request.starts_with(b"GET /-/")
    }

    fn refuse(&self, refused: &Refused<'_>) -> RefusalAnswer {
        let error = ProxyError::from(refused.refusal);
        let path = route::path_of(&refused.target);
        let dialect = Dialect::of(path.of(&refused.target), &self.target.base_path);
        let (mut fields, body) = error.answer(dialect);
        let is_usable = |id: &[u8]| {
            (1..=MAX_REFUSED_ID).contains(&id.len()) && HeaderValue::from_bytes(id).is_ok()
        };
        let theirs = refused.id.clone().filter(|id| is_usable(id));
        let own = || self.ids.make();
        let id = theirs.map_or_else(own, RequestId::Client);
        if let Ok(value) = HeaderValue::from_bytes(id.as_bytes()) {
            fields.push((HeaderName::from_static(headers::REQUEST_ID), value));
        }
        let end = match refused.refusal.reason {
            Reason::RequestTimeout => End::ClientTimeout,
            _ => End::Ok,
        };
        Record {
            method: refused.method.clone(),
            path,
            status: error.code.status(),
            config: None,
            attempts: 0,
            started: refused.since,
            time_to_first_byte: None,
            bytes_in: 0,
            bytes_out: match refused.method {
                Method::HEAD => 0,
                _ => body.len() as u64,
            },
            end,
            id,
        }
        .log(&refused.peer, &refused.target);
        RefusalAnswer { fields, body }
    }
}

impl Proxy {
    /// A proxy for `target` that chooses with `balancer` and lets in whom `gate` admits.
    ///
    /// # Errors
    /// The target's host cannot stand in a Host field.
    pub fn new(
        target: Target,
        gate: Gate,
        balancer: Arc<Balancer>,
        upstreams: Arc<UpstreamFactory>,
    ) -> Result<Proxy, String> {
        let host = HeaderValue::from_str(&target.authority).map_err(|error| error.to_string())?;
        let ids = RequestIds::new();
        Ok(Proxy {
            target,
            host,
            gate,
            balancer,
            upstreams,
            ids,
        })
    }

    fn record(&self, exchange: &Exchange<'_>) -> Record {
        let head = &exchange.head;
        let id = head.fields.value(Name::XRequestId);
        let id = id.filter(|id| !id.is_empty());
        let id = id.map(|id| RequestId::Client(id.into()));
        Record {
            method: head.method.clone(),
            path: TargetPiece::In(0..0),
            status: 0,
            config: None,
            attempts: 0,
            started: Instant::now(),
            time_to_first_byte: None,
            bytes_in: 0,
            bytes_out: 0,
            end: End::Ok,
            id: id.unwrap_or_else(|| self.ids.make()),
        }
    }

    /// Ends the request, unless it waits.
    fn conclude(
        &self,
        kit: &mut Kit,
        exchange: &mut Exchange<'_>,
        mut request: InFlight,
        result: Result<Progress, Trouble>,
    ) -> Progress {
        let record = &mut request.record;
        match result {
            Ok(Progress::Waits) => {
                kit.waiting = Some(request);
                return Progress::Waits;
            }
            Ok(Progress::Over) => {}
            Err(trouble) => self.explain(exchange, record, trouble),
        }
        kit.upstream.end();
        record.bytes_in = exchange.body_bytes_in();
        record.bytes_out = exchange.body_bytes_out();
        record.log(exchange.peer(), &exchange.head.target);
        Progress::Over
    }

    fn answer(
        &self,
        kit: &mut Kit,
        exchange: &mut Exchange<'_>,
        request: &mut InFlight,
    ) -> Result<Progress, Trouble> {
        let head = &exchange.head;
        let route = Route::of(&head.method, &head.target, &self.target).inspect_err(|_| {
            request.record.path = route::path_of(&head.target);
        })?;
        request.record.path = route.path.clone();
        let asked = route.path.of(&head.target);
        let status = || Status {
            remaining: self.balancer.available(Instant::now()),
            is_stopping: exchange.is_stopping(),
        };
        if asked.starts_with(b"/-")
            && let Some(page) = pages::page(asked, &head.method, status())
        {
            own_response::show(exchange, &mut request.record, &page?);
            return Ok(Progress::Over);
        }
        self.admit(exchange, &route)?;
        request.path = route.upstream_path(&head.target, &self.target);
        request.body = request_body::hold(exchange, &mut kit.body)?;
        let now = match request.body {
            // Nobody has been waited for.
            Body::None => request.record.started,
            _ => Instant::now(),
        };
        request.attempts.next(&self.balancer, now);
        self.forward(kit, exchange, request, Step::Send)
    }

    /// Section 9 of the contract: a web page must not spend the user's credentials.
    fn admit(&self, exchange: &Exchange<'_>, route: &Route) -> Result<(), ProxyError> {
        let forbidden = |what: String| Err(ProxyError::new(Code::Forbidden, what));
        if route.form == Form::Origin {
            let host = exchange.head.fields.value(Name::Host);
            if !self.gate.admits_host(host) {
                return forbidden(
                    "the Host field names neither this machine nor a private address: \
                     use http://localhost:PORT or the machine's own name as the base URL"
                        .into(),
                );
            }
        }
        for origin in exchange.head.fields.values(Name::Origin) {
            if !std::str::from_utf8(origin).is_ok_and(|origin| self.gate.admits_origin(origin)) {
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
        kit: &mut Kit,
        exchange: &mut Exchange<'_>,
        request: &mut InFlight,
        mut step: Step,
    ) -> Result<Progress, Trouble> {
        loop {
            if step == Step::Send {
                self.send_attempt(kit, exchange, request)?;
                if exchange.may_wait() {
                    return Ok(Progress::Waits);
                }
            }
            let InFlight {
                record,
                body,
                attempts,
                ..
            } = &mut *request;
            let answer = match kit.upstream.receive(&exchange.head.method) {
                Ok(Some(answer)) => answer,
                Ok(None) => {
                    step = Step::Send;
                    continue;
                }
                Err(failure) => {
                    record.config = attempts.settle(&self.balancer, None);
                    return Err(Trouble::Upstream(failure));
                }
            };
            let verdict = Verdict::of(answer.status, &answer.fields);
            attempts.judged(&self.balancer, verdict, answer.status);
            let may_fail_over = matches!(verdict, Verdict::Rejected | Verdict::Limited(_))
                && !matches!(body, Body::Streamed(_));
            if !may_fail_over || attempts.next(&self.balancer, Instant::now()).is_none() {
                record.config = attempts.settle(&self.balancer, Some(answer.status));
                record.time_to_first_byte = Some(record.started.elapsed());
                pass_on(exchange, kit, &answer, record);
                kit.upstream.take_back(answer.fields);
                return Ok(Progress::Over);
            }
            skip_body(&mut kit.upstream);
            step = Step::Send;
        }
    }

    /// Sends the request with the credential whose turn it is.
    fn send_attempt(
        &self,
        kit: &mut Kit,
        exchange: &mut Exchange<'_>,
        request: &mut InFlight,
    ) -> Result<(), Trouble> {
        let InFlight {
            record,
            path,
            body,
            attempts,
        } = request;
        record.attempts = attempts.count();
        let Some(pick) = attempts.current() else {
            // The secrets loader refuses an empty file, so there is always somebody.
            return Err(ProxyError::new(Code::InternalError, "no configuration").into());
        };
        let sent = self.send(
            kit,
            exchange,
            path,
            *body,
            &pick.configuration.credential,
            record.id.as_bytes(),
        );
        if sent.is_err() {
            record.config = attempts.settle(&self.balancer, None);
        }
        sent
    }

    fn send(
        &self,
        kit: &mut Kit,
        exchange: &mut Exchange<'_>,
        path: &TargetPiece,
        body: Body,
        credential: &Credential,
        id: &[u8],
    ) -> Result<(), Trouble> {
        let fields = (credential.authorization(), &self.host, id);
        if let Body::Streamed(length) = body {
            return send_streamed(kit, exchange, path, length, fields);
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
                _ => RequestBody::Held(&kit.body),
            },
        };
        kit.upstream
            .send(request, Some(exchange.client()))
            .map_err(Trouble::Upstream)
    }
}

/// Sends a request whose body still comes, `length` bytes of it if that is known, with the `fields` that
/// [`headers::for_upstream`] sets.
fn send_streamed(
    kit: &mut Kit,
    exchange: &mut Exchange<'_>,
    path: &TargetPiece,
    length: Option<u64>,
    fields: headers::Own<'_>,
) -> Result<(), Trouble> {
    // Work for a while, even where neither side makes it wait.
    socket::give_up_turn();
    // The exchange is needed for reading the body.
    let client = Arc::clone(exchange.client());
    let path = path.of(&exchange.head.target).to_vec();
    let method = exchange.head.method.clone();
    let theirs = std::mem::take(&mut exchange.head.fields);
    let mut reader = Streaming::new(&kit.body, exchange);
    let request = Request {
        method: &method,
        target: &path,
        fields: headers::for_upstream(&theirs, fields),
        body: RequestBody::Streamed {
            reader: &mut reader,
            length,
        },
    };
    let sent = kit.upstream.send(request, Some(&client));
    match reader.fault.take() {
        Some(fault) => Err(Trouble::Client(fault)),
        None => sent.map_err(Trouble::Upstream),
    }
}

/// Passes the upstream's answer on and notes how that ended.
fn pass_on(exchange: &mut Exchange<'_>, kit: &mut Kit, answer: &Answer, record: &mut Record) {
    record.status = answer.status.as_u16();
    record.end = match relay::relay(exchange, &mut kit.upstream, answer, record.id.as_bytes()) {
        Relayed::Whole => End::Ok,
        Relayed::Client(ClientFault::TimedOut) => End::ClientTimeout,
        Relayed::Client(_) | Relayed::Upstream(Failure::ClientLeft) if exchange.is_aborting() => {
            End::Shutdown
        }
        Relayed::Client(_) | Relayed::Upstream(Failure::ClientLeft) => End::ClientGone,
        Relayed::Upstream(Failure::TimedOut) => End::UpstreamTimeout,
        Relayed::Upstream(_) => End::UpstreamBroke,
    };
    match record.end {
        End::ClientGone => {
            record.status = CLIENT_GONE_STATUS;
            exchange.client_left();
        }
        End::UpstreamBroke | End::UpstreamTimeout => {
            log::error!(
                "The upstream broke off in the middle of an answer ({})",
                record.end
            );
        }
        _ => {}
    }
}

/// Reads what is left of a rejected answer, if it is here and short, so that its connection can be
/// used again. Apart from its caller, whose stack frame would hold the scratch buffer for as long
/// as an answer lasts.
#[inline(never)]
fn skip_body(upstream: &mut Upstream) {
    let mut scratch = [0; 4096];
    let mut skipped = 0;
    while skipped <= MAX_SKIPPED {
        match upstream.read_now(&mut scratch) {
            Ok(Piece::Data(length)) => skipped += length,
            Ok(Piece::NotYet | Piece::End) | Err(_) => return,
        }
    }
}
