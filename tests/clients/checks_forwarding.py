"""Requests and responses pass unchanged, streams without delay; cancelled requests end upstream."""

import gzip
import json
import threading
import time

import events
import sdks
from checks_broken import Arrival
from checks_demo import succeeded
from checks_errors import whole_response
from harness import Check, equal, side_by_side, wait_for

# Headers that the proxy sets itself (Authorization, Host, x-request-id) and hop-by-hop headers.
OWN_HEADERS = {"authorization", "host", "x-request-id", "connection", "keep-alive", "te"}
# Headers that differ from request to request.
VARYING_HEADERS = {"x-scenario", "idempotency-key", "traceparent", "x-stainless-read-timeout"}
GONE_SECONDS = 1.0


def checks(lab):
    for sdk in lab.sdks:
        named = lambda title, run, s=sdk: Check(f"{s.name}: {title}", lambda: run(lab, s))
        yield named("a request with tools reaches the upstream unchanged", untouched)
        yield named("a tool call comes back unchanged", tool_call)
        yield named("compressed responses and streams are decoded", compressed)
        yield named("every event arrives before the next is sent", lockstep)
        yield named("closing a stream ends it upstream", leaves_stream)
        yield named("a timeout before the head ends the request upstream", gives_up)
    title = "all SDKs: a stream with long pauses goes on"
    yield Check(title, lambda: side_by_side(lab, silence))


def conversation_with_tools(sdk):
    """The second request of a tool call: it brings the result."""
    arguments = {"city": events.CITY, "n": [1, -1.5e-3, None, True]}
    if sdk.dialect == "openai":
        call = {"name": "weather", "arguments": json.dumps(arguments)}
        calls = [{"id": "call_1", "type": "function", "function": call}]
        result = {"role": "tool", "tool_call_id": "call_1", "content": events.CITY}
        response = {"role": "assistant", "content": None, "tool_calls": calls}
        parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
        tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    else:
        block = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": arguments}
        response = {"role": "assistant", "content": [block]}
        block = {"type": "tool_result", "tool_use_id": "toolu_1", "content": events.CITY}
        result = {"role": "user", "content": [block]}
        schema = {"type": "object", "properties": {"city": {"type": "string"}}}
        tool = {"name": "weather", "input_schema": schema}
    question = {"role": "user", "content": sdks.PROMPT}
    return {"messages": [question, response, result], "tools": [tool]}


def untouched(lab, sdk):
    """The upstream gets the same request directly and through the proxy."""
    more = conversation_with_tools(sdk)
    with lab.upstream.script(lambda it: it.respond(200, whole_response(sdk))) as scenario:
        for base in (lab.upstream.url, lab.proxy.url):
            succeeded(sdk.whole(base, scenario, more=more))
        direct, proxied = lab.upstream.requests_of(scenario)
    equal(proxied.method, direct.method, "methods")
    equal(proxied.target, direct.target, "targets")
    equal(proxied.body, direct.body, "bodies")
    equal(proxied.json()["tools"], more["tools"], "tools")
    ignored = OWN_HEADERS | VARYING_HEADERS
    kept = lambda it: [(n.lower(), v) for n, v in it.headers if n.lower() not in ignored]
    equal(sorted(kept(proxied)), sorted(kept(direct)), "headers")
    assert sdks.KEY not in (proxied.header("authorization") or ""), "the client's key was forwarded"


def tool_call(lab, sdk):
    """The text of the arguments is unchanged, including escapes and spaces."""
    arguments = '{ "city":\t"S\\u00e3o \\ud83d\\ude00 世界", "n": 1.50 }'
    if sdk.dialect == "openai":
        call = {"name": "weather", "arguments": arguments}
        message = {"role": "assistant", "content": None}
        message["tool_calls"] = [{"id": "call_1", "type": "function", "function": call}]
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        body = {**whole_response(sdk), "choices": [choice]}
    else:
        block = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"a": arguments}}
        body = {**whole_response(sdk), "content": [block]}
    with lab.upstream.script(lambda it: it.respond(200, body)) as scenario:
        equal(succeeded(sdk.whole(lab.proxy.url, scenario)).response, body, "responses")
    stream = events.stream(sdk.dialect)
    with lab.upstream.script(lambda it: send_stream(it, stream.data)) as scenario:
        equal(succeeded(sdk.stream(lab.proxy.url, scenario)).events, stream.events, "events")


