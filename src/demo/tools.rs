//! Tools that a request offers: which one is called, if any. Pure.

use serde_json::Value;

mod schema;

/// A tool that the client offers.
#[derive(Clone, Copy)]
pub(super) struct Tool<'a> {
    pub(super) name: &'a str,
    /// The JSON Schema of its input.
    pub(super) schema: &'a Value,
}

/// The `tool_choice` of a request.
pub(super) enum ToolChoice<'a> {
    /// No tool has to be called. A real model may call one all the same; this one has no use for tools,
    /// and an agent that gets a made-up call acts on it.
    Words,
    Any,
    Named(&'a str),
}

/// A call of a tool.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ToolCall {
    pub(super) name: String,
    /// A JSON object that fits the tool's schema as far as placeholders can.
    pub(super) input: Value,
}

/// Returns the call that `choice` asks for, if the tool is among those offered.
pub(super) fn call<'a>(
    choice: ToolChoice<'_>,
    mut offered: impl Iterator<Item = Tool<'a>>,
) -> Option<ToolCall> {
    let tool = match choice {
        ToolChoice::Words => None,
        ToolChoice::Any => offered.next(),
        ToolChoice::Named(name) => offered.find(|tool| tool.name == name),
    }?;
    Some(ToolCall {
        name: tool.name.to_owned(),
        input: match schema::placeholder(tool.schema) {
            input @ Value::Object(_) => input,
            _ => Value::Object(serde_json::Map::new()),
        },
    })
}

/// Returns the call that a request in a form of OpenAI's asks for. `function` finds the function's name
/// in a tool or in the choice of one.
pub(super) fn function_call(request: &Value, function: fn(&Value) -> &Value) -> Option<ToolCall> {
    let choice = &request["tool_choice"];
    let choice = match (choice["type"].as_str(), function(choice)["name"].as_str()) {
        _ if choice == "required" => ToolChoice::Any,
        (Some("function"), Some(name)) => ToolChoice::Named(name),
        _ => ToolChoice::Words,
    };
    let offered = request["tools"].as_array()?.iter().filter_map(|tool| {
        Some(Tool {
            name: function(tool)["name"].as_str()?,
            schema: &function(tool)["parameters"],
        })
    });
    call(choice, offered)
}
