//! OpenAI's Responses API, whole and streamed, with the events that LiteLLM sends. Pure.

use serde_json::{Value, json};

use super::api::{Body, Prompt, ResponseId, data_events};
use super::error::ApiError;
use super::speech::{self, Ending, Input, Reply};
use super::tools;

/// Returns the response to an input: a stream where the request asks for one.
pub(super) fn responses(prompt: &Prompt, response_id: ResponseId) -> Result<Body, ApiError> {
    let request = &prompt.json;
    let input = last_input(&request["input"])?;
    let call = tools::function_call(request, |tool| tool);
    let answer = Answer {
        reply: speech::reply(&input, call, request["max_output_tokens"].as_u64()),
        model: request["model"].as_str().unwrap_or("demo-gpt"),
        input_tokens: prompt.tokens,
        response_id,
    };
    if request["stream"] == true {
        return Ok(Body::Events(answer.events()));
    }
    Ok(Body::Json(answer.whole()))
}

/// Returns the last message of the user, or the last result of a tool.
fn last_input(input: &Value) -> Result<Input, ApiError> {
    let items = match input {
        Value::String(text) => return Ok(Input::User(text.clone())),
        Value::Array(items) => items,
        _ => return Err(ApiError::bad_request("input: must be a string or an array")),
    };
    for item in items.iter().rev() {
        let kind = item["type"].as_str().unwrap_or_default();
        if item["role"] == "user" {
            return Ok(Input::User(speech::text_of(&item["content"]).to_owned()));
        }
        if kind.ends_with("_call_output") {
            let output = speech::text_of(&item["output"]);
            return Ok(Input::ToolResult(output.to_owned()));
        }
    }
    Ok(Input::User(String::new()))
}

/// A response, which can be written whole or as a stream.
struct Answer<'a> {
    reply: Reply,
    model: &'a str,
    input_tokens: u64,
    response_id: ResponseId,
}

impl Answer<'_> {
    fn whole(&self) -> Value {
        let text = self.reply.pieces().concat();
        let output = json!([self.item("completed", &text)]);
        self.envelope(self.status(), output, self.usage())
    }

    fn events(&self) -> Vec<String> {
        let text = self.reply.pieces().concat();
        let started = self.envelope("in_progress", json!([]), Value::Null);
        let item = |kind: &str, status, text| json!({"type": kind, "output_index": 0, "item": self.item(status, text)});
        let mut events = vec![
            json!({"type": "response.created", "response": started}),
            json!({"type": "response.in_progress", "response": started}),
            item("response.output_item.added", "in_progress", ""),
        ];
        events.extend(self.item_events(&text));
        events.extend([
            item("response.output_item.done", "completed", &text),
            json!({"type": format!("response.{}", self.status()), "response": self.whole()}),
        ]);
        for (number, event) in events.iter_mut().enumerate() {
            event["sequence_number"] = number.into();
        }
        data_events(&events)
    }

    /// Returns the events within the item, whose text or arguments are `whole`.
    fn item_events(&self, whole: &str) -> Vec<Value> {
        let event = |kind: &str, name: &str, value: Value| {
            json!({
                "type": format!("response.{kind}"),
                "item_id": self.item_id(),
                "output_index": 0,
                (name): value,
            })
        };
        let pieces = self.reply.pieces().iter();
        if let Reply::ToolCall { .. } = self.reply {
            let kind = "function_call_arguments";
            let delta = |piece: &String| event(&format!("{kind}.delta"), "delta", json!(piece));
            let mut events: Vec<Value> = pieces.map(delta).collect();
            events.push(event(&format!("{kind}.done"), "arguments", whole.into()));
            return events;
        }
        let mut events = vec![event("content_part.added", "part", text_part(""))];
        events.extend(pieces.map(|piece| event("output_text.delta", "delta", json!(piece))));
        events.push(event("output_text.done", "text", whole.into()));
        events.push(event("content_part.done", "part", text_part(whole)));
        for event in &mut events {
            event["content_index"] = 0.into();
        }
        events
    }

    /// Returns the only item of the output. It is empty while `text` is.
    fn item(&self, status: &str, text: &str) -> Value {
        match &self.reply {
            Reply::ToolCall { call, .. } => json!({
                "id": self.item_id(),
                "type": "function_call",
                "status": status,
                "call_id": format!("call_demo_{}", self.response_id.serial),
                "name": call.name,
                "arguments": text,
            }),
            Reply::Text { .. } => {
                let parts = Some(text_part(text)).filter(|_| !text.is_empty());
                json!({
                    "id": self.item_id(),
                    "type": "message",
                    "status": status,
                    "role": "assistant",
                    "content": parts.into_iter().collect::<Vec<Value>>(),
                })
            }
        }
    }

    fn envelope(&self, status: &str, output: Value, usage: Value) -> Value {
        let incomplete = match status {
            "incomplete" => json!({"reason": "max_output_tokens"}),
            _ => Value::Null,
        };
        json!({
            "id": format!("resp_demo_{}", self.response_id.serial),
            "object": "response",
            "created_at": self.response_id.created,
            "status": status,
            "error": null,
            "incomplete_details": incomplete,
            "instructions": null,
            "metadata": {},
            "model": self.model,
            "output": output,
            "parallel_tool_calls": true,
            "previous_response_id": null,
            "reasoning": {"effort": null, "summary": null},
            "store": false,
            "temperature": 1.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": usage,
        })
    }

    fn status(&self) -> &'static str {
        match self.reply {
            Reply::Text {
                ending: Ending::CutShort,
                ..
            } => "incomplete",
            _ => "completed",
        }
    }

    fn usage(&self) -> Value {
        let output_tokens = self.reply.pieces().len() as u64;
        json!({
            "input_tokens": self.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.input_tokens + output_tokens,
        })
    }

    fn item_id(&self) -> String {
        let kind = match self.reply {
            Reply::Text { .. } => "msg",
            Reply::ToolCall { .. } => "fc",
        };
        format!("{kind}_demo_{}", self.response_id.serial)
    }
}

fn text_part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": []})
}

#[cfg(test)]
mod tests;
