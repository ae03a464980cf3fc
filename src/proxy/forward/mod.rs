//! The attempts at one request: send, receive, judge, fail over, relay.
//!
//! A request that has been sent may be put aside until its response begins ([`Context::waiting`]); every
//! other wait blocks the worker.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderValue, Method};

mod attempts;
pub mod error_body;
pub mod in_flight;
mod kept_response;
mod limit_wait;
mod model;
mod relay;
mod request_body;
mod streamed_request;

use self::error_body::ErrorBody;
use self::in_flight::{Context, InFlight};
use self::kept_response::Kept;
use self::limit_wait::LimitWait;
use self::request_body::{Body, BodyBuffer, HeldBytes};
use crate::config::secrets::Credential;
use crate::config::target::Target;
use crate::http1::error::HttpError;
use crate::http1::headers::KnownHeader;
use crate::http1::response::ResponseHead;
use crate::proxy::access_log::AccessLog;
use crate::proxy::balancer::Balancer;
use crate::proxy::balancer::selection::Wanted;
use crate::proxy::balancer::verdict::{self, Asked, ErrorObject, Verdict};
use crate::proxy::error::ProxyError;
use crate::proxy::headers::{self, ClientHeaders};
use crate::proxy::usage::observer::Observer;
use crate::server::{Exchange, Progress};
use crate::upstream::connection::UpstreamConnection;
use crate::upstream::connector::Upstream;
use crate::upstream::request::{Request, RequestBody};

/// Sends requests to the target. One for the process.
pub struct Forwarder {
    pub target: Target,
    /// The target's Host.
    host: HeaderValue,
    pub balancer: Arc<Balancer>,
    upstream: Arc<Upstream>,
    held: Arc<HeldBytes>,
    limit_wait: LimitWait,
}

impl Forwarder {
    /// `limit_wait` is how long a request may wait where all credentials are limited; of `workers` a
    /// quarter may do so.
    ///
    /// # Errors
    /// The target's host cannot stand in a Host field.
    pub fn new(
        target: Target,
        balancer: Arc<Balancer>,
        upstream: Arc<Upstream>,
        limit_wait: Duration,
        workers: usize,
    ) -> Result<Forwarder, String> {
        let host = HeaderValue::from_str(&target.authority).map_err(|error| error.to_string())?;
        Ok(Forwarder {
            target,
            host,
            balancer,
            upstream,
            held: HeldBytes::new(),
            limit_wait: LimitWait::new(limit_wait, workers),
        })
    }

