//! The answer, copied to the client as it arrives.

use super::headers;
use super::sse::EventScanner;
use crate::http1::encode::ResponseLength;
use crate::http1::headers::KnownHeader;
use crate::http1::response::ResponseFraming;
use crate::http1::response::ResponseHead;
use crate::server::{ClientError, Exchange};
use crate::upstream::connection::{BodyRead, UpstreamConnection, UpstreamError};

/// How a relayed answer ended.
#[derive(Debug)]
pub enum Relayed {
    Whole,
    Client(ClientError),
    UpstreamConnection(UpstreamError),
}

/// Copies `answer`: the head at once, every piece as soon as it is there. This is the main loop of
/// an answer. Pieces gather only while there is more to read without waiting.
pub fn relay(
    exchange: &mut Exchange<'_>,
    upstream: &mut UpstreamConnection,
    answer: &ResponseHead,
    request_id: &[u8],
) -> Relayed {
    let framing = match answer.framing {
        ResponseFraming::None => ResponseLength::None,
        ResponseFraming::Length(length) => ResponseLength::Length(length),
        ResponseFraming::Chunked | ResponseFraming::UntilClose => ResponseLength::Unknown,
    };
    let mut events = is_event_stream(answer).then(EventScanner::default);
    exchange.start(
        answer.status,
        headers::for_client(&answer.fields, request_id),
        framing,
    );
    loop {
        let space = match exchange.space() {
            Ok(space) => space,
            Err(fault) => return Relayed::Client(fault),
        };
        let mut piece = upstream.try_read(space);
        if let Ok(BodyRead::NotYet) = piece {
            if let Err(fault) = exchange.flush() {
                return Relayed::Client(fault);
            }
            let space = match exchange.space() {
                Ok(space) => space,
                Err(fault) => return Relayed::Client(fault),
            };
            piece = upstream.read(space);
            if let (Ok(BodyRead::Data(length)), Some(events)) = (&piece, &mut events) {
                events.feed(&space[..*length]);
            }
        } else if let (Ok(BodyRead::Data(length)), Some(events)) = (&piece, &mut events) {
            events.feed(&space[..*length]);
        }
        match piece {
            Ok(BodyRead::Data(length)) => exchange.commit(length),
            Ok(BodyRead::NotYet) => {}
            Ok(BodyRead::End) => {
                return match exchange.finish() {
                    Ok(()) => Relayed::Whole,
                    Err(fault) => Relayed::Client(fault),
                };
            }
            Err(failure) => {
                break_off(exchange, &failure, events.as_ref());
                return Relayed::UpstreamConnection(failure);
            }
        }
    }
}

/// Sends what has gathered and, where the client reads events, the frame that says what happened.
fn break_off(exchange: &mut Exchange<'_>, failure: &UpstreamError, events: Option<&EventScanner>) {
    if let Some(events) = events {
        let message = match failure {
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
        exchange.write(&events.closing_frames(message));
    }
    // The answer is lost in any case; a client that does not read adds nothing to that.
    if let Err(fault) = exchange.flush() {
        log::debug!("the end of a broken answer did not reach the client: {fault:?}");
    }
}

/// Whether an error frame can be put into this body.
fn is_event_stream(answer: &ResponseHead) -> bool {
    let is_sse = answer
        .fields
        .value(KnownHeader::ContentType)
        .is_some_and(|value| {
            let kind = value.split(|&byte| byte == b';').next().unwrap_or_default();
            kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
        });
    is_sse
        && matches!(
            answer.framing,
            ResponseFraming::Chunked | ResponseFraming::UntilClose
        )
        && answer.fields.value(KnownHeader::ContentEncoding).is_none()
}
