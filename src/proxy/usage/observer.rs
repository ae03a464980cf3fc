//! Follows the body of one response.

use http::{Method, StatusCode};

use super::answer::AnswerReader;
use super::facts::{self, Value};
use super::tail::StreamReader;
use super::tokens::Usage;
use super::totals::{BadEnd, Form, Totals};
use crate::http1::headers::{HeaderBlock, KnownHeader};
use crate::proxy::unpack::Unpacker;

/// Ends of paths whose responses tell no usage, of LiteLLM and of Gemini.
const UNCOUNTED: [&[u8]; 4] = [
    b"/count_tokens",
    b":countTokens",
    b"/moderations",
    b"/rerank",
];

/// Whether successful responses to a POST of this path count as ones that use tokens.
pub fn is_counted_path(path: &[u8]) -> bool {
    !UNCOUNTED.iter().any(|end| path.ends_with(end))
}

/// Follows a response. Made for each that is worth it.
pub struct Observer {
    /// Whether the response counts as one that uses tokens.
    is_counted: bool,
    is_success: bool,
    /// Of a stream that tells nothing itself.
    form: Option<Form>,
    /// From the header.
    cost: Option<f64>,
    unpacker: Option<Unpacker>,
    reader: Reader,
    totals: Totals,
}

enum Reader {
    Events(StreamReader),
    Answer(AnswerReader),
    /// It cannot be read.
    Nothing,
}

/// What was seen of a response.
#[derive(Debug)]
pub struct Observed {
    pub usage: Usage,
    /// In US dollars.
    pub cost: Option<f64>,
    /// The model that the response names, its beginning.
    pub model: Vec<u8>,
    /// How the stream ended, if it was passed on whole.
    pub bad_end: Option<BadEnd>,
    /// A stream's last event has come, and it was none of an error.
    pub is_complete: bool,
}

impl Observer {
    /// For the response to a request with this `method` and `path`. `None`: there is nothing to see.
    pub fn new(
        (method, path): (&Method, &[u8]),
        (status, fields): (StatusCode, &HeaderBlock),
    ) -> Option<Observer> {
        let is_stream = fields.is_event_stream();
        // A response that is asked for once more by GET has been counted.
        let is_answer = status.is_success() && *method == Method::POST;
        if *method == Method::HEAD || !(is_stream || is_answer) {
            return None;
        }
        let is_counted = is_answer && is_counted_path(path);
        let cost = fields.value(KnownHeader::XLitellmResponseCost);
        let unpacker = Unpacker::new(fields);
        let length = || match unpacker {
            Some(_) => None,
            None => facts::number(Value::Scalar(fields.value(KnownHeader::ContentLength)?)),
        };
        let reader = match () {
            () if unpacker.is_none() && !fields.is_uncompressed() => Reader::Nothing,
            () if is_stream => Reader::Events(StreamReader::default()),
            () if is_counted => Reader::Answer(AnswerReader::new(length())),
            () => Reader::Nothing,
        };
        Some(Observer {
            is_counted,
            is_success: status.is_success(),
            form: Form::of_path(path),
            cost: cost.filter(|_| is_answer).and_then(facts::cost),
            unpacker,
            reader,
            totals: Totals::default(),
        })
    }

    /// Looks at the next piece of the body.
    pub fn observe(&mut self, piece: &[u8]) {
        match &mut self.unpacker {
            Some(unpacker) => {
                let unpacked = unpacker.feed(piece);
                self.reader.feed(&unpacked, &mut self.totals);
            }
            None => self.reader.feed(piece, &mut self.totals),
        }
    }

    /// Ends the look.
    pub fn finish(mut self) -> Observed {
        let (mut bad_end, mut is_complete) = (None, false);
        if let Reader::Events(events) = &mut self.reader {
            events.finish(&mut self.totals);
            let is_whole = self.unpacker.as_mut().is_none_or(Unpacker::is_whole);
            bad_end = self
                .totals
                .bad_end(self.form)
                .filter(|end| *end == BadEnd::ErrorEvent || (is_whole && self.is_success));
            is_complete = bad_end.is_none() && self.totals.has_last_event(self.form) == Some(true);
        }
        let totals = self.totals;
        Observed {
            usage: match totals.tokens {
                _ if !self.is_counted => Usage::None,
                Some(tokens) => Usage::Known(tokens),
                None => Usage::Unknown,
            },
            cost: self.cost.or(totals.cost.filter(|_| self.is_counted)),
            model: totals.model,
            bad_end,
            is_complete,
        }
    }
}

impl Reader {
    fn feed(&mut self, piece: &[u8], totals: &mut Totals) {
        match self {
            Reader::Events(events) => events.feed(piece, totals),
            Reader::Answer(answer) => answer.feed(piece, totals),
            Reader::Nothing => {}
        }
    }
}