    pub fn new_context(&self) -> Context {
        Context {
            connection: UpstreamConnection::new(&self.upstream),
            body: BodyBuffer::new(&self.held),
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
        request.body = request_body::read_body(exchange, &mut context.body)?;
        if self.limit_wait.is_on() {
            self.wait_for_limit(context, exchange, request)?;
        }
        self.choose(context, exchange, request);
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

    /// Chooses the first credential.
    fn choose(&self, context: &Context, exchange: &Exchange<'_>, request: &mut InFlight) {
        let now = match request.body {
            // Nothing has been waited for since.
            Body::None if !self.limit_wait.is_on() => request.log.started,
            _ => Instant::now(),
        };
        if self.balancer.has_model_rests(now) {
            request.find_model(context, exchange);
        }
        let wanted = Wanted {
            model: request.model.as_ref().and_then(Option::as_deref),
            asks_resting: false,
            avoids_probe: matches!(request.body, Body::Streamed(_)),
        };
        request.attempts.begin(&self.balancer, now, wanted);
    }

    /// Waits until a credential is available, where all are limited and that is worth it. True: it has
    /// waited.
    fn wait_for_limit(
        &self,
        context: &Context,
        exchange: &mut Exchange<'_>,
        request: &mut InFlight,
    ) -> Result<bool, ProxyError> {
        let started = request.log.started;
        let model = request.find_model(context, exchange);
        let waited = self
            .limit_wait
            .wait(&self.balancer, exchange, model, started);
        if waited.is_err() {
            self.conclude(request, None);
        }
        Ok(waited?)
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
        let response = match context
            .connection
            .receive(&exchange.head.method, exchange.call())
        {
            Ok(Some(response)) => response,
            // An idle connection was closed before the request reached it.
            Ok(None) => {
                request.log.resent += 1;
                return Ok(false);
            }
            Err(error) => {
                self.conclude(request, None);
                return Err(error.into());
            }
        };
        self.judge(context, exchange, request, response)
    }

    /// Judges the response and passes it on. False: the request must be sent once more.
    fn judge(
        &self,
        context: &mut Context,
        exchange: &mut Exchange<'_>,
        request: &mut InFlight,
        response: ResponseHead,
    ) -> Result<bool, ProxyError> {
        let mut body = ErrorBody::default();
        let mut error = ErrorObject::default();
        if verdict::needs_body(response.status, &response.fields) {
            body = error_body::read(&mut context.connection, exchange.call());
            error = body.error(&response.fields);
            request.find_model(context, exchange);
        } else if self.balancer.has_model_rests(request.log.started) {
            request.find_model(context, exchange);
        }
        let model = request.model.as_ref().and_then(Option::as_deref);
        let path = request.log.path.of(&exchange.head.target);
        let asked = Asked {
            needs_token: request.body != Body::None || self.is_under_v1(path),
            model,
        };
        let now = SystemTime::now();
        let judgement = verdict::judge(response.status, &response.fields, &error, asked, now);
        let balancer = &self.balancer;
        let attempts = &mut request.attempts;
        attempts.record(balancer, judgement, response.status, model);
        let verdict = judgement.verdict;
        let config = attempts.configuration();
        let may_repeat = !matches!(request.body, Body::Streamed(_));
        if may_repeat && attempts.next(balancer, Instant::now(), model) {
            let is_whole = body.is_whole;
            Kept::keep(&mut request.kept, (verdict, config), response, body);
            if !is_whole {
                error_body::skip_rest(&mut context.connection, exchange.call());
            }
            return Ok(false);
        }
        if may_repeat
            && verdict.is_limit()
            && self.limit_wait.is_on()
            && self.wait_for_limit(context, exchange, request)?
        {
            error_body::skip_rest(&mut context.connection, exchange.call());
            request.kept = None;
            self.choose(context, exchange, request);
            return Ok(false);
        }
        self.pass_on(context, exchange, request, verdict, response, &body);
        Ok(true)
    }

    /// Passes on the response, or an earlier one that says more.
    fn pass_on(
        &self,
        context: &mut Context,
        exchange: &mut Exchange<'_>,
        request: &mut InFlight,
        verdict: Verdict,
        response: ResponseHead,
        body: &ErrorBody,
    ) {
        let kept = request.kept.take();
        let kept = kept.filter(|kept| kept.says_more_than(verdict));
        request.log.time_to_first_byte = Some(request.log.started.elapsed());
        let (verdict, status) = match &kept {
            Some(kept) => (kept.verdict, kept.response.status),
            None => (verdict, response.status),
        };
        self.conclude(request, Some((verdict, status)));
        if let Some(kept) = &kept {
            request.log.config.clone_from(&kept.config);
        }
        let shown = kept.as_ref().map_or(&response, |kept| &kept.response);
        note_ids(&mut request.log, shown);
        request.log.note_budget(&shown.fields);
        if status.as_u16() >= 400 {
            request.log.reason = Some(verdict.name());
        }
        let asked = (
            &exchange.head.method,
            request.log.path.of(&exchange.head.target),
        );
        let mut observer = Observer::new(asked, (shown.status, &shown.fields));
        let mut headers = self.headers_for_client(request, verdict, shown);
        let relayed = match &kept {
            Some(kept) => kept.send(exchange, &mut headers),
            None => relay::relay(
                exchange,
                &mut context.connection,
                (&response, body),
                &mut headers,
                observer.as_mut(),
            ),
        };
        if kept.is_some() && !body.is_whole {
            error_body::skip_rest(&mut context.connection, exchange.call());
        }
        relay::note_end(exchange, &mut request.log, status.as_u16(), &relayed);
        if let Some(observer) = observer {
            let observed = observer.finish();
            request.log.note_response(&observed, status.as_u16());
        }
        context.connection.reuse_fields(response.fields);
    }

    /// What the client's header fields differ in from the upstream's.
    fn headers_for_client<'r>(
        &'r self,
        request: &'r InFlight,
        verdict: Verdict,
        response: &ResponseHead,
    ) -> ClientHeaders<'r> {
        let model = request.model.as_ref().and_then(Option::as_deref);
        let id = request.log.id.as_bytes();
        let mut headers = ClientHeaders::new(&self.target, id, &request.rules);
        if verdict.is_limit() {
            let rest = self.balancer.first_available_in(model, Instant::now());
            headers.set_retry_after(rest);
        } else if verdict == Verdict::Provider {
            headers.take_retry_after_of_provider(&response.fields);
        }
        if verdict.is_final() && request.attempts.are_final(&self.balancer, model) {
            headers.forbid_retry();
        }
        headers
    }

