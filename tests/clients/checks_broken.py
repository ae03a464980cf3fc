"""Upstreams that break off: an SDK raises its own error with our message, and never takes half an
event for a whole one, wherever the stream was cut."""

import collections
import gzip
import json
import socket
import threading
import time

import events
from harness import Check, Proxy, contains, equal

CLOSED = "flow-proxy: the upstream closed the connection before the answer was complete"
SILENT = "flow-proxy: the upstream fell silent before the answer was complete"
STOPPED = "flow-proxy: the proxy was stopped before the answer was complete"
LINE_ENDS = {"LF": b"\n", "CRLF": b"\r\n", "CR": b"\r"}


def checks(lab):
    for sdk in lab.sdks:
        named = lambda title, run, *args, s=sdk: Check(
            f"{s.name}: {title}", lambda: run(lab, s, *args)
        )
        yield named("a stream sent byte by byte is the same stream", byte_by_byte)
        yield named("cut at every byte (LF)", sweep, "LF", 1)
        yield named("cut at every third byte (CRLF)", sweep, "CRLF", 3)
        yield named("cut at every third byte (CR)", sweep, "CR", 3)
        yield named("cut in the middle of a chunk, at every fifth byte", sweep, "LF", 5, "chunk")
        yield named("cut at every 11th byte, each byte sent alone", sweep, "LF", 11, "bytes")
        yield named("a reset instead of a close", reset)
        yield named("an event longer than is remembered, cut", long_event)
        yield named("a compressed stream, cut, yields no half event", compressed)
        yield named("a stream that falls silent", falls_silent)
        yield named("the proxy is stopped in the middle of a stream", stopped)
        yield named("closed before the head", before_head, b"")
        yield named("closed in the middle of the head", before_head, b"HTTP/1.1 200 OK\r\nContent-")
        yield named("short of Content-Length", short)
        yield named("a chunked answer in one piece, cut", chunked_whole)


def raised(out, message=None):
    """The error, which must be one of the SDK's own types."""
    assert out.error, f"raised nothing; answer {out.answer!r}, {len(out.events)} events"
    assert out.error.is_own, f"raised {out.error.kind}, not of its own: {out.error.message}"
    if message:
        contains(out.error.message, message)
    return out.error


def send_cut(conversation, data, cut, how):
    """The first `cut` bytes, then the end, without the last chunk."""
    conversation.start_events()
    piece = data[:cut]
    if how == "bytes":
        for index in range(cut):
            conversation.chunk(piece[index : index + 1])
    elif how == "chunk":
        conversation.chunk(piece, declared=len(data) + 1)
    elif piece:
        conversation.chunk(piece)
    conversation.close()


def byte_by_byte(lab, sdk):
    for name, line_end in LINE_ENDS.items():
        wire = events.wire(sdk.dialect, line_end)

        def script(conversation):
            conversation.start_events()
            for index in range(len(wire.data)):
                conversation.chunk(wire.data[index : index + 1])
            conversation.end_chunks()

        with lab.upstream.script(script) as scenario:
            out = sdk.stream(lab.proxy.url, scenario)
        assert out.error is None, f"{name}: raised {out.error}"
        equal(out.events, wire.events, f"{name}: events")


def sweep(lab, sdk, line_end, step, how="write"):
    """Cuts a stream at each position, and counts in which ways that goes wrong."""
    wire = events.wire(sdk.dialect, LINE_ENDS[line_end])
    failures = collections.defaultdict(list)
    for cut in range(0, len(wire.data), step):
        script = lambda conversation, cut=cut: send_cut(conversation, wire.data, cut, how)
        with lab.upstream.script(script) as scenario:
            out = sdk.stream(lab.proxy.url, scenario)
            fault = fault_of(out, wire, cut)
            if fault:
                failures[fault].append((cut, out, raw(lab, sdk, scenario, fault, failures)))
    report = [explained(fault, cases, wire) for fault, cases in failures.items()]
    assert not report, "\n".join(report)


def fault_of(out, wire, cut):
    """What is wrong with what the SDK made of the stream that was cut here, or None."""
    count = len(out.events)
    if out.events != wire.events[:count]:
        return "yields what was not sent"
    if not wire.whole_at(cut) <= count <= wire.readable_at(cut):
        return "yields too few events" if count < wire.whole_at(cut) else "yields half an event"
    if out.error is None:
        # Within the line [DONE] all events have been sent.
        is_done = cut >= wire.ends[-1] + len("data: [") and wire.complete_from > wire.ends[-1]
        return None if is_done else "raises nothing"
    if not out.error.is_own:
        return f"raises {out.error.kind}"
    # Data that was whole, but for its empty line, is what some SDKs make their message of.
    is_between = wire.readable_at(cut) > wire.whole_at(cut)
    if CLOSED not in out.error.message and not is_between:
        return "raises without our message"
    return None


def raw(lab, sdk, scenario, fault, failures):
    """What is on the wire, for the first case of each fault."""
    if failures[fault]:
        return b""
    path = "/v1/chat/completions" if sdk.dialect == "openai" else "/v1/messages"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nx-scenario: {scenario}\r\n"
    received = b""
    with socket.create_connection(("127.0.0.1", lab.proxy.port), timeout=10) as connection:
        connection.sendall((head + "Connection: close\r\nContent-Length: 2\r\n\r\n{}").encode())
        while piece := connection.recv(65536):
            received += piece
    return received.split(b"\r\n\r\n", 1)[1]


