"""Which credentials a request asks, in which order, and which response it gets."""

import concurrent.futures

from support import (
    CHAT,
    SHAPES,
    check,
    check_in_each_shape,
    equal,
    expect_marks,
    fresh,
    passed_on,
    served,
)

AT_ONCE = 12


@check_in_each_shape
def after_a_rejection_those_at_rest_are_asked_too(lab, shape):
    """A key that is wrong says less than a budget that may have been raised."""
    with lab.proxy("poor", "wrong") as proxy:
        passed_on(proxy.ask(shape), 401, 2)
        for _ in range(2):
            response = passed_on(proxy.ask(shape), 422, 2)
            equal(response.header("x-should-retry"), "false", "x-should-retry")
        expect_marks(proxy, "Configuration 'poor' budget exceeded, resting 300 s. Remaining: 1/2")


@check_in_each_shape
def after_a_limit_those_at_rest_are_left_alone(lab, shape):
    narrow = fresh("narrow")
    with lab.proxy("poor", narrow) as proxy:
        passed_on(proxy.ask(shape), 429, 2)
        response = passed_on(proxy.ask(shape), 429, 1)
        # The rest that ends first is asked.
        equal(response.config, narrow, "configurations")


@check_in_each_shape
def a_credential_that_may_not_use_the_model_is_asked_last(lab, shape):
    slow = fresh("slow")
    with lab.proxy("beta", slow) as proxy:
        served(proxy.ask(shape, "vip-model"), by=slow, attempts=2)
        passed_on(proxy.ask(shape, "vip-model"), 429, 1)
        # Both rest now, beta for longer, and it could not serve this request.
        response = passed_on(proxy.ask(shape, "vip-model"), 429, 1)
        equal(response.config, slow, "configurations")
        served(proxy.ask(shape), by="beta", attempts=1)


@check_in_each_shape
def a_credential_that_was_accepted_before_proves_that_the_next_one_is_wrong(lab, shape):
    narrow = fresh("narrow")
    with lab.proxy(narrow, "wrong") as proxy:
        response = passed_on(proxy.ask(shape), 429, 2)
        equal(response.error()["message"].split(":")[0], "Rate limit exceeded for api_key", "texts")
        expect_marks(
            proxy,
            f"Configuration '{narrow}' rate limited, resting ~60 s. Remaining: 1/2",
            "Configuration 'wrong' marked as failed. Remaining: 0/2",
        )


@check_in_each_shape
def a_credential_of_several_entries_is_asked_once(lab, shape):
    with lab.proxy("poor", "poor", "alpha") as proxy:
        served(proxy.ask(shape), by="alpha", attempts=2)
        for _ in range(3):
            served(proxy.ask(shape), by="alpha", attempts=1)
        equal(len(proxy.marks()), 1, f"numbers of {proxy.marks()}")


@check
def requests_at_the_same_time_are_all_served(lab):
    clients = ["beta", "poor", "expired", "wrong", fresh("slow"), fresh("narrow"), "alpha"]
    with lab.proxy(*clients) as proxy:
        cases = [(shape, model) for shape in SHAPES for model in ("gpt-4o-mini", "vip-model")] * 8
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            asked = [pool.submit(proxy.ask, *case) for case in cases]
            for future in asked:
                served(future.result())
        # Each credential is marked once, however many requests meet it.
        marks = [mark.split(" Remaining")[0] for mark in proxy.marks()]
        equal(sorted(set(marks)), sorted(marks), "marks")
        for _ in clients:
            response = served(proxy.ask(CHAT, "vip-model"), by="alpha", attempts=1)
            equal(response.header("x-flow-proxy-error"), None, "x-flow-proxy-error")


@check
def counting_tokens_fails_over_as_asking_does(lab):
    body = {"model": "vip-model", "messages": [{"role": "user", "content": "Say hello."}]}
    with lab.proxy("beta", "poor", "expired", "alpha") as proxy:
        served(proxy.post("/v1/messages/count_tokens", body), by="alpha", attempts=4)
        served(proxy.post("/v1/messages/count_tokens", body), by="alpha", attempts=1)
        equal(len(proxy.marks()), 3, f"numbers of {proxy.marks()}")
