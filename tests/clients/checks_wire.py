"""What goes over the wire: requests and answers untouched, streams as they come, and cancelling."""

import gzip
import json
import threading
import time

import events
import sdks
from checks_broken import Arrival
from checks_demo import succeeded
from checks_errors import whole_answer
from harness import Check, equal, side_by_side, wait_for

# What the proxy sets itself (Authorization, Host, x-request-id), or what belongs to a connection.
OWN_FIELDS = {"authorization", "host", "x-request-id", "connection", "keep-alive", "te"}
# What differs from request to request whoever carries it.
VARYING_FIELDS = {"x-scenario", "idempotency-key", "traceparent", "x-stainless-read-timeout"}
GONE_SECONDS = 1.0


def checks(lab):
    for sdk in lab.sdks:
        named = lambda title, run, s=sdk: Check(f"{s.name}: {title}", lambda: run(lab, s))
        yield named("a request with tools reaches the upstream as it was sent", untouched)
        yield named("a tool call comes back as it was answered", tool_call)
        yield named("compressed answers and streams are decoded", compressed)
        yield named("every event arrives before the next is sent", lockstep)
        yield named("a client that leaves a stream ends it upstream", leaves_stream)
        yield named("a client that gives up before the head ends it upstream", gives_up)
    title = "all SDKs: a stream that is silent again and again goes on"
    yield Check(title, lambda: side_by_side(lab, silence))


def conversation_with_tools(sdk):
    """A second turn: the tool was called, its result is handed in."""
    arguments = {"city": events.CITY, "n": [1, -1.5e-3, None, True]}
    if sdk.dialect == "openai":
        call = {"name": "weather", "arguments": json.dumps(arguments)}
        calls = [{"id": "call_1", "type": "function", "function": call}]
        result = {"role": "tool", "tool_call_id": "call_1", "content": events.CITY}
        answer = {"role": "assistant", "content": None, "tool_calls": calls}
        parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
        tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    else:
        block = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": arguments}
        answer = {"role": "assistant", "content": [block]}
        block = {"type": "tool_result", "tool_use_id": "toolu_1", "content": events.CITY}
        result = {"role": "user", "content": [block]}
        schema = {"type": "object", "properties": {"city": {"type": "string"}}}
        tool = {"name": "weather", "input_schema": schema}
    question = {"role": "user", "content": sdks.PROMPT}
    return {"messages": [question, answer, result], "tools": [tool]}


def untouched(lab, sdk):
    """The same request directly and through the proxy: the upstream sees the same."""
    more = conversation_with_tools(sdk)
    with lab.upstream.script(lambda it: it.answer(200, whole_answer(sdk))) as scenario:
        for base in (lab.upstream.url, lab.proxy.url):
            succeeded(sdk.whole(base, scenario, more=more))
        direct, proxied = lab.upstream.requests_of(scenario)
    equal(proxied.method, direct.method, "methods")
    equal(proxied.target, direct.target, "targets")
    equal(proxied.body, direct.body, "bodies")
    equal(proxied.json()["tools"], more["tools"], "tools")
    ignored = OWN_FIELDS | VARYING_FIELDS
    kept = lambda it: [(n.lower(), v) for n, v in it.fields if n.lower() not in ignored]
    equal(sorted(kept(proxied)), sorted(kept(direct)), "fields")
    assert sdks.KEY not in (proxied.field("authorization") or ""), "the client's key went up"


def tool_call(lab, sdk):
    """The text of the arguments is the model's, escapes and spaces included."""
    arguments = '{ "city":\t"S\\u00e3o \\ud83d\\ude00 世界", "n": 1.50 }'
    if sdk.dialect == "openai":
        call = {"name": "weather", "arguments": arguments}
        message = {"role": "assistant", "content": None}
        message["tool_calls"] = [{"id": "call_1", "type": "function", "function": call}]
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        body = {**whole_answer(sdk), "choices": [choice]}
    else:
        block = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"a": arguments}}
        body = {**whole_answer(sdk), "content": [block]}
    with lab.upstream.script(lambda it: it.answer(200, body)) as scenario:
        equal(succeeded(sdk.whole(lab.proxy.url, scenario)).answer, body, "answers")
    wire = events.wire(sdk.dialect)
    with lab.upstream.script(lambda it: send_stream(it, wire.data)) as scenario:
        equal(succeeded(sdk.stream(lab.proxy.url, scenario)).events, wire.events, "events")


def send_stream(conversation, data, fields=()):
    conversation.start_events(fields)
    conversation.chunk(data)
    conversation.end_chunks()


def compressed(lab, sdk):
    encoding = [("Content-Encoding", "gzip")]
    body = gzip.compress(json.dumps(whole_answer(sdk)).encode())
    fields = [("Content-Type", "application/json"), *encoding]
    with lab.upstream.script(lambda it: it.answer(200, body, fields)) as scenario:
        out = succeeded(sdk.whole(lab.proxy.url, scenario))
    equal(out.answer, whole_answer(sdk), "answers")
    wire = events.wire(sdk.dialect)
    data = gzip.compress(wire.data)
    with lab.upstream.script(lambda it: send_stream(it, data, encoding)) as scenario:
        equal(succeeded(sdk.stream(lab.proxy.url, scenario)).events, wire.events, "events")


def lockstep(lab, sdk):
    """The upstream sends an event only when the client has got the one before."""
    wire = events.wire(sdk.dialect)
    got = threading.Semaphore(0)

    def script(conversation):
        conversation.start_events()
        start = 0
        for end in wire.ends:
            conversation.chunk(wire.data[start:end])
            start = end
            arrived.append(got.acquire(timeout=5))
        conversation.chunk(wire.data[start:] or b": end\n\n")
        conversation.end_chunks()

    arrived = []
    with lab.upstream.script(script) as scenario:
        out = succeeded(sdk.stream(lab.proxy.url, scenario, on_event=lambda _: got.release()))
    equal(out.events, wire.events, "events")
    assert all(arrived), f"held back: {arrived}"


def silence(lab, sdk):
    """With a proxy that gives up after 4 s: only silence counts, not the age of the stream."""
    wire = events.wire(sdk.dialect)

    def script(conversation):
        conversation.start_events()
        conversation.chunk(wire.data[: wire.ends[0]])
        for _ in range(2):
            time.sleep(2.5)  # This is the silence that is tried, not a wait for something.
            conversation.chunk(b": still here\n\n")
        conversation.chunk(wire.data[wire.ends[0] :])
        conversation.end_chunks()

    with lab.upstream.script(script) as scenario:
        equal(succeeded(sdk.stream(lab.patient_proxy.url, scenario)).events, wire.events, "events")


def leaves_stream(lab, sdk):
    wire = events.wire(sdk.dialect)

    def script(conversation):
        conversation.start_events()
        conversation.chunk(wire.data[: wire.ends[0]])
        arrived.wait_for_client()
        closed.append(conversation.seconds_until_closed(5))

    arrived, closed = Arrival(1), []
    with lab.upstream.script(script) as scenario:
        sdk.leave_stream(lab.proxy.url, scenario, arrived.note)
        wait_for("the end of the upstream's side", lambda: closed, 6)
    ended_in_time(closed)


def gives_up(lab, sdk):
    """The SDK's own timeout, while the upstream is still thinking."""

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
    assert closed[0] is not None, "the upstream was never told that the client left"
    assert closed[0] < GONE_SECONDS, f"the upstream saw the client leave after {closed[0]:.2f} s"
