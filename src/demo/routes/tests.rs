use super::*;
use crate::config::secrets::Credential;
use crate::demo::accounts::VIP_MODEL;

const CHAT: &str = "/flow-llm-proxy/v1/chat/completions";
const MESSAGES: &str = "/flow-llm-proxy/v1/messages";
const RESPONSES: &str = "/flow-llm-proxy/v1/responses";
const EMBEDDINGS: &str = "/flow-llm-proxy/v1/embeddings";

fn response(account: usize, method: Method, target: &str, body: &[u8]) -> Response {
    response_of(&State::default(), account, method, target, body)
}

fn response_of(
    state: &State,
    account: usize,
    method: Method,
    target: &str,
    body: &[u8],
) -> Response {
    let account = &ACCOUNTS[account];
    let credential = Credential::new(account.client_id, account.client_secret, account.tenant);
    let request = Request {
        method: &method,
        target: target.as_bytes(),
        authorization: Some(credential.authorization().as_bytes()),
        body,
    };
    let response_id = ResponseId {
        serial: 1,
        created: 2,
    };
    respond(&request, response_id, state)
}

/// Returns status and body of a JSON response to a request signed by an account.
fn whole(account: usize, method: Method, target: &str, body: &[u8]) -> (u16, Value) {
    status_and_json(response(account, method, target, body))
}

fn status_and_json(response: Response) -> (u16, Value) {
    match response.body {
        Body::Json(body) => (response.status.as_u16(), body),
        Body::Events(events) => panic!("a stream: {events:?}"),
    }
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    let mut headers = response.headers.iter();
    let (_, value) = headers.find(|(header, _)| header == name)?;
    value.to_str().ok()
}

/// A POST to one simulated Flow.
fn post(state: &State, account: usize, target: &str, body: &Value) -> Response {
    response_of(
        state,
        account,
        Method::POST,
        target,
        body.to_string().as_bytes(),
    )
}

/// A body for all APIs.
fn hello(model: &str, times: usize) -> Value {
    let text = "hello ".repeat(times);
    json!({"model": model, "messages": [{"role": "user", "content": text}], "input": text})
}

#[test]
fn only_what_is_under_the_base_path_is_served() {
    for target in [
        "/v1/models",
        "/flow-llm-proxyx/v1/models",
        "/flow-llm-proxy",
        "*",
        "/",
    ] {
        let (status, body) = whole(0, Method::GET, target, b"");
        assert_eq!(status, 404, "{target}");
        assert_eq!(body["error"]["code"], "404", "{target}");
    }
    for target in [
        "/flow-llm-proxy/v1/models",
        "/flow-llm-proxy/v1/models?x=1",
        "/flow-llm-proxy/models",
    ] {
        let (status, body) = whole(0, Method::GET, target, b"");
        assert_eq!((status, &body["object"]), (200, &"list".into()), "{target}");
    }
}

#[test]
fn a_revoked_account_gets_a_401_in_the_form_of_litellm() {
    let (status, body) = whole(1, Method::POST, CHAT, b"{}");
    let error = &body["error"];
    assert_eq!(status, 401);
    assert_eq!(error["type"], "auth_error");
    assert_eq!(
        (&error["param"], &error["code"]),
        (&"None".into(), &"401".into())
    );
    let message = error["message"].as_str().unwrap();
    assert!(message.starts_with("Authentication Error, "), "{message}");
}

#[test]
fn rejections_of_an_account_are_litellm_s_on_every_path() {
    let denied = json!({"error": {
        "message": "The requested model 'demo-vip' is not available for this API key, or the model name is invalid. Check the models available to you and try again.",
        "type": "key_model_access_denied", "param": "model", "code": "403",
    }});
    let count = "/flow-llm-proxy/v1/messages/count_tokens";
    for target in [CHAT, MESSAGES, RESPONSES, EMBEDDINGS, count] {
        let state = State::default();
        let asked = |account, body| status_and_json(post(&state, account, target, body));
        let vip = hello(VIP_MODEL, 1);
        assert_eq!(asked(0, &vip), (403, denied.clone()), "{target}");
        assert_eq!(asked(2, &vip).0, 200, "{target}");
        let (status, body) = asked(1, &vip);
        assert_eq!(
            (status, &body["error"]["type"]),
            (401, &"auth_error".into())
        );
    }
}

