//! The beginning of a JSON object, and what makes it a whole one. Byte by byte. No I/O.

use serde_json::json;

/// Deeper objects are not followed: this bounds what is kept of them.
const MAX_DEPTH: usize = 1024;

/// An object of which the opening brace, and perhaps more, has been taken.
#[derive(Debug, Clone)]
pub(super) struct PartialJson {
    state: State,
    /// The brackets that close what is open, the outermost first. Empty: the object is whole.
    open: Vec<u8>,
}

/// Where in a JSON text its end fell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a value.
    Value,
    /// Behind `{`, or behind a comma in an object: before a member's name.
    Name {
        first: bool,
    },
    /// Behind a member's name.
    Colon,
    /// Behind `[`.
    FirstElement,
    /// Behind a value.
    After,
    String {
        is_name: bool,
    },
    Escape {
        is_name: bool,
    },
    Unicode {
        is_name: bool,
        left: u8,
    },
    /// In true, false or null; what is missing of it.
    Literal {
        rest: &'static [u8],
    },
    /// In a number. After a sign, a point or an exponent a digit must follow.
    Number {
        needs_digit: bool,
    },
}

impl Default for PartialJson {
    fn default() -> Self {
        PartialJson {
            state: State::Name { first: true },
            open: vec![b'}'],
        }
    }
}

impl PartialJson {
    pub(super) fn is_whole(&self) -> bool {
        self.open.is_empty()
    }

    /// Takes the next byte. `None`: this is not JSON.
    pub(super) fn take(&mut self, byte: u8) -> Option<()> {
        self.state = self.step(byte)?;
        Some(())
    }

    /// What must follow to make this an object with an `error` member. Must not be whole.
    ///
    /// Anthropic's SDK for Node takes its message from a `message` at the top, where one of its
    /// events has something else: of two members of one name decoders take the last.
    pub(super) fn completion(&self, message: &str) -> String {
        let mut completion = self.rest_of_value();
        for &bracket in self.open.iter().skip(1).rev() {
            completion.push(bracket.into());
        }
        if self.open.len() > 1 || self.state != (State::Name { first: true }) {
            completion.push(',');
        }
        let error = json!({"type": "api_error", "message": message});
        let message = json!(message);
        completion.push_str(&format!(r#""error":{error},"message":{message}}}"#));
        completion
    }

    /// One byte further.
    fn step(&mut self, byte: u8) -> Option<State> {
        if let Some(state) = self.step_in_word(byte) {
            return Some(state);
        }
        let state = match self.state {
            State::Number { needs_digit: false } => State::After,
            state => state,
        };
        if is_space(byte) {
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
                self.open.pop();
                State::After
            }
            (State::Value | State::FirstElement, _) => begin_word(byte)?,
            (State::Name { .. }, b'"') => State::String { is_name: true },
            (State::Colon, b':') => State::Value,
            (State::After, b',') => match self.open.last()? {
                b'}' => State::Name { first: false },
                _ => State::Value,
            },
            (State::After, _) if self.open.last() == Some(&byte) => {
                self.open.pop();
                State::After
            }
            _ => return None,
        })
    }

    /// One byte further in a string, number or literal. `None`: it is not in one, or at its end.
    fn step_in_word(&self, byte: u8) -> Option<State> {
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
        if self.open.len() == MAX_DEPTH {
            return None;
        }
        self.open.push(bracket);
        Some(())
    }

    /// What ends the value, or the member, in whose middle the text broke off.
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

/// RFC 8259 section 2: white space. A form feed is none.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn begin_word(byte: u8) -> Option<State> {
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
