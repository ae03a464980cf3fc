//! What all objects of a response say together, and whether its stream has ended as its API's streams do.
//! Pure.

use super::facts::{Count, Facts, Kind};
use super::tokens::Tokens;

/// The API whose form a stream has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// OpenAI's chat and text completions.
    Completions,
    /// OpenAI's responses.
    Responses,
    /// Anthropic's messages.
    Messages,
    Gemini,
}

impl Form {
    /// The form that streams at this path have. Asked where a stream is empty: else it tells itself.
    pub fn of_path(path: &[u8]) -> Option<Form> {
        if path.ends_with(b"/completions") {
            Some(Form::Completions)
        } else if path.ends_with(b"/v1/messages") {
            Some(Form::Messages)
        } else if path.ends_with(b"/responses") {
            Some(Form::Responses)
        } else if path.ends_with(b":streamGenerateContent") {
            Some(Form::Gemini)
        } else {
            None
        }
    }

    fn of(facts: &Facts) -> Option<Form> {
        match facts.kind {
            Kind::Message | Kind::MessageStart | Kind::MessageDelta | Kind::MessageStop => {
                Some(Form::Messages)
            }
            Kind::Response | Kind::ResponseFailed | Kind::ResponseEnd => Some(Form::Responses),
            Kind::Other | Kind::Error if facts.has_choices => Some(Form::Completions),
            Kind::Other | Kind::Error => facts.is_gemini.then_some(Form::Gemini),
        }
    }
}

/// How a stream ended that did not end well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadEnd {
    /// One of its events is an error.
    ErrorEvent,
    /// Its API's last event is missing.
    Incomplete,
}

/// The sums of a response.
#[derive(Debug, Default)]
pub struct Totals {
    pub tokens: Option<Tokens>,
    pub cost: Option<f64>,
    pub model: Vec<u8>,
    /// Input, output, read from cache, newly cached: a message's, of which each event tells a part.
    message: [u64; 4],
    form: Option<Form>,
    has_error: bool,
    has_end: bool,
    has_done: bool,
}

impl Totals {
    /// Takes what an object of a stream says: it replaces what those before it said.
    pub fn replace_by(&mut self, facts: &mut Facts) {
        let tokens = match facts.kind {
            Kind::MessageStart | Kind::MessageDelta => self.of_message(facts),
            _ => tokens(facts),
        };
        self.tokens = tokens.or(self.tokens);
        self.cost = facts.cost.or(self.cost);
        self.note(facts);
    }

    /// Takes what an answer says, which may be one of several. Gemini's several are a stream.
    pub fn take_answer(&mut self, facts: &mut Facts, is_one_of_several: bool) {
        if is_one_of_several && !facts.is_gemini {
            self.add(facts);
        } else {
            self.replace_by(facts);
        }
    }

    /// Takes what one of several answers says: it comes on top.
    fn add(&mut self, facts: &mut Facts) {
        let sum = |tokens: Tokens| tokens.plus(self.tokens.unwrap_or_default());
        self.tokens = tokens(facts).map(sum).or(self.tokens);
        let sum = |cost: f64| (cost + self.cost.unwrap_or_default()).min(f64::MAX);
        self.cost = facts.cost.map(sum).or(self.cost);
        self.note(facts);
    }

    fn note(&mut self, facts: &mut Facts) {
        if self.model.is_empty() {
            std::mem::swap(&mut self.model, &mut facts.model);
        }
        self.form = self.form.or_else(|| Form::of(facts));
        self.has_error |=
            facts.has_error || matches!(facts.kind, Kind::Error | Kind::ResponseFailed);
        self.has_end |=
            facts.has_finish_reason || matches!(facts.kind, Kind::MessageStop | Kind::ResponseEnd);
    }

    /// Whether the first events have told what only they tell: the form, the model, a message's input.
    pub fn has_begun(&self) -> bool {
        self.form.is_some() && !self.model.is_empty()
    }

    /// Takes note of `[DONE]`.
    pub fn note_done(&mut self) {
        self.has_done = true;
    }

    /// Takes note of an event that is called an error.
    pub fn note_error(&mut self) {
        self.has_error = true;
    }

    /// Whether the stream has ended badly. `form` is that of a stream that does not tell it.
    pub fn bad_end(&self, form: Option<Form>) -> Option<BadEnd> {
        if self.has_error {
            return Some(BadEnd::ErrorEvent);
        }
        (self.has_last_event(form) == Some(false)).then_some(BadEnd::Incomplete)
    }

    /// Whether its API's last event has come, if there is one. `form` as for [`Totals::bad_end`].
    pub fn has_last_event(&self, form: Option<Form>) -> Option<bool> {
        Some(match self.form.or(form)? {
            Form::Completions => self.has_done,
            Form::Responses | Form::Messages | Form::Gemini => self.has_end,
        })
    }

    /// Of two numbers the later one counts, unless it is 0.
    fn of_message(&mut self, facts: &Facts) -> Option<Tokens> {
        for (sum, number) in self.message.iter_mut().zip(message_counts(facts)) {
            if let Some(number) = number.filter(|number| *number > 0) {
                *sum = number;
            }
        }
        of_message(self.message)
    }
}

/// The tokens that an object tells by itself.
fn tokens(facts: &Facts) -> Option<Tokens> {
    let count = |count| facts.count(count);
    let or_0 = |number: Option<u64>| number.unwrap_or_default();
    let sum = |one, other| or_0(count(one)).saturating_add(or_0(count(other)));
    let has = |one, other| count(one).or(count(other)).is_some();
    if facts.is_gemini {
        return Tokens {
            input: sum(Count::GeminiPrompt, Count::GeminiToolUse),
            cached: or_0(count(Count::GeminiCached)),
            output: sum(Count::GeminiCandidates, Count::GeminiThoughts),
        }
        .some();
    }
    if has(Count::Prompt, Count::Completion) {
        // LiteLLM has a message's numbers here, too, and counts them in.
        let cached = count(Count::CachedDetail).or(count(Count::CacheRead));
        return Tokens {
            input: or_0(count(Count::Prompt)),
            cached: or_0(cached),
            output: or_0(count(Count::Completion)),
        }
        .some();
    }
    if facts.kind == Kind::Message || has(Count::CacheRead, Count::CacheCreated) {
        return of_message(message_counts(facts).map(or_0));
    }
    Tokens {
        input: or_0(count(Count::Input)),
        cached: or_0(count(Count::CachedDetail)),
        output: or_0(count(Count::Output)),
    }
    .some()
}

fn message_counts(facts: &Facts) -> [Option<u64>; 4] {
    [
        Count::Input,
        Count::Output,
        Count::CacheRead,
        Count::CacheCreated,
    ]
    .map(|count| facts.count(count))
}

/// A message's input leaves out what was read from the cache and what is new in it.
fn of_message([input, output, read, created]: [u64; 4]) -> Option<Tokens> {
    Tokens {
        input: input.saturating_add(read).saturating_add(created),
        cached: read,
        output,
    }
    .some()
}