#[test]
fn a_budget_is_spent_by_what_calls_cost_and_renewed_after_its_rejection() {
    for target in [CHAT, MESSAGES, RESPONSES, EMBEDDINGS] {
        let state = State::default();
        let expensive = hello("demo-claude", 2000);
        let first = post(&state, 0, target, &expensive);
        assert_eq!(first.status, 200, "{target}");
        assert_eq!(header(&first, "x-litellm-key-max-budget"), Some("0.003"));
        let cost = header(&first, "x-litellm-response-cost").expect("its cost");
        assert!(cost.parse::<f64>().unwrap() > 0.003, "{cost}");
        assert_eq!(header(&first, "x-litellm-key-spend"), Some(cost));

        let spent = post(&state, 0, target, &hello("demo-gpt", 1));
        assert_eq!(header(&spent, "x-litellm-call-id"), None);
        let message = format!("Budget has been exceeded! Current cost: {cost}, Max budget: 0.003");
        let error = json!({"error": {
            "message": message, "type": "budget_exceeded", "param": null, "code": "422",
        }});
        assert_eq!(status_and_json(spent), (422, error), "{target}");
        let renewed = post(&state, 0, target, &hello("demo-gpt", 1));
        assert_eq!(renewed.status, 200, "{target}");

        for _ in 0..3 {
            let other = post(&state, 2, target, &expensive);
            assert_eq!(other.status, 200, "{target}");
            assert_eq!(header(&other, "x-litellm-key-max-budget"), None);
        }
    }
}

#[test]
fn each_fourth_call_of_the_basic_account_is_over_its_limit() {
    for (target, kind) in [
        (CHAT, "throttling_error"),
        (MESSAGES, "rate_limit_error"),
        (RESPONSES, "throttling_error"),
    ] {
        let state = State::default();
        let mut statuses = Vec::new();
        for _ in 0..8 {
            let response = post(&state, 0, target, &hello("demo-gpt", 1));
            statuses.push(response.status.as_u16());
            if response.status == 429 {
                assert_eq!(header(&response, "retry-after"), Some("5"));
                assert!(header(&response, "x-litellm-call-id").is_some());
                let (_, body) = status_and_json(response);
                assert_eq!(body["error"]["type"], kind, "{target}");
            }
            let other = post(&state, 2, target, &hello("demo-gpt", 1));
            assert_eq!(other.status, 200, "{target}");
        }
        assert_eq!(
            statuses,
            [200, 200, 200, 429, 200, 200, 200, 429],
            "{target}"
        );
    }
}

#[test]
fn a_repeated_prompt_comes_from_the_cache_in_part() {
    let state = State::default();
    let turn = |role: &str, text: &str| json!({"role": role, "content": text.repeat(50)});
    let mut messages = vec![turn("system", "Be kind."), turn("user", "Hello!")];
    let mut usage = || {
        let body = json!({"model": "demo-gpt", "messages": messages});
        let (_, body) = status_and_json(post(&state, 2, CHAT, &body));
        messages.push(turn("user", "And more."));
        let usage = &body["usage"];
        let cached = &usage["prompt_tokens_details"]["cached_tokens"];
        (
            usage["prompt_tokens"].as_u64().unwrap(),
            cached.as_u64().unwrap(),
        )
    };
    let (first, cached) = usage();
    assert_eq!(cached, 0);
    let (second, cached) = usage();
    assert!(second > first);
    assert_eq!(cached, first * 3 / 4, "the conversation until then");

    let system = turn("user", "Something else.");
    let body = json!({"model": "demo-claude", "system": system, "messages": [], "max_tokens": 9});
    let asking = |control: &Value| {
        let mut body = body.clone();
        body["cache_control"] = control.clone();
        let (_, body) = status_and_json(post(&state, 2, MESSAGES, &body));
        let usage = |name: &str| body["usage"][name].as_u64().unwrap();
        let created = usage("cache_creation_input_tokens");
        let read = usage("cache_read_input_tokens");
        (
            usage("input_tokens") + created + read,
            created > 0,
            read > 0,
        )
    };
    let control = json!({"type": "ephemeral"});
    let (all, ..) = asking(&control);
    assert_eq!(asking(&control), (all, true, true));
}