    /// Ends the attempts: what follows from them for the credentials.
    fn conclude(&self, request: &mut InFlight, passed_on: Option<(Verdict, http::StatusCode)>) {
        let model = request.model.as_ref().and_then(Option::as_deref);
        request.log.config = request.attempts.configuration();
        request.attempts.conclude(&self.balancer, model, passed_on);
    }

    fn is_under_v1(&self, path: &[u8]) -> bool {
        let base = self.target.base_path.as_bytes();
        path.strip_prefix(base).unwrap_or(path).starts_with(b"/v1/")
    }

    /// Sends the request with the credential that was chosen last.
    fn send(
        &self,
        context: &mut Context,
        exchange: &mut Exchange<'_>,
        request: &mut InFlight,
    ) -> Result<(), ProxyError> {
        request.log.attempts = request.attempts.count();
        let Some(selection) = request.attempts.current() else {
            // The secrets loader rejects an empty file, so that there is always one.
            return Err(HttpError::internal_error("no configuration").into());
        };
        let credential = &selection.configuration.credential;
        match self.send_with(context, exchange, request, credential) {
            Ok(is_resent) => {
                request.log.resent += u32::from(is_resent);
                Ok(())
            }
            Err(error) => {
                self.conclude(request, None);
                Err(error)
            }
        }
    }

    /// Returns whether it was sent once more because an idle connection had been closed.
    fn send_with(
        &self,
        context: &mut Context,
        exchange: &mut Exchange<'_>,
        request: &InFlight,
        credential: &Credential,
    ) -> Result<bool, ProxyError> {
        let id = request.log.id.as_bytes();
        let own = (credential.authorization(), &self.host, id);
        if let Body::Streamed(length) = request.body {
            return streamed_request::send_streamed(context, exchange, &request.path, length, own);
        }
        let head = &*exchange.head;
        // RFC 9110 section 8.6: these state a length of 0 when they have no body.
        let has_empty_body = [Method::POST, Method::PUT, Method::PATCH].contains(&head.method);
        let message = Request {
            method: &head.method,
            target: request.path.of(&head.target),
            fields: headers::for_upstream(&head.fields, own),
            body: match request.body {
                Body::None if has_empty_body => RequestBody::Buffered(b""),
                Body::None => RequestBody::None,
                _ => RequestBody::Buffered(context.body.bytes()),
            },
        };
        context
            .connection
            .send(message, exchange.call())
            .map_err(ProxyError::Upstream)
    }
}

/// Notes the ids that the upstream gave the request.
fn note_ids(log: &mut AccessLog, response: &ResponseHead) {
    let id = response.fields.value(KnownHeader::XRequestId);
    log.upstream_id = id.filter(|id| *id != log.id.as_bytes()).map(Box::from);
    if response.status.as_u16() >= 400 {
        log.call_id = response.fields.find(b"x-litellm-call-id").map(Box::from);
    }
}
