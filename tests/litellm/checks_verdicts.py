"""Credentials that are rejected: spent budgets, expired keys, denied models and routes."""

from support import (
    CHAT,
    check,
    check_in_each_shape,
    equal,
    expect_marks,
    fresh,
    passed_on,
    served,
)

BUDGET = "Configuration '{}' budget exceeded, resting 300 s. Remaining: 1/2"
FAILED = "Configuration '{}' marked as failed. Remaining: {}"
PASSED_OVER = "Configuration '{}' may not use model '{}', passed over for it for {} s"


def rests_for_all(lab, shape, client, mark):
    """The first request asks `client`, then alpha; the next ones ask alpha only."""
    with lab.proxy(client, "alpha") as proxy:
        served(proxy.ask(shape), by="alpha", attempts=2)
        for model in ("gpt-4o-mini", "claude-sonnet", "vip-model"):
            served(proxy.ask(shape, model), by="alpha", attempts=1)
        expect_marks(proxy, mark)


def rests_for_the_model(lab, shape, client, model, seconds):
    """The first request for the model asks `client`, then alpha; the next ones ask alpha only."""
    with lab.proxy(client, "alpha") as proxy:
        served(proxy.ask(shape, model), by="alpha", attempts=2)
        for _ in range(3):
            served(proxy.ask(shape, model), by="alpha", attempts=1)
        expect_marks(proxy, PASSED_OVER.format(client, model, seconds))


@check_in_each_shape
def a_spent_budget_rests_for_five_minutes(lab, shape):
    rests_for_all(lab, shape, "poor", BUDGET.format("poor"))


@check_in_each_shape
def budgets_of_a_team_and_a_user_rest_whatever_the_status(lab, shape):
    for client in ("teampoor", "userpoor"):
        rests_for_all(lab, shape, client, BUDGET.format(client))


@check_in_each_shape
def an_expired_key_has_failed_at_once(lab, shape):
    rests_for_all(lab, shape, "expired", FAILED.format("expired", "1/2"))
    with lab.proxy("expired") as proxy:
        response = passed_on(proxy.ask(shape), 401, 1)
        equal(response.error()["type"], "expired_key", "types")
        expect_marks(proxy, FAILED.format("expired", "0/1"))


@check_in_each_shape
def a_deleted_key_has_failed_at_once(lab, shape):
    rests_for_all(lab, shape, "deleted", FAILED.format("deleted", "1/2"))
    with lab.proxy("deleted") as proxy:
        passed_on(proxy.ask(shape), 401, 1)
        expect_marks(proxy, FAILED.format("deleted", "0/1"))


@check_in_each_shape
def a_wrong_credential_has_failed_only_when_another_is_accepted(lab, shape):
    with lab.proxy("wrong", "wrong-2") as proxy:
        for _ in range(3):
            passed_on(proxy.ask(shape), 401, 2)
        expect_marks(proxy)
    rests_for_all(lab, shape, "wrong", FAILED.format("wrong", "1/2"))


@check_in_each_shape
def a_403_that_names_the_authentication_counts_as_a_wrong_credential(lab, shape):
    with lab.proxy("barred") as proxy:
        passed_on(proxy.ask(shape), 403, 1)
        expect_marks(proxy)
    rests_for_all(lab, shape, "barred", FAILED.format("barred", "1/2"))


@check_in_each_shape
def a_limited_credential_proves_that_another_one_is_wrong(lab, shape):
    """LiteLLM accepts it before it counts. Its response is passed on: a client can wait for it."""
    slow = fresh("slow")
    with lab.proxy(slow, "wrong") as proxy:
        served(proxy.ask(shape), by=slow, attempts=1)
        # The second request asks the wrong one first.
        passed_on(proxy.ask(shape), 429, 2)
        expect_marks(
            proxy,
            f"Configuration '{slow}' rate limited, resting ~60 s. Remaining: 1/2",
            FAILED.format("wrong", "0/2"),
        )


@check_in_each_shape
def a_denied_model_rests_for_that_model_only(lab, shape):
    with lab.proxy("beta", "alpha") as proxy:
        served(proxy.ask(shape, "vip-model"), by="alpha", attempts=2)
        for _ in range(3):
            served(proxy.ask(shape, "vip-model"), by="alpha", attempts=1)
        used = {served(proxy.ask(shape), attempts=1).config for _ in range(4)}
        equal(used, {"alpha", "beta"}, "configurations")
        expect_marks(proxy, PASSED_OVER.format("beta", "vip-model", 600))


@check_in_each_shape
def a_model_that_none_may_use_is_passed_on(lab, shape):
    with lab.proxy("beta", fresh("beta")) as proxy:
        response = passed_on(proxy.ask(shape, "vip-model"), 403, 2)
        equal(response.error()["type"], "key_model_access_denied", "types")
        equal(response.header("x-should-retry"), "false", "x-should-retry")
        # A first attempt is always made.
        response = passed_on(proxy.ask(shape, "vip-model"), 403, 1)
        equal(response.header("x-should-retry"), "false", "x-should-retry of the second")
        equal(len(proxy.marks()), 2, "marks")
        served(proxy.ask(shape), attempts=1)


@check_in_each_shape
def a_spent_budget_for_a_model_rests_for_that_model_only(lab, shape):
    mbudget = fresh("mbudget")
    with lab.proxy(mbudget, "alpha") as proxy:
        served(proxy.ask(shape), by=mbudget, attempts=1)
        lab.until_spent(shape, mbudget)
        served(proxy.use(shape, mbudget), by="alpha", attempts=2)
        for _ in range(3):
            served(proxy.ask(shape), by="alpha", attempts=1)
        used = {served(proxy.ask(shape, "claude-sonnet"), attempts=1).config for _ in range(4)}
        equal(used, {"alpha", mbudget}, "configurations")
        expect_marks(proxy, PASSED_OVER.format(mbudget, "gpt-4o-mini", 600))


