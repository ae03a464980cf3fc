//! OpenAI's API: models, chat completions whole and streamed, embeddings. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::accounts::{Account, MODELS, Model};
use super::api::{Answer, Body, Completed, Prompt, ResponseId, data_events};
use super::error::ApiError;
use super::speech::{self, Ending, Input, Reply};
use super::tools;
use super::usage::usd;

/// The `created` of all models, in seconds since 1970: clients expect a number.
const MODELS_CREATED: u64 = 1_700_000_000;
/// OpenAI's own limit on the inputs of one request.
const MAX_INPUTS: usize = 2048;
/// The numbers of an embedding. Real ones have 1536.
const DIMENSIONS: u32 = 8;

/// Returns the list of the models that `account` may use, as LiteLLM does.
pub(super) fn models(account: &Account) -> Body {
    let model = |model: &Model| json!({"id": model.id, "object": "model", "created": MODELS_CREATED, "owned_by": "flow-proxy demo"});
    let usable = MODELS.iter().filter(|model| account.lists(model.id));
    Body::Json(json!({"object": "list", "data": usable.map(model).collect::<Vec<Value>>()}))
}

/// Returns the response to a chat completion: a stream where the request asks for one.
pub(super) fn chat(prompt: &Prompt, response_id: ResponseId) -> Result<Completed, ApiError> {
    let request = &prompt.json;
    let messages = request["messages"].as_array();
    let messages = messages.ok_or_else(|| ApiError::bad_request("messages: must be an array"))?;
    let max_tokens = [&request["max_completion_tokens"], &request["max_tokens"]]
        .into_iter()
        .find_map(Value::as_u64);
    let call = tools::function_call(request, |tool| &tool["function"]);
    let reply = speech::reply(&last_input(messages), call, max_tokens);
    let usage = match request["stream_options"]["include_usage"] == true {
        true => UsageChunk::Sent,
        false => UsageChunk::Omitted,
    };
    let completion = Completion(prompt.answer(reply, response_id, MODELS[0].id));
    Ok(prompt.completed(
        completion.0.usage,
        || completion.whole(),
        || completion.events(usage),
    ))
}

/// Returns the last message of the user or of a tool.
fn last_input(messages: &[Value]) -> Input {
    for message in messages.iter().rev() {
        let text = || speech::text_of(&message["content"]).to_owned();
        match message["role"].as_str() {
            Some("user") => return Input::User(text()),
            Some("tool" | "function") => return Input::ToolResult(text()),
            _ => {}
        }
    }
    Input::User(String::new())
}

/// Whether a stream ends with its usage: `stream_options.include_usage`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UsageChunk {
    Sent,
    Omitted,
}

/// A response, which can be written whole or as a stream.
struct Completion<'a>(Answer<'a>);

