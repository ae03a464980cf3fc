//! Reads the events of a stream: which are errors, which are the last, and the JSON in their data. No
//! I/O.

use super::facts::Facts;
use super::json::JsonScanner;
use super::totals::Totals;
use crate::proxy::sse::lines::{BYTE_ORDER_MARK, DONE, Part, Position};

/// The longest start of a line that is looked at, in bytes: a byte order mark and `event:`.
const MAX_START: usize = 9;
/// The name of an event that is an error.
const ERROR: &[u8] = b"error";

/// A stream of events, piece by piece.
#[derive(Debug, Default)]
pub struct EventReader {
    position: Position,
    field: Field,
    /// The start of the current line, as long as its field is not known; then of an event's name.
    start: Start,
    /// One blank behind the colon does not count.
    may_be_blank: bool,
    is_past_first_line: bool,
    is_error: bool,
    data: Data,
    json: JsonScanner,
    facts: Facts,
}

/// The field of the current line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Field {
    #[default]
    Unknown,
    Data,
    Name,
    Other,
}

/// The data of the current event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Data {
    /// Nothing but white space.
    #[default]
    Blank,
    /// The first bytes of [`DONE`], so many.
    Done(usize),
    Json,
    /// A JSON object that is whole.
    Object,
    Other,
}

/// The first bytes of a text.
#[derive(Debug, Clone, Copy, Default)]
struct Start {
    bytes: [u8; MAX_START],
    length: usize,
}

impl EventReader {
    /// Reads the next piece of the stream.
    pub fn read(&mut self, mut piece: &[u8], totals: &mut Totals) {
        while self.read_part(&mut piece, totals) {}
    }

    /// Reads the next part of a piece, a line at most, and takes it off. Returns whether there was one.
    pub fn read_part(&mut self, piece: &mut &[u8], totals: &mut Totals) -> bool {
        match self.position.next(piece) {
            Some(Part::Text(text)) => self.text(text),
            Some(Part::LineEnd) => self.end_line(),
            Some(Part::EventEnd) => self.end_event(totals),
            None => return false,
        }
        true
    }

    /// Whether what was read ends with a complete event.
    pub fn is_at_boundary(&self) -> bool {
        self.position.is_boundary()
    }

    /// Reads what has come of the last event, whose end is missing.
    pub fn finish(&mut self, totals: &mut Totals) {
        self.end_line();
        self.end_event(totals);
    }

    fn text(&mut self, text: &[u8]) {
        let mut value = text;
        if self.field == Field::Unknown {
            value = self.find_field(text);
        }
        if self.may_be_blank && !value.is_empty() {
            self.may_be_blank = false;
            value = value.strip_prefix(b" ").unwrap_or(value);
        }
        match self.field {
            Field::Data => self.data(value),
            Field::Name => self.start.push(value),
            Field::Unknown | Field::Other => {}
        }
    }

    /// Reads the line's start up to the colon. Returns what follows it.
    fn find_field<'t>(&mut self, text: &'t [u8]) -> &'t [u8] {
        let head = &text[..text.len().min(self.start.room())];
        let colon = head.iter().position(|byte| *byte == b':');
        let (head, value) = text.split_at(colon.map_or(head.len(), |at| at + 1));
        self.start.push(head);
        if colon.is_none() && self.start.room() > 0 {
            return b"";
        }
        let start = self.start.bytes();
        let mark = start.strip_prefix(&BYTE_ORDER_MARK);
        self.field = match mark.filter(|_| !self.is_past_first_line).unwrap_or(start) {
            b"data:" => Field::Data,
            b"event:" => Field::Name,
            _ => Field::Other,
        };
        self.start = Start::default();
        self.may_be_blank = true;
        value
    }

    fn data(&mut self, mut value: &[u8]) {
        if self.data == Data::Blank {
            value = value.trim_ascii_start();
            self.data = match value.first() {
                None => return,
                Some(b'[') => Data::Done(0),
                Some(b'{') => Data::Json,
                Some(_) => Data::Other,
            };
        }
        match self.data {
            Data::Done(seen) => {
                // What follows it does not count for the SDKs.
                let next = value.len().min(DONE.len() - seen);
                self.data = if DONE[seen..].starts_with(&value[..next]) {
                    Data::Done(seen + next)
                } else {
                    Data::Other
                };
            }
            Data::Json => {
                self.json.feed(value, &mut self.facts);
                if self.json.take_object() {
                    self.data = Data::Object;
                }
            }
            Data::Blank | Data::Object | Data::Other => {}
        }
    }

    fn end_line(&mut self) {
        match self.field {
            Field::Name => self.is_error = self.start.bytes() == ERROR,
            // Decoders join the lines of the data with LF.
            Field::Data if self.data == Data::Json => self.data(b"\n"),
            Field::Data | Field::Unknown | Field::Other => {}
        }
        self.field = Field::Unknown;
        self.start = Start::default();
        self.is_past_first_line = true;
    }

    fn end_event(&mut self, totals: &mut Totals) {
        if self.is_error {
            totals.note_error();
            self.is_error = false;
        }
        match self.data {
            Data::Blank => return,
            Data::Done(seen) if seen == DONE.len() => totals.note_done(),
            Data::Object => totals.replace_by(&mut self.facts),
            Data::Done(_) | Data::Json | Data::Other => {}
        }
        if matches!(self.data, Data::Json | Data::Object) {
            self.json = JsonScanner::default();
            self.facts.clear();
        }
        self.data = Data::Blank;
    }
}

impl Start {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn room(&self) -> usize {
        self.bytes.len() - self.length
    }

    fn push(&mut self, text: &[u8]) {
        let room = &mut self.bytes[self.length..];
        let taken = text.len().min(room.len());
        room[..taken].copy_from_slice(&text[..taken]);
        self.length += taken;
    }
}
