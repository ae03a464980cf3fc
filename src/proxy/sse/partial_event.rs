//! The state of an incomplete event, as far as it decides how the event is closed. Takes little memory,
//! however long the event is. No I/O.

use super::lines::{BYTE_ORDER_MARK, DONE};
use super::partial_json::{PartialJson, is_whitespace};

/// The start of a line with data.
const DATA: &[u8] = b"data:";

/// An event whose end has not been sent.
#[derive(Debug, Clone, Default)]
pub(super) struct PartialEvent {
    pub(super) data: Data,
    /// The number of bytes in the current line.
    column: usize,
    kind: LineKind,
    has_data_line: bool,
    /// A byte order mark may not come any more: only the start of a stream may have one.
    is_past_mark: bool,
    /// The last three bytes, in order: they may be a part of a character.
    last: [u8; 3],
}

/// The kind of the current line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum LineKind {
    /// A prefix of [`DATA`], or a line that starts with it.
    #[default]
    Data,
    Other,
}

/// The data of the event so far, its lines joined with LF as decoders do it.
#[derive(Debug, Clone, Default)]
pub(super) enum Data {
    /// Nothing but white space.
    #[default]
    Blank,
    /// The first `seen` bytes of [`DONE`].
    DoneMarker {
        seen: usize,
    },
    /// A JSON object, or the beginning of one.
    Json(PartialJson),
    Other,
}

impl PartialEvent {
    /// An event that is not the first of its stream.
    pub(super) fn later() -> PartialEvent {
        PartialEvent {
            is_past_mark: true,
            ..PartialEvent::default()
        }
    }

    /// Scans the event's next bytes.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        for &byte in piece {
            self.last = [self.last[1], self.last[2], byte];
            if byte == b'\n' || byte == b'\r' {
                self.column = 0;
                self.kind = LineKind::Data;
                self.is_past_mark = true;
                continue;
            }
            if !self.is_past_mark && self.column == 2 && self.last == BYTE_ORDER_MARK {
                // Decoders drop it; any further one belongs to the line.
                self.is_past_mark = true;
                self.column = 0;
                self.kind = LineKind::Data;
                continue;
            }
            match DATA.get(self.column) {
                Some(&expected) if byte != expected => self.kind = LineKind::Other,
                Some(_) if self.completes_name(byte) => {
                    if self.has_data_line {
                        self.data.feed(b'\n');
                    }
                    self.has_data_line = true;
                }
                None if self.is_value(byte) => self.data.feed(byte),
                _ => {}
            }
            self.column = self.column.saturating_add(1);
        }
    }

    /// Whether the current line is one with data.
    pub(super) fn is_in_data(&self) -> bool {
        self.kind == LineKind::Data && self.column >= DATA.len()
    }

    /// Whether `byte`, next in the line, is the last one of [`DATA`].
    fn completes_name(&self, byte: u8) -> bool {
        self.kind == LineKind::Data && byte == b':'
    }

    /// Whether `byte`, next in the line, belongs to the data. One space after the colon does not.
    fn is_value(&self, byte: u8) -> bool {
        self.kind == LineKind::Data && !(self.column == DATA.len() && byte == b' ')
    }

    /// Returns bytes that complete a UTF-8 character which was cut, to any character.
    pub(super) fn rest_of_character(&self) -> &'static [u8] {
        let [oldest, middle, newest] = self.last;
        // Unicode Standard, table 3-7: well-formed UTF-8 byte sequences.
        match (oldest, middle, newest) {
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
    fn feed(&mut self, byte: u8) {
        match self {
            Data::Blank if is_whitespace(byte) => {}
            Data::Blank if byte == DONE[0] => *self = Data::DoneMarker { seen: 1 },
            Data::DoneMarker { seen } if DONE.get(*seen) == Some(&byte) => *seen += 1,
            Data::Blank if byte == b'{' => *self = Data::Json(PartialJson::default()),
            Data::Json(json) => {
                if json.feed(byte).is_none() {
                    *self = Data::Other;
                }
            }
            _ => *self = Data::Other,
        }
    }
}
