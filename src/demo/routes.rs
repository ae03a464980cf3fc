//! Decides on the response to a request: by its path, credential, method and body. No I/O.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::accounts::ACCOUNTS;
use super::api::{Prompt, Request, Response, ResponseId, prompt_tokens};
use super::error::{ApiError, Dialect};
use super::{anthropic, openai, token};

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
    Response::Json {
        status: error.status,
        allow: error.allow,
        body: error.body(dialect),
    }
}

fn dispatch(request: &Request<'_>, response_id: ResponseId) -> Result<Response, ApiError> {
    let path = path(request.target).ok_or_else(not_found)?;
    token::authenticate(request.authorization, &ACCOUNTS).map_err(|what| {
        let message = format!("Authentication Error, {what}");
        ApiError::new(StatusCode::UNAUTHORIZED, message)
    })?;
    match path {
        "/v1/models" => {
            allow(request, &[Method::GET, Method::HEAD], "GET, HEAD")?;
            Ok(Response::ok(openai::models()))
        }
        "/v1/chat/completions" => openai::chat(&prompt(request)?, response_id),
        "/v1/embeddings" => openai::embeddings(&prompt(request)?),
        "/v1/messages" => anthropic::messages(&prompt(request)?, response_id),
        "/v1/messages/count_tokens" => {
            prompt(request)?;
            let body = json!({"input_tokens": prompt_tokens(request.body.len())});
            Ok(Response::ok(body))
        }
        _ => Err(not_found()),
    }
}

/// Reads the body of a request to a model: a POST of a JSON object.
fn prompt(request: &Request<'_>) -> Result<Prompt, ApiError> {
    allow(request, &[Method::POST], "POST")?;
    match serde_json::from_slice(request.body) {
        Ok(json @ Value::Object(_)) => Ok(Prompt {
            json,
            tokens: prompt_tokens(request.body.len()),
        }),
        Ok(_) => Err(ApiError::bad_request("the body must be a JSON object")),
        Err(error) => Err(ApiError::bad_request(format!(
            "the body is not JSON: {error}"
        ))),
    }
}

/// Checks that the request's method is one of `methods`. `header` lists them for the client.
fn allow(request: &Request<'_>, methods: &[Method], header: &'static str) -> Result<(), ApiError> {
    if methods.contains(request.method) {
        return Ok(());
    }
    let message = format!("Method Not Allowed: this path takes {header}");
    Err(ApiError {
        allow: Some(header),
        ..ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
    })
}

fn not_found() -> ApiError {
    let paths = "/v1/models, /v1/chat/completions, /v1/embeddings, /v1/messages";
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

    const CHAT: &str = "/flow-llm-proxy/v1/chat/completions";
    const MESSAGES: &str = "/flow-llm-proxy/v1/messages";

    /// Returns status and body of a JSON response to a request signed by an account.
    fn whole(account: usize, method: Method, target: &str, body: &[u8]) -> (u16, Value) {
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
        match respond(&request, response_id) {
            Response::Json { status, body, .. } => (status.as_u16(), body),
            Response::Events(events) => panic!("a stream: {events:?}"),
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
    fn under_messages_errors_are_in_the_form_of_anthropic() {
        let (status, body) = whole(1, Method::POST, MESSAGES, b"{}");
        assert_eq!(status, 401);
        assert_eq!(body["type"], "error");
        assert_eq!(body["error"]["type"], "authentication_error");
        let (status, body) = whole(0, Method::POST, MESSAGES, b"{");
        assert_eq!((status, &body["type"]), (400, &"error".into()));
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
