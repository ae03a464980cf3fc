"""Errors of the proxy and of the upstream, as the SDKs show them; and what SDKs retry."""

import threading
import time

from checks_broken import raised
from checks_demo import succeeded
from harness import Check, Proxy, credentials, equal, side_by_side

RESPONSE = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": []}
MESSAGE = {"id": "1", "type": "message", "role": "assistant", "model": "m", "content": []}


def checks(lab):
    for sdk in lab.sdks:
        named = lambda title, run, s=sdk: Check(f"{s.name}: {title}", lambda: run(lab, s))
        yield named("502 upstream_unreachable", unreachable)
        yield named("504 upstream_timeout", timeout)
        yield named("413 body_too_large", too_large)
        yield named("404 not_found", not_found)
        yield named("an error of the upstream is shown unchanged", upstreams_own)
        yield named("401 for all credentials is passed on", all_rejected)
        yield named("429 is retried by the SDK if the upstream says so", retried_429)
        yield named("503 is retried by the SDK", retried_503)
        yield named("429 for one credential goes unnoticed", limited)
    yield Check("all SDKs: 503 overloaded is retried, and then served", lambda: overloaded(lab))


def whole_response(sdk):
    return RESPONSE if sdk.dialect == "openai" else MESSAGE


def shows(sdk, out, status, code, kind):
    """`code` is OpenAI's, `kind` Anthropic's: each format has only one of them."""
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
    """The response comes while the SDK is still sending; the SDK must still get it."""
    for size in (20_000, 3_000_000):
        more = {"metadata": {"user_id": "x" * size}}
        out = sdk.whole(lab.strict_proxy.url, more=more)
        shows(sdk, out, 413, "body_too_large", "request_too_large")


def not_found(lab, sdk):
    """Nothing under /-/ is forwarded; the path belongs to neither API, so OpenAI's format is used."""
    out = sdk.models(f"{lab.proxy.url}/-/nowhere")
    shows(sdk, out, 404, "not_found", "invalid_request_error")


def upstreams_own(lab, sdk):
    error = {"type": "invalid_request_error", "message": "max_tokens: 世界", "code": "400"}
    body = {"type": "error", "error": error}
    with lab.upstream.script(lambda it: it.respond(400, body)) as scenario:
        error = raised(sdk.whole(lab.proxy.url, scenario), "max_tokens: 世界")
    equal((error.status, error.kind), (400, "BadRequestError"), "errors")
    equal(len(lab.upstream.requests_of(scenario)), 1, "requests upstream")


def all_rejected(lab, sdk):
    """At most three attempts, the last response is passed on, and all credentials stay available."""
    body = {"type": "error", "error": {"message": "no such key", "type": "auth", "code": "401"}}
    with lab.upstream.script(lambda it: it.respond(401, body)) as scenario:
        error = raised(sdk.whole(lab.proxy.url, scenario), "no such key")
        equal((error.status, error.kind), (401, "AuthenticationError"), "errors")
        equal(len(lab.upstream.requests_of(scenario)), 3, "requests upstream")
    with lab.upstream.script(lambda it: it.respond(200, whole_response(sdk))) as scenario:
        succeeded(sdk.whole(lab.proxy.url, scenario))


def retried_429(lab, sdk):
    retried(lab, sdk, 429)


def retried_503(lab, sdk):
    retried(lab, sdk, 503)


def retried(lab, sdk, status):
    """With a single credential the proxy passes the response on, and the SDK retries."""

    def script(conversation):
        if len(lab.upstream.requests_of(scenario)) == 1:
            headers = [("retry-after-ms", "50"), ("x-should-retry", "true")]
            conversation.respond(status, {"error": {"message": "later"}}, headers)
        else:
            conversation.respond(200, whole_response(sdk))

    with lab.upstream.script(script) as scenario:
        started = time.monotonic()
        succeeded(sdk.whole(lab.single_proxy.url, scenario, retries=2))
        seconds = time.monotonic() - started
        counts = [it.header("x-stainless-retry-count") for it in lab.upstream.requests_of(scenario)]
    equal(counts, ["0", "1"], "retry counts")
    assert seconds < 2, f"with retry-after-ms 50 the SDK took {seconds:.1f} s"


def limited(lab, sdk):
    """The next credential gets a 200: the SDK, which may not retry here, does not notice."""

    def script(conversation):
        if len(lab.upstream.requests_of(scenario)) == 1:
            conversation.respond(429, {"error": {"message": "later"}}, [("Retry-After", "1")])
        else:
            conversation.respond(200, whole_response(sdk))

    with Proxy("--target-url", lab.upstream.url) as proxy:
        with lab.upstream.script(script) as scenario:
            succeeded(sdk.whole(proxy.url, scenario))
            keys = [it.header("authorization") for it in lab.upstream.requests_of(scenario)]
        equal(len(set(keys)), 2, "credentials")


def overloaded(lab):
    """Takes seconds, so the SDKs run at the same time, each with its own proxy."""
    side_by_side(lab, overloaded_once)


def overloaded_once(lab, sdk):
    """The one worker is busy: 503 after 5 s in the queue; the SDK waits 1 s and is served."""

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
        # After the 503, before the second request has waited its 5 s.
        threading.Timer(6.5, release.set).start()
        with lab.upstream.script(lambda it: it.respond(200, whole_response(sdk))) as scenario:
            succeeded(sdk.whole(proxy.url, scenario, retries=1))
            count = lab.upstream.requests_of(scenario)[0].header("x-stainless-retry-count")
        equal(count, "1", f"{sdk.name}: retry counts")
