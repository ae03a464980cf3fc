//! OpenAI's Responses API, whole and streamed, with the events that LiteLLM sends. Pure.

use serde_json::{Value, json};

use super::accounts::MODELS;
use super::api::{Answer, Completed, Prompt, ResponseId, data_events};
use super::error::ApiError;
use super::speech::{self, Ending, Input, Reply};
use super::tools;
use super::usage::usd;

/// Returns the response to an input: a stream where the request asks for one.
pub(super) fn responses(prompt: &Prompt, response_id: ResponseId) -> Result<Completed, ApiError> {
    let request = &prompt.json;
    let input = last_input(&request["input"])?;
    let call = tools::function_call(request, |tool| tool);
    let reply = speech::reply(&input, call, request["max_output_tokens"].as_u64());
    let response = ModelResponse(prompt.answer(reply, response_id, MODELS[0].id));
    Ok(prompt.completed(response.0.usage, || response.whole(), || response.events()))
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
struct ModelResponse<'a>(Answer<'a>);

impl ModelResponse<'_> {
    fn whole(&self) -> Value {
        let text = self.0.reply.pieces().concat();
        let output = json!([self.item("completed", &text)]);
        self.envelope(self.status(), output, self.usage(Value::Null))
    }

    fn events(&self) -> Vec<String> {
        let text = self.0.reply.pieces().concat();
        let started = self.envelope("in_progress", json!([]), Value::Null);
        let mut ended = self.whole();
        ended["usage"] = self.usage(usd(self.0.usage.cost).into());
        let item = |kind: &str, status, text| json!({"type": kind, "output_index": 0, "item": self.item(status, text)});
        let mut events = vec![
            json!({"type": "response.created", "response": started}),
            json!({"type": "response.in_progress", "response": started}),
            item("response.output_item.added", "in_progress", ""),
        ];
        events.extend(self.item_events(&text));
        events.extend([
            item("response.output_item.done", "completed", &text),
            json!({"type": format!("response.{}", self.status()), "response": ended}),
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
        let pieces = self.0.reply.pieces().iter();
        if let Reply::ToolCall { .. } = self.0.reply {
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
        match &self.0.reply {
            Reply::ToolCall { call, .. } => json!({
                "id": self.item_id(),
                "type": "function_call",
                "status": status,
                "call_id": format!("call_demo_{}", self.0.id.serial),
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
            "id": format!("resp_demo_{}", self.0.id.serial),
            "object": "response",
            "created_at": self.0.id.created,
            "status": status,
            "error": null,
            "incomplete_details": incomplete,
            "instructions": null,
            "metadata": {},
            "model": self.0.model,
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
        match self.0.reply {
            Reply::Text {
                ending: Ending::CutShort,
                ..
            } => "incomplete",
            _ => "completed",
        }
    }

    /// Returns the usage. LiteLLM tells the cost in streams only; else it stands in the head.
    fn usage(&self, cost: Value) -> Value {
        let usage = self.0.usage;
        json!({
            "input_tokens": usage.input.all,
            "input_tokens_details": {"cached_tokens": usage.input.cached},
            "output_tokens": usage.output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.total(),
            "cost": cost,
        })
    }

    fn item_id(&self) -> String {
        let kind = match self.0.reply {
            Reply::Text { .. } => "msg",
            Reply::ToolCall { .. } => "fc",
        };
        format!("{kind}_demo_{}", self.0.id.serial)
    }
}

fn text_part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": []})
}

#[cfg(test)]
mod tests;
