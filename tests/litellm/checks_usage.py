"""What the access line tells of a response is what LiteLLM's response says."""

import json
import math

from support import CHAT, SHAPES, check, check_in_each_shape, equal, served

MODELS = ("gpt-4o-mini", "claude-sonnet")
WITH_USAGE = {"stream_options": {"include_usage": True}}


def documents(response):
    """Returns the JSON of a response: the data of its events, or its body."""
    if not response.header("content-type").startswith("text/event-stream"):
        return [json.loads(response.body)]
    lines = response.body.decode().splitlines()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: {")]
    return [json.loads(text) for text in data]


def told(response):
    """Returns input, cached and output tokens, and the cost, as the response itself has them."""
    usage = {}
    for document in documents(response):
        inner = document.get("response") or document.get("message") or document
        found = inner.get("usage") or {}
        usage |= {name: value for name, value in found.items() if value not in (None, 0)}
    of = lambda *names: sum(usage.get(name, 0) for name in names)
    if "prompt_tokens" in usage:
        details = usage.get("prompt_tokens_details") or {}
        tokens = of("prompt_tokens"), details.get("cached_tokens", 0), of("completion_tokens")
    elif "input_tokens_details" in usage:
        cached = usage["input_tokens_details"].get("cached_tokens", 0)
        tokens = of("input_tokens"), cached, of("output_tokens")
    else:
        cached = of("cache_read_input_tokens")
        new = of("input_tokens", "cache_creation_input_tokens")
        tokens = new + cached, cached, of("output_tokens")
    cost = response.header("x-litellm-response-cost")
    return *tokens, float(cost) if cost is not None else usage.get("cost")


def logged(response):
    names = ("input_tokens", "cached_tokens", "output_tokens")
    tokens = [int(response.logged.get(name, -1)) for name in names]
    cost = response.logged.get("cost")
    return *tokens, float(cost) if cost is not None else None


def same(left, right, what):
    equal(left[:3], right[:3], f"tokens of {what}")
    is_known = left[3] is not None and right[3] is not None
    # The log has six digits.
    fits = math.isclose(left[3], right[3], rel_tol=1e-5) if is_known else left[3] == right[3]
    assert fits, f"costs of {what} differ: {left[3]} {right[3]}"


@check_in_each_shape
def the_log_tells_the_tokens_and_the_cost_of_each_response(lab, shape):
    more = WITH_USAGE if (shape.api, shape.is_streamed) == ("chat", True) else ()
    with lab.proxy("alpha") as proxy:
        for model in MODELS:
            response = served(proxy.ask(shape, model, more=more))
            same(logged(response), told(response), f"{model}: {response}")
            equal(logged(response)[:3], (20, 12, 5), f"tokens by {model}")
            equal(response.logged["model"], model, "models")


@check
def the_sums_of_the_log_are_those_of_the_responses(lab):
    with lab.proxy("alpha", "alpha-2") as proxy:
        asked = [
            served(proxy.ask(shape, model, more=WITH_USAGE if shape.api == "chat" else ()))
            for shape in SHAPES
            for model in MODELS
            if shape.api != "chat" or shape.is_streamed
        ]
    for index in range(3):
        sums = [sum(one(response)[index] for response in asked) for one in (logged, told)]
        equal(*sums, f"sums of number {index}")
        assert sums[0] > 0


@check
def the_answers_of_several_models_are_added_up(lab):
    with lab.proxy("alpha") as proxy:
        response = served(proxy.ask(CHAT, "gpt-4o-mini,vip-model"))
        answers = json.loads(response.body)
        equal([answer["usage"]["prompt_tokens"] for answer in answers], [20, 20], "answers")
        equal(logged(response)[:3], (40, 24, 10), "tokens")
        equal(response.logged["model"], "gpt-4o-mini,vip-model", "models")


@check
def a_stream_that_fails_at_the_provider_is_logged_as_an_error_event(lab):
    with lab.proxy("alpha") as proxy:
        for shape in SHAPES:
            if shape.is_streamed:
                response = proxy.ask(shape, "cut")
                equal(response.status, 200, f"statuses of {response}")
                equal(response.end, "error_event", f"ends of {response}")


@check
def what_tells_no_tokens_has_none_in_the_log(lab):
    body = {"model": "claude-sonnet", "messages": [{"role": "user", "content": "x"}]}
    with lab.proxy("alpha") as proxy:
        counted = served(proxy.post("/v1/messages/count_tokens", body))
        silent = served(proxy.ask(SHAPES[1], "gpt-4o-mini"))
        for response in (counted, silent):
            assert "input_tokens" not in response.logged, response.logged
