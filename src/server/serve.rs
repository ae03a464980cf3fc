//! Serving a connection: read a head, call the handler, keep the connection or close it.
//!
//! [`serve()`] is the main loop of a connection. It runs in a worker thread, and in the accept thread for
//! requests that need no permit. A request that waits for the upstream returns from it and is served
//! again later.

use std::sync::Arc;
use std::time::Instant;

use super::admission::Admission;
use super::connection::request_body::PendingRequest;
use super::connection::{CloseReason, Connection, ConnectionFate, NextHead};
use super::exchange::{Exchange, Outcome, WritePolicy};
use super::handler::{Handler, Progress};
use super::reject::reject;
use crate::http1::encode::OutputBuffer;
use crate::http1::error::HttpError;
use crate::http1::headers::HeaderBlock;
use crate::http1::request;
use crate::net::socket;
use crate::net::wait::{CallContext, Leadership};

/// Requests of one connection that a thread serves in a row before it hands its event loop over, so that
/// a client that pipelines does not hold up the other connections.
const MAX_IN_A_ROW: u64 = 16;

/// Header blocks of finished requests that a thread keeps. More than one, since a thread begins other
/// requests while some wait for the upstream.
const MAX_SPARE_HEADERS: usize = 16;

/// The buffers of a thread, used for the request that it works on.
#[derive(Default)]
pub(super) struct Buffers {
    output: OutputBuffer,
    /// Storage for received bytes, see [`crate::net::buffer`].
    pub(super) storage: Vec<u8>,
    /// Header blocks of finished requests, to be used again.
    headers: Vec<HeaderBlock>,
}

/// Who serves connections, and how.
pub(super) struct Serving<'a, H> {
    pub(super) handler: &'a H,
    pub(super) admission: &'a Admission,
    pub(super) leadership: &'a dyn Leadership,
    pub(super) write_policy: WritePolicy,
}

/// What came of serving a connection.
pub(super) enum Served<H: Handler> {
    Done(ConnectionFate, Box<H::Context>),
    /// Its request waits for the upstream, and goes on later with the same context.
    AwaitingUpstream(Box<Connection>, Box<H::Context>),
    /// The handler has panicked; connection and context are dropped.
    Panicked,
}

/// Goes on with the request of `connection` that has waited for the upstream, if there is one, and serves
/// the requests that have arrived. This is the main loop of a connection.
pub(super) fn serve<H: Handler>(
    mut connection: Box<Connection>,
    mut context: Box<H::Context>,
    buffers: &mut Buffers,
    serving: &Serving<'_, H>,
) -> Served<H> {
    let socket = Arc::clone(&connection.client.socket);
    let call = CallContext::new(serving.leadership, &socket);
    let input = &mut connection.client.input;
    input.borrow_storage(&mut buffers.storage);
    // A connection without a request comes here because an event reported input.
    connection.client.may_have_input |= connection.request.is_none();
    for served in 1.. {
        let has_waited = connection.request.is_some();
        if !has_waited {
            match connection.next_head(&mut buffers.headers) {
                NextHead::Complete if !serving.admission.is_stopping() => {}
                next => {
                    let fate = without_request(connection, next, buffers, serving.handler);
                    return Served::Done(fate, context);
                }
            }
        }
        let exchange = exchange(&mut connection, buffers, serving, call);
        let (progress, outcome) = handle(serving.handler, &mut context, exchange, has_waited);
        if progress == Progress::AwaitingUpstream {
            let input = &mut connection.client.input;
            input.return_storage(&mut buffers.storage);
            return Served::AwaitingUpstream(connection, context);
        }
        buffers.keep_headers(connection.request.take());
        match outcome {
            Outcome::KeepAlive => connection.served_requests += 1,
            Outcome::Close => return Served::Done(ConnectionFate::Drain(connection), context),
            Outcome::Abandoned { by_reset } => {
                if by_reset {
                    connection.client.reset_on_close();
                }
                let fate = ConnectionFate::Close(connection, CloseReason::Abandoned);
                return Served::Done(fate, context);
            }
        }
        // While others wait for a permit, a connection queues again even if it has another request.
        let waits = serving.write_policy == WritePolicy::MayWait;
        if !waits || serving.admission.has_queue() {
            let fate = set_aside(connection, buffers, ConnectionFate::Requeue);
            return Served::Done(fate, context);
        }
        if served % MAX_IN_A_ROW == 0 {
            call.before_blocking();
        }
    }
    unreachable!("2^64 requests in a row")
}

/// Whether the request that has arrived on `connection` needs a permit. Reads the head only if it begins
/// like one that needs none.
pub(super) fn needs_permit<H: Handler>(connection: &mut Connection, handler: &H) -> bool {
    let client = &mut connection.client;
    if client.input.bytes().is_empty() {
        let mut start = [0; 16];
        let length = socket::peek(&client.socket, &mut start);
        if handler.needs_permit(&start[..length]) {
            return true;
        }
        // The outcome does not matter: a head that is not whole needs a permit.
        client.read_head();
    }
    let bytes = client.input.bytes();
    handler.needs_permit(bytes) || !matches!(request::find_end(bytes, 0), Ok(Some(_)))
}

fn exchange<'c, H: Handler>(
    connection: &'c mut Connection,
    buffers: &'c mut Buffers,
    serving: &Serving<'c, H>,
    call: CallContext<'c>,
) -> Exchange<'c> {
    let Connection {
        client, request, ..
    } = connection;
    let Some(pending) = request else {
        unreachable!("the caller has read a head");
    };
    buffers.output.clear();
    Exchange::new(
        pending,
        client,
        &mut buffers.output,
        serving.admission,
        serving.write_policy,
        call,
    )
}

fn handle<H: Handler>(
    handler: &H,
    context: &mut H::Context,
    mut exchange: Exchange<'_>,
    has_waited: bool,
) -> (Progress, Outcome) {
    let progress = if has_waited {
        handler.resume(context, &mut exchange)
    } else {
        handler.handle(context, &mut exchange)
    };
    (progress, exchange.outcome())
}

/// Ends the serving of a connection that has no request to handle.
#[inline(never)]
fn without_request<H: Handler>(
    connection: Box<Connection>,
    next: NextHead,
    buffers: &mut Buffers,
    handler: &H,
) -> ConnectionFate {
    let error = match next {
        NextHead::NotYet => return set_aside(connection, buffers, ConnectionFate::AwaitHead),
        NextHead::Closed => return ConnectionFate::Close(connection, CloseReason::ClientClosed),
        NextHead::Rejected(error) => error,
        // Only a server that stops does not handle a complete head.
        NextHead::Complete => HttpError::shutting_down("the proxy is stopping"),
    };
    let since = connection.head_since.unwrap_or_else(Instant::now);
    reject(connection, handler, error, since)
}

/// Returns the thread's storage. The connection is idle, or `otherwise` if it has unused input.
fn set_aside(
    mut connection: Box<Connection>,
    buffers: &mut Buffers,
    otherwise: fn(Box<Connection>) -> ConnectionFate,
) -> ConnectionFate {
    let input = &mut connection.client.input;
    let is_idle = input.bytes().is_empty();
    input.return_storage(&mut buffers.storage);
    if is_idle {
        ConnectionFate::Idle(connection)
    } else {
        otherwise(connection)
    }
}

impl Buffers {
    fn keep_headers(&mut self, finished: Option<PendingRequest>) {
        if let Some(finished) = finished
            && self.headers.len() < MAX_SPARE_HEADERS
        {
            self.headers.push(finished.into_headers().reusable());
        }
    }
}
