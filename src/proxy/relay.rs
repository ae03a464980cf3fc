//! Copies the response to the client as it arrives.

use super::error::AnthropicError;
use super::headers;
use super::sse::EventScanner;
use crate::http1::encode::ResponseLength;
use crate::http1::headers::KnownHeader;
use crate::http1::response::{ResponseFraming, ResponseHead};
use crate::server::{ClientError, Exchange};
use crate::upstream::connection::{BodyRead, UpstreamConnection};
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

/// Copies `response`: the head at once, every piece of the body as soon as it has arrived.
pub fn relay(
    exchange: &mut Exchange<'_>,
    connection: &mut UpstreamConnection,
    response: &ResponseHead,
    request_id: &[u8],
) -> Relayed {
    let length = match response.framing {
        ResponseFraming::None => ResponseLength::None,
        ResponseFraming::Length(length) => ResponseLength::Length(length),
        ResponseFraming::Chunked | ResponseFraming::UntilClose => ResponseLength::Unknown,
    };
    let mut events = is_event_stream(response).then(EventScanner::default);
    let fields = headers::for_client(&response.fields, request_id);
    exchange.start(response.status, fields, length);
    match copy_body(exchange, connection, events.as_mut()) {
        Relayed::Upstream(error) => {
            break_off(exchange, &error, events.as_ref());
            Relayed::Upstream(error)
        }
        relayed => relayed,
    }
}

/// Copies the body. This is the main loop of a response.
fn copy_body(
    exchange: &mut Exchange<'_>,
    connection: &mut UpstreamConnection,
    mut events: Option<&mut EventScanner>,
) -> Relayed {
    loop {
        match next_piece(exchange, connection, events.as_deref_mut()) {
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
    events: Option<&mut EventScanner>,
) -> Result<BodyRead, Relayed> {
    let mut space = exchange.space()?;
    let mut read = connection.try_read(space);
    if let Ok(BodyRead::NotYet) = read {
        exchange.flush()?;
        space = exchange.space()?;
        read = connection.read(space);
    }
    if let (Ok(BodyRead::Data(length)), Some(events)) = (&read, events) {
        events.feed(&space[..*length]);
    }
    read.map_err(Relayed::Upstream)
}

/// Sends what has gathered and, to a client that reads events, the frame that says what happened.
fn break_off(exchange: &mut Exchange<'_>, error: &UpstreamError, events: Option<&EventScanner>) {
    if let Some(events) = events {
        let message = match error {
            UpstreamError::ClientClosed if !exchange.is_aborting() => return,
            UpstreamError::ClientClosed => {
                "flow-proxy: the proxy was stopped before the answer was complete"
            }
            UpstreamError::TimedOut => {
                "flow-proxy: the upstream fell silent before the answer was complete"
            }
            UpstreamError::Unreachable(_)
            | UpstreamError::NoDescriptors
            | UpstreamError::Broke(_) => {
                "flow-proxy: the upstream closed the connection before the answer was complete"
            }
        };
        let error = AnthropicError("api_error", message).to_string();
        exchange.write(&events.closing_frames(message, &error));
    }
    // The response is lost in any case; a client that does not read adds nothing to that.
    if let Err(error) = exchange.flush() {
        log::debug!("the end of a broken response did not reach the client: {error:?}");
    }
}

/// Whether an error frame can be put into this body.
fn is_event_stream(response: &ResponseHead) -> bool {
    let content_type = response.fields.value(KnownHeader::ContentType);
    let is_sse = content_type.is_some_and(|value| {
        let kind = value.split(|&byte| byte == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    });
    let has_open_end = matches!(
        response.framing,
        ResponseFraming::Chunked | ResponseFraming::UntilClose
    );
    let is_encoded = response
        .fields
        .value(KnownHeader::ContentEncoding)
        .is_some();
    is_sse && has_open_end && !is_encoded
}