@check_in_each_shape
def a_spent_budget_of_a_group_of_models_rests_for_that_model(lab, shape):
    rests_for_the_model(lab, shape, "grouppoor", "gpt-4o-mini", 600)


@check_in_each_shape
def a_spent_budget_of_the_end_user_or_a_tag_is_passed_on(lab, shape):
    for client in ("customerpoor", "tagpoor"):
        with lab.proxy(client, "alpha") as proxy:
            response = passed_on(proxy.ask(shape), 422, 1)
            equal(response.error()["type"], "budget_exceeded", "types")
            served(proxy.ask(shape), by="alpha", attempts=1)
            # It is asked again: it does not rest.
            passed_on(proxy.ask(shape), 422, 1)
            expect_marks(proxy)


@check_in_each_shape
def a_route_that_the_key_may_not_call_rests_for_a_minute(lab, shape):
    with lab.proxy("routes", "alpha") as proxy:
        if shape.api != "chat":
            served(proxy.ask(shape), by="alpha", attempts=2)
            served(proxy.ask(shape), by="alpha", attempts=1)
            expect_marks(proxy, PASSED_OVER.format("routes", "gpt-4o-mini", 60))
        # Where it may, and where it does not rest, it serves.
        used = {served(proxy.ask(CHAT, "claude-sonnet"), attempts=1).config for _ in range(4)}
        equal(used, {"alpha", "routes"}, "configurations")
    if shape.api != "chat":
        with lab.proxy("routes") as proxy:
            response = passed_on(proxy.ask(shape), 403, 1)
            equal(response.header("x-should-retry"), None, "x-should-retry")
            expect_marks(proxy)


@check_in_each_shape
def a_401_of_another_kind_never_fails_the_credential(lab, shape):
    with lab.proxy("denied") as proxy:
        passed_on(proxy.ask(shape), 401, 1)
        expect_marks(proxy)
    rests_for_the_model(lab, shape, "denied", "gpt-4o-mini", 60)


@check_in_each_shape
def a_client_is_told_not_to_retry_where_all_are_rejected(lab, shape):
    for clients in (["wrong"], ["expired"], ["poor"], ["wrong", "expired", "poor"]):
        with lab.proxy(*clients) as proxy:
            response = proxy.ask(shape)
            equal(response.attempts, len(clients), f"attempts of {response}")
            equal(response.header("x-should-retry"), "false", f"x-should-retry of {clients}")


@check_in_each_shape
def a_client_is_not_told_so_where_one_may_do_better(lab, shape):
    slow = fresh("slow")
    with lab.proxy(slow, "wrong") as proxy:
        responses = [proxy.ask(shape) for _ in range(3)]
        equal([response.status for response in responses], [200, 429, 429], "statuses")
        equal({it.header("x-should-retry") for it in responses}, {None}, "x-should-retry")


@check_in_each_shape
def a_fallback_that_is_denied_does_not_rest_the_model(lab, shape):
    """LiteLLM's message is about another model than the request's."""
    with lab.proxy("beta", "alpha") as proxy:
        response = proxy.ask(shape, more={"fallbacks": ["vip-model"]})
        served(response, by="alpha", attempts=2)
        used = {served(proxy.ask(shape), attempts=1).config for _ in range(4)}
        equal(used, {"alpha", "beta"}, "configurations")
        expect_marks(proxy)


@check
def of_a_doubled_model_the_last_one_counts(lab):
    """LiteLLM takes that one."""
    doubled = '{{"model":"{}","messages":[{{"role":"user","content":"Hi."}}],"model":"{}"}}'
    denied, allowed = "vip-model", "gpt-4o-mini"
    with lab.proxy("beta", "alpha") as proxy:
        served(proxy.send("POST", CHAT.path, doubled.format(denied, allowed)), "beta", 1)
        served(proxy.send("POST", CHAT.path, doubled.format(allowed, denied)), "alpha", 1)
        served(proxy.send("POST", CHAT.path, doubled.format(allowed, denied)), "alpha", 2)
        served(proxy.send("POST", CHAT.path, doubled.format(allowed, denied)), "alpha", 1)
        expect_marks(proxy, PASSED_OVER.format("beta", denied, 600))


@check
def a_denied_model_is_known_in_other_apis_and_in_paths(lab):
    hello = [{"role": "user", "content": "Say hello."}]
    requests = {
        "/v1/completions": {"model": "vip-model", "prompt": "Say hello."},
        "/openai/deployments/vip-model/chat/completions": {"messages": hello},
        "/v1beta/models/vip-model:generateContent": {"contents": [{"parts": [{"text": "Hi."}]}]},
    }
    for path, body in requests.items():
        with lab.proxy("beta", "alpha") as proxy:
            served(proxy.post(path, body), by="alpha", attempts=2)
            for _ in range(2):
                served(proxy.post(path, body), by="alpha", attempts=1)
            used = {served(proxy.ask(CHAT), attempts=1).config for _ in range(4)}
            equal(used, {"alpha", "beta"}, f"configurations after {path}")
            expect_marks(proxy, PASSED_OVER.format("beta", "vip-model", 600))


@check
def the_models_list_is_asked_with_the_same_verdicts(lab):
    with lab.proxy("poor", "expired", "alpha") as proxy:
        response = proxy.send("GET", "/v1/models")
        served(response, by="alpha", attempts=3)
        expect_marks(
            proxy,
            "Configuration 'poor' budget exceeded, resting 300 s. Remaining: 2/3",
            FAILED.format("expired", "1/3"),
        )