def explained(fault, cases, wire):
    cut, out, received = cases[0]
    return (
        f"{fault}: {len(cases)} cuts, at {[case[0] for case in cases][:40]}\n"
        f"  first: sent …{wire.data[max(0, cut - 60) : cut]!r}\n"
        f"  answered …{received[-500:]!r}\n"
        f"  {len(out.events)} events, error {out.error}"
    )


def reset(lab, sdk):
    wire = events.wire(sdk.dialect)

    def script(conversation):
        conversation.start_events()
        conversation.chunk(wire.data[: wire.ends[1] + 40])
        arrived.wait_for_client()
        conversation.reset()

    arrived = Arrival(2)
    with lab.upstream.script(script) as scenario:
        out = sdk.stream(lab.proxy.url, scenario, on_event=arrived.note)
    raised(out, CLOSED)
    equal(out.events, wire.events[:2], "events")


class Arrival:
    """Tells a script when the client has got a number of events."""

    def __init__(self, count):
        self.count, self.event = count, threading.Event()

    def note(self, so_far):
        if so_far >= self.count:
            self.event.set()

    def wait_for_client(self):
        assert self.event.wait(10), f"{self.count} events did not reach the client in 10 s"


def long_event(lab, sdk):
    """Over 64 KiB of an event, which is more than the proxy remembers of it."""
    wire = events.wire(sdk.dialect)
    cut = wire.ends[0]
    name = b"" if sdk.dialect == "openai" else b"event: content_block_delta\n"
    data = wire.data[:cut] + name + b'data: {"type":"content_block_delta","x":"' + b"y" * 200_000
    script = lambda conversation: send_cut(conversation, data, len(data), "write")
    with lab.upstream.script(script) as scenario:
        out = sdk.stream(lab.proxy.url, scenario)
    equal(out.events, wire.events[:1], "events")
    raised(out)


def compressed(lab, sdk):
    """No frame can be put into it: what counts is that it does not look whole."""
    wire = events.wire(sdk.dialect)
    data = gzip.compress(wire.data)

    def script(conversation):
        conversation.start_events([("Content-Encoding", "gzip")])
        conversation.chunk(data[: len(data) * 2 // 3])
        conversation.close()

    with lab.upstream.script(script) as scenario:
        out = sdk.stream(lab.proxy.url, scenario)
    assert out.error, f"raised nothing after {len(out.events)} events"
    equal(out.events, wire.events[: len(out.events)], "events")


def falls_silent(lab, sdk):
    wire = events.wire(sdk.dialect)

    def script(conversation):
        conversation.start_events()
        conversation.chunk(wire.data[: wire.ends[0]])
        closed.append(conversation.seconds_until_closed())

    closed = []
    with lab.upstream.script(script) as scenario:
        started = time.monotonic()
        out = sdk.stream(lab.strict_proxy.url, scenario)
        seconds = time.monotonic() - started
    raised(out, SILENT)
    equal(out.events, wire.events[:1], "events")
    # The machine may be busy; the SDK itself would wait 15 s.
    assert 0.9 < seconds < 10, f"--upstream-timeout 1 ended the stream after {seconds:.1f} s"


def stopped(lab, sdk):
    wire = events.wire(sdk.dialect)

    def script(conversation):
        conversation.start_events()
        conversation.chunk(wire.data[: wire.ends[0] + 30])
        arrived.wait_for_client()
        proxy.terminate()
        conversation.seconds_until_closed()

    arrived = Arrival(1)
    with Proxy("--target-url", lab.upstream.url, "--shutdown-timeout", "0") as proxy:
        with lab.upstream.script(script) as scenario:
            out = sdk.stream(proxy.url, scenario, on_event=arrived.note)
        raised(out, STOPPED)
        equal(out.events, wire.events[:1], "events")
        equal(proxy.process.wait(5), 0, "exit codes")


def before_head(lab, sdk, piece):
    def script(conversation):
        conversation.send(piece)
        conversation.close()

    for run in (sdk.whole, sdk.stream):
        with lab.upstream.script(script) as scenario:
            error = raised(run(lab.proxy.url, scenario), "flow-proxy: ")
        equal(error.status, 502, "status codes")
        equal(error.code, "upstream_broke" if sdk.dialect == "openai" else "api_error", "codes")


def short(lab, sdk):
    def script(conversation):
        body = json.dumps({"id": "x" * 2000}).encode()
        fields = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        conversation.head(200, fields)
        conversation.send(body[:-700])
        conversation.close()

    half_answer(lab, sdk, script)


def chunked_whole(lab, sdk):
    def script(conversation):
        fields = [("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")]
        conversation.head(200, fields)
        # Whole JSON, so that only the missing end can tell.
        conversation.chunk(b'{"id":"1","choices":[],"content":[]}')
        conversation.close()

    half_answer(lab, sdk, script)


def half_answer(lab, sdk, script):
    """No message of ours can be put in here. The SDKs for Node let fetch's own error through."""
    with lab.upstream.script(script) as scenario:
        out = sdk.whole(lab.proxy.url, scenario)
    assert out.error, f"took half an answer for a whole one: {out.answer!r}"
    if "Python" in sdk.name:
        equal(raised(out).kind, "APIConnectionError", "errors")
