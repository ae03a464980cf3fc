//! Reads of a stream its first events, its last ones and those that may be errors. The events between
//! tell nothing that counts, and to read them would cost almost as much as to pass them on. No I/O.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::events::EventReader;
use super::totals::Totals;

/// How many events at the end of a stream may tell what it used or that it failed: usage, an error and
/// the mark of the end, each in one of its own.
const LAST_EVENTS: usize = 4;
/// The most of a stream's end that is held, in bytes: last events that are longer are read as they come.
const MAX_HELD: usize = 1792;
/// What every error has in it: the name of the event, or a name or a text in its data. `response.failed`
/// has it as a member.
const ERROR: &[u8] = b"error";

/// A stream of events, piece by piece.
#[derive(Debug, Default)]
pub struct StreamReader {
    reader: EventReader,
    /// The end of the stream, from the start of an event on, which has not been read.
    held: Vec<u8>,
}

impl StreamReader {
    /// Takes the next piece of the stream.
    pub fn feed(&mut self, mut piece: &[u8], totals: &mut Totals) {
        while !(self.reader.is_at_boundary() && totals.has_begun()) {
            if !self.reader.read_part(&mut piece, totals) {
                return;
            }
        }
        // At once: the start of the word for errors is added for a moment.
        self.held
            .reserve_exact(MAX_HELD + ERROR.len() - self.held.len());
        if self.held.len() + piece.len() > MAX_HELD {
            piece = self.pass_over(piece, totals);
        }
        if self.held.len() + piece.len() > MAX_HELD {
            self.read_held(totals);
            self.reader.read(piece, totals);
        } else {
            self.held.extend_from_slice(piece);
        }
    }

    /// Reads the end of the stream, the last event of which may not be complete.
    pub fn finish(&mut self, totals: &mut Totals) {
        self.read_held(totals);
        self.reader.finish(totals);
    }

    /// Drops what comes before the last events of the stream, which goes on with `piece`. Returns what is
    /// left of `piece`.
    fn pass_over<'p>(&mut self, piece: &'p [u8], totals: &mut Totals) -> &'p [u8] {
        let begun = match event_start(piece, LAST_EVENTS) {
            Ok(start) => {
                let (passed, last) = piece.split_at(start);
                // The word may begin in what is held.
                let length = self.held.len();
                self.held
                    .extend_from_slice(&passed[..passed.len().min(ERROR.len())]);
                let has_error = may_have_error(&self.held) || may_have_error(passed);
                self.held.truncate(length);
                if has_error {
                    self.read_held(totals);
                    self.reader.read(passed, totals);
                }
                self.held.clear();
                return last;
            }
            Err(begun) => begun + usize::from(ends_event(&self.held) && begins_event(piece)),
        };
        let start = match LAST_EVENTS.saturating_sub(begun) {
            0 => Ok(self.held.len()),
            wanted => event_start(&self.held, wanted),
        };
        if let Ok(start) = start {
            if may_have_error(&self.held[..start]) {
                self.reader.read(&self.held[..start], totals);
            }
            self.held.drain(..start);
        }
        piece
    }

    fn read_held(&mut self, totals: &mut Totals) {
        self.reader.read(&self.held, totals);
        self.held.clear();
    }
}

/// Where the last `wanted` events that begin behind another one in `text` do so; else how many there are.
/// In streams whose lines end with CR alone none are found.
fn event_start(text: &[u8], wanted: usize) -> Result<usize, usize> {
    let mut found = 0;
    let mut end = text.len();
    while let Some(line_feed) = memchr::memrchr(b'\n', &text[..end]) {
        if ends_event(&text[..=line_feed]) && begins_event(&text[line_feed + 1..]) {
            found += 1;
            if found == wanted {
                return Ok(line_feed + 1);
            }
        }
        end = line_feed;
    }
    Err(found)
}

/// Whether `text` ends with an empty line.
fn ends_event(text: &[u8]) -> bool {
    let line = text.strip_suffix(b"\n");
    line.is_some_and(|line| line.strip_suffix(b"\r").unwrap_or(line).ends_with(b"\n"))
}

/// Whether an event begins behind an empty line. Comments are no events.
fn begins_event(text: &[u8]) -> bool {
    text.first().is_some_and(|byte| !b":\r\n".contains(byte))
}

/// Whether an error may be in `text`: the word as an event's name, or as a name or text of JSON. As a
/// word among others, as in what a model writes, it is none.
fn may_have_error(text: &[u8]) -> bool {
    static WORD: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(ERROR));
    WORD.find_iter(text).any(|at| {
        let before = at.checked_sub(1).map(|at| text[at]);
        let after = text.get(at + ERROR.len());
        match after {
            Some(b'"') => matches!(before, None | Some(b'"')),
            Some(b'\r' | b'\n') => matches!(before, None | Some(b' ' | b':')),
            Some(_) | None => false,
        }
    })
}
