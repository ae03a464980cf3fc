//! The lines of a stream of server-sent events. A line ends with LF, CR or CRLF. No I/O.

use memchr::memchr2;

/// The data of the last event in OpenAI's streams of completions.
pub const DONE: &[u8] = b"[DONE]";
/// U+FEFF in UTF-8, which does not count at the start of a stream.
pub const BYTE_ORDER_MARK: [u8; 3] = *b"\xef\xbb\xbf";

/// The position of the end of the stream in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Position {
    /// At the start of the stream or after an empty line: an event boundary.
    #[default]
    Boundary,
    /// After a CR that ended an empty line: a boundary, to which an LF may still belong.
    BoundaryCr,
    /// At the start of a line within an event.
    Start,
    /// After a CR that ended a line.
    StartCr,
    /// Inside a line.
    Inside,
}

/// A part of a stream of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'p> {
    /// Bytes of a line: all that have come.
    Text(&'p [u8]),
    /// The line ends. Comes a second time for the LF of a CRLF.
    LineEnd,
    /// An empty line ends, and the event with it. Comes a second time for the LF of a CRLF.
    EventEnd,
}

impl Position {
    /// Takes the next part off `rest`, the stream's next bytes. `None`: there are none left.
    pub fn next<'p>(&mut self, rest: &mut &'p [u8]) -> Option<Part<'p>> {
        let (&first, after) = rest.split_first()?;
        *self = match (*self, first) {
            (Position::BoundaryCr | Position::Boundary | Position::Start, b'\n') => {
                Position::Boundary
            }
            (Position::StartCr | Position::Inside, b'\n') => Position::Start,
            (Position::Inside, b'\r') => Position::StartCr,
            (_, b'\r') => Position::BoundaryCr,
            _ => {
                let end = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                let (text, after) = rest.split_at(end);
                *rest = after;
                *self = Position::Inside;
                return Some(Part::Text(text));
            }
        };
        *rest = after;
        Some(if self.is_boundary() {
            Part::EventEnd
        } else {
            Part::LineEnd
        })
    }

    /// Whether the stream ends with a complete event, or is empty.
    pub fn is_boundary(self) -> bool {
        matches!(self, Position::Boundary | Position::BoundaryCr)
    }
}