impl Completion<'_> {
    fn whole(&self) -> Value {
        let message = match &self.0.reply {
            Reply::Text { pieces, .. } => json!({"role": "assistant", "content": pieces.concat()}),
            Reply::ToolCall { call, pieces } => json!({
                "role": "assistant",
                "content": null,
                "tool_calls": [{
                    "id": self.call_id(),
                    "type": "function",
                    "function": {"name": call.name, "arguments": pieces.concat()},
                }],
            }),
        };
        let choice = json!({
            "index": 0,
            "message": message,
            "logprobs": null,
            "finish_reason": self.finish_reason(),
        });
        json!({
            "id": self.id(),
            "object": "chat.completion",
            "created": self.0.id.created,
            "model": self.0.model,
            "choices": [choice],
            "usage": self.usage(),
        })
    }

    fn events(&self, usage: UsageChunk) -> Vec<String> {
        let mut deltas = vec![json!({"role": "assistant", "content": ""})];
        match &self.0.reply {
            Reply::Text { pieces, .. } => {
                deltas.extend(pieces.iter().map(|piece| json!({"content": piece})));
            }
            Reply::ToolCall { call, pieces } => {
                deltas[0] = json!({"role": "assistant", "content": null, "tool_calls": [{
                    "index": 0,
                    "id": self.call_id(),
                    "type": "function",
                    "function": {"name": call.name, "arguments": ""},
                }]});
                let part =
                    |part| json!({"tool_calls": [{"index": 0, "function": {"arguments": part}}]});
                deltas.extend(pieces.iter().map(part));
            }
        }
        let chunk = |choices: Value, cost: Value| {
            let mut chunk = json!({
                "id": self.id(),
                "object": "chat.completion.chunk",
                "created": self.0.id.created,
                "model": self.0.model,
                "choices": choices,
            });
            if usage == UsageChunk::Sent {
                chunk["usage"] = cost;
            }
            chunk
        };
        let choice = |delta: Value, finish_reason: Value| {
            let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason});
            chunk(json!([choice]), Value::Null)
        };
        let mut events: Vec<Value> = deltas
            .into_iter()
            .map(|delta| choice(delta, Value::Null))
            .collect();
        events.push(choice(json!({}), self.finish_reason().into()));
        if usage == UsageChunk::Sent {
            let mut usage = self.usage();
            usage["cost"] = usd(self.0.usage.cost).into();
            events.push(chunk(json!([]), usage));
        }
        data_events(&events)
    }

    fn finish_reason(&self) -> &'static str {
        match &self.0.reply {
            Reply::Text {
                ending: Ending::Complete,
                ..
            } => "stop",
            Reply::Text {
                ending: Ending::CutShort,
                ..
            } => "length",
            Reply::ToolCall { .. } => "tool_calls",
        }
    }

    fn usage(&self) -> Value {
        let usage = self.0.usage;
        json!({
            "prompt_tokens": usage.input.all,
            "prompt_tokens_details": {"cached_tokens": usage.input.cached},
            "completion_tokens": usage.output,
            "total_tokens": usage.total(),
        })
    }

    fn id(&self) -> String {
        format!("chatcmpl-demo-{}", self.0.id.serial)
    }

    fn call_id(&self) -> String {
        format!("call_demo_{}", self.0.id.serial)
    }
}

/// Returns made-up embeddings, equal for equal inputs.
pub(super) fn embeddings(prompt: &Prompt, _: ResponseId) -> Result<Completed, ApiError> {
    let request = &prompt.json;
    let inputs = match &request["input"] {
        text @ Value::String(_) => std::slice::from_ref(text),
        // An array of numbers is one input, in tokens.
        tokens @ Value::Array(items) if items.first().is_some_and(Value::is_number) => {
            std::slice::from_ref(tokens)
        }
        Value::Array(inputs) => inputs,
        _ => return Err(ApiError::bad_request("input: must be a string or an array")),
    };
    if inputs.len() > MAX_INPUTS {
        return Err(ApiError::bad_request(format!(
            "input: at most {MAX_INPUTS} at once"
        )));
    }
    let written: fn(&[f32]) -> Value = match request["encoding_format"].as_str() {
        // The default of OpenAI's SDKs.
        Some("base64") => |numbers| {
            let bytes: Vec<u8> = numbers
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect();
            STANDARD.encode(bytes).into()
        },
        _ => |numbers| json!(numbers),
    };
    let embedding = |(index, input): (usize, &Value)| {
        let embedding = written(&embedding(&input.to_string()));
        json!({"object": "embedding", "index": index, "embedding": embedding})
    };
    let usage = prompt.usage(0);
    let body = Body::Json(json!({
        "object": "list",
        "data": inputs.iter().enumerate().map(embedding).collect::<Vec<Value>>(),
        "model": prompt.model("demo-embedding"),
        "usage": {"prompt_tokens": usage.input.all, "total_tokens": usage.total()},
    }));
    Ok(Completed { body, usage })
}

/// Returns numbers from -1 to 1 that depend on the text and mean nothing.
fn embedding(text: &str) -> Vec<f32> {
    let mix = |state: u32, byte: u8| (state ^ u32::from(byte)).wrapping_mul(16_777_619);
    let seed = text.bytes().fold(2_166_136_261, mix);
    let number = |index: u32| {
        let bits = seed.wrapping_add(index).wrapping_mul(2_654_435_761) >> 16;
        bits as f32 / 32_767.5 - 1.0
    };
    (0..DIMENSIONS).map(number).collect()
}

#[cfg(test)]
mod tests;
