//! Server-sent events (WHATWG HTML section 9.2): finds where an event ends, and closes a broken stream
//! with an error event.
//!
//! One frame makes both SDKs raise an error, `event: error` with Anthropic's error object: OpenAI's
//! because the data has an `error` member, Anthropic's because of the event's name. It must be an event
//! of its own, and a part of an event before it must not pass for a complete event.
//!
//! No I/O. Called by the worker that relays the response.

use memchr::memrchr2;

use self::lines::{DONE, Part, Position};
use self::partial_event::{Data, PartialEvent};

pub mod lines;
mod partial_event;
mod partial_json;
pub mod sequence;

/// The most bytes of an incomplete event that are kept before [`PartialEvent`] scans them. Most events
/// are shorter, so they are never scanned.
const MAX_TAIL: usize = 64 * 1024;

/// Follows a stream, and remembers the incomplete event at its end.
#[derive(Debug, Default)]
pub struct EventScanner {
    /// The part of the incomplete event before `tail`.
    partial: PartialEvent,
    /// The last bytes of the incomplete event, at most [`MAX_TAIL`].
    tail: Vec<u8>,
    position: Position,
}

impl EventScanner {
    /// Scans the next piece of the stream.
    pub fn feed(&mut self, piece: &[u8]) {
        let mut boundary = None;
        let mut rest = piece;
        if let Some(start) = last_empty_line(piece) {
            self.position = Position::Inside;
            rest = &piece[start..];
        }
        while let Some(part) = self.position.next(&mut rest) {
            if part == Part::EventEnd {
                boundary = Some(piece.len() - rest.len());
            }
        }
        let rest = match boundary {
            Some(end) => {
                self.tail.clear();
                self.partial = PartialEvent::later();
                &piece[end..]
            }
            None => piece,
        };
        if self.tail.len() + rest.len() > MAX_TAIL {
            self.partial.feed(&self.tail);
            self.tail.clear();
            self.partial.feed(rest);
        } else {
            self.tail.extend_from_slice(rest);
        }
    }

    /// Whether the stream ends with a complete event, or is empty.
    pub fn is_at_boundary(&self) -> bool {
        self.position.is_boundary()
    }

    /// Returns the bytes that close a broken stream: the end of the incomplete event, as an error with
    /// `message`, and an `error` event whose data is `data`, a JSON object in one line.
    pub fn closing_frames(&self, message: &str, data: &str) -> Vec<u8> {
        let mut frames = Vec::new();
        if !self.is_at_boundary() {
            self.close_event(message, &mut frames);
        }
        frames.extend_from_slice(b"event: error\ndata: ");
        frames.extend_from_slice(data.as_bytes());
        frames.extend_from_slice(b"\n\n");
        frames
    }

    /// Appends the end of the incomplete event to `frames`. No decoder takes the event for a complete
    /// one of its kind, and every decoder finds `message` in it.
    ///
    /// Data that begins a JSON object becomes an object with an `error` member, for decoders that parse
    /// the data of every event. The event's name becomes `error`, for decoders that look at the name.
    /// A partial `[DONE]` is completed: all events have been sent before it.
    fn close_event(&self, message: &str, frames: &mut Vec<u8>) {
        let mut event = self.partial.clone();
        event.feed(&self.tail);
        let in_line = self.position == Position::Inside;
        let in_data = in_line && event.is_in_data();
        if in_line {
            // Python's decoders fail on half a character, even in a comment.
            frames.extend_from_slice(event.rest_of_character());
        }
        let end_line = |frames: &mut Vec<u8>| {
            if in_line {
                frames.push(b'\n');
            }
        };
        match event.data {
            // Without data, this event becomes the error event that follows.
            Data::Blank => end_line(frames),
            Data::DoneMarker { seen } if in_data => {
                frames.extend_from_slice(&DONE[seen..]);
                frames.extend_from_slice(b"\nevent: error\n\n");
            }
            Data::Json(json) if !json.is_complete() => {
                if !in_data {
                    end_line(frames);
                    frames.extend_from_slice(b"data: ");
                }
                frames.extend_from_slice(json.completion(message).as_bytes());
                frames.extend_from_slice(b"\nevent: error\n\n");
            }
            Data::Json(_) | Data::DoneMarker { .. } | Data::Other => {
                end_line(frames);
                frames.extend_from_slice(b"event: error\n\n");
            }
        }
    }
}

/// Where the line before the last empty one ends in `piece`: what comes before that need not be scanned.
/// `None`: there is no empty line, or the line before it ended in an earlier piece.
fn last_empty_line(piece: &[u8]) -> Option<usize> {
    let is_text = |byte: &u8| !b"\r\n".contains(byte);
    let mut end = piece.len();
    loop {
        let last = memrchr2(b'\n', b'\r', &piece[..end])?;
        let start = 1 + piece[..last].iter().rposition(is_text)?;
        if !matches!(&piece[start..=last], b"\r\n" | [_]) {
            return Some(start);
        }
        end = start;
    }
}

#[cfg(test)]
mod tests;
