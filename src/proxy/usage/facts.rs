//! What one JSON object of a response says about its usage, in the dialects of all APIs: which members
//! are wanted, and where they stand. Pure.

/// The most of a text or number that is kept, in bytes. No name or number that is wanted is longer; of
/// a model's name the log shows as much.
pub const MAX_TEXT: usize = 64;

/// A container whose members are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// The document, where it is an array: Gemini's streams, and LiteLLM's answer to several models.
    Array,
    /// An answer, or an event's data.
    Answer,
    /// The response or message within an event.
    Inner,
    Usage,
    /// Details of the input tokens.
    Details,
    GeminiUsage,
    Candidates,
    Candidate,
    PromptFeedback,
}

/// What a value is, by its name and the container that it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    Ignored,
    /// The whole of it, or an element of an array of answers.
    Document,
    Type,
    Model,
    /// Of the response within an event: there LiteLLM has the provider's name for the model.
    InnerModel,
    Error,
    Choices,
    Inner,
    Usage,
    Details,
    Count(Count),
    Cost,
    GeminiUsage,
    Candidates,
    Candidate,
    FinishReason,
    PromptFeedback,
}

/// A number of tokens. The first three are OpenAI's of completions, the next four Anthropic's and of
/// OpenAI's responses, the rest Gemini's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Count {
    Prompt,
    Completion,
    CachedDetail,
    Input,
    Output,
    CacheRead,
    CacheCreated,
    GeminiPrompt,
    GeminiToolUse,
    GeminiCached,
    GeminiCandidates,
    GeminiThoughts,
}

const COUNTS: usize = Count::GeminiThoughts as usize + 1;

/// A value, so far as it is wanted.
#[derive(Debug, Clone, Copy)]
pub enum Value<'v> {
    /// The beginning of a text, with its escapes.
    Text(&'v [u8]),
    /// A number, true, false or null.
    Scalar(&'v [u8]),
    Object,
    Array,
}

/// What an event is, by its `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    #[default]
    Other,
    Error,
    /// A whole message, and the events of one.
    Message,
    MessageStart,
    MessageDelta,
    MessageStop,
    /// An event of the responses API.
    Response,
    ResponseFailed,
    /// `response.completed`, `response.incomplete`.
    ResponseEnd,
}

/// What is known of an object. It begins anew for each.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub kind: Kind,
    /// A member says that something failed.
    pub has_error: bool,
    pub has_choices: bool,
    /// It has a member that only Gemini's answers have.
    pub is_gemini: bool,
    /// Gemini says why it has ended.
    pub has_finish_reason: bool,
    pub cost: Option<f64>,
    pub model: Vec<u8>,
    counts: [Option<u64>; COUNTS],
    /// A number of tokens is none: what the others say is not trusted.
    has_bad_count: bool,
}

impl Node {
    /// What the elements are, of an array.
    pub fn element(self) -> Option<Member> {
        match self {
            Node::Array => Some(Member::Document),
            Node::Candidates => Some(Member::Candidate),
            _ => None,
        }
    }

    /// What the member called `name` is, of an object.
    pub fn member(self, name: &[u8]) -> Member {
        match (self, name) {
            (Node::Answer, b"type") => Member::Type,
            (Node::Answer, b"model" | b"modelVersion") => Member::Model,
            (Node::Inner, b"model") => Member::InnerModel,
            (Node::Answer, b"error") => Member::Error,
            (Node::Answer, b"choices") => Member::Choices,
            (Node::Answer, b"message" | b"response") => Member::Inner,
            (Node::Answer | Node::Inner, b"usage") => Member::Usage,
            (Node::Answer, b"usageMetadata") => Member::GeminiUsage,
            (Node::Answer, b"candidates") => Member::Candidates,
            (Node::Answer, b"promptFeedback") => Member::PromptFeedback,
            (Node::Candidate, b"finishReason") | (Node::PromptFeedback, b"blockReason") => {
                Member::FinishReason
            }
            (Node::Usage, b"cost") => Member::Cost,
            (Node::Usage, b"prompt_tokens_details" | b"input_tokens_details") => Member::Details,
            _ => count(self, name).map_or(Member::Ignored, Member::Count),
        }
    }
}

