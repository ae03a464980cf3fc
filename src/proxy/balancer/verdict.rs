//! What a response of the upstream says about the credential that the request was sent with.
//!
//! Flow is a LiteLLM, whose errors say precisely what is wrong; [`judge`] is the table of its answers, the
//! first row that fits being the verdict. Phrases are anchored at the start of the message: what stands
//! further on may be the request's own text. Pure.

use std::time::{Duration, SystemTime};

use http::StatusCode;

use super::retry_after;
use crate::http1::headers::{HeaderBlock, KnownHeader};

/// LiteLLM sets it once a request is authenticated.
const CALL_ID: &[u8] = b"x-litellm-call-id";

/// What follows from a response for its request and its credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The provider behind the upstream failed or throttles: one other credential may do better.
    Provider,
    /// The request's own fault, success, or nothing that concerns the credential.
    Request,
    /// The credential has expired or was deleted.
    Dead,
    /// The credential may not use this model, or its budget for the model is spent. `marks` is false
    /// where the message is about another model than the request's.
    Model { marks: bool },
    /// The credential's budget is spent.
    Budget,
    /// The credential has too many requests in flight.
    Busy,
    /// The credential's rate limit is reached, for this long; for this model only if `of_model`.
    Limit { rest: Duration, of_model: bool },
    /// The credential is rejected.
    Credential,
    /// The credential may not do this, for a reason that is not known.
    Forbidden,
}

/// A verdict, and whether the response proves that the credential was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    pub verdict: Verdict,
    pub is_accepted: bool,
}

/// What of the request matters for a verdict.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'r> {
    /// It has a body, or its path is under `/v1/`: without a valid token LiteLLM does not answer it
    /// with 2xx.
    pub needs_token: bool,
    pub model: Option<&'r str>,
}

/// The error object of a response's body, in OpenAI's or Anthropic's dialect; empty where there is none.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ErrorObject {
    pub kind: String,
    pub message: String,
    pub param: String,
}

impl Verdict {
    /// Whether another credential may get a better response.
    pub fn calls_for_another(self) -> bool {
        self != Verdict::Request
    }

    /// Whether it says something bad about the credential (rows 3 to 9 of the table).
    pub fn concerns_credential(self) -> bool {
        !matches!(self, Verdict::Request | Verdict::Provider)
    }

    /// Whether credentials that rest are asked too, once no other one is left: their rest says less
    /// than this verdict.
    pub fn asks_resting(self) -> bool {
        matches!(
            self,
            Verdict::Credential | Verdict::Dead | Verdict::Model { .. } | Verdict::Forbidden
        )
    }

    /// Whether the client can wait for the credential.
    pub fn is_limit(self) -> bool {
        matches!(self, Verdict::Limit { .. } | Verdict::Busy)
    }

    /// Whether asking again is of no use to the client.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Verdict::Credential | Verdict::Dead | Verdict::Model { .. } | Verdict::Budget
        )
    }

    /// As the log calls it.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Provider => "provider",
            Verdict::Request => "request",
            Verdict::Dead => "dead",
            Verdict::Model { .. } => "model",
            Verdict::Budget => "budget",
            Verdict::Busy => "busy",
            Verdict::Limit { .. } => "limit",
            Verdict::Credential => "credential",
            Verdict::Forbidden => "forbidden",
        }
    }
}

/// Whether the body of a response with this head may change the verdict.
pub fn needs_body(status: StatusCode, fields: &HeaderBlock) -> bool {
    is_looked_at(status) && !fields.is_event_stream()
}

/// Judges a response. `error` is the error object of its body, as far as [`needs_body`] asks for it.
pub fn judge(
    status: StatusCode,
    fields: &HeaderBlock,
    error: &ErrorObject,
    asked: Asked<'_>,
    now: SystemTime,
) -> Judgement {
    let has_call_id = || fields.find(CALL_ID).is_some();
    if status.is_success() {
        return Judgement {
            verdict: Verdict::Request,
            is_accepted: asked.needs_token || has_call_id(),
        };
    }
    let has_call_id = has_call_id();
    if !needs_body(status, fields) {
        return Judgement {
            verdict: Verdict::Request,
            is_accepted: has_call_id,
        };
    }
    let response = Response {
        status: status.as_u16(),
        has_call_id,
        fields,
        kind: &error.kind,
        param: &error.param,
        message: bare_message(&error.message),
    };
    Judgement {
        verdict: response.verdict(asked.model, now),
        is_accepted: has_call_id,
    }
}

/// Takes off what LiteLLM puts before the messages of its own authentication.
fn bare_message(message: &str) -> &str {
    ["Authentication Error, ", "Authentication Error - "]
        .iter()
        .find_map(|prefix| message.strip_prefix(prefix))
        .unwrap_or(message)
}

/// An error response, taken apart.
struct Response<'r> {
    status: u16,
    has_call_id: bool,
    fields: &'r HeaderBlock,
    kind: &'r str,
    param: &'r str,
    message: &'r str,
}

