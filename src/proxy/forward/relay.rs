//! Copies the response to the client as it arrives.

use super::error_body::ErrorBody;
use crate::http1::body::BodyLength;
use crate::http1::response::ResponseHead;
use crate::proxy::access_log::{AccessLog, CLIENT_GONE_STATUS, ExchangeEnd};
use crate::proxy::api::Api;
use crate::proxy::error::AnthropicError;
use crate::proxy::headers::{self, ClientHeaders};
use crate::proxy::sse::EventScanner;
use crate::proxy::sse::sequence::SequenceScanner;
use crate::proxy::usage::observer::Observer;
use crate::server::{ClientError, Exchange};
use crate::upstream::connection::UpstreamConnection;
use crate::upstream::connection::open::BodyRead;
use crate::upstream::error::UpstreamError;

/// How a relayed response ended.
#[derive(Debug)]
pub enum Relayed {
    Whole,
    Client(ClientError),
    Upstream(UpstreamError),
}

impl From<ClientError> for Relayed {
    fn from(error: ClientError) -> Relayed {
        Relayed::Client(error)
    }
}

/// What is known of a stream of events, for ending it where it breaks off.
struct Events {
    scanner: EventScanner,
    /// For streams whose events are numbered.
    sequence: Option<SequenceScanner>,
}

/// Who looks at the body as it passes.
struct Watchers<'o> {
    events: Option<Events>,
    observer: Option<&'o mut Observer>,
}

impl Watchers<'_> {
    fn feed(&mut self, piece: &[u8]) {
        if let Some(events) = &mut self.events {
            events.scanner.feed(piece);
            if let Some(sequence) = &mut events.sequence {
                sequence.feed(piece);
            }
        }
        if let Some(observer) = &mut self.observer {
            observer.observe(piece);
        }
    }
}

/// Copies a response: the head and what was read of its body at once, every further piece as soon as it
/// has arrived. The observer sees what is sent.
pub fn relay(
    exchange: &mut Exchange<'_>,
    connection: &mut UpstreamConnection,
    (response, body): (&ResponseHead, &ErrorBody),
    headers: &mut ClientHeaders<'_>,
    observer: Option<&mut Observer>,
) -> Relayed {
    let events = has_error_frame(response).then(|| Events {
        scanner: EventScanner::default(),
        sequence: (headers.rules.api == Api::Responses).then(SequenceScanner::default),
    });
    if connection.has_dropped_output() {
        exchange.close_after_response();
    }
    let mut watchers = Watchers { events, observer };
    exchange.start(
        response.status,
        headers::for_client(&response.fields, headers),
        response.body_length,
    );
    if !body.bytes.is_empty() {
        exchange.write(&body.bytes);
        watchers.feed(&body.bytes);
    }
    match copy_body(exchange, connection, &mut watchers) {
        Relayed::Upstream(error) => {
            break_off(exchange, &error, watchers.events.as_ref());
            Relayed::Upstream(error)
        }
        relayed => relayed,
    }
}

/// Notes how the response that was passed on ended.
pub fn note_end(exchange: &mut Exchange<'_>, log: &mut AccessLog, status: u16, relayed: &Relayed) {
    log.status = status;
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

/// Copies the body. This is the main loop of a response.
fn copy_body(
    exchange: &mut Exchange<'_>,
    connection: &mut UpstreamConnection,
    watchers: &mut Watchers<'_>,
) -> Relayed {
    loop {
        match next_piece(exchange, connection, watchers) {
            Ok(BodyRead::Data(length)) => exchange.commit(length),
            Ok(BodyRead::NotYet) => {}
            Ok(BodyRead::End) => {
                return match exchange.finish() {
                    Ok(()) => Relayed::Whole,
                    Err(error) => Relayed::Client(error),
                };
            }
            Err(relayed) => return relayed,
        }
    }
}

/// Reads the next piece into the exchange's buffer. Pieces gather there while more has arrived already;
/// they are sent before the upstream is waited for.
fn next_piece(
    exchange: &mut Exchange<'_>,
    connection: &mut UpstreamConnection,
    watchers: &mut Watchers<'_>,
) -> Result<BodyRead, Relayed> {
    let call = exchange.call();
    let mut space = exchange.space()?;
    let mut read = connection.try_read(space, call);
    if let Ok(BodyRead::NotYet) = read {
        exchange.flush()?;
        space = exchange.space()?;
        read = connection.read(space, call);
    }
    if let Ok(BodyRead::Data(length)) = read {
        watchers.feed(&space[..length]);
    }
    read.map_err(Relayed::Upstream)
}

/// Sends what has gathered and, to a client that reads events, the frame that says what happened.
fn break_off(exchange: &mut Exchange<'_>, error: &UpstreamError, events: Option<&Events>) {
    if let Some(events) = events {
        let (code, message) = match error {
            UpstreamError::ClientClosed if !exchange.is_aborting() => return,
            UpstreamError::ClientClosed => (
                "shutting_down",
                "flow-proxy: the proxy was stopped before the answer was complete",
            ),
            UpstreamError::TimedOut => (
                "upstream_timeout",
                "flow-proxy: the upstream fell silent before the answer was complete",
            ),
            UpstreamError::Unreachable(_)
            | UpstreamError::NoDescriptors
            | UpstreamError::Broke(_) => (
                "upstream_broke",
                "flow-proxy: the upstream closed the connection before the answer was complete",
            ),
        };
        let data = match &events.sequence {
            Some(sequence) => responses_error(sequence.next(), code, message),
            None => AnthropicError("api_error", message).to_string(),
        };
        exchange.write(&events.scanner.closing_frames(message, &data));
    }
    // The response is lost in any case; a client that does not read adds nothing to that.
    if let Err(error) = exchange.flush() {
        log::debug!("the end of a broken response did not reach the client: {error:?}");
    }
}

/// The error event of OpenAI's responses API, which both its SDKs and the AI SDK raise on.
fn responses_error(sequence_number: u64, code: &str, message: &str) -> String {
    let message = serde_json::Value::from(message);
    format!(
        r#"{{"type":"error","sequence_number":{sequence_number},"error":{{"type":"server_error","code":"{code}","message":{message},"param":null}}}}"#
    )
}

/// Whether an error frame can be put into this body.
fn has_error_frame(response: &ResponseHead) -> bool {
    let has_open_end = matches!(
        response.body_length,
        BodyLength::Chunked | BodyLength::UntilClose
    );
    has_open_end && response.fields.is_event_stream() && response.fields.is_uncompressed()
}