fn count(node: Node, name: &[u8]) -> Option<Count> {
    Some(match (node, name) {
        (Node::Usage, b"prompt_tokens") => Count::Prompt,
        (Node::Usage, b"completion_tokens") => Count::Completion,
        (Node::Details, b"cached_tokens") => Count::CachedDetail,
        (Node::Usage, b"input_tokens") => Count::Input,
        (Node::Usage, b"output_tokens") => Count::Output,
        (Node::Usage, b"cache_read_input_tokens") => Count::CacheRead,
        (Node::Usage, b"cache_creation_input_tokens") => Count::CacheCreated,
        (Node::GeminiUsage, b"promptTokenCount") => Count::GeminiPrompt,
        (Node::GeminiUsage, b"toolUsePromptTokenCount") => Count::GeminiToolUse,
        (Node::GeminiUsage, b"cachedContentTokenCount") => Count::GeminiCached,
        (Node::GeminiUsage, b"candidatesTokenCount") => Count::GeminiCandidates,
        (Node::GeminiUsage, b"thoughtsTokenCount") => Count::GeminiThoughts,
        _ => return None,
    })
}

impl Member {
    /// The container that is followed where this member is one; `None`: it is skipped.
    pub fn node(self, is_object: bool) -> Option<Node> {
        Some(match (self, is_object) {
            (Member::Document, true) => Node::Answer,
            (Member::Document, false) => Node::Array,
            (Member::Inner, true) => Node::Inner,
            (Member::Usage, true) => Node::Usage,
            (Member::Details, true) => Node::Details,
            (Member::GeminiUsage, true) => Node::GeminiUsage,
            (Member::Candidates, false) => Node::Candidates,
            (Member::Candidate, true) => Node::Candidate,
            (Member::PromptFeedback, true) => Node::PromptFeedback,
            _ => return None,
        })
    }
}

impl Facts {
    /// Takes note of a member's value.
    pub fn take(&mut self, member: Member, value: Value<'_>) {
        match (member, value) {
            (Member::Type, Value::Text(text)) => self.kind = Kind::of(text),
            (Member::Model, Value::Text(text)) => self.set_model(text),
            (Member::InnerModel, Value::Text(text)) if self.model.is_empty() => {
                self.set_model(text);
            }
            (Member::Error, value) => self.has_error = is_something(value),
            (Member::Choices, Value::Array) => self.has_choices = true,
            (Member::GeminiUsage | Member::PromptFeedback, Value::Object)
            | (Member::Candidates, Value::Array) => self.is_gemini = true,
            (Member::FinishReason, Value::Text(_)) => self.has_finish_reason = true,
            (Member::Count(_), Value::Scalar(b"null")) => {}
            (Member::Count(count), value) => match number(value) {
                Some(number) => self.counts[count as usize] = Some(number),
                None => self.has_bad_count = true,
            },
            (Member::Cost, Value::Scalar(text)) => self.cost = cost(text),
            _ => {}
        }
    }

    fn set_model(&mut self, text: &[u8]) {
        let text = text.iter().filter(|byte| **byte != b'\\');
        self.model.clear();
        self.model.extend(text.take(MAX_TEXT));
    }

    /// Forgets the object, for the next one.
    pub fn clear(&mut self) {
        let mut model = std::mem::take(&mut self.model);
        model.clear();
        *self = Facts {
            model,
            ..Facts::default()
        };
    }

    /// A number of tokens; `None` where it is not there.
    pub fn count(&self, count: Count) -> Option<u64> {
        self.counts[count as usize].filter(|_| !self.has_bad_count)
    }
}

impl Kind {
    fn of(text: &[u8]) -> Kind {
        match text {
            b"error" => Kind::Error,
            b"message" => Kind::Message,
            b"message_start" => Kind::MessageStart,
            b"message_delta" => Kind::MessageDelta,
            b"message_stop" => Kind::MessageStop,
            b"response.failed" => Kind::ResponseFailed,
            b"response.completed" | b"response.incomplete" => Kind::ResponseEnd,
            _ if text.starts_with(b"response.") => Kind::Response,
            _ => Kind::Other,
        }
    }
}

/// Whether an error's value is one to the SDKs.
fn is_something(value: Value<'_>) -> bool {
    !matches!(value, Value::Text(b"") | Value::Scalar(b"null" | b"false"))
}

/// A whole number that is not negative; the largest that there is where it is larger.
pub fn number(value: Value<'_>) -> Option<u64> {
    let Value::Scalar(text) = value else {
        return None;
    };
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let add = |sum: u64, digit: &u8| {
        sum.saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    };
    is_number.then(|| text.iter().fold(0, add))
}

/// An amount that is finite and not negative.
pub fn cost(text: &[u8]) -> Option<f64> {
    let cost: f64 = std::str::from_utf8(text).ok()?.trim().parse().ok()?;
    // The sum has no sign where it is 0.
    (cost.is_finite() && cost >= 0.0).then_some(cost + 0.0)
}
