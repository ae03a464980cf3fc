"""What makes a failed credential serve again, and what does not."""

import time

from support import CHAT, SHAPES, check, equal, expect_marks, fresh, long_check, served, wait_for

FAILED = "Configuration '{}' marked as failed. Remaining: 1/2"
RESTORED = "Configuration '{}' restored. Remaining: 2/2"
# What LiteLLM answers without a look at the token: method, path, body.
UNAUTHENTICATED = [
    ("GET", "/", None),
    ("GET", "/health/liveliness", None),
    ("GET", "/health/readiness", None),
    ("GET", "/public/model_hub", None),
    ("GET", "/unknown", None),
    ("GET", "/v1/unknown", None),
    ("GET", "/v1/chat/completions", None),
    ("OPTIONS", "/v1/messages", None),
    ("POST", "/unknown", "{}"),
    ("POST", "/v1/chat/completions", "no JSON"),
    ("POST", "/v1/messages", "{"),
    ("POST", "/v1/responses", "[1]"),
]
# A failed credential rests for 60 s.
REST = 61


def send_all_unauthenticated(proxy):
    for method, path, body in UNAUTHENTICATED:
        response = proxy.send(method, path, body)
        equal(response.attempts, 1, f"attempts of {method} {path}: {response}")
        assert response.status not in (401, 403), f"{method} {path}: {response}"


@check
def what_needs_no_token_restores_no_credential(lab):
    with lab.proxy("wrong", "alpha") as proxy:
        served(proxy.ask(CHAT), by="alpha", attempts=2)
        proxy.reload("wrong")
        send_all_unauthenticated(proxy)
        equal(proxy.ask(CHAT).status, 401, "statuses")
        proxy.reload("wrong", "alpha")
        for shape in SHAPES:
            for _ in range(2):
                served(proxy.ask(shape), by="alpha", attempts=1)
        expect_marks(proxy, FAILED.format("wrong"))


@check
def what_needs_no_token_proves_no_credential(lab):
    """Both are wrong, and neither is marked because LiteLLM served its start page."""
    with lab.proxy("wrong", "wrong-2") as proxy:
        for _ in range(2):
            send_all_unauthenticated(proxy)
            equal(proxy.ask(CHAT).attempts, 2, "attempts")
        expect_marks(proxy)


@check
def what_needs_no_token_ends_no_rest(lab):
    slow = fresh("slow")
    with lab.proxy("poor", slow, "alpha") as proxy:
        for _ in range(5):
            served(proxy.ask(CHAT))
        equal(len(proxy.marks()), 2, f"numbers of {proxy.marks()}")
        proxy.reload("poor", slow)
        send_all_unauthenticated(proxy)
        equal(len(proxy.marks()), 2, f"numbers of {proxy.marks()}")


@long_check
def a_failed_credential_is_tried_again_after_a_minute_and_restored_when_accepted(lab):
    """The client is let in from a time on. What needs no token is no probe of it."""
    late = f"late-{int(time.time()) + 20}"
    with lab.proxy(late, "alpha") as proxy:
        served(proxy.ask(CHAT), by="alpha", attempts=2)
        failed = time.monotonic()
        time.sleep(25)
        # It would be let in by now, but rests.
        for _ in range(2):
            served(proxy.ask(CHAT), by="alpha", attempts=1)
        time.sleep(max(0.0, failed + REST - time.monotonic()))
        proxy.reload(late)
        send_all_unauthenticated(proxy)
        expect_marks(proxy, FAILED.format(late))
        proxy.reload(late, "alpha")
        wait_for(f"{late} to serve", lambda: served(proxy.ask(CHAT), attempts=1).config == late)
        expect_marks(proxy, FAILED.format(late), RESTORED.format(late))


@long_check
def a_failed_credential_that_is_still_wrong_fails_again_unseen_by_the_client(lab):
    with lab.proxy("wrong", "alpha") as proxy:
        served(proxy.ask(CHAT), by="alpha", attempts=2)
        time.sleep(REST)
        attempts = [served(proxy.ask(CHAT), by="alpha").attempts for _ in range(4)]
        equal(sorted(attempts), [1, 1, 1, 2], "attempts")
        expect_marks(proxy, FAILED.format("wrong"), FAILED.format("wrong"))


@long_check
def a_limited_credential_serves_again_after_the_time_told(lab):
    slow = fresh("slow")
    with lab.proxy(slow, "alpha") as proxy:
        served(proxy.ask(CHAT), by=slow, attempts=1)
        served(proxy.use(CHAT, slow), by="alpha", attempts=2)
        time.sleep(REST + 1)
        used = {served(proxy.ask(CHAT), attempts=1).config for _ in range(2)}
        equal(used, {slow, "alpha"}, "configurations")
        equal(len(proxy.marks()), 1, f"numbers of {proxy.marks()}")