def send_stream(conversation, data, headers=()):
    conversation.start_events(headers)
    conversation.chunk(data)
    conversation.end_chunks()


def compressed(lab, sdk):
    encoding = [("Content-Encoding", "gzip")]
    body = gzip.compress(json.dumps(whole_response(sdk)).encode())
    headers = [("Content-Type", "application/json"), *encoding]
    with lab.upstream.script(lambda it: it.respond(200, body, headers)) as scenario:
        out = succeeded(sdk.whole(lab.proxy.url, scenario))
    equal(out.response, whole_response(sdk), "responses")
    stream = events.stream(sdk.dialect)
    data = gzip.compress(stream.data)
    with lab.upstream.script(lambda it: send_stream(it, data, encoding)) as scenario:
        equal(succeeded(sdk.stream(lab.proxy.url, scenario)).events, stream.events, "events")


def lockstep(lab, sdk):
    """The upstream sends an event only after the client has received the one before."""
    stream = events.stream(sdk.dialect)
    got = threading.Semaphore(0)

    def script(conversation):
        conversation.start_events()
        start = 0
        for end in stream.ends:
            conversation.chunk(stream.data[start:end])
            start = end
            arrived.append(got.acquire(timeout=5))
        conversation.chunk(stream.data[start:] or b": end\n\n")
        conversation.end_chunks()

    arrived = []
    with lab.upstream.script(script) as scenario:
        out = succeeded(sdk.stream(lab.proxy.url, scenario, on_event=lambda _: got.release()))
    equal(out.events, stream.events, "events")
    assert all(arrived), f"held back: {arrived}"


def silence(lab, sdk):
    """With `--upstream-timeout 4`: only silence counts, not the age of the stream."""
    stream = events.stream(sdk.dialect)

    def script(conversation):
        conversation.start_events()
        conversation.chunk(stream.data[: stream.ends[0]])
        for _ in range(2):
            time.sleep(2.5)  # The pause that is tested, not a wait for a condition.
            conversation.chunk(b": still here\n\n")
        conversation.chunk(stream.data[stream.ends[0] :])
        conversation.end_chunks()

    with lab.upstream.script(script) as scenario:
        equal(succeeded(sdk.stream(lab.patient_proxy.url, scenario)).events, stream.events, "events")


def leaves_stream(lab, sdk):
    stream = events.stream(sdk.dialect)

    def script(conversation):
        conversation.start_events()
        conversation.chunk(stream.data[: stream.ends[0]])
        arrived.wait_for_client()
        closed.append(conversation.seconds_until_closed(5))

    arrived, closed = Arrival(1), []
    with lab.upstream.script(script) as scenario:
        sdk.leave_stream(lab.proxy.url, scenario, arrived.note)
        wait_for("the end of the upstream's side", lambda: closed, 6)
    ended_in_time(closed)


def gives_up(lab, sdk):
    """The SDK's own timeout expires before the response begins."""

    def script(conversation):
        started = time.monotonic()
        seconds = conversation.seconds_until_closed(6)
        closed.append(seconds and time.monotonic() - started - 0.7)

    closed = []
    with lab.upstream.script(script) as scenario:
        error = sdk.whole(lab.proxy.url, scenario, timeout=0.7).error
        wait_for("the end of the upstream's side", lambda: closed, 7)
    assert error and error.is_own, f"raised {error}"
    ended_in_time(closed)


def ended_in_time(closed):
    assert closed[0] is not None, "the upstream's connection was not closed when the client closed its own"
    assert closed[0] < GONE_SECONDS, f"the upstream's connection was closed only after {closed[0]:.2f} s"
