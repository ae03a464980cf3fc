use super::*;
use crate::demo::api::Body;
use crate::demo::usage::InputTokens;

const ID: ResponseId = ResponseId {
    serial: 7,
    created: 1_700_000_001,
};

fn prompt(json: Value) -> Prompt {
    let tokens = InputTokens::new(8, 6, false);
    Prompt { json, tokens }
}

fn response(more: Value) -> Body {
    let mut json = json!({"model": "any-model", "input": "früh auf"});
    json.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    responses(&prompt(json), ID).unwrap().body
}

fn whole(more: Value) -> Value {
    match response(more) {
        Body::Json(response) => response,
        Body::Events(events) => panic!("a stream: {events:?}"),
    }
}

/// The data of a stream's events, whose framing and numbers are checked, without the last line.
fn streamed(mut more: Value) -> Vec<Value> {
    more["stream"] = true.into();
    let Body::Events(mut events) = response(more) else {
        panic!("no stream")
    };
    assert_eq!(events.pop().as_deref(), Some("data: [DONE]\n\n"));
    let data = |(number, event): (usize, &String)| {
        let data = event.strip_prefix("data: ").expect("one data line");
        let data: Value = serde_json::from_str(data.trim_end()).unwrap();
        assert_eq!(data["sequence_number"], number);
        data
    };
    events.iter().enumerate().map(data).collect()
}

fn types(events: &[Value]) -> Vec<&str> {
    let mut types: Vec<&str> = events
        .iter()
        .filter_map(|it| it["type"].as_str()?.strip_prefix("response."))
        .collect();
    types.dedup();
    types
}

fn text(response: &Value) -> &str {
    response["output"][0]["content"][0]["text"]
        .as_str()
        .unwrap()
}

/// The deltas of a stream, joined.
fn deltas(events: &[Value]) -> String {
    events
        .iter()
        .filter_map(|it| it["delta"].as_str())
        .collect()
}

#[test]
fn a_stream_says_piece_by_piece_what_the_whole_response_says() {
    let whole = whole(json!({}));
    assert!(text(&whole).contains("\"früh auf\""), "{whole}");
    assert_eq!(
        (&whole["object"], &whole["status"], &whole["model"]),
        (&"response".into(), &"completed".into(), &"any-model".into())
    );

    let events = streamed(json!({}));
    let expected = [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ];
    assert_eq!(types(&events), expected);
    assert_eq!(deltas(&events), text(&whole));
    assert_eq!(events[0]["response"]["output"], json!([]));
    assert_eq!(events[2]["item"]["content"], json!([]));
    assert_eq!(without_cost(&events), whole);
}

/// The response of the last event, which tells its cost, as the whole response does not.
fn without_cost(events: &[Value]) -> Value {
    let mut response = events.last().unwrap()["response"].clone();
    assert!(response["usage"]["cost"].as_f64() > Some(0.0), "{response}");
    response["usage"]["cost"] = Value::Null;
    response
}

#[test]
fn the_usage_tells_what_came_from_the_cache() {
    let usage = &whole(json!({}))["usage"];
    assert_eq!(usage["input_tokens"], 8);
    assert_eq!(usage["input_tokens_details"]["cached_tokens"], 6);
    let output = usage["output_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"], 8 + output);
}

fn tools() -> Value {
    let city =
        json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    json!([
        {"type": "function", "name": "time", "parameters": {}},
        {"type": "web_search"},
        {"type": "function", "name": "weather", "parameters": city},
    ])
}

#[test]
fn a_tool_that_is_asked_for_is_called_with_arguments_that_fit() {
    let weather = json!({"type": "function", "name": "weather"});
    for (choice, name, arguments) in [
        (json!("required"), "time", "{}"),
        (weather, "weather", r#"{"city":"example"}"#),
    ] {
        let request = json!({"tools": tools(), "tool_choice": choice});
        let whole = whole(request.clone());
        let expected = json!([{
            "id": "fc_demo_7",
            "type": "function_call",
            "status": "completed",
            "call_id": "call_demo_7",
            "name": name,
            "arguments": arguments,
        }]);
        assert_eq!(whole["output"], expected);

        let events = streamed(request);
        let expected = [
            "created",
            "in_progress",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed",
        ];
        assert_eq!(types(&events), expected);
        assert_eq!(deltas(&events), arguments);
        assert_eq!(events[2]["item"]["arguments"], "");
        assert_eq!(without_cost(&events), whole);
    }
}

#[test]
fn tools_that_are_only_offered_are_not_called() {
    let nested = json!({"type": "function", "function": {"name": "weather"}});
    for choice in [json!(null), json!("auto"), json!("none"), nested] {
        let response = whole(json!({"tools": tools(), "tool_choice": choice}));
        assert_eq!(response["output"][0]["type"], "message", "{choice}");
    }
}

#[test]
fn the_last_item_that_a_user_or_a_tool_said_gets_words() {
    let output =
        |output: Value| json!({"type": "function_call_output", "call_id": "c", "output": output});
    let user = |content: Value| json!({"role": "user", "content": content});
    let part = |text: &str| json!([{"type": "input_text", "text": text}]);
    let shell = json!({"type": "local_shell_call_output", "output": "quiet"});
    for (items, quoted) in [
        (json!([user(json!("one"))]), "one"),
        (json!([user(json!("one")), user(part("two"))]), "two"),
        (
            json!([user(json!("one")), {"role": "assistant", "content": "three"}]),
            "one",
        ),
        (json!([user(json!("one")), output(json!("sunny"))]), "sunny"),
        (json!([user(json!("one")), output(part("sunny"))]), "sunny"),
        (json!([user(json!("one")), shell]), "quiet"),
    ] {
        let request = json!({"input": items, "tools": tools()});
        let response = whole(request);
        assert!(
            text(&response).contains(&format!("\"{quoted}\"")),
            "{response}"
        );
    }
    for nothing in [json!([]), json!([1]), json!("")] {
        assert!(!text(&whole(json!({"input": nothing}))).is_empty());
    }
}

#[test]
fn an_input_that_is_neither_text_nor_items_is_rejected() {
    for input in [json!(null), json!(1), json!({})] {
        let prompt = prompt(json!({"input": input}));
        assert!(responses(&prompt, ID).is_err());
    }
}

#[test]
fn a_reply_that_is_cut_short_says_so() {
    let request = json!({"max_output_tokens": 3});
    let response = whole(request.clone());
    assert_eq!(response["status"], "incomplete");
    assert_eq!(
        response["incomplete_details"]["reason"],
        "max_output_tokens"
    );
    assert_eq!(response["usage"]["output_tokens"], 3);
    let events = streamed(request);
    assert_eq!(types(&events).last(), Some(&"incomplete"));
}
