//! Decides on the response to a request: by its path, credential, method and body. No I/O.

use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use super::accounts::{ACCOUNTS, Account};
use super::api::{Body, Prompt, Request, Response, ResponseId, prompt_tokens};
use super::error::{ApiError, Dialect};
use super::{anthropic, openai, responses, token};

/// The path of Flow's LLM proxy. Only paths under it are served.
pub(super) const BASE_PATH: &str = "/flow-llm-proxy";

/// Returns the response to a request.
pub(super) fn respond(request: &Request<'_>, response_id: ResponseId) -> Response {
    dispatch(request, response_id).unwrap_or_else(|error| error_response(request, &error))
}

/// Returns the response to an error, in the dialect of the request's path.
pub(super) fn error_response(request: &Request<'_>, error: &ApiError) -> Response {
    let dialect = match path(request.target) {
        Some(path) if path == "/v1/messages" || path.starts_with("/v1/messages/") => {
            Dialect::Anthropic
        }
        _ => Dialect::LiteLlm,
    };
    let allow = error
        .allow
        .map(|allow| (header::ALLOW, HeaderValue::from_static(allow)));
    Response {
        status: error.status,
        headers: allow.into_iter().collect(),
        body: Body::Json(error.body(dialect)),
    }
}

fn dispatch(request: &Request<'_>, response_id: ResponseId) -> Result<Response, ApiError> {
    let path = path(request.target).ok_or_else(not_found)?;
    let account =
        token::authenticate(request.authorization, &ACCOUNTS).map_err(ApiError::unauthorized)?;
    let call: fn(&Prompt, ResponseId) -> Result<Body, ApiError> = match path {
        "/v1/models" => {
            allow(request, &[Method::GET, Method::HEAD], "GET, HEAD")?;
            return Ok(Response::ok(openai::models(account)));
        }
        "/v1/messages/count_tokens" => {
            let prompt = prompt(request, account)?;
            let body = json!({"input_tokens": prompt.tokens});
            return Ok(Response::ok(Body::Json(body)));
        }
        "/v1/chat/completions" => openai::chat,
        "/v1/embeddings" => |prompt, _| openai::embeddings(prompt),
        "/v1/messages" => anthropic::messages,
        "/v1/responses" | "/responses" => responses::responses,
        _ => return Err(not_found()),
    };
    let response = match call(&prompt(request, account)?, response_id) {
        Ok(body) => Response::ok(body),
        Err(error) => error_response(request, &error),
    };
    Ok(response.with_call_id(response_id))
}

/// Reads the body of a request to a model, a POST of a JSON object, and checks that the account may use
/// the model.
fn prompt(request: &Request<'_>, account: &Account) -> Result<Prompt, ApiError> {
    allow(request, &[Method::POST], "POST")?;
    let json = match serde_json::from_slice(request.body) {
        Ok(json @ Value::Object(_)) => json,
        Ok(_) => return Err(ApiError::bad_request("the body must be a JSON object")),
        Err(error) => {
            let message = format!("the body is not JSON: {error}");
            return Err(ApiError::bad_request(message));
        }
    };
    account.authorize(json["model"].as_str().unwrap_or_default())?;
    Ok(Prompt {
        json,
        tokens: prompt_tokens(request.body.len()),
    })
}

/// Checks that the request's method is one of `methods`. `header` lists them for the client.
fn allow(request: &Request<'_>, methods: &[Method], header: &'static str) -> Result<(), ApiError> {
    match methods.contains(request.method) {
        true => Ok(()),
        false => Err(ApiError::method_not_allowed(header)),
    }
}

fn not_found() -> ApiError {
    let paths = "/v1/models, /v1/chat/completions, /v1/responses, /v1/messages, /v1/embeddings";
    let message = format!("Not Found: the simulated Flow serves {BASE_PATH} with {paths}");
    ApiError::new(StatusCode::NOT_FOUND, message)
}

/// Returns the path below the base path, with its slash and without the query; `None` outside of it.
fn path(target: &[u8]) -> Option<&str> {
    let target = std::str::from_utf8(target).ok()?;
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let path = path.strip_prefix(BASE_PATH)?;
    path.starts_with('/').then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secrets::Credential;
    use crate::demo::accounts::{COSTLY_MODEL, VIP_MODEL};

    const CHAT: &str = "/flow-llm-proxy/v1/chat/completions";
    const MESSAGES: &str = "/flow-llm-proxy/v1/messages";

    fn response(account: usize, method: Method, target: &str, body: &[u8]) -> Response {
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
        respond(&request, response_id)
    }

    /// Returns status and body of a JSON response to a request signed by an account.
    fn whole(account: usize, method: Method, target: &str, body: &[u8]) -> (u16, Value) {
        let response = response(account, method, target, body);
        match response.body {
            Body::Json(body) => (response.status.as_u16(), body),
            Body::Events(events) => panic!("a stream: {events:?}"),
        }
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
        for target in ["/flow-llm-proxy/v1/models", "/flow-llm-proxy/v1/models?x=1"] {
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
        let spent = json!({"error": {
            "message": "Budget has been exceeded! Current cost: 2.0, Max budget: 1.0",
            "type": "budget_exceeded", "param": null, "code": "422",
        }});
        let count = "/flow-llm-proxy/v1/messages/count_tokens";
        let embeddings = "/flow-llm-proxy/v1/embeddings";
        for target in [CHAT, MESSAGES, count, embeddings] {
            for (model, status, expected) in
                [(VIP_MODEL, 403, &denied), (COSTLY_MODEL, 422, &spent)]
            {
                let body = json!({"model": model, "messages": [], "input": "x"}).to_string();
                let post = |account| whole(account, Method::POST, target, body.as_bytes());
                assert_eq!(post(0), (status, expected.clone()), "{target}");
                assert_eq!(post(2).0, 200, "{target}");
            }
            let (status, body) = whole(1, Method::POST, target, b"{}");
            assert_eq!(
                (status, &body["error"]["type"]),
                (401, &"auth_error".into())
            );
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
            let id = response
                .headers
                .iter()
                .find(|(name, _)| name == "x-litellm-call-id");
            (response.status.as_u16(), id.map(|(_, id)| id.len()))
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
        assert_eq!((status, &count["input_tokens"]), (200, &10.into()));
    }
}
