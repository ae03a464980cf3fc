//! The replies of the simulated models, in pieces like the tokens of a real one. Pure.

use serde_json::Value;

use super::tools::ToolCall;

/// The longest quotation from a message: streaming a whole book back would take hours.
const MAX_QUOTED_CHARS: usize = 200;
/// The longest piece: tokens are about this long.
const MAX_PIECE_BYTES: usize = 8;

/// What a model replies.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Text {
        /// At least one; no piece is empty.
        pieces: Vec<String>,
        ending: Ending,
    },
    ToolCall {
        call: ToolCall,
        /// Its input as JSON, like the pieces of a text.
        pieces: Vec<String>,
    },
}

impl Reply {
    /// Returns the pieces that a stream sends one by one; each counts as a token.
    pub(super) fn pieces(&self) -> &[String] {
        match self {
            Reply::Text { pieces, .. } | Reply::ToolCall { pieces, .. } => pieces,
        }
    }
}

/// Why a text ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Complete,
    /// At the client's limit on tokens.
    CutShort,
}

/// What a model replies to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    User(String),
    /// The result of a tool that was called before.
    ToolResult(String),
}

/// Returns the reply to `input`, words at most `max_tokens` pieces long. A user's message gets `call`,
/// if there is one. A tool's result gets words: another call would keep agents running forever.
pub(super) fn reply(input: &Input, call: Option<ToolCall>, max_tokens: Option<u64>) -> Reply {
    let text = match (input, call) {
        (Input::User(_), Some(call)) => {
            let pieces = pieces(&call.input.to_string());
            return Reply::ToolCall { call, pieces };
        }
        (Input::User(said), None) if said.trim().is_empty() => {
            "Hello from the simulated Flow! You said nothing, and that is fine too.".to_owned()
        }
        (Input::User(said), None) => format!(
            "Hello from the simulated Flow! You said: \"{}\". Every piece of this came through the proxy on its own.",
            quoted(said)
        ),
        (Input::ToolResult(result), _) => {
            format!("Thank you! The tool answered: \"{}\".", quoted(result))
        }
    };
    let mut pieces = pieces(&text);
    let most = max_tokens.map_or(usize::MAX, |most| {
        usize::try_from(most).unwrap_or(usize::MAX)
    });
    let ending = if pieces.len() > most {
        // No API allows 0 tokens: it counts as 1.
        pieces.truncate(most.max(1));
        Ending::CutShort
    } else {
        Ending::Complete
    };
    Reply::Text { pieces, ending }
}

/// Returns the text of a message's content: the string itself, or the last part that has text. Clients
/// put what the user typed after what they add themselves.
pub(super) fn text_of(content: &Value) -> &str {
    match content {
        Value::String(text) => text,
        Value::Array(parts) => {
            let texts = parts.iter().rev().filter_map(|part| part["text"].as_str());
            texts.into_iter().next().unwrap_or_default()
        }
        _ => "",
    }
}

fn quoted(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(MAX_QUOTED_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Splits a text into words with the space before them, and long words into parts. A character outside
/// ASCII is a piece of its own, so that streams show whether such characters arrive whole.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for c in text.chars() {
        match pieces.last_mut() {
            Some(last)
                if c.is_ascii() && c != ' ' && last.is_ascii() && last.len() < MAX_PIECE_BYTES =>
            {
                last.push(c);
            }
            _ => pieces.push(c.into()),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(reply: &Reply) -> String {
        match reply {
            Reply::Text { pieces, .. } => pieces.concat(),
            Reply::ToolCall { .. } => panic!("{reply:?}"),
        }
    }

    #[test]
    fn what_was_said_is_quoted() {
        let said = text(&reply(&Input::User(" Olá, 世界! ".into()), None, None));
        assert!(said.contains("\"Olá, 世界!\""), "{said}");
    }

    #[test]
    fn words_are_pieces_and_so_is_each_character_outside_ascii() {
        // A space goes with the word behind it only where that is ASCII.
        let expected = [
            "A", " long", " unbelie", "vable", " word", " ", "世", "界", "!",
        ];
        assert_eq!(pieces("A long unbelievable word 世界!"), expected);
    }

    #[test]
    fn a_long_message_is_quoted_in_part() {
        let book = reply(&Input::User("é".repeat(1 << 20)), None, None);
        let Reply::Text { pieces, .. } = &book else {
            panic!("{book:?}")
        };
        assert!(pieces.len() < 300, "{} pieces", pieces.len());
        assert!(text(&book).contains("é…\""));
    }

    #[test]
    fn a_reply_has_no_more_tokens_than_the_client_wants() {
        let input = Input::User("hello".into());
        let cut = reply(&input, None, Some(2));
        assert_eq!(
            (text(&cut).as_str(), ending(&cut)),
            ("Hello from", Ending::CutShort)
        );
        assert_eq!(text(&reply(&input, None, Some(0))), "Hello");
        assert_eq!(
            ending(&reply(&input, None, Some(u64::MAX))),
            Ending::Complete
        );
    }

    fn ending(reply: &Reply) -> Ending {
        match reply {
            Reply::Text { ending, .. } => *ending,
            Reply::ToolCall { .. } => panic!("{reply:?}"),
        }
    }

    #[test]
    fn a_tool_is_called_once_and_not_for_its_own_result() {
        let weather = || ToolCall {
            name: "weather".into(),
            input: json!({"city": "example"}),
        };
        let reply_to = |input: Input| reply(&input, Some(weather()), Some(1));
        let Reply::ToolCall { call, pieces } = reply_to(Input::User("x".into())) else {
            panic!("no call")
        };
        assert_eq!(call, weather());
        assert_eq!(pieces.concat(), r#"{"city":"example"}"#);
        assert!(pieces.len() > 1, "{pieces:?}");
        let words = reply(&Input::ToolResult("12 °C".into()), Some(weather()), None);
        assert!(text(&words).contains("\"12 °C\""), "{words:?}");
    }

    #[test]
    fn content_may_be_a_string_or_parts_or_missing() {
        assert_eq!(text_of(&json!("a")), "a");
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, {"type": "image"}]);
        assert_eq!(text_of(&parts), "b");
        for nothing in [json!(null), json!([]), json!([1]), json!({})] {
            assert_eq!(text_of(&nothing), "");
        }
    }
}
