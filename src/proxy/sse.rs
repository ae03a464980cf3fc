//! Server-sent events: where an event ends, and how a stream that broke off is ended honestly.
//!
//! Both SDKs raise on one frame, `event: error` with Anthropic's error object: OpenAI's because the
//! data has an `error` member, Anthropic's because of the event's name. It must stand alone, and what
//! was sent of an event before the break must not be taken for a whole one. No I/O.

use serde_json::json;

use super::error::anthropic_error;

/// How much of an unfinished event is kept. Longer ones are ended more coarsely.
const MAX_TAIL: usize = 64 * 1024;

/// Follows a stream and keeps what was sent since its last event boundary.
#[derive(Debug, Default)]
pub struct EventTail {
    /// The bytes of the event that is not complete yet, at most [`MAX_TAIL`] of them.
    tail: Vec<u8>,
    /// The event is longer than `tail`.
    overflowed: bool,
    line: Line,
}

/// Where in a line the stream is. A line ends with LF, CR or CRLF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Line {
    /// At the start of the stream or behind an empty line: a boundary.
    #[default]
    Boundary,
    /// Behind a CR that ended an empty line: a boundary, an LF may still belong to it.
    BoundaryCr,
    /// At the start of a line of an event.
    Start,
    /// Behind a CR that ended a line.
    StartCr,
    Inside,
}

impl EventTail {
    /// Takes note of a piece that was sent.
    pub fn feed(&mut self, piece: &[u8]) {
        let mut boundary = None;
        for (index, &byte) in piece.iter().enumerate() {
            self.line = match (self.line, byte) {
                (Line::BoundaryCr, b'\n') => Line::Boundary,
                (Line::StartCr, b'\n') => Line::Start,
                (Line::Boundary | Line::Start, b'\n') => Line::Boundary,
                (Line::StartCr, b'\r') => Line::BoundaryCr,
                (Line::Boundary | Line::BoundaryCr | Line::Start, b'\r') => Line::BoundaryCr,
                (Line::Inside, b'\n') => Line::Start,
                (Line::Inside, b'\r') => Line::StartCr,
                (_, _) => Line::Inside,
            };
            if matches!(self.line, Line::Boundary | Line::BoundaryCr) {
                boundary = Some(index + 1);
            }
        }
        let rest = match boundary {
            Some(end) => {
                self.tail.clear();
                self.overflowed = false;
                &piece[end..]
            }
            None => piece,
        };
        if self.tail.len() + rest.len() > MAX_TAIL {
            self.overflowed = true;
        } else {
            self.tail.extend_from_slice(rest);
        }
    }

    /// Whether everything that was sent is whole events.
    pub fn is_at_boundary(&self) -> bool {
        matches!(self.line, Line::Boundary | Line::BoundaryCr)
    }

    /// The bytes that end a broken stream: what is left open is closed as an error, then the frame.
    pub fn ending(&self, message: &str) -> Vec<u8> {
        let mut ending = Vec::new();
        if !self.is_at_boundary() {
            self.close_event(message, &mut ending);
        }
        ending.extend_from_slice(b"event: error\ndata: ");
        ending.extend_from_slice(anthropic_error("api_error", message).as_bytes());
        ending.extend_from_slice(b"\n\n");
        ending
    }

    /// Ends the event that is open so that no decoder takes it for a whole one of its kind.
    ///
    /// Its data, if it is the beginning of a JSON object, becomes an object with an `error` member,
    /// so that decoders that parse every event's data raise an error with our message; and its name
    /// becomes `error`, for those that go by the name.
    fn close_event(&self, message: &str, ending: &mut Vec<u8>) {
        let in_line = self.line == Line::Inside;
        let data = if self.overflowed {
            None
        } else {
            Some(event_data(&self.tail))
        };
        match data {
            // No data yet: the frame's own lines make this event the error.
            Some(data) if !data.has_data => {
                if in_line {
                    ending.push(b'\n');
                }
                return;
            }
            Some(data) => {
                let open = if in_line && data.last_line_is_data {
                    data.json
                } else {
                    None
                };
                if let Some(completion) = open.and_then(|json| complete_object(&json, message)) {
                    ending.extend_from_slice(completion.as_bytes());
                }
            }
            None => {}
        }
        if in_line {
            ending.push(b'\n');
        }
        ending.extend_from_slice(b"event: error\n\n");
    }
}

/// What an unfinished event holds.
struct OpenEvent {
    has_data: bool,
    last_line_is_data: bool,
    /// The data so far, lines joined as decoders do.
    json: Option<Vec<u8>>,
}

