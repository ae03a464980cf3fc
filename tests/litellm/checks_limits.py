"""Limits of requests and tokens, and requests that run at the same time."""

import threading
import time

from support import (
    CHAT,
    check,
    check_in_each_shape,
    equal,
    expect_marks,
    fresh,
    is_like,
    passed_on,
    served,
    wait_for,
)

LIMITED = "Configuration '{}' rate limited, resting ~60 s. Remaining: {}"
BUSY = "Configuration '{}' busy, resting until a request ends"
# A check takes some seconds, and the Date of a busy LiteLLM is some seconds old.
NEAR_A_MINUTE = {str(seconds) for seconds in range(50, 66)}
# How long LiteLLM may take to notice that a request is over.
PLACE_DEADLINE = 5.0


@check_in_each_shape
def a_limit_of_requests_rests_until_the_time_told(lab, shape):
    """Under /v1/messages LiteLLM tells it in the message only."""
    for kind in ("slow", "teamrpm", "userrpm"):
        client = fresh(kind)
        with lab.proxy(client, "alpha") as proxy:
            served(proxy.ask(shape), by=client, attempts=1)
            served(proxy.use(shape, client), by="alpha", attempts=2)
            for model in ("gpt-4o-mini", "claude-sonnet", "vip-model"):
                served(proxy.ask(shape, model), by="alpha", attempts=1)
            expect_marks(proxy, LIMITED.format(client, "1/2"))


@check_in_each_shape
def a_limit_of_tokens_rests_until_the_time_told(lab, shape):
    client = fresh("narrow")
    with lab.proxy(client, "alpha") as proxy:
        served(proxy.ask(shape), by="alpha", attempts=2)
        served(proxy.ask(shape), by="alpha", attempts=1)
        expect_marks(proxy, LIMITED.format(client, "1/2"))


@check_in_each_shape
def a_limit_for_one_model_rests_for_that_model_only(lab, shape):
    client = fresh("mrpm")
    with lab.proxy(client, "alpha") as proxy:
        served(proxy.ask(shape), by=client, attempts=1)
        served(proxy.use(shape, client), by="alpha", attempts=2)
        for _ in range(3):
            served(proxy.ask(shape), by="alpha", attempts=1)
        used = {served(proxy.ask(shape, "claude-sonnet"), attempts=1).config for _ in range(4)}
        equal(used, {"alpha", client}, "configurations")
        mark = f"Configuration '{client}' rate limited for model 'gpt-4o-mini', resting ~60 s"
        expect_marks(proxy, mark)


@check_in_each_shape
def a_limit_of_the_end_user_is_passed_on_and_marks_no_credential(lab, shape):
    client = fresh("enduser")
    with lab.proxy(client, "alpha") as proxy:
        served(proxy.ask(shape), by=client, attempts=1)
        served(proxy.ask(shape), by="alpha", attempts=1)
        for _ in range(2):
            response = passed_on(proxy.ask(shape), 429, 1)
            message = response.error()["message"]
            assert message.startswith("Rate limit exceeded for end_user: "), message
            direct = lab.ask(shape, client)
            equal(response.header("retry-after"), direct.header("retry-after"), "Retry-After")
            served(proxy.ask(shape), by="alpha", attempts=1)
        expect_marks(proxy)


@check_in_each_shape
def a_response_that_is_limited_for_all_says_when_the_first_rest_ends(lab, shape):
    first, second = fresh("slow"), fresh("slow")
    with lab.proxy(first, second) as proxy:
        for client in (first, second):
            served(proxy.ask(shape), by=client, attempts=1)
        # The second credential's rest begins later, but is not longer.
        for attempts in (2, 1, 1):
            response = passed_on(proxy.ask(shape), 429, attempts)
            message = response.error()["message"]
            assert message.startswith("Rate limit exceeded for api_key: "), message
            waits = response.header("retry-after")
            assert waits in NEAR_A_MINUTE, f"Retry-After: {waits} of {response}"
            equal(response.header("x-should-retry"), None, "x-should-retry")
        expect_marks(proxy, LIMITED.format(first, "1/2"), LIMITED.format(second, "0/2"))


@check_in_each_shape
def a_limit_for_one_model_tells_the_wait_for_that_model(lab, shape):
    client = fresh("mrpm")
    with lab.proxy(client) as proxy:
        served(proxy.ask(shape), by=client, attempts=1)
        waits = passed_on(proxy.ask(shape), 429, 1).header("retry-after")
        assert waits in NEAR_A_MINUTE, f"Retry-After: {waits}"
        served(proxy.ask(shape, "claude-sonnet"), by=client, attempts=1)


class Held:
    """A request that waits in the middle, at the provider."""

    def __init__(self, lab, proxy, shape, client):
        self.lab = lab
        self.response = None
        lab.litellm.provider.hold()
        self.thread = threading.Thread(target=self.run, args=[proxy, shape], daemon=True)
        self.thread.start()
        wait_for("the held request", lambda: lab.litellm.provider.held, 15)
        wait_for("its configuration", lambda: proxy.line_with(f"Using configuration '{client}'"))

    def run(self, proxy, shape):
        self.response = proxy.ask(shape, "held")

    def let_go(self):
        self.lab.litellm.provider.let_go()
        self.thread.join(15)
        assert self.response, "the held request has not ended"
        return self.response

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lab.litellm.provider.let_go()


def has_place(lab, shape, client):
    """Waits until LiteLLM has noticed that the client's request is over."""
    free = lambda: lab.ask(shape, client).status == 200
    wait_for(f"a place for {client}", free, PLACE_DEADLINE)


