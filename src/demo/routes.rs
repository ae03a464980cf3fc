//! Decides on the response to a request: by its path, credential, method and body, and by what was asked
//! before. No I/O.

use http::{Method, StatusCode};
use memchr::memmem;
use serde_json::{Value, json};

use super::accounts::{ACCOUNTS, Account};
use super::api::{Body, Completed, Prompt, Request, Response, ResponseId};
use super::error::{ApiError, Dialect};
use super::state::State;
use super::usage::{self, InputTokens, Prefix, usd};
use super::{anthropic, openai, responses, token};

/// The path of Flow's LLM proxy. Only paths under it are served.
pub(super) const BASE_PATH: &str = "/flow-llm-proxy";

/// Returns the response to a request.
pub(super) fn respond(request: &Request<'_>, id: ResponseId, state: &State) -> Response {
    dispatch(request, id, state).unwrap_or_else(|error| error_response(request, error))
}

/// Returns the response to an error, in the dialect of the request's path.
pub(super) fn error_response(request: &Request<'_>, error: ApiError) -> Response {
    let dialect = match path(request.target) {
        Some(path) if path == "/v1/messages" || path.starts_with("/v1/messages/") => {
            Dialect::Anthropic
        }
        _ => Dialect::LiteLlm,
    };
    Response {
        status: error.status,
        body: Body::Json(error.body(dialect)),
        headers: error.headers,
    }
}

/// A call of a model.
type Call = fn(&Prompt, ResponseId) -> Result<Completed, ApiError>;

fn dispatch(request: &Request<'_>, id: ResponseId, state: &State) -> Result<Response, ApiError> {
    let path = path(request.target).ok_or_else(not_found)?;
    let account =
        token::authenticate(request.authorization, &ACCOUNTS).map_err(ApiError::unauthorized)?;
    let call: Call = match path {
        "/v1/models" | "/models" => {
            allow(request, &[Method::GET, Method::HEAD], "GET, HEAD")?;
            return Ok(Response::ok(openai::models(account)));
        }
        "/v1/messages/count_tokens" => {
            let (_, prefixes) = prompt(request, account, state)?;
            let body = json!({"input_tokens": tokens(&prefixes)});
            return Ok(Response::ok(Body::Json(body)));
        }
        "/v1/chat/completions" | "/chat/completions" => openai::chat,
        "/v1/embeddings" | "/embeddings" => openai::embeddings,
        "/v1/messages" => anthropic::messages,
        "/v1/responses" | "/responses" => responses::responses,
        _ => return Err(not_found()),
    };
    let (json, prefixes) = prompt(request, account, state)?;
    let completed = state.count_call(account).and_then(|()| {
        let cached = state.cached_tokens(&prefixes);
        let asks_for_cache = memmem::find(request.body, b"\"cache_control\"").is_some();
        let tokens = InputTokens::new(tokens(&prefixes), cached, asks_for_cache);
        call(&Prompt { json, tokens }, id)
    });
    let (spent, budget) = state.spend(account, completed.as_ref().ok().map(|it| it.usage));
    let response = match completed {
        Ok(Completed { body, usage }) => {
            let is_whole = matches!(body, Body::Json(_));
            let response = Response::ok(body);
            match is_whole {
                true => response.with("x-litellm-response-cost", &usd(usage.cost).to_string()),
                // The head of a stream goes out before the cost is known.
                false => response,
            }
        }
        Err(error) => error_response(request, error),
    };
    Ok(with_account(response, id, spent, budget))
}

/// Adds what LiteLLM tells of an account with each response to a call that it has let in.
fn with_account(response: Response, id: ResponseId, spent: f64, budget: Option<f64>) -> Response {
    // LiteLLM's ids are random UUIDs; this one has the format of such (RFC 9562 section 5.4).
    let call_id = format!("00000000-0000-4000-8000-{:012x}", id.serial);
    let response = response
        .with("x-litellm-call-id", &call_id)
        .with("x-litellm-key-spend", &spent.to_string());
    match budget {
        Some(budget) => response.with("x-litellm-key-max-budget", &budget.to_string()),
        None => response,
    }
}

/// Reads the body of a request to a model, a POST of a JSON object, and checks that the account may use
/// the model and can pay for it.
fn prompt(
    request: &Request<'_>,
    account: &Account,
    state: &State,
) -> Result<(Value, Vec<Prefix>), ApiError> {
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
    state.check_budget(account)?;
    let prefixes = usage::prefixes(&json);
    Ok((json, prefixes))
}

/// Returns the tokens of a whole prompt.
fn tokens(prefixes: &[Prefix]) -> u64 {
    prefixes.last().map_or(0, |prefix| prefix.tokens)
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
mod tests;
