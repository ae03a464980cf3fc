//! Scans JSON (RFC 8259) as it passes, for the few values that are wanted. Keeps the path to where it is
//! and the beginning of one text, whatever the size of the document. No I/O.
//!
//! Values that are not wanted are skipped without being parsed. What is not JSON ends the scan.

use memchr::{memchr, memchr3};

use super::facts::{Facts, MAX_TEXT, Member, Node, Value};

/// The deepest path that leads to a wanted value, in containers: array, answer, response, usage,
/// details.
const MAX_OPEN: usize = 5;
/// How many bytes are looked at before a vector search is set up: most texts are shorter.
const NEAR: usize = 24;
/// How many bytes are compared at once where quotes are escaped: the compiler makes vectors of them.
const BLOCK: usize = 64;

/// The scan of a document: an object, or an array of objects.
#[derive(Debug, Clone)]
pub struct JsonScanner {
    state: State,
    /// The followed containers that are open.
    open: [Node; MAX_OPEN],
    depth: usize,
    /// Brackets that are open in a container that is skipped.
    skipped: u64,
    is_skipping_object: bool,
    /// What the value that comes, or is being scanned, is.
    member: Member,
    /// The beginning of a name, text or number that a piece's end has cut.
    kept: [u8; MAX_TEXT],
    kept_length: usize,
    /// The last byte was a backslash in a text.
    is_escaped: bool,
    has_object: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a value, or the end of an empty array.
    Value,
    /// Before a member's name, or the end of an object.
    Name,
    InName,
    Colon,
    InText,
    /// In a number, true, false or null.
    Scalar,
    /// After a value.
    After,
    /// In a container that is not followed.
    Skipped,
    /// In a text that is not wanted.
    SkippedText,
    /// Behind the document, or in something else than JSON.
    Ended,
}

impl Default for JsonScanner {
    fn default() -> JsonScanner {
        JsonScanner {
            state: State::Value,
            open: [Node::Array; MAX_OPEN],
            depth: 0,
            skipped: 0,
            is_skipping_object: false,
            member: Member::Document,
            kept: [0; MAX_TEXT],
            kept_length: 0,
            is_escaped: false,
            has_object: false,
        }
    }
}

impl JsonScanner {
    /// Scans the next piece up to the end of an object that is the document or an element of it, or to
    /// what is no JSON. Returns how many bytes that are.
    pub fn feed(&mut self, piece: &[u8], facts: &mut Facts) -> usize {
        let mut at = 0;
        while at < piece.len() && !self.has_object {
            let rest = &piece[at..];
            at += match self.state {
                State::Ended => break,
                State::Skipped => self.skip(rest),
                State::SkippedText => self.skip_text(rest),
                State::InName | State::InText => self.text(rest, facts),
                State::Scalar => self.scalar(rest, facts),
                State::Value | State::Name | State::Colon | State::After => {
                    self.step(rest[0], facts);
                    1
                }
            };
        }
        at
    }

    /// Whether an object has ended since the last call.
    pub fn take_object(&mut self) -> bool {
        std::mem::take(&mut self.has_object)
    }

    /// Whether the document is an array.
    pub fn is_array(&self) -> bool {
        self.depth > 0 && self.open[0] == Node::Array
    }

    /// Whether nothing is scanned any more.
    pub fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Whether the document is an object, and a member of it, or of a candidate in it, is being skipped.
    pub fn is_skipping_member(&self) -> bool {
        let path = &self.open[..self.depth];
        matches!(self.state, State::Skipped | State::SkippedText)
            && (path == [Node::Answer] || path == [Node::Answer, Node::Candidates, Node::Candidate])
    }

    /// Goes on in the name of a member of the object that is the document, behind the name's `start`.
    pub fn go_on_in_name(&mut self, start: &[u8]) {
        *self = JsonScanner::default();
        (self.state, self.depth, self.open[0]) = (State::InName, 1, Node::Answer);
        self.keep(start);
    }

