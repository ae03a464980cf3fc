use super::*;
use crate::demo::usage::InputTokens;

const ID: ResponseId = ResponseId {
    serial: 7,
    created: 1_700_000_001,
};

fn prompt(json: Value) -> Prompt {
    let tokens = InputTokens::new(8, 6, false);
    Prompt { json, tokens }
}

fn whole(request: Value) -> Value {
    match chat(&prompt(request), ID).unwrap().body {
        Body::Json(completion) => completion,
        Body::Events(events) => panic!("a stream: {events:?}"),
    }
}

/// The chunks of a stream, whose framing is checked, without the last line.
fn streamed(request: Value) -> Vec<Value> {
    let Body::Events(mut events) = chat(&prompt(request), ID).unwrap().body else {
        panic!("no stream")
    };
    assert_eq!(events.pop().as_deref(), Some("data: [DONE]\n\n"));
    let chunk = |event: &String| {
        let data = event
            .strip_prefix("data: ")
            .and_then(|it| it.strip_suffix("\n\n"));
        let chunk: Value = serde_json::from_str(data.expect("one data line")).unwrap();
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(chunk["id"], "chatcmpl-demo-7");
        chunk
    };
    events.iter().map(chunk).collect()
}

fn request(more: Value) -> Value {
    let mut request = json!({
        "model": "any-model",
        "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "früh auf"},
        ],
    });
    request
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    request
}

#[test]
fn a_stream_says_piece_by_piece_what_the_whole_response_says() {
    let whole = whole(request(json!({})));
    let message = &whole["choices"][0]["message"];
    assert!(
        message["content"]
            .as_str()
            .unwrap()
            .contains("\"früh auf\"")
    );
    assert_eq!(message["role"], "assistant");
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    assert_eq!(
        (&whole["model"], &whole["usage"]["prompt_tokens"]),
        (&"any-model".into(), &8.into())
    );

    let chunks = streamed(request(json!({"stream": true})));
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let texts = chunks
        .iter()
        .filter_map(|it| it["choices"][0]["delta"]["content"].as_str());
    assert_eq!(
        texts.collect::<String>(),
        message["content"].as_str().unwrap()
    );
    let reasons: Vec<&Value> = chunks
        .iter()
        .map(|it| &it["choices"][0]["finish_reason"])
        .collect();
    let (last, others) = reasons.split_last().unwrap();
    assert_eq!(**last, "stop");
    assert!(others.iter().all(|reason| reason.is_null()));
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()));
}

#[test]
fn a_stream_ends_with_its_usage_where_the_request_asks_for_it() {
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let chunks = streamed(request(options));
    let (last, others) = chunks.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    let whole = whole(request(json!({})));
    let mut usage = whole["usage"].clone();
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 6);
    assert_eq!(usage.get("cost"), None, "it is in the head");
    // demo-gpt's prices: 2 tokens, 6 from the cache, and the output.
    let output = usage["completion_tokens"].as_u64().unwrap();
    usage["cost"] = usd(2 * 2500 + 6 * 250 + output * 10_000).into();
    assert_eq!(last["usage"], usage);
    assert!(
        others
            .iter()
            .all(|chunk| chunk.get("usage") == Some(&Value::Null))
    );
}

fn tools() -> Value {
    let tool = |name: &str, parameters: Value| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
    let city =
        json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    json!([tool("time", json!({})), tool("weather", city)])
}

#[test]
fn a_tool_that_is_asked_for_is_called_with_arguments_that_fit() {
    let weather = json!({"type": "function", "function": {"name": "weather"}});
    for (choice, name, arguments) in [
        (json!("required"), "time", "{}"),
        (weather, "weather", r#"{"city":"example"}"#),
    ] {
        let asked = json!({"tools": tools(), "tool_choice": choice});
        let whole = whole(request(asked.clone()));
        let call = &whole["choices"][0]["message"]["tool_calls"][0];
        assert_eq!(
            call["function"],
            json!({"name": name, "arguments": arguments})
        );
        assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");

        let mut asked = asked;
        asked["stream"] = true.into();
        let chunks = streamed(request(asked));
        let calls = || {
            chunks
                .iter()
                .map(|it| &it["choices"][0]["delta"]["tool_calls"][0])
        };
        let streamed: String = calls()
            .filter_map(|call| call["function"]["arguments"].as_str())
            .collect();
        assert_eq!(streamed, arguments);
        assert_eq!(calls().next().unwrap()["function"]["name"], name);
        assert_eq!(calls().next().unwrap()["id"], call["id"]);
        let last = chunks.last().unwrap();
        assert_eq!(last["choices"][0]["finish_reason"], "tool_calls");
    }
}

#[test]
fn tools_that_are_only_offered_are_not_called() {
    let unknown = json!({"type": "function", "function": {"name": "unknown"}});
    for choice in [json!(null), json!("auto"), json!("none"), json!(1), unknown] {
        let asked = json!({"tools": tools(), "tool_choice": choice});
        let completion = whole(request(asked));
        assert_eq!(
            completion["choices"][0]["finish_reason"], "stop",
            "{choice}"
        );
    }
    let completion = whole(request(json!({"tool_choice": "required"})));
    assert_eq!(completion["choices"][0]["finish_reason"], "stop");
}

#[test]
fn the_result_of_a_tool_gets_words() {
    let messages = json!([
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": null, "tool_calls": []},
        {"role": "tool", "tool_call_id": "call_demo_1", "content": "sunny"},
    ]);
    let completion =
        whole(json!({"messages": messages, "tools": tools(), "tool_choice": "required"}));
    let text = completion["choices"][0]["message"]["content"]
        .as_str()
        .unwrap();
    assert!(text.contains("\"sunny\""), "{text}");
}

#[test]
fn a_reply_that_is_cut_short_says_so() {
    for limit in ["max_tokens", "max_completion_tokens"] {
        let completion = whole(request(json!({limit: 3})));
        assert_eq!(completion["choices"][0]["finish_reason"], "length");
        assert_eq!(completion["usage"]["completion_tokens"], 3);
    }
}

fn embedded(request: Value) -> Value {
    match embeddings(&prompt(request), ID).unwrap().body {
        Body::Json(list) => list["data"].clone(),
        Body::Events(events) => panic!("a stream: {events:?}"),
    }
}

#[test]
fn each_input_gets_an_embedding_in_the_encoding_that_is_asked_for() {
    let plain = embedded(json!({"input": ["a", "b", "a"]}));
    assert_eq!(plain[0]["embedding"], plain[2]["embedding"]);
    assert_ne!(plain[0]["embedding"], plain[1]["embedding"]);
    let numbers = plain[0]["embedding"].as_array().unwrap();
    assert!(
        numbers.iter().all(|it| it.as_f64().unwrap().abs() <= 1.0),
        "{numbers:?}"
    );

    let coded = embedded(json!({"input": "a", "encoding_format": "base64"}));
    let bytes = STANDARD
        .decode(coded[0]["embedding"].as_str().unwrap())
        .unwrap();
    let decoded: Vec<f32> = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    assert_eq!(json!(decoded), plain[0]["embedding"]);

    assert_eq!(
        embedded(json!({"input": [1, 2, 3]}))
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        embedded(json!({"input": [[1], [2]]}))
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn embeddings_of_nothing_or_of_too_much_are_rejected() {
    for input in [json!(null), json!(1), json!(vec!["x"; MAX_INPUTS + 1])] {
        assert!(embeddings(&prompt(json!({"input": input})), ID).is_err());
    }
}
