//! A request on its way, and what it is served with.

use std::net::TcpStream;
use std::sync::Weak;

use super::attempts::Attempts;
use super::kept_response::Kept;
use super::model;
use super::request_body::{Body, BodyBuffer};
use crate::proxy::access_log::AccessLog;
use crate::proxy::headers::ResponseRules;
use crate::proxy::route::TargetSlice;
use crate::server::Exchange;
use crate::upstream::connection::UpstreamConnection;

/// What each request in flight owns: an upstream connection and a buffer for its body.
pub struct Context {
    pub(super) connection: UpstreamConnection,
    pub(super) body: BodyBuffer,
    /// A request that was sent and waits for its response.
    pub waiting: Option<InFlight>,
}

/// A request, and how far it is.
pub struct InFlight {
    pub log: AccessLog,
    /// Path and query for the upstream.
    pub path: TargetSlice,
    /// What its response's header fields depend on.
    pub rules: ResponseRules,
    pub(super) body: Body,
    /// Its model, once that was looked for.
    pub(super) model: Option<Option<String>>,
    pub attempts: Attempts,
    /// A response of an earlier attempt that says more to the client than the last one may.
    pub(super) kept: Option<Kept>,
}

impl InFlight {
    pub fn new(log: AccessLog) -> InFlight {
        InFlight {
            log,
            path: TargetSlice::In(0..0),
            rules: ResponseRules::default(),
            body: Body::None,
            model: None,
            attempts: Attempts::default(),
            kept: None,
        }
    }

    /// Looks for the model, unless that was done before.
    pub(super) fn find_model(
        &mut self,
        context: &Context,
        exchange: &Exchange<'_>,
    ) -> Option<&str> {
        let find = || {
            let body = match self.body {
                Body::Held => context.body.bytes(),
                // A part of a body may lack the member that counts.
                Body::None | Body::Streamed(_) => b"",
            };
            model::of_request(self.log.path.of(&exchange.head.target), body)
        };
        self.model.get_or_insert_with(find).as_deref()
    }

    /// Notes the model for the log, of a request that was sent.
    pub fn note_model(&mut self, context: &Context, exchange: &Exchange<'_>) {
        if self.log.attempts > 0 {
            self.find_model(context, exchange);
        }
        if let Some(Some(model)) = &self.model {
            self.log.note_model(model);
        }
    }
}

impl Context {
    pub fn upstream_socket(&self) -> &Weak<TcpStream> {
        self.connection.socket()
    }

    /// Closes the upstream connection, unless it can be used again, and forgets the body.
    pub fn end_exchange(&mut self) {
        self.connection.end_exchange();
        self.body.clear();
    }
}