    /// Takes a byte that is in no text, number or skipped container.
    fn step(&mut self, byte: u8, facts: &mut Facts) {
        self.state = match (self.state, byte) {
            (_, b' ' | b'\t' | b'\n' | b'\r') => return,
            // A byte order mark.
            (State::Value, 0xef | 0xbb | 0xbf) if self.depth == 0 => return,
            (State::Value, b'{' | b'[') => return self.open(byte == b'{', facts),
            _ if self.depth == 0 => State::Ended,
            (State::Value, b'"') if self.member == Member::Ignored => State::SkippedText,
            (State::Value, b'"') => State::InText,
            (State::Value | State::After, b']') | (State::Name | State::After, b'}') => {
                return self.close();
            }
            (State::Value, b'-' | b'0'..=b'9' | b'a'..=b'z') => {
                self.keep(&[byte]);
                State::Scalar
            }
            (State::Name, b'"') => State::InName,
            (State::Colon, b':') => State::Value,
            (State::After, b',') => match self.open[self.depth - 1].element() {
                Some(element) => {
                    self.member = element;
                    State::Value
                }
                None => State::Name,
            },
            _ => State::Ended,
        };
    }

    fn open(&mut self, is_object: bool, facts: &mut Facts) {
        let node = self.member.node(is_object);
        facts.take(
            self.member,
            if is_object {
                Value::Object
            } else {
                Value::Array
            },
        );
        let Some(node) = node.filter(|_| self.depth < MAX_OPEN) else {
            self.skipped = 1;
            self.is_skipping_object = is_object;
            self.state = State::Skipped;
            return;
        };
        self.open[self.depth] = node;
        self.depth += 1;
        self.state = match node.element() {
            Some(element) => {
                self.member = element;
                State::Value
            }
            None => State::Name,
        };
    }

    fn close(&mut self) {
        let Some(depth) = self.depth.checked_sub(1) else {
            self.state = State::Ended;
            return;
        };
        self.depth = depth;
        self.has_object = self.open[depth] == Node::Answer;
        self.state = match depth {
            0 => State::Ended,
            _ => State::After,
        };
    }

    /// Scans a name or a text that is wanted.
    fn text(&mut self, bytes: &[u8], facts: &mut Facts) -> usize {
        let Some(end) = text_end(bytes, &mut self.is_escaped) else {
            self.keep(bytes);
            return bytes.len();
        };
        let text = match self.kept_length {
            0 => &bytes[..end.min(MAX_TEXT)],
            _ => {
                self.keep(&bytes[..end]);
                &self.kept[..self.kept_length]
            }
        };
        let is_name = self.state == State::InName;
        if is_name {
            self.member = self.open[self.depth - 1].member(text);
        } else {
            facts.take(self.member, Value::Text(text));
        }
        self.kept_length = 0;
        let rest = &bytes[end + 1..];
        end + 1
            + match is_name {
                true => self.end_name(rest),
                false => self.end_value(rest),
            }
    }

    /// Behind a name. Returns how many bytes of the rest are taken, too: what is there nearly always.
    fn end_name(&mut self, rest: &[u8]) -> usize {
        let (state, taken) = match rest {
            [b':', b'"', ..] if self.member == Member::Ignored => (State::SkippedText, 2),
            [b':', b'"', ..] => (State::InText, 2),
            [b':', b'-' | b'0'..=b'9' | b'a'..=b'z', ..] => (State::Scalar, 1),
            [b':', ..] => (State::Value, 1),
            _ => (State::Colon, 0),
        };
        self.state = state;
        taken
    }

    /// Behind a value. Returns how many bytes of the rest are taken, too: what is there nearly always.
    fn end_value(&mut self, rest: &[u8]) -> usize {
        // There is an open container: texts and numbers are none of what a document may be.
        let is_in_object = self.open[self.depth - 1].element().is_none();
        let (state, taken) = match rest {
            [b',', b'"', ..] if is_in_object => (State::InName, 2),
            _ => (State::After, 0),
        };
        self.state = state;
        taken
    }

    /// Scans a number or a literal, up to what follows it.
    fn scalar(&mut self, bytes: &[u8], facts: &mut Facts) -> usize {
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
        let Some(end) = bytes.iter().position(|byte| !is_part(byte)) else {
            self.keep(bytes);
            return bytes.len();
        };
        let (part, rest) = bytes.split_at(end);
        if self.member != Member::Ignored {
            let text = match self.kept_length {
                0 => part,
                _ => {
                    self.keep(part);
                    &self.kept[..self.kept_length]
                }
            };
            // What is too long for a number is none.
            let text = if text.len() < MAX_TEXT { text } else { b"" };
            facts.take(self.member, Value::Scalar(text));
        }
        self.kept_length = 0;
        end + self.end_value(rest)
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = &mut self.kept[self.kept_length..];
        let taken = bytes.len().min(room.len());
        room[..taken].copy_from_slice(&bytes[..taken]);
        self.kept_length += taken;
    }

