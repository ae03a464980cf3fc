//! What the simulated models say, in pieces as a model would say it. Pure.

use serde_json::Value;

/// Of a message so much is quoted: the answer to a book should not take an hour.
const MAX_QUOTED_CHARS: usize = 200;
/// The longest piece, in bytes; about what tokens are.
const MAX_PIECE: usize = 8;

/// What is answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Text {
        /// Never empty, nor is a piece.
        pieces: Vec<String>,
        ending: Ending,
    },
    /// A call of this tool, without arguments.
    ToolCall { name: String },
}

/// Why a text ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// All is said.
    Complete,
    /// The client wanted no more tokens.
    CutShort,
}

/// What is answered to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    User(String),
    /// What a tool answered that was called before.
    ToolResult(String),
}

/// The answer to `heard`, at most `max_tokens` long. `tool` is the tool to be called, if any: what
/// it answers is not answered by calling it again, or agents would never end.
pub(super) fn reply(heard: &Heard, tool: Option<&str>, max_tokens: Option<u64>) -> Reply {
    let text = match (heard, tool) {
        (Heard::User(_), Some(name)) => return Reply::ToolCall { name: name.into() },
        (Heard::User(said), None) if said.trim().is_empty() => {
            "Hello from the simulated Flow! You said nothing, and that is fine too.".to_owned()
        }
        (Heard::User(said), None) => format!(
            "Hello from the simulated Flow! You said: \"{}\". Every piece of this came through the proxy on its own.",
            quoted(said)
        ),
        (Heard::ToolResult(result), _) => {
            format!("Thank you! The tool answered: \"{}\".", quoted(result))
        }
    };
    let mut pieces = pieces(&text);
    // No API takes 0; whoever sends it anyway gets a piece.
    let most = max_tokens.map_or(usize::MAX, |most| {
        usize::try_from(most).unwrap_or(usize::MAX)
    });
    let ending = if pieces.len() > most {
        pieces.truncate(most.max(1));
        Ending::CutShort
    } else {
        Ending::Complete
    };
    Reply::Text { pieces, ending }
}

/// The text of a message's content: the string itself, or the last part that has text. Clients put
/// what the user typed last, behind what they add on their own.
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

/// Words with the space before them, long ones in parts; a character outside ASCII is a piece of
/// its own, so that streams show whether they keep such characters whole.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for c in text.chars() {
        match pieces.last_mut() {
            Some(last) if c.is_ascii() && c != ' ' && last.is_ascii() && last.len() < MAX_PIECE => {
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
        let answer = text(&reply(&Heard::User(" Olá, 世界! ".into()), None, None));
        assert!(answer.contains("\"Olá, 世界!\""), "{answer}");
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
    fn a_book_is_quoted_in_part() {
        let answer = reply(&Heard::User("é".repeat(1 << 20)), None, None);
        let Reply::Text { pieces, .. } = &answer else {
            panic!("{answer:?}")
        };
        assert!(pieces.len() < 300, "{} pieces", pieces.len());
        assert!(text(&answer).contains("é…\""));
    }

    #[test]
    fn no_more_tokens_are_said_than_wanted() {
        let heard = Heard::User("hello".into());
        let cut = reply(&heard, None, Some(2));
        assert_eq!(
            (text(&cut).as_str(), ending(&cut)),
            ("Hello from", Ending::CutShort)
        );
        assert_eq!(text(&reply(&heard, None, Some(0))), "Hello");
        assert_eq!(
            ending(&reply(&heard, None, Some(u64::MAX))),
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
    fn a_tool_is_called_once_and_not_for_its_own_answer() {
        let call = reply(&Heard::User("x".into()), Some("weather"), Some(1));
        assert_eq!(
            call,
            Reply::ToolCall {
                name: "weather".into()
            }
        );
        let answer = text(&reply(
            &Heard::ToolResult("12 °C".into()),
            Some("weather"),
            None,
        ));
        assert!(answer.contains("\"12 °C\""), "{answer}");
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
