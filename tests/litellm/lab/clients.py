"""The clients that the test's LiteLLM knows. A client's id is its kind, or its kind and a suffix:
`slow-7` is a `slow` whose minute has not begun. Used by the hook in LiteLLM and by the checks."""

# What UserAPIKeyAuth gets, by kind; `me` is the client's id. Limits are per minute.
KINDS = {
    "alpha": lambda me: {},
    "beta": lambda me: {"models": ["gpt-4o-mini", "claude-sonnet"]},
    "poor": lambda me: {"max_budget": 1.0, "spend": 2.0},
    "expired": lambda me: {"expires": "2020-01-01T00:00:00Z"},
    "slow": lambda me: {"rpm_limit": 1},
    "single": lambda me: {"max_parallel_requests": 1},
    "narrow": lambda me: {"tpm_limit": 1},
    "mrpm": lambda me: {"metadata": {"model_rpm_limit": {"gpt-4o-mini": 1}}},
    "mbudget": lambda me: {
        "model_max_budget": {"gpt-4o-mini": {"budget_limit": 1e-08, "time_period": "1d"}}
    },
    "teamrpm": lambda me: {"team_id": f"team-of-{me}", "team_rpm_limit": 1},
    "userrpm": lambda me: {"user_rpm_limit": 1},
    "enduser": lambda me: {"end_user_id": f"customer-of-{me}", "end_user_rpm_limit": 1},
    "routes": lambda me: {"allowed_routes": ["/v1/chat/completions"]},
}

# What needs a database in LiteLLM, or another version of it: the hook raises it in LiteLLM's words.
# Kind: status, type, message.
REJECTED = {
    "deleted": (
        401,
        "token_not_found_in_db",
        "Authentication Error, Invalid proxy server token passed. Received API Key = sk-...fake, "
        "Key Hash (Token) =0000. Unable to find token in cache or `LiteLLM_VerificationTokenTable`",
    ),
    "teampoor": (
        429,
        "budget_exceeded",
        "Budget has been exceeded! Team=team-a Current cost: 2.0, Max budget: 1.0",
    ),
    "userpoor": (
        400,
        "budget_exceeded",
        "ExceededBudget: User=user-1 over budget. Spend=2.0, Budget=1.0",
    ),
    "grouppoor": (
        422,
        "budget_exceeded",
        "Budget has been exceeded! Model access group=vip Current cost: 2.0, Max budget: 1.0",
    ),
    "tagpoor": (
        422,
        "budget_exceeded",
        "Budget has been exceeded! Tag=night Current cost: 2.0, Max budget: 1.0",
    ),
    "customerpoor": (
        422,
        "budget_exceeded",
        "ExceededBudget: End User=customer-1 over budget. Spend=2.0, Budget=1.0",
    ),
    "parallel": (
        429,
        "None",
        "Max parallel request limit reached. Hit limit for api_key: 0000. "
        "tpm_limit: 9000, current_tpm 10, rpm_limit: 900, current_rpm 2",
    ),
    "quoting": (
        401,
        "auth_error",
        "Authentication Error, not let in: litellm.RateLimitError, "
        "LiteLLM End User: a, Rate limit exceeded for end_user: a. Limit type: "
        "max_parallel_requests. Budget has been exceeded! ExceededBudget: End User=a, Expired Key, "
        "The requested model 'gpt-4o-mini', exceeded budget for model=gpt-4o-mini, "
        "Max parallel request limit reached",
    ),
    "barred": (403, "auth_error", "Authentication Error, this address may not use the proxy."),
    "denied": (401, "team_access_denied", "The team of this key may not do that."),
}

# `late-1768471200` is let in from this Unix time on.
LATE = "late"


def kind_of(client_id):
    return client_id.split("-")[0]


def secret_of(client_id):
    return f"FAKE-secret-of-{kind_of(client_id)}-that-is-long-enough-for-HS256"