impl Response<'_> {
    /// The rows of the table, in their order.
    fn verdict(&self, model: Option<&str>, now: SystemTime) -> Verdict {
        if self.is_of_provider() {
            return Verdict::Provider;
        }
        if self.is_of_end_user() {
            return Verdict::Request;
        }
        if matches!(self.kind, "expired_key" | "token_not_found_in_db")
            || self.begins("Expired Key")
        {
            return Verdict::Dead;
        }
        if self.is_of_model() {
            return Verdict::Model {
                marks: self.names_model(model),
            };
        }
        if self.status == 402 || self.kind == "budget_exceeded" || self.is_budget() {
            return Verdict::Budget;
        }
        if self.is_busy() {
            return Verdict::Busy;
        }
        match self.status {
            429 if self.is_limit() => Verdict::Limit {
                rest: retry_after::time_told(self.fields, self.message, now),
                of_model: self.begins("Rate limit exceeded for model_per_"),
            },
            401 if !self.kind.ends_with("_access_denied") => Verdict::Credential,
            403 if matches!(
                self.kind,
                "auth_error" | "authentication_error" | "invalid_api_key"
            ) =>
            {
                Verdict::Credential
            }
            401 | 403 => Verdict::Forbidden,
            _ => Verdict::Request,
        }
    }

    fn begins(&self, phrase: &str) -> bool {
        self.message.starts_with(phrase)
    }

    /// Whether the message begins with `phrase` and then, behind `! ` or `: ` or nothing, one of `then`.
    fn begins_then(&self, phrase: &str, then: &[&str]) -> bool {
        let Some(rest) = self.message.strip_prefix(phrase) else {
            return false;
        };
        let rest = ["! ", ": "]
            .iter()
            .find_map(|separator| rest.strip_prefix(separator))
            .unwrap_or(rest);
        then.iter().any(|then| rest.starts_with(then))
    }

    fn is_of_provider(&self) -> bool {
        let is_rejection = matches!(self.status, 401 | 403);
        ((is_rejection || self.status == 429) && self.begins("litellm."))
            || (is_rejection && self.has_call_id)
            || (self.status == 429 && self.is_cooldown())
    }

    /// All deployments of the model cool down.
    fn is_cooldown(&self) -> bool {
        self.kind == "all_deployments_in_cooldown"
            || [
                "No deployments available",
                "No healthy deployment",
                "Model capacity reached",
            ]
            .iter()
            .any(|phrase| self.begins(phrase))
    }

    /// Limits and budgets of the end user whom the request names: other credentials have them too.
    fn is_of_end_user(&self) -> bool {
        let users = ["End User=", "EndUser=", "Tag="];
        self.kind == "customer_model_access_denied"
            || self.begins("LiteLLM End User:")
            || self.begins_then(
                "Rate limit exceeded for ",
                &["end_user", "tag", "agent", "mcp"],
            )
            || self.begins_then("Budget has been exceeded", &users)
            || self.begins_then("ExceededBudget", &users)
    }

    fn is_of_model(&self) -> bool {
        let is_rejection = matches!(self.status, 401 | 403);
        self.kind.ends_with("_model_access_denied")
            || (is_rejection && (self.param == "model" || self.begins(REQUESTED_MODEL)))
            || (self.begins("LiteLLM ") && self.message.contains("exceeded budget for model="))
            || self.begins_then("Budget has been exceeded", &["Model access group="])
    }

    /// Whether the message, where it quotes a model, quotes the request's own.
    fn names_model(&self, model: Option<&str>) -> bool {
        match (self.message.strip_prefix(REQUESTED_MODEL), model) {
            (Some(quoted), Some(model)) => quoted
                .strip_prefix(model)
                .is_some_and(|rest| rest.starts_with('\'')),
            _ => true,
        }
    }

    fn is_budget(&self) -> bool {
        self.begins("Budget has been exceeded") || self.begins("ExceededBudget")
    }

    fn is_busy(&self) -> bool {
        let is_parallel = |kind: &str| {
            let kind = kind.trim();
            matches!(kind, "max_parallel_requests" | "concurrent_requests")
        };
        let in_message = || {
            let rest = self.message.strip_prefix("Rate limit exceeded for")?;
            let kind = rest.split_once("Limit type:")?.1;
            kind.split(['.', ',', ' ']).find(|word| !word.is_empty())
        };
        let kind = self.fields.find(b"rate_limit_type");
        let kind = kind.and_then(|kind| std::str::from_utf8(kind).ok());
        (self.status == 429 && kind.or_else(in_message).is_some_and(is_parallel))
            || self.begins("Max parallel request limit reached")
    }

    /// Any 429 that is not the provider's is a limit of the credential; the provider's has a call id.
    fn is_limit(&self) -> bool {
        !self.has_call_id
            || self.fields.value(KnownHeader::RetryAfter).is_some()
            || self.begins("Rate limit exceeded")
    }
}

const REQUESTED_MODEL: &str = "The requested model '";

/// The statuses with which LiteLLM says something about a credential.
fn is_looked_at(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400..=404 | 422 | 429)
}

#[cfg(test)]
mod tests;
