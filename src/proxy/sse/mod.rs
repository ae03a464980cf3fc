//! Server-sent events: where an event ends, and how a stream that broke off is ended honestly.
//!
//! Both SDKs raise on one frame, `event: error` with Anthropic's error object: OpenAI's because the
//! data has an `error` member, Anthropic's because of the event's name. It must stand alone, and what
//! was sent of an event before the break must not be taken for a whole one. No I/O.

use self::partial_event::{DONE, Data, PartialEvent};

mod partial_event;
mod partial_json;

/// How much of an unfinished event is kept before it is worked into [`OpenEvent`]. Most events are
/// shorter and whole, and so are never looked at more closely.
const MAX_TAIL: usize = 64 * 1024;

/// Follows a stream and keeps what matters of what was sent since its last event boundary.
#[derive(Debug, Default)]
pub struct EventScanner {
    /// The latest bytes of the event that is not complete yet, at most [`MAX_TAIL`] of them.
    tail: Vec<u8>,
    /// What was before `tail`.
    open: PartialEvent,
    line: Line,
}

/// Where in a line the stream is. A line ends with LF, CR or CRLF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Line {
    /// At the start of the stream or behind an empty line: a boundary.
    #[default]
    Boundary,
    /// Behind a CR that ended an empty line: a boundary, an LF may still belong to it.
    BoundaryCr,
    /// At the start of a line of an event.
    Start,
    /// Behind a CR that ended a line.
    StartCr,
    Inside,
}

impl EventScanner {
    /// Takes note of a piece that was sent.
    pub fn feed(&mut self, piece: &[u8]) {
        let mut boundary = None;
        for (index, &byte) in piece.iter().enumerate() {
            self.line = match (self.line, byte) {
                (Line::BoundaryCr, b'\n') => Line::Boundary,
                (Line::StartCr, b'\n') => Line::Start,
                (Line::Boundary | Line::Start, b'\n') => Line::Boundary,
                (Line::StartCr, b'\r') => Line::BoundaryCr,
                (Line::Boundary | Line::BoundaryCr | Line::Start, b'\r') => Line::BoundaryCr,
                (Line::Inside, b'\n') => Line::Start,
                (Line::Inside, b'\r') => Line::StartCr,
                (_, _) => Line::Inside,
            };
            if matches!(self.line, Line::Boundary | Line::BoundaryCr) {
                boundary = Some(index + 1);
            }
        }
        let rest = match boundary {
            Some(end) => {
                self.tail.clear();
                self.open = PartialEvent::default();
                &piece[end..]
            }
            None => piece,
        };
        if self.tail.len() + rest.len() > MAX_TAIL {
            self.open.take(&self.tail);
            self.tail.clear();
            self.open.take(rest);
        } else {
            self.tail.extend_from_slice(rest);
        }
    }

    /// Whether everything that was sent is whole events.
    pub fn is_at_boundary(&self) -> bool {
        matches!(self.line, Line::Boundary | Line::BoundaryCr)
    }

    /// Returns the bytes that end a broken stream: they close what is open as an error with `message`,
    /// then comes an event `error` with `data`, a JSON object.
    pub fn closing_frames(&self, message: &str, data: &str) -> Vec<u8> {
        let mut closing_frames = Vec::new();
        if !self.is_at_boundary() {
            self.close_event(message, &mut closing_frames);
        }
        closing_frames.extend_from_slice(b"event: error\ndata: ");
        closing_frames.extend_from_slice(data.as_bytes());
        closing_frames.extend_from_slice(b"\n\n");
        closing_frames
    }

    /// Ends the event that is open so that no decoder takes it for a whole one of its kind, and each
    /// finds our message in it.
    ///
    /// Its data, if it is the beginning of a JSON object, becomes an object with an `error` member,
    /// so that decoders that parse every event's data raise an error with our message; and its name
    /// becomes `error`, for those that go by the name. The mark of the end, once begun, is ended: all
    /// events were sent before it.
    fn close_event(&self, message: &str, closing_frames: &mut Vec<u8>) {
        let mut open = self.open.clone();
        open.take(&self.tail);
        let in_line = self.line == Line::Inside;
        let in_data = in_line && open.is_in_data();
        if in_line {
            // Python's decoders fail on half a character, in comments too.
            closing_frames.extend_from_slice(open.rest_of_character());
        }
        let end_line = |closing_frames: &mut Vec<u8>| {
            if in_line {
                closing_frames.push(b'\n');
            }
        };
        match open.data {
            // No data yet: the frame's own lines make this event the error.
            Data::Blank => end_line(closing_frames),
            Data::DoneMarker { seen } if in_data => {
                closing_frames.extend_from_slice(&DONE[seen..]);
                closing_frames.extend_from_slice(b"\nevent: error\n\n");
            }
            Data::Json(json) if !json.is_whole() => {
                if !in_data {
                    end_line(closing_frames);
                    closing_frames.extend_from_slice(b"data: ");
                }
                closing_frames.extend_from_slice(json.completion(message).as_bytes());
                closing_frames.extend_from_slice(b"\nevent: error\n\n");
            }
            Data::Json(_) | Data::DoneMarker { .. } | Data::Other => {
                end_line(closing_frames);
                closing_frames.extend_from_slice(b"event: error\n\n");
            }
        }
    }
}

#[cfg(test)]
mod tests;
