//! Reads an answer in JSON. Of one that is very large, as with many embeddings or an image, the middle is
//! passed over: to read a megabyte would cost up to an eighth of what it costs to pass it on. No I/O.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::facts::Facts;
use super::json::JsonScanner;
use super::totals::Totals;

/// How much is read before anything is passed over, in bytes.
const FIRST: u64 = 16 * 1024;
/// How much of the end is not passed over, in bytes. Usage may have something behind it: LiteLLM puts
/// there what a model thought, once more, and what it cites.
const LAST: u64 = 256 * 1024;
/// How the names `usage` and `usageMetadata` begin, with the quote. A model that is told before them in
/// the end is not looked for: as a rule the request names it, too.
const NAME: &[u8] = b"\"usage";

/// An answer, piece by piece.
#[derive(Debug)]
pub struct AnswerReader {
    json: JsonScanner,
    facts: Facts,
    /// Of the body, in bytes; 0 where that is not known.
    length: u64,
    /// How much of the body has been received, in bytes.
    received: u64,
    end: Option<Box<EndReader>>,
}

impl AnswerReader {
    /// For a body of `length` bytes. `None`: that is not known, all of it is read.
    pub fn new(length: Option<u64>) -> AnswerReader {
        AnswerReader {
            json: JsonScanner::default(),
            facts: Facts::default(),
            length: length.unwrap_or(0),
            received: 0,
            end: None,
        }
    }

    /// Reads the next piece of the body.
    pub fn feed(&mut self, piece: &[u8], totals: &mut Totals) {
        let last_start = self.length.saturating_sub(LAST);
        let before_last = last_start.saturating_sub(self.received);
        self.received += piece.len() as u64;
        let Some(end) = &mut self.end else {
            self.read(piece, totals);
            // Nothing of a member that counts is passed over.
            let is_between = (FIRST..last_start).contains(&self.received);
            if is_between && self.json.is_skipping_member() {
                self.end = Some(Box::default());
            }
            return;
        };
        let passed = usize::try_from(before_last).map_or(piece.len(), |most| most.min(piece.len()));
        end.read(&piece[passed..], &self.facts);
        if self.received == self.length {
            let facts = match end.place {
                Place::BehindObject => &mut end.facts,
                Place::Unknown | Place::InObject => &mut self.facts,
            };
            totals.take_answer(facts, false);
        }
    }

    fn read(&mut self, mut piece: &[u8], totals: &mut Totals) {
        while !(piece.is_empty() || self.json.has_ended()) {
            let length = self.json.feed(piece, &mut self.facts);
            piece = &piece[length..];
            if self.json.take_object() {
                totals.take_answer(&mut self.facts, self.json.is_array());
                self.facts.clear();
            }
        }
    }
}

/// Reads the end of an object that is a whole answer, from anywhere in it. A quote that has no backslash
/// before it and is followed by a name begins a text: within one there would be a backslash. If that is
/// the name of a member, and the body ends with the member's object, the object is the answer.
#[derive(Debug, Default)]
struct EndReader {
    place: Place,
    /// While the place is not known: the last bytes, in which a name may begin.
    kept: Vec<u8>,
    json: JsonScanner,
    /// What the start of the answer and the members of this object say.
    facts: Facts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    #[default]
    Unknown,
    InObject,
    BehindObject,
}

impl EndReader {
    fn read(&mut self, mut piece: &[u8], of_start: &Facts) {
        while !piece.is_empty() {
            if self.place == Place::Unknown {
                let Some(behind) = self.find_name(piece, of_start) else {
                    return;
                };
                piece = behind;
                self.place = Place::InObject;
            }
            let length = self.json.feed(piece, &mut self.facts);
            // It is scanned up to the object's end, or to what is no name of a member.
            piece = piece[length..].trim_ascii_start();
            if self.json.take_object() {
                self.place = Place::BehindObject;
            }
            if !piece.is_empty() {
                self.place = Place::Unknown;
            }
        }
    }

    /// Goes on in the next name that may be wanted. Returns what follows its start.
    fn find_name<'p>(&mut self, piece: &'p [u8], of_start: &Facts) -> Option<&'p [u8]> {
        let length = self.kept.len();
        let (first, rest) = piece.split_at(piece.len().min(NAME.len()));
        self.kept.extend_from_slice(first);
        let in_kept = behind_name(&self.kept).map(|behind| behind - length);
        let Some(behind) = in_kept.or_else(|| behind_name(piece)) else {
            let last = rest.len().saturating_sub(NAME.len());
            self.kept.extend_from_slice(&rest[last..]);
            self.kept
                .drain(..self.kept.len().saturating_sub(NAME.len()));
            return None;
        };
        // What comes next follows a value, not a backslash.
        self.kept.clear();
        self.kept.push(b' ');
        self.json.go_on_in_name(&NAME[1..]);
        self.facts = of_start.clone();
        Some(&piece[behind..])
    }
}

/// Where what follows the first start of a name in `text` begins. Before the name there is something, and
/// no backslash.
fn behind_name(text: &[u8]) -> Option<usize> {
    static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(NAME));
    let mut found = FINDER.find_iter(text);
    let at = found.find(|at| *at > 0 && text[at - 1] != b'\\')?;
    Some(at + NAME.len())
}