#[test]
fn the_cost_is_in_the_head_of_whole_responses_only() {
    for target in [CHAT, MESSAGES, RESPONSES] {
        let state = State::default();
        let mut body = hello("demo-gpt", 1);
        let cost = "x-litellm-response-cost";
        let whole = post(&state, 0, target, &body);
        assert!(header(&whole, cost).is_some(), "{target}");
        body["stream"] = true.into();
        let streamed = post(&state, 0, target, &body);
        assert_eq!(header(&streamed, cost), None, "{target}");
        assert!(header(&streamed, "x-litellm-key-spend") > header(&whole, "x-litellm-key-spend"));
    }
}

#[test]
fn an_account_lists_the_models_that_it_may_use() {
    for (account, is_listed) in [(0, false), (2, true)] {
        let (_, models) = whole(account, Method::GET, "/flow-llm-proxy/v1/models", b"");
        let models = models["data"].as_array().unwrap();
        let lists = |id| models.iter().any(|model| model["id"] == id);
        assert_eq!((lists("demo-gpt"), lists(VIP_MODEL)), (true, is_listed));
    }
}

#[test]
fn responses_to_calls_that_are_let_in_have_a_call_id() {
    let id = |account, target, body| {
        let response = response(account, Method::POST, target, body);
        let id = header(&response, "x-litellm-call-id").map(str::len);
        (response.status.as_u16(), id)
    };
    let well: &[u8] = br#"{"messages":[]}"#;
    let streamed: &[u8] = br#"{"messages":[],"stream":true}"#;
    let denied: &[u8] = br#"{"messages":[],"model":"demo-vip"}"#;
    for target in [CHAT, MESSAGES] {
        assert_eq!(id(0, target, well), (200, Some(36)));
        assert_eq!(id(0, target, streamed), (200, Some(36)));
        assert_eq!(
            id(0, target, b"{}"),
            (400, Some(36)),
            "the request's own fault"
        );
        assert_eq!(id(0, target, denied), (403, None));
        assert_eq!(id(1, target, well), (401, None));
    }
}

#[test]
fn under_messages_errors_of_the_request_are_in_the_form_of_anthropic() {
    let (status, body) = whole(0, Method::POST, MESSAGES, b"{");
    assert_eq!((status, &body["type"]), (400, &"error".into()));
    assert_eq!(body["error"]["type"], "invalid_request_error");
}

#[test]
fn a_body_that_is_no_json_object_gets_400() {
    let deep = "[".repeat(100_000);
    for body in [
        "",
        "{",
        "[]",
        "null",
        "{\"messages\":1}",
        "{\"messages\":\"x\"}",
        &deep,
    ] {
        for target in [CHAT, MESSAGES] {
            let (status, _) = whole(0, Method::POST, target, body.as_bytes());
            assert_eq!(status, 400, "{target}");
        }
    }
    let (status, _) = whole(0, Method::POST, CHAT, b"{\"messages\":\xff}");
    assert_eq!(status, 400);
}

#[test]
fn a_method_that_the_path_does_not_allow_gets_405() {
    assert_eq!(whole(0, Method::GET, CHAT, b"").0, 405);
    assert_eq!(whole(0, Method::DELETE, MESSAGES, b"").0, 405);
    assert_eq!(
        whole(0, Method::POST, "/flow-llm-proxy/v1/models", b"{}").0,
        405
    );
}

#[test]
fn tokens_are_counted() {
    let target = "/flow-llm-proxy/v1/messages/count_tokens";
    let body = br#"{"model":"demo-claude","messages":[]}"#;
    let (status, count) = whole(0, Method::POST, target, body);
    assert_eq!((status, &count["input_tokens"]), (200, &6.into()));
}
