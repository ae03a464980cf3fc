//! Reads an answer in JSON: a large one at its two ends only. No API tells its usage between them, and to
//! read a megabyte of text would cost an eighth of what it costs to pass it on. No I/O.

use memchr::{memrchr, memrchr3};

use super::facts::Facts;
use super::json::JsonScanner;
use super::totals::Totals;

/// How much is read at each end, in bytes.
const END: usize = 16 * 1024;

/// An answer, piece by piece.
#[derive(Debug)]
pub struct AnswerReader {
    json: JsonScanner,
    facts: Facts,
    /// How much of the first [`END`] bytes is to come.
    first_left: usize,
    /// How much of the body is to come, where that is known.
    left: Option<u64>,
    is_passing_over: bool,
    /// What has come of the last [`END`] bytes.
    last: Vec<u8>,
}

impl AnswerReader {
    /// For a body of `length` bytes; `None` where that is not known: all of it is read.
    pub fn new(length: Option<u64>) -> AnswerReader {
        AnswerReader {
            json: JsonScanner::default(),
            facts: Facts::default(),
            first_left: END,
            left: length,
            is_passing_over: false,
            last: Vec::new(),
        }
    }

    /// Takes the next piece of the body.
    pub fn feed(&mut self, piece: &[u8], totals: &mut Totals) {
        let first = piece.len().min(self.first_left);
        let (first, rest) = piece.split_at(first);
        self.first_left -= first.len();
        self.read(first, totals);
        let Some(left) = &mut self.left else {
            return self.read(rest, totals);
        };
        *left = left.saturating_sub(first.len() as u64);
        let before_last = left.saturating_sub(END as u64);
        *left = left.saturating_sub(rest.len() as u64);
        // Else a part of a member that counts would be lost.
        let may_pass_over = before_last > 0 && self.json.is_skipping_member();
        self.is_passing_over |= may_pass_over && !rest.is_empty();
        if !self.is_passing_over {
            return self.read(rest, totals);
        }
        let passed = usize::try_from(before_last).map_or(rest.len(), |most| most.min(rest.len()));
        let room = END - self.last.len();
        let last = &rest[passed..];
        self.last.extend_from_slice(&last[..last.len().min(room)]);
        if self.left == Some(0)
            && let Some(start) = last_members(&self.last)
        {
            self.json.go_on_behind_member();
            let last = std::mem::take(&mut self.last);
            self.read(&last[start..], totals);
        }
    }

    fn read(&mut self, mut piece: &[u8], totals: &mut Totals) {
        while !piece.is_empty() {
            let length = self.json.feed(piece, &mut self.facts);
            piece = &piece[length..];
            if self.json.take_object() {
                totals.take_answer(&mut self.facts, self.json.is_array());
                self.facts.clear();
            }
        }
    }
}

/// Where the last members of an object begin, of which this is the end: at the first comma between its
/// members. It is found from the end: there, unlike at the start, it is known what is within a text.
fn last_members(end: &[u8]) -> Option<usize> {
    let mut start = None;
    let mut rest = end.trim_ascii_end().strip_suffix(b"}")?;
    while let Some((byte, before)) = rest.split_last() {
        let before_value = match byte {
            b'"' => before_text(before),
            b'}' => before_container(before, b'{', b'}'),
            b']' => before_container(before, b'[', b']'),
            b',' => {
                start = Some(before.len());
                Some(before)
            }
            b'{' | b'[' => None,
            _ => Some(before),
        };
        let Some(before_value) = before_value else {
            break;
        };
        rest = before_value;
    }
    start
}

/// What comes before the text whose closing quote followed. `None`: it has begun earlier. A backslash
/// comes before each quote within the text, and never before the one that opens it.
fn before_text(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = &text[..memrchr(b'"', text)?];
        if !text.ends_with(b"\\") {
            return Some(text);
        }
    }
}

/// What comes before the container whose closing bracket followed. `None`: it has begun earlier. Only
/// brackets of its own kind need to be counted.
fn before_container(mut text: &[u8], open: u8, close: u8) -> Option<&[u8]> {
    let mut depth = 1;
    loop {
        let at = memrchr3(b'"', open, close, text)?;
        let byte = text[at];
        text = &text[..at];
        if byte == open {
            depth -= 1;
            if depth == 0 {
                return Some(text);
            }
        } else if byte == close {
            depth += 1;
        } else {
            text = before_text(text)?;
        }
    }
}
