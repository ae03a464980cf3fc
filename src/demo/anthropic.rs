//! Anthropic's API: messages, whole and streamed. Pure.

use serde_json::{Value, json};

use super::api::{Body, Prompt, ResponseId};
use super::error::ApiError;
use super::speech::{self, Ending, Input, Reply};
use super::tools::{self, Tool, ToolCall, ToolChoice};

/// Returns the response to a message: a stream where the request asks for one.
pub(super) fn messages(prompt: &Prompt, response_id: ResponseId) -> Result<Body, ApiError> {
    let request = &prompt.json;
    let messages = request["messages"].as_array();
    let messages = messages.ok_or_else(|| ApiError::bad_request("messages: must be an array"))?;
    let max_tokens = request["max_tokens"].as_u64();
    let message = Message {
        reply: speech::reply(&last_input(messages), tool_call(request), max_tokens),
        model: request["model"].as_str().unwrap_or("demo-claude"),
        input_tokens: prompt.tokens,
        response_id,
    };
    if request["stream"] == true {
        return Ok(Body::Events(message.events()));
    }
    Ok(Body::Json(message.whole()))
}

/// Returns the user's last message. Results of tools come in messages of the user, too.
fn last_input(messages: &[Value]) -> Input {
    let last = messages
        .iter()
        .rev()
        .find(|message| message["role"] == "user");
    let Some(content) = last.map(|message| &message["content"]) else {
        return Input::User(String::new());
    };
    let blocks = content.as_array().map_or(&[][..], Vec::as_slice);
    match blocks
        .iter()
        .rev()
        .find(|block| block["type"] == "tool_result")
    {
        Some(result) => Input::ToolResult(speech::text_of(&result["content"]).to_owned()),
        None => Input::User(speech::text_of(content).to_owned()),
    }
}

/// Returns the call of a tool that the request asks for.
fn tool_call(request: &Value) -> Option<ToolCall> {
    let choice = &request["tool_choice"];
    let choice = match (choice["type"].as_str(), choice["name"].as_str()) {
        (Some("any"), _) => ToolChoice::Any,
        (Some("tool"), Some(name)) => ToolChoice::Named(name),
        _ => ToolChoice::Words,
    };
    let offered = request["tools"].as_array()?.iter().filter_map(|tool| {
        Some(Tool {
            name: tool["name"].as_str()?,
            schema: &tool["input_schema"],
        })
    });
    tools::call(choice, offered)
}

/// A response, which can be written whole or as a stream.
struct Message<'a> {
    reply: Reply,
    model: &'a str,
    input_tokens: u64,
    response_id: ResponseId,
}

impl Message<'_> {
    fn whole(&self) -> Value {
        let block = match &self.reply {
            Reply::Text { pieces, .. } => json!({"type": "text", "text": pieces.concat()}),
            Reply::ToolCall { call, .. } => {
                let mut block = self.empty_block();
                block["input"] = call.input.clone();
                block
            }
        };
        let output_tokens = self.reply.pieces().len();
        self.envelope(json!([block]), self.stop_reason().into(), output_tokens)
    }

    fn events(&self) -> Vec<String> {
        let delta = |piece: &String| match &self.reply {
            Reply::Text { .. } => json!({"type": "text_delta", "text": piece}),
            Reply::ToolCall { .. } => json!({"type": "input_json_delta", "partial_json": piece}),
        };
        let deltas = self.reply.pieces().iter().map(delta);
        let start = self.envelope(json!([]), Value::Null, 1);
        let stop = json!({"stop_reason": self.stop_reason(), "stop_sequence": null});
        let usage = json!({"output_tokens": self.reply.pieces().len()});

        let mut events = vec![
            event(json!({"type": "message_start", "message": start})),
            event(
                json!({"type": "content_block_start", "index": 0, "content_block": self.empty_block()}),
            ),
            event(json!({"type": "ping"})),
        ];
        events.extend(deltas.map(|delta| {
            event(json!({"type": "content_block_delta", "index": 0, "delta": delta}))
        }));
        events.extend([
            event(json!({"type": "content_block_stop", "index": 0})),
            event(json!({"type": "message_delta", "delta": stop, "usage": usage})),
            event(json!({"type": "message_stop"})),
        ]);
        events
    }

    fn envelope(&self, content: Value, stop_reason: Value, output_tokens: usize) -> Value {
        json!({
            "id": format!("msg_demo_{}", self.response_id.serial),
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": null,
            "usage": {"input_tokens": self.input_tokens, "output_tokens": output_tokens},
        })
    }

    /// Returns the content block as a stream starts it.
    fn empty_block(&self) -> Value {
        match &self.reply {
            Reply::Text { .. } => json!({"type": "text", "text": ""}),
            Reply::ToolCall { call, .. } => {
                let id = format!("toolu_demo_{}", self.response_id.serial);
                json!({"type": "tool_use", "id": id, "name": call.name, "input": {}})
            }
        }
    }

    fn stop_reason(&self) -> &'static str {
        match &self.reply {
            Reply::Text {
                ending: Ending::Complete,
                ..
            } => "end_turn",
            Reply::Text {
                ending: Ending::CutShort,
                ..
            } => "max_tokens",
            Reply::ToolCall { .. } => "tool_use",
        }
    }
}

