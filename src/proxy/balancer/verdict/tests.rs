//! The table of verdicts: recorded responses of a LiteLLM 1.108.7 (`tests/answers`), the rows that it did
//! not show, and look-alikes that mean nothing.

use super::*;
use crate::proxy::forward::error_body::ErrorBody;
use crate::proxy::recorded;

const ASKED: Asked<'static> = Asked {
    needs_token: true,
    model: Some("oa-ok"),
};

fn head(status: u16, fields: &[(&str, &str)]) -> (StatusCode, HeaderBlock) {
    (
        StatusCode::from_u16(status).unwrap(),
        HeaderBlock::of(fields),
    )
}

/// The verdict on a response with these fields and this body, for a request for `model`.
fn judge_for(model: Option<&str>, status: u16, fields: &[(&str, &str)], body: &str) -> Judgement {
    let (status, fields) = head(status, fields);
    let error = ErrorBody {
        bytes: body.as_bytes().to_vec(),
        is_whole: true,
    };
    let asked = Asked { model, ..ASKED };
    judge(
        status,
        &fields,
        &error.error(&fields),
        asked,
        SystemTime::UNIX_EPOCH,
    )
}

fn name(status: u16, fields: &[(&str, &str)], body: &str) -> &'static str {
    judge_for(Some("oa-ok"), status, fields, body)
        .verdict
        .name()
}

/// LiteLLM's error with this type, message and param.
fn error(kind: &str, message: &str, param: &str) -> String {
    serde_json::json!({"error": {
        "type": kind, "message": message, "param": param, "code": "400"
    }})
    .to_string()
}

fn message(text: &str) -> String {
    error("None", text, "None")
}

#[test]
fn recorded_limits_and_errors_have_the_verdict_of_their_row() {
    let rows = [
        ("limit-beta-", "model"),
        ("limit-mbudget-chat-oa-ok-1", "request"),
        ("limit-mbudget-chat-an-", "request"),
        ("limit-mbudget-", "model"),
        ("limit-poor-", "budget"),
        ("limit-expired-", "dead"),
        ("limit-enduser-chat-oa-ok-stream-2", "request"),
        ("limit-routes-messages-", "forbidden"),
        ("limit-routes-models-", "forbidden"),
        ("limit-parallel-messages", "busy"),
        ("limit-mrpm-chat-oa-ok-stream-1", "request"),
        ("limit-mrpm-chat-an-", "request"),
        ("limit-mrpm-", "limit"),
        ("limit-mteamrpm-chat-oa-ok-stream-2", "limit"),
        ("limit-mtpm-chat-oa-ok-stream-2", "limit"),
        ("limit-mtpm-messages-", "limit"),
        ("limit-narrow2-", "limit"),
        ("limit-teamrpm-chat-oa-ok-stream-2", "limit"),
        ("limit-teamrpm-messages-", "limit"),
        ("limit-teamtpm-", "limit"),
        ("limit-userrpm-chat-oa-ok-stream-2", "limit"),
    ];
    for file in recorded::files() {
        let (status, fields, body) = recorded::read(&file);
        let fields: Vec<_> = fields.iter().map(|(n, v)| (&**n, &**v)).collect();
        let body = String::from_utf8(body).unwrap();
        let expected = match rows.iter().find(|(start, _)| file.starts_with(start)) {
            Some((_, expected)) => *expected,
            // What the provider behind LiteLLM answers.
            None if matches!(status, 401 | 403 | 429) => "provider",
            None => "request",
        };
        assert_eq!(name(status, &fields, &body), expected, "{file}");
    }
}

#[test]
fn recorded_limits_rest_until_the_time_told() {
    for (file, of_model) in [
        ("limit-narrow2-chat-oa-ok-stream-1.txt", false),
        ("limit-narrow2-messages-oa-ok-stream-1.txt", false),
        ("limit-mrpm-chat-oa-ok-stream-2.txt", true),
        ("limit-mrpm-messages-oa-ok-stream-1.txt", true),
    ] {
        let (status, fields, body) = recorded::read(file);
        let fields: Vec<_> = fields.iter().map(|(n, v)| (&**n, &**v)).collect();
        let body = String::from_utf8(body).unwrap();
        let judgement = judge_for(Some("oa-ok"), status, &fields, &body);
        let Verdict::Limit { rest, of_model: is } = judgement.verdict else {
            panic!("{file}: {judgement:?}");
        };
        assert!((55..=61).contains(&rest.as_secs()), "{file}: {rest:?}");
        assert_eq!((is, judgement.is_accepted), (of_model, true), "{file}");
    }
}

/// A verdict, and the status, header fields and body that it follows from.
type Row<'r> = (&'r str, u16, &'r [(&'r str, &'r str)], String);

