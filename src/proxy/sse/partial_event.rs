//! What an unfinished event holds, so far as its honest ending depends on it. Takes bytes in pieces
//! and keeps little of them. No I/O.

use super::partial_json::{PartialJson, is_space};

/// What OpenAI's streams send as data behind their last event.
pub(super) const DONE: &[u8] = b"[DONE]";
const DATA: &[u8] = b"data:";
/// U+FEFF in UTF-8.
const MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

#[derive(Debug, Clone, Default)]
pub(super) struct PartialEvent {
    pub(super) data: Data,
    /// How many bytes of the line have been taken.
    column: usize,
    kind: LineKind,
    has_data_line: bool,
    is_past_first_line: bool,
    /// The last bytes, the latest at the end: a character may be cut.
    last: [u8; 3],
}

/// What the line is, as far as it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum LineKind {
    /// The beginning of `data:`, or all of it.
    #[default]
    Data,
    Other,
}

/// The event's data, lines joined with LF as decoders do it.
#[derive(Debug, Clone, Default)]
pub(super) enum Data {
    /// Nothing, or white space.
    #[default]
    Blank,
    /// The first `seen` bytes of [`DONE`].
    DoneMarker {
        seen: usize,
    },
    /// An object, or its beginning.
    Json(PartialJson),
    Other,
}

impl PartialEvent {
    /// Takes the event's next bytes.
    pub(super) fn take(&mut self, piece: &[u8]) {
        for &byte in piece {
            self.last = [self.last[1], self.last[2], byte];
            if byte == b'\n' || byte == b'\r' {
                self.column = 0;
                self.kind = LineKind::Data;
                self.is_past_first_line = true;
                continue;
            }
            if !self.is_past_first_line && self.column == 2 && self.last == MARK {
                // Decoders do not read a byte order mark at the start of a stream. Elsewhere they
                // take it for part of the field's name, and so for no data: no harm either way.
                self.column = 0;
                self.kind = LineKind::Data;
                continue;
            }
            match DATA.get(self.column) {
                Some(&expected) if byte != expected => self.kind = LineKind::Other,
                Some(_) if self.is_complete_name(byte) => {
                    if self.has_data_line {
                        self.data.take(b'\n');
                    }
                    self.has_data_line = true;
                }
                None if self.is_value(byte) => self.data.take(byte),
                _ => {}
            }
            self.column = self.column.saturating_add(1);
        }
    }

    /// Whether the line that was begun is one of data.
    pub(super) fn is_in_data(&self) -> bool {
        self.kind == LineKind::Data && self.column >= DATA.len()
    }

    fn is_complete_name(&self, byte: u8) -> bool {
        self.kind == LineKind::Data && byte == b':'
    }

    /// One space behind the colon does not belong to the value.
    fn is_value(&self, byte: u8) -> bool {
        self.kind == LineKind::Data && !(self.column == DATA.len() && byte == b' ')
    }

    /// What makes the character that was cut a whole one; which one does not matter.
    pub(super) fn rest_of_character(&self) -> &'static [u8] {
        let [third, second, first] = self.last;
        // The Unicode Standard, table 3-7: well-formed UTF-8 byte sequences.
        match (third, second, first) {
            (_, _, 0xc2..=0xdf) => &[0x80],
            (_, _, 0xe0) => &[0xa0, 0x80],
            (_, _, 0xe1..=0xef) => &[0x80, 0x80],
            (_, _, 0xf0) => &[0x90, 0x80, 0x80],
            (_, _, 0xf1..=0xf4) => &[0x80, 0x80, 0x80],
            (_, 0xe0..=0xef, 0x80..=0xbf) => &[0x80],
            (_, 0xf0..=0xf4, 0x80..=0xbf) => &[0x80, 0x80],
            (0xf0..=0xf4, 0x80..=0xbf, 0x80..=0xbf) => &[0x80],
            _ => &[],
        }
    }
}

impl Data {
    fn take(&mut self, byte: u8) {
        match self {
            Data::Blank if is_space(byte) => {}
            Data::Blank if byte == DONE[0] => *self = Data::DoneMarker { seen: 1 },
            Data::DoneMarker { seen } if DONE.get(*seen) == Some(&byte) => *seen += 1,
            Data::Blank if byte == b'{' => *self = Data::Json(PartialJson::default()),
            Data::Json(json) => {
                if json.take(byte).is_none() {
                    *self = Data::Other;
                }
            }
            _ => *self = Data::Other,
        }
    }
}