@check_in_each_shape
def a_busy_credential_rests_for_a_second_at_most(lab, shape):
    client = fresh("single")
    with lab.proxy(client, "alpha") as proxy, Held(lab, proxy, shape, client) as held:
        asked = time.monotonic()
        served(proxy.use(shape, client), by="alpha", attempts=2)
        expect_marks(proxy, BUSY.format(client))
        response = served(proxy.ask(shape), by="alpha")
        # On a busy machine the rest may be over.
        if time.monotonic() - asked < 1:
            equal(response.attempts, 1, "attempts while it rests")
        time.sleep(1.1)
        served(proxy.use(shape, client), by="alpha", attempts=2)
        served(held.let_go(), by=client, attempts=1)


@check_in_each_shape
def a_busy_credential_serves_again_when_its_request_ends(lab, shape):
    client = fresh("single")
    with lab.proxy(client, "alpha") as proxy, Held(lab, proxy, shape, client) as held:
        served(proxy.use(shape, client), by="alpha", attempts=2)
        served(held.let_go(), by=client, attempts=1)
        ended = time.monotonic()
        used = [proxy.ask(shape) for _ in range(2)]
        seconds = time.monotonic() - ended
        assert client in {it.config for it in used} or any(
            it.attempts > 1 for it in used
        ), f"{client} was not asked in the {seconds:.1f} s after its request: {used}"
        has_place(lab, shape, client)
        used = {served(proxy.ask(shape), attempts=1).config for _ in range(4)}
        equal(used, {client, "alpha"}, "configurations")


@check_in_each_shape
def a_client_of_a_busy_credential_waits_a_second(lab, shape):
    """LiteLLM says 60 s, or nothing under /v1/messages."""
    client = fresh("single")
    with lab.proxy(client) as proxy, Held(lab, proxy, shape, client) as held:
        response = passed_on(proxy.ask(shape), 429, 1)
        assert "Limit type: max_parallel_requests" in response.error()["message"], response
        equal(response.header("retry-after"), "1", "Retry-After")
        served(held.let_go(), by=client, attempts=1)
        has_place(lab, shape, client)
        served(proxy.ask(shape), by=client, attempts=1)


@check_in_each_shape
def the_shortest_wait_is_told_where_several_credentials_are_limited(lab, shape):
    slow, single = fresh("slow"), fresh("single")
    with lab.proxy(slow, single, "poor") as proxy:
        served(proxy.ask(shape), by=slow, attempts=1)
        with Held(lab, proxy, shape, single) as held:
            response = passed_on(proxy.ask(shape), 429, 3)
            equal(response.header("retry-after"), "1", "Retry-After")
            equal(response.header("x-should-retry"), None, "x-should-retry")
            served(held.let_go(), by=single, attempts=1)


@check_in_each_shape
def a_busy_credential_in_the_words_of_older_versions_is_passed_over(lab, shape):
    with lab.proxy("parallel", "alpha") as proxy:
        served(proxy.ask(shape), by="alpha", attempts=2)
        expect_marks(proxy, BUSY.format("parallel"))


@check_in_each_shape
def a_request_waits_for_a_busy_credential_where_limit_wait_says_so(lab, shape):
    client = fresh("single")
    options = ("--limit-wait", "10s")
    with lab.proxy(client, options=options) as proxy, Held(lab, proxy, shape, client) as held:
        responses = []
        waiting = threading.Thread(target=lambda: responses.append(proxy.ask(shape)), daemon=True)
        waiting.start()
        wait_for("the busy rest", lambda: proxy.line_with(BUSY.format(client)))
        time.sleep(0.2)
        equal(responses, [], "responses while the credential is busy")
        served(held.let_go(), by=client, attempts=1)
        waiting.join(15)
        served(responses[0], by=client)


@check_in_each_shape
def a_request_does_not_wait_for_a_rest_that_is_longer_than_limit_wait(lab, shape):
    client = fresh("slow")
    with lab.proxy(client, options=("--limit-wait", "5s")) as proxy:
        served(proxy.ask(shape), by=client, attempts=1)
        started = time.monotonic()
        for _ in range(2):
            passed_on(proxy.ask(shape), 429, 1)
        seconds = time.monotonic() - started
        assert seconds < 4, f"two limited requests took {seconds:.1f} s"


@check
def sighup_ends_rests_for_limits_budgets_and_models_but_not_for_failed_ones(lab):
    slow = fresh("slow")
    clients = [slow, "poor", "beta", "expired", "alpha"]
    with lab.proxy(*clients) as proxy:
        for model in ["gpt-4o-mini"] * 10 + ["vip-model"] * 5:
            served(proxy.ask(CHAT, model), by=None)
        before = proxy.marks()
        equal(len(before), 4, f"numbers of {before}")
        proxy.hang_up()
        for model in ["gpt-4o-mini"] * 10 + ["vip-model"] * 5:
            served(proxy.ask(CHAT, model))
        again = proxy.marks()[len(before) :]
    expected = [
        f"Configuration '{slow}' rate limited, resting ~60 s. Remaining: 3/5",
        "Configuration 'poor' budget exceeded, resting 600 s. Remaining: 2/5",
        "Configuration 'beta' may not use model 'vip-model', passed over for it for 600 s",
    ]
    cut = lambda marks: sorted(mark.split(" Remaining")[0] for mark in marks)
    assert len(again) == 3 and all(map(is_like, cut(again), cut(expected))), again