#[test]
fn each_row_of_the_table_is_known_by_what_it_says() {
    let id = &[("x-litellm-call-id", "1")][..];
    let typed = |kind: &str| error(kind, "Some text", "None");
    let rows: &[Row] = &[
        // 1: provider
        (
            "provider",
            401,
            &[],
            message("litellm.AuthenticationError: x"),
        ),
        ("provider", 429, &[], message("litellm.RateLimitError: x")),
        ("provider", 403, id, message("anything")),
        ("provider", 401, id, "<html>".into()),
        ("provider", 429, &[], typed("all_deployments_in_cooldown")),
        (
            "provider",
            429,
            &[("Retry-After", "5")],
            message("No deployments available for selected model"),
        ),
        ("provider", 429, &[], message("No healthy deployment found")),
        ("provider", 429, &[], message("Model capacity reached")),
        // 2: the end user's
        ("request", 403, &[], typed("customer_model_access_denied")),
        (
            "request",
            429,
            &[],
            message("LiteLLM End User: x, exceeded budget for model=oa-ok"),
        ),
        (
            "request",
            429,
            &[],
            message("Rate limit exceeded for end_user: eu1. Limit type: requests"),
        ),
        (
            "request",
            429,
            &[],
            message("Rate limit exceeded for tag: x"),
        ),
        (
            "request",
            429,
            &[],
            message("Rate limit exceeded for agent: x"),
        ),
        (
            "request",
            429,
            &[],
            message("Rate limit exceeded for mcp_server: x"),
        ),
        (
            "request",
            400,
            &[],
            message("Budget has been exceeded! End User=x"),
        ),
        (
            "request",
            400,
            &[],
            message("ExceededBudget: EndUser=x over"),
        ),
        (
            "request",
            429,
            &[],
            message("Budget has been exceeded! Tag=x"),
        ),
        // 3: dead
        ("dead", 401, &[], typed("expired_key")),
        ("dead", 401, &[], typed("token_not_found_in_db")),
        (
            "dead",
            401,
            &[],
            message("Authentication Error - Expired Key. Key Expiry time"),
        ),
        (
            "dead",
            400,
            &[],
            message("Authentication Error, Expired Key. x"),
        ),
        // 4: model
        ("model", 403, &[], typed("key_model_access_denied")),
        ("model", 401, &[], typed("team_model_access_denied")),
        ("model", 403, &[], error("x", "y", "model")),
        (
            "model",
            401,
            &[],
            message("The requested model 'oa-ok' is not available"),
        ),
        (
            "model",
            422,
            &[],
            message("LiteLLM Virtual Key: x, exceeded budget for model=oa-ok"),
        ),
        (
            "model",
            400,
            &[],
            message("Budget has been exceeded! Model access group=x"),
        ),
        // 5: budget
        ("budget", 402, &[], "".into()),
        ("budget", 422, &[], typed("budget_exceeded")),
        (
            "budget",
            429,
            &[],
            message("Budget has been exceeded! Current cost: 2.0"),
        ),
        (
            "budget",
            400,
            &[],
            message("ExceededBudget: User=x over budget"),
        ),
        // 6: busy
        (
            "busy",
            429,
            &[
                ("rate_limit_type", "max_parallel_requests"),
                ("Retry-After", "60"),
            ],
            "".into(),
        ),
        (
            "busy",
            429,
            &[("rate_limit_type", "concurrent_requests")],
            "".into(),
        ),
        (
            "busy",
            429,
            id,
            message("Rate limit exceeded for api_key: x. Limit type: max_parallel_requests. y"),
        ),
        (
            "busy",
            429,
            &[],
            message("Max parallel request limit reached"),
        ),
        // 7: limit
        ("limit", 429, &[], "".into()),
        (
            "limit",
            429,
            &[("x-litellm-call-id", "1"), ("Retry-After", "3")],
            "".into(),
        ),
        ("limit", 429, id, message("Rate limit exceeded for team: x")),
        (
            "limit",
            429,
            &[("rate_limit_type", "tokens")],
            message("Rate limit exceeded for api_key: x. Limit type: max_parallel_requests"),
        ),
        // 8: credential
        ("credential", 401, &[], "".into()),
        ("credential", 401, &[], typed("auth_error")),
        ("credential", 403, &[], typed("auth_error")),
        ("credential", 403, &[], typed("authentication_error")),
        ("credential", 403, &[], typed("invalid_api_key")),
        // 9: forbidden
        ("forbidden", 401, &[], typed("something_access_denied")),
        ("forbidden", 403, &[], "".into()),
        ("forbidden", 403, &[], typed("permission_error")),
        // 10: everything else
        ("request", 429, id, message("too many, says the provider")),
        ("request", 400, id, message("litellm.BadRequestError: x")),
        ("request", 404, &[], message("no such thing")),
        (
            "request",
            500,
            &[],
            message("litellm.InternalServerError: x"),
        ),
        (
            "request",
            503,
            &[],
            message("Rate limit exceeded for api_key: x"),
        ),
        ("request", 200, &[], message("Budget has been exceeded")),
        ("request", 413, &[], typed("budget_exceeded")),
    ];
    for (expected, status, fields, body) in rows {
        assert_eq!(
            name(*status, fields, body),
            *expected,
            "{status} {fields:?} {body}"
        );
    }
}

