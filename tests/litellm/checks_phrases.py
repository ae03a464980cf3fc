"""Phrases by which LiteLLM's errors are known, where the request or the provider says them.

They must count only where LiteLLM says them: at the start of its own message.
"""

from lab.provider import script
from support import SHAPES, check_in_each_shape, equal, expect_marks, passed_on, served

PHRASES = [
    "litellm.RateLimitError: too fast",
    "all_deployments_in_cooldown",
    "No deployments available for selected model, Try again in 5 seconds.",
    "No healthy deployment available, passed model=gpt-4o-mini",
    "Model capacity reached",
    "Not allowed to access model due to tags configuration",
    "customer_model_access_denied",
    "LiteLLM End User: customer-1, exceeded budget for model=gpt-4o-mini",
    "Rate limit exceeded for end_user: customer-1. Limit type: requests.",
    "Rate limit exceeded for tag: night. Limit type: requests.",
    "Rate limit exceeded for agent: one. Limit type: requests.",
    "Rate limit exceeded for mcp: one. Limit type: requests.",
    "Budget has been exceeded! End User=customer-1 Current cost: 2.0, Max budget: 1.0",
    "ExceededBudget: EndUser=customer-1 over budget",
    "Budget has been exceeded! Tag=night",
    "expired_key",
    "token_not_found_in_db",
    "Expired Key",
    "Authentication Error - Expired Key. Key Expiry time 2020-01-01",
    "Authentication Error, invalid token passed",
    "key_model_access_denied",
    "The requested model 'gpt-4o-mini' is not available for this API key",
    "LiteLLM Virtual Key: 0000, key_alias: a, exceeded budget for model=gpt-4o-mini",
    "Budget has been exceeded! Model access group=vip",
    "budget_exceeded",
    "Budget has been exceeded! Current cost: 2.0, Max budget: 1.0",
    "ExceededBudget: User=user-1 over budget",
    "Max parallel request limit reached",
    "Rate limit exceeded for api_key: 0000. Limit type: max_parallel_requests. Current limit: 1",
    "Limit type: concurrent_requests.",
    "max_parallel_requests",
    "Rate limit exceeded for model_per_key: 0000:gpt-4o-mini. Limit type: tokens.",
    "Rate limit exceeded. Limit resets at: 2099-01-01 00:00:00 UTC",
    "Retry-After: 60",
    "auth_error",
    "authentication_error",
    "invalid_api_key",
]
TWO = ("alpha", "alpha-2")
STATUSES = (400, 401, 403, 404, 429)


def marks_none(proxy):
    for shape in SHAPES:
        used = {served(proxy.ask(shape), attempts=1).config for _ in TWO}
        equal(used, set(TWO), "configurations")
    expect_marks(proxy)


@check_in_each_shape
def a_model_that_is_named_like_an_error_marks_no_credential(lab, shape):
    with lab.proxy(*TWO) as proxy:
        for phrase in PHRASES:
            response = proxy.ask(shape, model=phrase)
            # Chat completions take a comma for a list of models, and fail in a way of their own.
            if "," not in phrase:
                assert 400 <= response.status < 500, f"{phrase}: {response}"
                assert phrase in response.error()["message"], f"{phrase}: {response}"
        marks_none(proxy)


@check_in_each_shape
def a_message_that_reads_like_an_error_marks_no_credential(lab, shape):
    with lab.proxy(*TWO) as proxy:
        for phrase in PHRASES:
            served(proxy.ask(shape, text=phrase), attempts=1)
        marks_none(proxy)


@check_in_each_shape
def a_tool_that_is_named_like_an_error_marks_no_credential(lab, shape):
    with lab.proxy(*TWO) as proxy:
        for phrase in PHRASES:
            served(proxy.ask(shape, tool=phrase), attempts=1)
        marks_none(proxy)


@check_in_each_shape
def a_request_whose_parts_all_read_like_an_error_marks_no_credential(lab, shape):
    with lab.proxy(*TWO) as proxy:
        for phrase in PHRASES:
            proxy.ask(shape, phrase, phrase, phrase, {"user": phrase})
        marks_none(proxy)


@check_in_each_shape
def such_a_model_rests_alone_where_the_key_is_restricted(lab, shape):
    """LiteLLM denies it and quotes it. A rest for exactly this name is right."""
    with lab.proxy("beta", "alpha") as proxy:
        for phrase in [*PHRASES, "gpt-4o-mini' is", "gpt-4o-mini'", "GPT-4o-mini"]:
            proxy.ask(shape, model=phrase)
        used = {served(proxy.ask(shape), attempts=1).config for _ in range(4)}
        equal(used, {"alpha", "beta"}, "configurations")
        denied = "Configuration 'beta' may not use model '"
        assert all(mark.startswith(denied) for mark in proxy.marks()), proxy.marks()


@check_in_each_shape
def an_error_of_litellm_that_quotes_others_counts_as_what_it_begins_with(lab, shape):
    """A wrong credential, whatever the message says further on."""
    with lab.proxy("quoting") as proxy:
        passed_on(proxy.ask(shape), 401, 1)
        expect_marks(proxy)
    with lab.proxy("quoting", "alpha") as proxy:
        served(proxy.ask(shape), by="alpha", attempts=2)
        served(proxy.ask(shape, "claude-sonnet"), by="alpha", attempts=1)
        expect_marks(proxy, "Configuration 'quoting' marked as failed. Remaining: 1/2")


@check_in_each_shape
def errors_of_the_provider_that_read_like_those_of_litellm_mark_no_credential(lab, shape):
    """Each phrase with each status in one shape or another."""
    with lab.proxy(*TWO) as proxy:
        for number, phrase in enumerate(PHRASES, SHAPES.index(shape)):
            model = ("scripted", "scripted-claude")[number // 5 % 2]
            for status in (STATUSES[number % 5], STATUSES[(number + 2) % 5]):
                response = proxy.ask(shape, model, script(status, phrase))
                assert response.status >= 400 and response.attempts <= 2, f"{phrase}: {response}"
        marks_none(proxy)