    /// Skips the rest of a container. Only brackets of its own kind need to be counted: those of the other
    /// kind are closed before it is.
    fn skip(&mut self, bytes: &[u8]) -> usize {
        let (open, close) = match self.is_skipping_object {
            true => (b'{', b'}'),
            false => (b'[', b']'),
        };
        let mut at = 0;
        while let Some(found) = find([b'"', open, close], &bytes[at..]) {
            at += found + 1;
            let byte = bytes[at - 1];
            if byte == open {
                self.skipped += 1;
            } else if byte == close {
                self.skipped -= 1;
                if self.skipped == 0 {
                    return at + self.end_value(&bytes[at..]);
                }
            } else {
                let Some(end) = text_end(&bytes[at..], &mut self.is_escaped) else {
                    self.state = State::SkippedText;
                    break;
                };
                at += end + 1;
            }
        }
        bytes.len()
    }

    fn skip_text(&mut self, bytes: &[u8]) -> usize {
        let Some(end) = text_end(bytes, &mut self.is_escaped) else {
            return bytes.len();
        };
        if self.skipped == 0 {
            return end + 1 + self.end_value(&bytes[end + 1..]);
        }
        self.state = State::Skipped;
        end + 1
    }
}

/// The index of the quote that ends the text in which `bytes` begins. `None`: it goes on behind them.
#[inline]
fn text_end(bytes: &[u8], is_escaped: &mut bool) -> Option<usize> {
    if let Some(quote) = near_quote(bytes)
        && !*is_escaped
        && !bytes[..quote].ends_with(b"\\")
    {
        return Some(quote);
    }
    far_text_end(bytes, is_escaped)
}

/// [`text_end`] for texts that are not short, or have escapes. Most escapes are passed over: a quote is
/// escaped if the backslashes before it are odd in number.
#[inline(never)]
fn far_text_end(bytes: &[u8], is_escaped: &mut bool) -> Option<usize> {
    let start = usize::from(std::mem::take(is_escaped)).min(bytes.len());
    let text = &bytes[start..];
    let mut at = 0;
    while let Some(quote) = memchr(b'"', &text[at..]) {
        at += quote;
        if !is_escaped_at(text, at) {
            return Some(start + at);
        }
        // Where one is, there are more: those are passed over without a look at each.
        at += 1 + escaped_blocks(&text[at - 1..]);
    }
    *is_escaped = is_escaped_at(text, text.len());
    None
}

/// Whether the byte at this index of a text is escaped.
fn is_escaped_at(text: &[u8], at: usize) -> bool {
    let backslashes = text[..at].iter().rev();
    backslashes.take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// How many bytes behind the first two are in whole blocks in which no quote can end the text: each has
/// one backslash before it, not two.
fn escaped_blocks(text: &[u8]) -> usize {
    let mut length = 0;
    while let Some(block) = text[length..].first_chunk::<{ BLOCK + 2 }>() {
        let may_end = |at: usize| {
            let is = |at: usize, byte| block[at] == byte;
            is(at + 2, b'"') & (!is(at + 1, b'\\') | is(at, b'\\'))
        };
        if (0..BLOCK).fold(false, |any, at| any | may_end(at)) {
            break;
        }
        length += BLOCK;
    }
    length
}

/// The index of the first quote, if it is near, as most are: eight bytes are compared at once. The first
/// byte of their difference that is 0 is the first one whose top bit the subtraction sets.
#[inline]
fn near_quote(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let mut at = 0;
    while let Some(eight) = bytes[at..].first_chunk().filter(|_| at < NEAR) {
        let difference = u64::from_le_bytes(*eight) ^ u64::from_le_bytes([b'"'; 8]);
        let zeros = difference.wrapping_sub(ONES) & !difference & (ONES << 7);
        if zeros != 0 {
            return Some(at + zeros.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    None
}

/// The index of the first of these bytes.
fn find([one, two, three]: [u8; 3], bytes: &[u8]) -> Option<usize> {
    let (near, far) = bytes.split_at(bytes.len().min(NEAR));
    let is_one = |byte: &u8| *byte == one || *byte == two || *byte == three;
    near.iter()
        .position(is_one)
        .or_else(|| Some(near.len() + memchr3(one, two, three, far)?))
}
