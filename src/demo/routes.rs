//! A request becomes an answer: path, credential, method, body. No I/O.

use http::{Method, StatusCode};
use serde_json::Value;

use super::fault::{Dialect, Fault};
use super::{ACCOUNTS, anthropic, openai, token};

/// Where Flow has its LLM proxy; nothing outside is served.
pub(super) const BASE_PATH: &str = "/flow-llm-proxy";

/// A request that has arrived whole.
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    /// The request target, with its query.
    pub(super) target: &'a [u8],
    /// The value of the Authorization field.
    pub(super) authorization: Option<&'a [u8]>,
    pub(super) body: &'a [u8],
}

/// What tells an answer from all others.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResponseId {
    /// Counts from 1.
    pub(super) serial: u64,
    /// Seconds since 1970.
    pub(super) created: u64,
}

/// What goes back.
#[derive(Debug)]
pub(super) enum Answer {
    Whole {
        status: StatusCode,
        /// The value of the Allow field.
        allow: Option<&'static str>,
        body: Value,
    },
    /// Server-sent events in their order, each with the empty line that ends it.
    Events(Vec<String>),
}

impl Answer {
    pub(super) fn ok(body: Value) -> Answer {
        Answer::Whole {
            status: StatusCode::OK,
            allow: None,
            body,
        }
    }
}

/// Answers a request.
pub(super) fn answer(asked: &Asked<'_>, response_id: ResponseId) -> Answer {
    dispatch(asked, response_id).unwrap_or_else(|fault| error(asked, &fault))
}

/// A fault in the dialect of the request's path.
pub(super) fn error(asked: &Asked<'_>, fault: &Fault) -> Answer {
    let dialect = match path(asked.target) {
        Some(path) if path == "/v1/messages" || path.starts_with("/v1/messages/") => {
            Dialect::Anthropic
        }
        _ => Dialect::LiteLlm,
    };
    Answer::Whole {
        status: fault.status,
        allow: fault.allow,
        body: fault.body(dialect),
    }
}

fn dispatch(asked: &Asked<'_>, response_id: ResponseId) -> Result<Answer, Fault> {
    let path = path(asked.target).ok_or_else(not_found)?;
    token::account(asked.authorization, &ACCOUNTS).map_err(|what| {
        let message = format!("Authentication Error, {what}");
        Fault::new(StatusCode::UNAUTHORIZED, message)
    })?;
    match path {
        "/v1/models" => {
            allow(asked, &[Method::GET, Method::HEAD], "GET, HEAD")?;
            Ok(Answer::ok(openai::models()))
        }
        "/v1/chat/completions" => openai::chat(&posted(asked)?, response_id),
        "/v1/embeddings" => openai::embeddings(&posted(asked)?),
        "/v1/messages" => anthropic::messages(&posted(asked)?, response_id),
        "/v1/messages/count_tokens" => {
            posted(asked)?;
            let body = serde_json::json!({"input_tokens": prompt_tokens(asked.body.len())});
            Ok(Answer::ok(body))
        }
        _ => Err(not_found()),
    }
}

/// A request's JSON, and how long it was.
pub(super) struct Posted {
    pub(super) json: Value,
    pub(super) prompt_tokens: u64,
}

fn posted(asked: &Asked<'_>) -> Result<Posted, Fault> {
    allow(asked, &[Method::POST], "POST")?;
    match serde_json::from_slice(asked.body) {
        Ok(json @ Value::Object(_)) => Ok(Posted {
            json,
            prompt_tokens: prompt_tokens(asked.body.len()),
        }),
        Ok(_) => Err(Fault::bad_request("the body must be a JSON object")),
        Err(error) => Err(Fault::bad_request(format!("the body is not JSON: {error}"))),
    }
}

/// Models count about four bytes of English a token; here the JSON around it counts too.
fn prompt_tokens(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(4)
}

fn allow(asked: &Asked<'_>, methods: &[Method], field: &'static str) -> Result<(), Fault> {
    if methods.contains(asked.method) {
        return Ok(());
    }
    let message = format!("Method Not Allowed: this path takes {field}");
    Err(Fault {
        allow: Some(field),
        ..Fault::new(StatusCode::METHOD_NOT_ALLOWED, message)
    })
}

fn not_found() -> Fault {
    let paths = "/v1/models, /v1/chat/completions, /v1/embeddings, /v1/messages";
    let message = format!("Not Found: the simulated Flow serves {BASE_PATH} with {paths}");
    Fault::new(StatusCode::NOT_FOUND, message)
}

/// The path under the base path, from its slash on and without the query.
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

    /// Status and body of an answer that is no stream, to a request signed by an account.
    fn whole(account: usize, method: Method, target: &str, body: &[u8]) -> (u16, Value) {
        let account = &ACCOUNTS[account];
        let credential = Credential::new(account.client_id, account.client_secret, account.tenant);
        let asked = Asked {
            method: &method,
            target: target.as_bytes(),
            authorization: Some(credential.authorization().as_bytes()),
            body,
        };
        let response_id = ResponseId {
            serial: 1,
            created: 2,
        };
        match answer(&asked, response_id) {
            Answer::Whole { status, body, .. } => (status.as_u16(), body),
            Answer::Events(events) => panic!("a stream: {events:?}"),
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
    fn a_method_that_the_path_does_not_take_gets_405() {
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
        let (status, answer) = whole(0, Method::POST, target, body);
        assert_eq!((status, &answer["input_tokens"]), (200, &10.into()));
    }
}
