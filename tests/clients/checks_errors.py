"""Errors of the proxy's own and of the upstream, as the SDKs show them; and what SDKs retry."""

import threading
import time

from checks_broken import raised
from checks_demo import succeeded
from harness import Check, Proxy, credentials, equal, side_by_side

ANSWER = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": []}
MESSAGE = {"id": "1", "type": "message", "role": "assistant", "model": "m", "content": []}


def checks(lab):
    for sdk in lab.sdks:
        named = lambda title, run, s=sdk: Check(f"{s.name}: {title}", lambda: run(lab, s))
        yield named("502 upstream_unreachable", unreachable)
        yield named("504 upstream_timeout", timeout)
        yield named("413 body_too_large", too_large)
        yield named("404 not_found", not_found)
        yield named("an error of the upstream's is shown as it is", upstreams_own)
        yield named("401 from everybody is passed on once", all_rejected)
        yield named("429 is retried by the SDK when the upstream said", retried_429)
        yield named("503 is retried by the SDK", retried_503)
        yield named("429 to one credential goes unnoticed", limited)


    yield Check("all SDKs: 503 overloaded is retried, and then served", lambda: overloaded(lab))


def whole_answer(sdk):
    return ANSWER if sdk.dialect == "openai" else MESSAGE


def shows(sdk, out, status, code, kind):
    """`code` is OpenAI's, `kind` Anthropic's: their formats hold one of the two."""
    error = raised(out, "flow-proxy: ")
    equal(error.status, status, "status codes")
    equal(error.code, code if sdk.dialect == "openai" else kind, "codes")
    return error


def unreachable(lab, sdk):
    for run in (sdk.whole, sdk.stream):
        shows(sdk, run(lab.lost_proxy.url), 502, "upstream_unreachable", "api_error")


def timeout(lab, sdk):
    with lab.upstream.script(lambda it: it.seconds_until_closed()) as scenario:
        out = sdk.whole(lab.strict_proxy.url, scenario)
    shows(sdk, out, 504, "upstream_timeout", "timeout_error")


def too_large(lab, sdk):
    """The SDK is still sending when it is answered; it must see the answer all the same."""
    for size in (20_000, 3_000_000):
        more = {"metadata": {"user_id": "x" * size}}
        out = sdk.whole(lab.strict_proxy.url, more=more)
        shows(sdk, out, 413, "body_too_large", "request_too_large")


def not_found(lab, sdk):
    """Under /-/ nothing is forwarded; the path is in no dialect, so the answer is OpenAI's."""
    out = sdk.models(f"{lab.proxy.url}/-/nowhere")
    shows(sdk, out, 404, "not_found", "invalid_request_error")


def upstreams_own(lab, sdk):
    error = {"type": "invalid_request_error", "message": "max_tokens: 世界", "code": "400"}
    body = {"type": "error", "error": error}
    with lab.upstream.script(lambda it: it.answer(400, body)) as scenario:
        error = raised(sdk.whole(lab.proxy.url, scenario), "max_tokens: 世界")
    equal((error.status, error.kind), (400, "BadRequestError"), "errors")
    equal(len(lab.upstream.requests_of(scenario)), 1, "requests upstream")


def all_rejected(lab, sdk):
    """At most three attempts, the last answer, and no less than before in the pool."""
    body = {"type": "error", "error": {"message": "no such key", "type": "auth", "code": "401"}}
    with lab.upstream.script(lambda it: it.answer(401, body)) as scenario:
        error = raised(sdk.whole(lab.proxy.url, scenario), "no such key")
        equal((error.status, error.kind), (401, "AuthenticationError"), "errors")
        equal(len(lab.upstream.requests_of(scenario)), 3, "requests upstream")
    with lab.upstream.script(lambda it: it.answer(200, whole_answer(sdk))) as scenario:
        succeeded(sdk.whole(lab.proxy.url, scenario))


def retried_429(lab, sdk):
    retried(lab, sdk, 429)


def retried_503(lab, sdk):
    retried(lab, sdk, 503)


def retried(lab, sdk, status):
    """With one credential alone the proxy passes the answer on, and the SDK tries again."""

    def script(conversation):
        if len(lab.upstream.requests_of(scenario)) == 1:
            fields = [("retry-after-ms", "50"), ("x-should-retry", "true")]
            conversation.answer(status, {"error": {"message": "later"}}, fields)
        else:
            conversation.answer(200, whole_answer(sdk))

    with lab.upstream.script(script) as scenario:
        started = time.monotonic()
        succeeded(sdk.whole(lab.single_proxy.url, scenario, retries=2))
        seconds = time.monotonic() - started
        counts = [it.field("x-stainless-retry-count") for it in lab.upstream.requests_of(scenario)]
    equal(counts, ["0", "1"], "retry counts")
    assert seconds < 2, f"retry-after-ms 50 was waited for {seconds:.1f} s"


def limited(lab, sdk):
    """The next credential answers: the SDK, which may not retry here, sees nothing of it."""

    def script(conversation):
        if len(lab.upstream.requests_of(scenario)) == 1:
            conversation.answer(429, {"error": {"message": "later"}}, [("Retry-After", "1")])
        else:
            conversation.answer(200, whole_answer(sdk))

    with Proxy("--target-url", lab.upstream.url) as proxy:
        with lab.upstream.script(script) as scenario:
            succeeded(sdk.whole(proxy.url, scenario))
            keys = [it.field("authorization") for it in lab.upstream.requests_of(scenario)]
        equal(len(set(keys)), 2, "credentials")


def overloaded(lab):
    """Takes seconds, so the SDKs are tried side by side, each with a proxy of its own."""
    side_by_side(lab, overloaded_once)


def overloaded_once(lab, sdk):
    """One worker, taken: 503 after 5 s in the queue, the SDK waits a second and is served."""

    def hold(conversation):
        conversation.start_events()
        conversation.chunk(b": held\n\n")
        holding.set()
        release.wait(20)
        conversation.end_chunks()

    holding, release = threading.Event(), threading.Event()
    arguments = ("--target-url", lab.upstream.url, "--workers", "1")
    with Proxy(*arguments, secrets=credentials(1)) as proxy, lab.upstream.script(hold) as first:
        threading.Thread(target=sdk.stream, args=(proxy.url, first), daemon=True).start()
        assert holding.wait(5), "the first stream did not start"
        # Behind the 503, before the next try has waited its 5 s.
        threading.Timer(6.5, release.set).start()
        with lab.upstream.script(lambda it: it.answer(200, whole_answer(sdk))) as scenario:
            succeeded(sdk.whole(proxy.url, scenario, retries=1))
            count = lab.upstream.requests_of(scenario)[0].field("x-stainless-retry-count")
        equal(count, "1", f"{sdk.name}: retry counts")
