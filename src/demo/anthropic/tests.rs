use super::*;
use crate::demo::api::Body;
use crate::demo::usage::InputTokens;

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
    let tokens = InputTokens::new(20, 8, true);
    messages(&Prompt { json, tokens }, ID).unwrap().body
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
    let output = whole["usage"]["output_tokens"].as_u64().unwrap();
    let usage = |output: u64| {
        json!({
            "input_tokens": 3,
            "cache_creation_input_tokens": 9,
            "cache_read_input_tokens": 8,
            "output_tokens": output,
        })
    };
    assert_eq!(whole["usage"], usage(output));

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
    assert_eq!(data[0]["message"]["usage"], usage(1));
    let end = &data[data.len() - 2];
    assert_eq!(end["delta"]["stop_reason"], "end_turn");
    assert_eq!(end["usage"], whole["usage"]);
}

fn tools() -> Value {
    let city =
        json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
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
        let message = whole(json!({"tools": tools(), "tool_choice": any, "messages": messages}));
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
