"""The provider behind LiteLLM fails: no credential is at fault, and one other is asked at most."""

from lab.provider import script
from support import (
    SHAPES,
    check,
    check_in_each_shape,
    equal,
    expect_marks,
    fresh,
    passed_on,
    served,
)

GOOD = ("alpha", "alpha-2", "alpha-3")


def marks_none(proxy, shape):
    """Requires that all credentials serve, and that the log has no mark."""
    used = {served(proxy.ask(shape), attempts=1).config for _ in GOOD}
    equal(used, set(proxy.clients), "configurations")
    expect_marks(proxy)


def same_as_direct(lab, shape, response, model, text):
    """The client gets LiteLLM's own response."""
    direct = lab.ask(shape, "alpha", model, text, response.identity)
    equal((response.status, response.body), (direct.status, direct.body), "responses")


@check_in_each_shape
def rejections_and_limits_of_the_provider_ask_one_other_credential(lab, shape):
    for model in ("scripted", "scripted-claude"):
        for status in (401, 403, 429):
            text = script(status, "The provider says no.")
            with lab.proxy(*GOOD) as proxy:
                response = passed_on(proxy.ask(shape, model, text), status, 2)
                assert response.error()["message"].startswith("litellm."), response
                same_as_direct(lab, shape, response, model, text)
                equal(response.header("x-should-retry"), None, "x-should-retry")
                marks_none(proxy, shape)


@check_in_each_shape
def errors_of_the_request_and_failures_of_the_provider_are_passed_on(lab, shape):
    for model in ("scripted", "scripted-claude"):
        for status in (400, 404, 500, 503):
            text = script(status, "The provider fails.")
            with lab.proxy(*GOOD) as proxy:
                response = passed_on(proxy.ask(shape, model, text), status, 1)
                same_as_direct(lab, shape, response, model, text)
                marks_none(proxy, shape)
    with lab.proxy(*GOOD) as proxy:
        passed_on(proxy.ask(shape, "provider-gone"), 500, 1)
        passed_on(proxy.ask(shape, "no-such-model"), 400, 1)
        marks_none(proxy, shape)


@check_in_each_shape
def the_wait_that_a_provider_asks_for_is_passed_on(lab, shape):
    """LiteLLM gives it under a name that no client knows, and under /v1/messages not at all."""
    with lab.proxy("alpha", "alpha-2") as proxy:
        response = passed_on(proxy.ask(shape, "provider-throttled"), 429, 2)
        equal(response.header("retry-after"), response.header("llm_provider-retry-after"), "waits")
        if shape.api != "messages":
            equal(response.header("retry-after"), "7", "Retry-After")
        expect_marks(proxy)


@check_in_each_shape
def a_model_whose_deployments_all_cool_down_marks_no_credential(lab, shape):
    model = f"group-cooling{shape.suffix}"
    with lab.proxy(*GOOD) as proxy:
        responses = [proxy.ask(shape, model) for _ in range(6)]
        assert all(it.status in (429, 500) and it.attempts <= 2 for it in responses), responses
        response = passed_on(responses[-1], 429, 2)
        message = response.error()["message"]
        assert message.startswith("No deployments available for selected model"), message
        if shape.api != "messages":
            assert response.header("retry-after") in ("1", "2", "3", "4", "5"), response.headers
        marks_none(proxy, shape)


@check_in_each_shape
def a_provider_key_that_is_wrong_in_one_of_two_deployments_goes_unnoticed(lab, shape):
    """LiteLLM lets the bad deployment cool down, so the second attempt gets the good one."""
    with lab.proxy("alpha", "alpha-2") as proxy:
        for _ in range(6):
            served(proxy.ask(shape, f"mixed-401{shape.suffix}"))
        expect_marks(proxy)


@check_in_each_shape
def the_response_of_the_provider_is_passed_on_rather_than_that_of_a_limit(lab, shape):
    slow = fresh("slow")
    with lab.proxy(slow, "alpha") as proxy:
        served(proxy.ask(shape), by=slow, attempts=1)
        served(proxy.ask(shape), by="alpha", attempts=1)
        response = passed_on(proxy.ask(shape, "provider-throttled"), 429, 2)
        assert response.error()["message"].startswith("litellm.RateLimitError"), response
        equal(response.config, "alpha", "configurations")
        # The limited one rests now, and is left alone.
        passed_on(proxy.ask(shape, "provider-throttled"), 429, 1)


@check
def a_rejection_by_the_provider_is_known_by_the_id_of_the_call_where_the_message_does_not_tell(lab):
    """LiteLLM gives no prefix to what a provider of moderations says."""
    for status in (401, 403):
        body = {"model": "scripted", "input": script(status, "The provider says no.")}
        with lab.proxy(*GOOD) as proxy:
            response = passed_on(proxy.post("/v1/moderations", body), status, 2)
            assert not response.error()["message"].startswith("litellm."), response
            marks_none(proxy, SHAPES[0])
