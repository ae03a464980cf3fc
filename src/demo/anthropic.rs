//! Anthropic's API: messages, whole and streamed. Pure.

use serde_json::{Value, json};

use super::api::{Prompt, Response, ResponseId};
use super::error::ApiError;
use super::speech::{self, Ending, Input, Reply};

/// Returns the response to a message: a stream where the request asks for one.
pub(super) fn messages(prompt: &Prompt, response_id: ResponseId) -> Result<Response, ApiError> {
    let request = &prompt.json;
    let messages = request["messages"].as_array();
    let messages = messages.ok_or_else(|| ApiError::bad_request("messages: must be an array"))?;
    let max_tokens = request["max_tokens"].as_u64();
    let message = Message {
        reply: speech::reply(&last_input(messages), tool(request), max_tokens),
        model: request["model"].as_str().unwrap_or("demo-claude"),
        input_tokens: prompt.tokens,
        response_id,
    };
    if request["stream"] == true {
        return Ok(Response::Events(message.events()));
    }
    Ok(Response::ok(message.whole()))
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

/// Returns the first tool, unless the client wants none to be called.
fn tool(request: &Value) -> Option<&str> {
    if request["tool_choice"]["type"] == "none" {
        return None;
    }
    let tools = request["tools"].as_array()?;
    tools.iter().find_map(|tool| tool["name"].as_str())
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
            Reply::ToolCall { .. } => self.empty_block(),
        };
        self.envelope(
            json!([block]),
            self.stop_reason().into(),
            self.output_tokens(),
        )
    }

    fn events(&self) -> Vec<String> {
        let deltas: Vec<Value> = match &self.reply {
            Reply::Text { pieces, .. } => {
                let delta = |piece| json!({"type": "text_delta", "text": piece});
                pieces.iter().map(delta).collect()
            }
            Reply::ToolCall { .. } => {
                // In pieces, as models send it.
                let delta = |part| json!({"type": "input_json_delta", "partial_json": part});
                ["", "{", "}"].map(delta).into()
            }
        };
        let start = self.envelope(json!([]), Value::Null, 1);
        let stop = json!({"stop_reason": self.stop_reason(), "stop_sequence": null});
        let usage = json!({"output_tokens": self.output_tokens()});

        let mut events = vec![
            event(json!({"type": "message_start", "message": start})),
            event(
                json!({"type": "content_block_start", "index": 0, "content_block": self.empty_block()}),
            ),
            event(json!({"type": "ping"})),
        ];
        events.extend(deltas.iter().map(|delta| {
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
            Reply::ToolCall { name } => {
                let id = format!("toolu_demo_{}", self.response_id.serial);
                json!({"type": "tool_use", "id": id, "name": name, "input": {}})
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

    fn output_tokens(&self) -> usize {
        match &self.reply {
            Reply::Text { pieces, .. } => pieces.len(),
            Reply::ToolCall { .. } => 2,
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

    fn response(more: Value) -> Response {
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
            Response::Json { body, .. } => body,
            Response::Events(events) => panic!("a stream: {events:?}"),
        }
    }

    /// Returns the data of a stream's events. Asserts that the name of each is its type.
    fn streamed(mut more: Value) -> Vec<Value> {
        more["stream"] = true.into();
        let Response::Events(events) = response(more) else {
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

    #[test]
    fn the_first_tool_is_called_with_an_empty_input() {
        let tools = json!({"tools": [{"name": "weather", "input_schema": {}}, {"name": "time"}]});
        let whole = whole(tools.clone());
        let block =
            json!({"type": "tool_use", "id": "toolu_demo_7", "name": "weather", "input": {}});
        assert_eq!(whole["content"], json!([block]));
        assert_eq!(whole["stop_reason"], "tool_use");

        let data = streamed(tools);
        assert_eq!(data[1]["content_block"], block);
        let parts = data
            .iter()
            .filter_map(|it| it["delta"]["partial_json"].as_str());
        assert_eq!(parts.collect::<String>(), "{}");
        assert_eq!(data[data.len() - 2]["delta"]["stop_reason"], "tool_use");
    }

    #[test]
    fn no_tool_is_called_where_the_client_wants_none_or_brings_a_result() {
        let tools = json!([{"name": "weather"}]);
        let message = whole(json!({"tools": tools, "tool_choice": {"type": "none"}}));
        assert_eq!(message["stop_reason"], "end_turn");
        let result = |content| {
            let block =
                json!({"type": "tool_result", "tool_use_id": "toolu_demo_1", "content": content});
            json!([{"role": "user", "content": [block]}])
        };
        for content in [json!("sunny"), json!([{"type": "text", "text": "sunny"}])] {
            let message = whole(json!({"tools": tools, "messages": result(content)}));
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
