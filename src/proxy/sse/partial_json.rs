//! The beginning of a JSON object (RFC 8259), scanned byte by byte, and the text that completes it. No
//! I/O.

use serde_json::json;

/// The deepest nesting that is followed, in brackets. Bounds the memory.
const MAX_DEPTH: usize = 1024;

/// The beginning of a JSON object, at least its opening brace.
#[derive(Debug, Clone)]
pub(super) struct PartialJson {
    state: State,
    /// The closing brackets that are missing, the outermost first. Empty if the object is complete.
    missing_brackets: Vec<u8>,
}

/// The position of the end of the text in the JSON grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a value.
    Value,
    /// Before a member's name: after `{`, or after a comma in an object.
    Name { first: bool },
    /// After a member's name.
    Colon,
    /// After `[`.
    FirstElement,
    /// After a value.
    After,
    /// In a string, which is a member's name or a value.
    String { is_name: bool },
    /// After a backslash.
    Escape { is_name: bool },
    /// In a `\u` escape, with `left` digits to come.
    Unicode { is_name: bool, left: u8 },
    /// In true, false or null, with `rest` to come.
    Literal { rest: &'static [u8] },
    /// In a number. After a sign, a point or an exponent it needs a digit.
    Number { needs_digit: bool },
}

impl Default for PartialJson {
    fn default() -> Self {
        PartialJson {
            state: State::Name { first: true },
            missing_brackets: vec![b'}'],
        }
    }
}

impl PartialJson {
    /// Whether the object's closing brace has been fed.
    pub(super) fn is_complete(&self) -> bool {
        self.missing_brackets.is_empty()
    }

    /// Scans the next byte. Returns `None` if the text is not JSON, or nested too deeply.
    pub(super) fn feed(&mut self, byte: u8) -> Option<()> {
        self.state = self.step(byte)?;
        Some(())
    }

    /// Returns the text that completes an incomplete object and gives it an `error` member.
    ///
    /// Anthropic's SDK for Node reads the text of an error from a top-level `message`, which one of its
    /// events has for something else. Of two members with one name, decoders take the last.
    pub(super) fn completion(&self, message: &str) -> String {
        let mut completion = self.rest_of_value();
        for &bracket in self.missing_brackets.iter().skip(1).rev() {
            completion.push(bracket.into());
        }
        if self.missing_brackets.len() > 1 || self.state != (State::Name { first: true }) {
            completion.push(',');
        }
        let error = json!({"type": "api_error", "message": message});
        let message = json!(message);
        completion.push_str(&format!(r#""error":{error},"message":{message}}}"#));
        completion
    }

    /// Returns the state after `byte`, or `None` if it is not allowed.
    fn step(&mut self, byte: u8) -> Option<State> {
        if let Some(state) = self.step_in_token(byte) {
            return Some(state);
        }
        let state = match self.state {
            State::Number { needs_digit: false } => State::After,
            state => state,
        };
        if is_whitespace(byte) {
            return match state {
                State::Number { .. } | State::Literal { .. } => None,
                state => Some(state),
            };
        }
        Some(match (state, byte) {
            (State::Value | State::FirstElement, b'{') => {
                self.push(b'}')?;
                State::Name { first: true }
            }
            (State::Value | State::FirstElement, b'[') => {
                self.push(b']')?;
                State::FirstElement
            }
            (State::FirstElement, b']') | (State::Name { first: true }, b'}') => {
                self.missing_brackets.pop();
                State::After
            }
            (State::Value | State::FirstElement, _) => begin_token(byte)?,
            (State::Name { .. }, b'"') => State::String { is_name: true },
            (State::Colon, b':') => State::Value,
            (State::After, b',') => match self.missing_brackets.last()? {
                b'}' => State::Name { first: false },
                _ => State::Value,
            },
            (State::After, _) if self.missing_brackets.last() == Some(&byte) => {
                self.missing_brackets.pop();
                State::After
            }
            _ => return None,
        })
    }

    /// Returns the state after `byte` in a string, number or literal, or `None` if `byte` is not in one.
    fn step_in_token(&self, byte: u8) -> Option<State> {
        Some(match (self.state, byte) {
            (State::String { is_name: true }, b'"') => State::Colon,
            (State::String { is_name: false }, b'"') => State::After,
            (State::String { is_name }, b'\\') => State::Escape { is_name },
            (State::String { .. }, _) => self.state,
            (State::Escape { is_name }, b'u') => State::Unicode { is_name, left: 4 },
            (State::Escape { is_name }, _) => State::String { is_name },
            (State::Unicode { is_name, left: 1 }, _) => State::String { is_name },
            (State::Unicode { is_name, left }, _) => State::Unicode {
                is_name,
                left: left - 1,
            },
            (State::Literal { rest }, _) if rest.first() == Some(&byte) => match rest.len() {
                1 => State::After,
                _ => State::Literal { rest: &rest[1..] },
            },
            (State::Number { .. }, b'0'..=b'9') => State::Number { needs_digit: false },
            (State::Number { .. }, b'+' | b'-' | b'.' | b'e' | b'E') => {
                State::Number { needs_digit: true }
            }
            _ => return None,
        })
    }

    fn push(&mut self, bracket: u8) -> Option<()> {
        if self.missing_brackets.len() == MAX_DEPTH {
            return None;
        }
        self.missing_brackets.push(bracket);
        Some(())
    }

    /// Returns the text that completes the value or member at the end.
    fn rest_of_value(&self) -> String {
        let quote = |is_name: bool| if is_name { "\":null" } else { "\"" };
        match self.state {
            State::Value => "null".into(),
            State::Colon => ":null".into(),
            State::Name { first: false } => "\"\":null".into(),
            State::Name { first: true } | State::FirstElement | State::After => String::new(),
            State::String { is_name } => quote(is_name).into(),
            State::Escape { is_name } => format!("n{}", quote(is_name)),
            State::Unicode { is_name, left } => "0".repeat(left.into()) + quote(is_name),
            State::Literal { rest } => String::from_utf8_lossy(rest).into_owned(),
            State::Number { needs_digit } => if needs_digit { "0" } else { "" }.into(),
        }
    }
}

/// Whether `byte` is white space (RFC 8259 section 2). A form feed is not.
pub(super) fn is_whitespace(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Returns the state after `byte` as the first one of a string, number or literal.
fn begin_token(byte: u8) -> Option<State> {
    Some(match byte {
        b'"' => State::String { is_name: false },
        b'-' => State::Number { needs_digit: true },
        b'0'..=b'9' => State::Number { needs_digit: false },
        b't' => State::Literal { rest: b"rue" },
        b'f' => State::Literal { rest: b"alse" },
        b'n' => State::Literal { rest: b"ull" },
        _ => return None,
    })
}
