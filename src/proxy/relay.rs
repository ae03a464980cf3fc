//! The answer, copied to the client as it arrives.

use super::headers;
use super::sse::EventTail;
use crate::http1::encode::AnswerFraming;
use crate::http1::headers::Name;
use crate::http1::response::Answer;
use crate::http1::response::Framing;
use crate::server::{ClientFault, Exchange};
use crate::upstream::connection::{Failure, Piece, Upstream};

/// How a relayed answer ended.
#[derive(Debug)]
pub enum Relayed {
    Whole,
    Client(ClientFault),
    Upstream(Failure),
}

/// Copies `answer`: the head at once, every piece as soon as it is there. This is the main loop of
/// an answer. Pieces gather only while there is more to read without waiting.
pub fn relay(
    exchange: &mut Exchange<'_>,
    upstream: &mut Upstream,
    answer: &Answer,
    request_id: &[u8],
) -> Relayed {
    let framing = match answer.framing {
        Framing::None => AnswerFraming::None,
        Framing::Length(length) => AnswerFraming::Length(length),
        Framing::Chunked | Framing::UntilClose => AnswerFraming::Unknown,
    };
    let mut events = is_event_stream(answer).then(EventTail::default);
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
        let mut piece = upstream.read_now(space);
        if let Ok(Piece::NotYet) = piece {
            if let Err(fault) = exchange.flush() {
                return Relayed::Client(fault);
            }
            let space = match exchange.space() {
                Ok(space) => space,
                Err(fault) => return Relayed::Client(fault),
            };
            piece = upstream.read(space);
            if let (Ok(Piece::Data(length)), Some(events)) = (&piece, &mut events) {
                events.feed(&space[..*length]);
            }
        } else if let (Ok(Piece::Data(length)), Some(events)) = (&piece, &mut events) {
            events.feed(&space[..*length]);
        }
        match piece {
            Ok(Piece::Data(length)) => exchange.commit(length),
            Ok(Piece::NotYet) => {}
            Ok(Piece::End) => {
                return match exchange.finish() {
                    Ok(()) => Relayed::Whole,
                    Err(fault) => Relayed::Client(fault),
                };
            }
            Err(failure) => {
                break_off(exchange, &failure, events.as_ref());
                return Relayed::Upstream(failure);
            }
        }
    }
}

/// Sends what has gathered and, where the client reads events, the frame that says what happened.
fn break_off(exchange: &mut Exchange<'_>, failure: &Failure, events: Option<&EventTail>) {
    if let Some(events) = events {
        let message = match failure {
            Failure::ClientLeft if !exchange.is_aborting() => return,
            Failure::ClientLeft => {
                "flow-proxy: the proxy was stopped before the answer was complete"
            }
            Failure::TimedOut => {
                "flow-proxy: the upstream fell silent before the answer was complete"
            }
            Failure::Unreachable(_) | Failure::NoDescriptors | Failure::Broke(_) => {
                "flow-proxy: the upstream closed the connection before the answer was complete"
            }
        };
        exchange.write(&events.ending(message));
    }
    // The answer is lost in any case; a client that does not read adds nothing to that.
    if let Err(fault) = exchange.flush() {
        log::debug!("the end of a broken answer did not reach the client: {fault:?}");
    }
}

/// Whether an error frame can be put into this body.
fn is_event_stream(answer: &Answer) -> bool {
    let is_sse = answer.fields.value(Name::ContentType).is_some_and(|value| {
        let kind = value.split(|&byte| byte == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    });
    is_sse
        && matches!(answer.framing, Framing::Chunked | Framing::UntilClose)
        && answer.fields.value(Name::ContentEncoding).is_none()
}