fn event_data(tail: &[u8]) -> OpenEvent {
    let mut data: Option<Vec<u8>> = None;
    let mut last_line_is_data = false;
    for line in tail.split(|&byte| byte == b'\n' || byte == b'\r') {
        last_line_is_data = line.starts_with(b"data:");
        if let Some(value) = line.strip_prefix(b"data:") {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match &mut data {
                Some(lines) => {
                    lines.push(b'\n');
                    lines.extend_from_slice(value);
                }
                None => data = Some(value.to_vec()),
            }
        }
    }
    OpenEvent {
        has_data: data.is_some(),
        last_line_is_data,
        json: data,
    }
}

/// Where in a JSON text its end fell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Json {
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
    /// In a number or one of true, false and null; where it started.
    Word {
        start: usize,
    },
}

/// What must follow `json`, the beginning of an object, to make it an object with an `error` member.
/// `None` where it is no such beginning, or already an object.
fn complete_object(json: &[u8], message: &str) -> Option<String> {
    let mut open = Vec::new();
    let mut state = Json::Value;
    for (index, &byte) in json.iter().enumerate() {
        state = step(state, byte, index, &mut open)?;
        if state == Json::After && open.is_empty() {
            return None;
        }
    }
    if open.is_empty() {
        return None;
    }
    let mut completion = String::new();
    finish_value(state, json, &mut completion);
    for &bracket in open[1..].iter().rev() {
        completion.push(bracket as char);
    }
    let member = json!({"type": "api_error", "message": message});
    let is_empty = open.len() == 1 && state == Json::Name { first: true };
    let comma = if is_empty { "" } else { "," };
    completion.push_str(&format!("{comma}\"error\":{member}}}"));
    Some(completion)
}

/// One byte further. `None`: this is not JSON.
fn step(state: Json, byte: u8, index: usize, open: &mut Vec<u8>) -> Option<Json> {
    let space = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    Some(match (state, byte) {
        (Json::String { is_name }, b'"') => {
            if is_name {
                Json::Colon
            } else {
                Json::After
            }
        }
        (Json::String { is_name }, b'\\') => Json::Escape { is_name },
        (Json::String { .. }, _) => state,
        (Json::Escape { is_name }, b'u') => Json::Unicode { is_name, left: 4 },
        (Json::Escape { is_name }, _) => Json::String { is_name },
        (Json::Unicode { is_name, left: 1 }, _) => Json::String { is_name },
        (Json::Unicode { is_name, left }, _) => Json::Unicode {
            is_name,
            left: left - 1,
        },
        (Json::Word { .. }, b',' | b']' | b'}') => return step(Json::After, byte, index, open),
        (Json::Word { .. }, _) if space => Json::After,
        (Json::Word { .. }, _) => state,
        (_, _) if space => state,
        (Json::Value | Json::FirstElement, b'{') => {
            open.push(b'}');
            Json::Name { first: true }
        }
        // The text as a whole must be an object.
        (Json::Value, _) if open.is_empty() => return None,
        (Json::Value | Json::FirstElement, b'[') => {
            open.push(b']');
            Json::FirstElement
        }
        (Json::FirstElement, b']') | (Json::Name { first: true }, b'}') => {
            open.pop();
            Json::After
        }
        (Json::Value | Json::FirstElement, b'"') => Json::String { is_name: false },
        (Json::Value | Json::FirstElement, b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
            Json::Word { start: index }
        }
        (Json::Name { .. }, b'"') => Json::String { is_name: true },
        (Json::Colon, b':') => Json::Value,
        (Json::After, b',') => match open.last() {
            Some(b'}') => Json::Name { first: false },
            _ => Json::Value,
        },
        (Json::After, b'}' | b']') if open.last() == Some(&byte) => {
            open.pop();
            Json::After
        }
        _ => return None,
    })
}

/// What ends the value, or the member, in whose middle the text broke off.
fn finish_value(state: Json, json: &[u8], completion: &mut String) {
    let quote = |is_name: bool| if is_name { "\":null" } else { "\"" };
    match state {
        Json::Value => completion.push_str("null"),
        Json::Colon => completion.push_str(":null"),
        Json::Name { first: false } => completion.push_str("\"\":null"),
        Json::Name { first: true } | Json::FirstElement | Json::After => {}
        Json::String { is_name } => completion.push_str(quote(is_name)),
        Json::Escape { is_name } => {
            completion.push('n');
            completion.push_str(quote(is_name));
        }
        Json::Unicode { is_name, left } => {
            completion.push_str(&"0".repeat(left.into()));
            completion.push_str(quote(is_name));
        }
        Json::Word { start } => completion.push_str(finish_word(&json[start..])),
    }
}

fn finish_word(word: &[u8]) -> &'static str {
    for whole in ["true", "false", "null"] {
        if whole.as_bytes().starts_with(word) {
            return &whole[word.len()..];
        }
    }
    match word.last() {
        Some(b'0'..=b'9') => "",
        // After a sign, a point or an exponent a digit must follow.
        _ => "0",
    }
}

#[cfg(test)]
mod tests;