/// Writes an event. Its name is the type of its data.
fn event(data: Value) -> String {
    let name = data["type"].as_str().unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ResponseId = ResponseId {
        serial: 7,
        created: 1_700_000_001,
    };

    fn response(more: Value) -> Body {
        let mut json = json!({
            "model": "any-model",
            "max_tokens": 1024,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "früh auf"}]}],
        });
        json.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let prompt = Prompt { json, tokens: 5 };
        messages(&prompt, ID).unwrap()
    }

    fn whole(more: Value) -> Value {
        match response(more) {
            Body::Json(message) => message,
            Body::Events(events) => panic!("a stream: {events:?}"),
        }
    }

    /// Returns the data of a stream's events. Asserts that the name of each is its type.
    fn streamed(mut more: Value) -> Vec<Value> {
        more["stream"] = true.into();
        let Body::Events(events) = response(more) else {
            panic!("no stream")
        };
        let data = |event: &String| {
            let lines: Vec<&str> = event.split('\n').collect();
            let [name, data, "", ""] = lines[..] else {
                panic!("{event:?}")
            };
            let data = data.strip_prefix("data: ").expect("a data line");
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
            data
        };
        events.iter().map(data).collect()
    }

    #[test]
    fn a_stream_says_piece_by_piece_what_the_whole_response_says() {
        let whole = whole(json!({}));
        let text = whole["content"][0]["text"].as_str().unwrap();
        assert!(text.contains("\"früh auf\""), "{text}");
        assert_eq!(
            (&whole["type"], &whole["stop_reason"]),
            (&"message".into(), &"end_turn".into())
        );
        assert_eq!(whole["usage"]["input_tokens"], 5);

        let data = streamed(json!({}));
        let said = data.iter().filter_map(|it| it["delta"]["text"].as_str());
        assert_eq!(said.collect::<String>(), text);
        let mut types: Vec<&str> = data.iter().filter_map(|it| it["type"].as_str()).collect();
        types.dedup();
        let expected = [
            "message_start",
            "content_block_start",
            "ping",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ];
        assert_eq!(types, expected);
        assert_eq!(data[0]["message"]["content"], json!([]));
        let end = &data[data.len() - 2];
        assert_eq!(end["delta"]["stop_reason"], "end_turn");
        assert_eq!(
            end["usage"]["output_tokens"],
            whole["usage"]["output_tokens"]
        );
    }

    fn tools() -> Value {
        let city = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
        json!([{"name": "time", "input_schema": {}}, {"name": "weather", "input_schema": city}])
    }

    #[test]
    fn a_tool_that_is_asked_for_is_called_with_input_that_fits() {
        let time = json!({"type": "tool_use", "id": "toolu_demo_7", "name": "time", "input": {}});
        let mut weather = time.clone();
        weather["name"] = "weather".into();
        weather["input"] = json!({"city": "example"});
        for (choice, expected) in [
            (json!({"type": "any"}), time),
            (json!({"type": "tool", "name": "weather"}), weather),
        ] {
            let request = json!({"tools": tools(), "tool_choice": choice});
            let whole = whole(request.clone());
            assert_eq!(whole["content"], json!([expected]));
            assert_eq!(whole["stop_reason"], "tool_use");

            let data = streamed(request);
            let block = &data[1]["content_block"];
            assert_eq!(
                (&block["name"], &block["input"]),
                (&expected["name"], &json!({}))
            );
            let parts = data
                .iter()
                .filter_map(|it| it["delta"]["partial_json"].as_str());
            assert_eq!(parts.collect::<String>(), expected["input"].to_string());
            assert_eq!(data[data.len() - 2]["delta"]["stop_reason"], "tool_use");
        }
    }

    #[test]
    fn tools_that_are_only_offered_are_not_called() {
        for choice in [
            json!(null),
            json!({"type": "auto"}),
            json!({"type": "none"}),
            json!({"type": "tool"}),
            json!({"type": "tool", "name": "unknown"}),
        ] {
            let message = whole(json!({"tools": tools(), "tool_choice": choice}));
            assert_eq!(message["stop_reason"], "end_turn", "{choice}");
        }
        let message = whole(json!({"tool_choice": {"type": "any"}}));
        assert_eq!(message["stop_reason"], "end_turn");
    }

    #[test]
    fn the_result_of_a_tool_gets_words() {
        let result = |content| {
            let block =
                json!({"type": "tool_result", "tool_use_id": "toolu_demo_1", "content": content});
            json!([{"role": "user", "content": [block]}])
        };
        let any = json!({"type": "any"});
        for content in [json!("sunny"), json!([{"type": "text", "text": "sunny"}])] {
            let messages = result(content);
            let message =
                whole(json!({"tools": tools(), "tool_choice": any, "messages": messages}));
            let text = message["content"][0]["text"].as_str().unwrap();
            assert!(text.contains("\"sunny\""), "{text}");
        }
    }

    #[test]
    fn a_reply_that_is_cut_short_says_so() {
        let message = whole(json!({"max_tokens": 3}));
        assert_eq!(
            (&message["stop_reason"], &message["usage"]["output_tokens"]),
            (&"max_tokens".into(), &3.into())
        );
    }
}