#[test]
fn phrases_mean_nothing_where_the_requests_own_text_may_stand() {
    let phrases = [
        "litellm.",
        "No deployments available",
        "LiteLLM End User:",
        "Rate limit exceeded for api_key: x. Limit type: max_parallel_requests",
        "Budget has been exceeded",
        "ExceededBudget",
        "Expired Key",
        "The requested model 'oa-ok'",
        "exceeded budget for model=oa-ok",
        "Max parallel request limit reached",
        "Authentication Error, Expired Key",
        "budget_exceeded",
    ];
    let id = &[("x-litellm-call-id", "1")][..];
    for phrase in phrases {
        for text in [
            format!("Invalid model name passed in model={phrase}"),
            format!("  {phrase}"),
            format!("{{'error': '{phrase}'}}"),
            format!("Authentication Error, Authentication Error, {phrase}"),
            format!("LiteLLM: {phrase}")
                .replace("exceeded budget for model=", "exceeded for model="),
        ] {
            for status in [400, 404, 422] {
                assert_eq!(name(status, id, &message(&text)), "request", "{text}");
            }
            assert_eq!(name(403, &[], &message(&text)), "forbidden", "{text}");
        }
    }
    for body in [
        r#"{"error":"budget_exceeded"}"#,
        r#"{"type":"budget_exceeded","message":"Expired Key"}"#,
        r#"{"error":{"type":["budget_exceeded"],"message":{"a":"Expired Key"}}}"#,
        r#"[{"error":{"type":"budget_exceeded"}}]"#,
        r#"{"error":{"error":{"type":"budget_exceeded"}}}"#,
        r#"{"error":{"code":"budget_exceeded","param":"budget_exceeded"}}"#,
        r#"{"detail":"Budget has been exceeded"}"#,
        "Budget has been exceeded! Current cost: 2.0",
    ] {
        assert_eq!(name(400, &[], body), "request", "{body}");
    }
}

#[test]
fn a_model_verdict_about_another_model_leaves_no_rest() {
    let text = message("The requested model 'oa-ok' is not available");
    for (model, marks) in [
        (Some("oa-ok"), true),
        (Some("oa"), false),
        (Some("oa-ok2"), false),
    ] {
        let judgement = judge_for(model, 403, &[], &text);
        assert_eq!(judgement.verdict, Verdict::Model { marks }, "{model:?}");
    }
}

#[test]
fn a_body_that_cannot_be_read_is_judged_by_status_and_fields() {
    let spent = error("budget_exceeded", "x", "None");
    let (status, fields) = head(403, &[("Content-Encoding", "br")]);
    for (bytes, is_whole) in [
        (spent.clone().into_bytes(), true),
        (spent.clone().into_bytes()[..20].to_vec(), true),
        (Vec::new(), true),
        (spent.into_bytes(), false),
    ] {
        let error = ErrorBody { bytes, is_whole }.error(&fields);
        assert_eq!(error, ErrorObject::default());
        let judgement = judge(status, &fields, &error, ASKED, SystemTime::UNIX_EPOCH);
        assert_eq!(judgement.verdict, Verdict::Forbidden);
    }
}

#[test]
fn only_a_response_that_needs_a_token_is_proof() {
    let id = &[("x-litellm-call-id", "1")][..];
    for (status, fields, needs_token, is_accepted) in [
        (200, &[][..], true, true),
        (200, &[][..], false, false),
        (200, id, false, true),
        (204, &[][..], true, true),
        (302, &[][..], true, false),
        (400, &[][..], true, false),
        (400, id, true, true),
        (401, id, true, true),
        (429, id, true, true),
        (500, id, false, true),
        (500, &[][..], true, false),
    ] {
        let (status, fields) = head(status, fields);
        let asked = Asked {
            needs_token,
            model: None,
        };
        let error = ErrorObject::default();
        let judgement = judge(status, &fields, &error, asked, SystemTime::UNIX_EPOCH);
        assert_eq!(judgement.is_accepted, is_accepted, "{status} {fields:?}");
    }
}

#[test]
fn streams_and_other_statuses_need_no_body() {
    for status in [400, 401, 402, 403, 404, 422, 429] {
        let (status, fields) = head(status, &[("Content-Type", "application/json")]);
        assert!(needs_body(status, &fields), "{status}");
        let (_, stream) = head(400, &[("Content-Type", "Text/Event-Stream; charset=utf-8")]);
        assert!(!needs_body(status, &stream), "{status}");
    }
    for status in [200, 204, 302, 405, 408, 409, 413, 500, 503, 529] {
        let (status, fields) = head(status, &[]);
        assert!(!needs_body(status, &fields), "{status}");
    }
}
