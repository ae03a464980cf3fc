//! Anthropic's API: messages, whole and streamed. Pure.

use serde_json::{Value, json};

use super::api::{Answer, Completed, Prompt, ResponseId};
use super::error::ApiError;
use super::speech::{self, Ending, Input, Reply};
use super::tools::{self, Tool, ToolCall, ToolChoice};

/// Returns the response to a message: a stream where the request asks for one.
pub(super) fn messages(prompt: &Prompt, response_id: ResponseId) -> Result<Completed, ApiError> {
    let request = &prompt.json;
    let messages = request["messages"].as_array();
    let messages = messages.ok_or_else(|| ApiError::bad_request("messages: must be an array"))?;
    let max_tokens = request["max_tokens"].as_u64();
    let reply = speech::reply(&last_input(messages), tool_call(request), max_tokens);
    let message = Message(prompt.answer(reply, response_id, "demo-claude"));
    Ok(prompt.completed(message.0.usage, || message.whole(), || message.events()))
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
struct Message<'a>(Answer<'a>);

impl Message<'_> {
    fn whole(&self) -> Value {
        let block = match &self.0.reply {
            Reply::Text { pieces, .. } => json!({"type": "text", "text": pieces.concat()}),
            Reply::ToolCall { call, .. } => {
                let mut block = self.empty_block();
                block["input"] = call.input.clone();
                block
            }
        };
        let usage = self.usage(self.0.usage.output);
        self.envelope(json!([block]), self.stop_reason().into(), usage)
    }

    fn events(&self) -> Vec<String> {
        let delta = |piece: &String| match &self.0.reply {
            Reply::Text { .. } => json!({"type": "text_delta", "text": piece}),
            Reply::ToolCall { .. } => json!({"type": "input_json_delta", "partial_json": piece}),
        };
        let deltas = self.0.reply.pieces().iter().map(delta);
        let start = self.envelope(json!([]), Value::Null, self.usage(1));
        let stop = json!({"stop_reason": self.stop_reason(), "stop_sequence": null});
        let usage = self.usage(self.0.usage.output);

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

    fn envelope(&self, content: Value, stop_reason: Value, usage: Value) -> Value {
        json!({
            "id": format!("msg_demo_{}", self.0.id.serial),
            "type": "message",
            "role": "assistant",
            "model": self.0.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": null,
            "usage": usage,
        })
    }

    /// Returns the usage. Its input leaves out what the cache was read or written for.
    fn usage(&self, output: u64) -> Value {
        let input = self.0.usage.input;
        json!({
            "input_tokens": input.uncached(),
            "cache_creation_input_tokens": input.created,
            "cache_read_input_tokens": input.cached,
            "output_tokens": output,
        })
    }

    /// Returns the content block as a stream starts it.
    fn empty_block(&self) -> Value {
        match &self.0.reply {
            Reply::Text { .. } => json!({"type": "text", "text": ""}),
            Reply::ToolCall { call, .. } => {
                let id = format!("toolu_demo_{}", self.0.id.serial);
                json!({"type": "tool_use", "id": id, "name": call.name, "input": {}})
            }
        }
    }

    fn stop_reason(&self) -> &'static str {
        match &self.0.reply {
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
mod tests;
