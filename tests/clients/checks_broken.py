"""Upstreams that break off: wherever the stream was cut, an SDK raises its own error with the proxy's
message and never yields an incomplete event."""

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
        yield named("an event longer than the proxy remembers, cut", long_event)
        yield named("a compressed stream, cut, yields no incomplete event", compressed)
        yield named("a stream that falls silent", falls_silent)
        yield named("the proxy is stopped in the middle of a stream", stopped)
        yield named("closed before the head", before_head, b"")
        yield named("closed in the middle of the head", before_head, b"HTTP/1.1 200 OK\r\nContent-")
        yield named("short of Content-Length", short)
        yield named("a chunked response, not a stream, cut", chunked_whole)


def raised(out, message=None):
    """Returns the error, which must be of one of the SDK's own types."""
    assert out.error, f"raised nothing; response {out.response!r}, {len(out.events)} events"
    assert out.error.is_own, f"raised {out.error.kind}, not a type of the SDK: {out.error.message}"
    if message:
        contains(out.error.message, message)
    return out.error


def send_cut(conversation, data, cut, how):
    """Sends the first `cut` bytes, then closes without the last chunk."""
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
        stream = events.stream(sdk.dialect, line_end)

        def script(conversation):
            conversation.start_events()
            for index in range(len(stream.data)):
                conversation.chunk(stream.data[index : index + 1])
            conversation.end_chunks()

        with lab.upstream.script(script) as scenario:
            out = sdk.stream(lab.proxy.url, scenario)
        assert out.error is None, f"{name}: raised {out.error}"
        equal(out.events, stream.events, f"{name}: events")


def sweep(lab, sdk, line_end, step, how="write"):
    """Cuts a stream at every position, and collects what goes wrong by kind."""
    stream = events.stream(sdk.dialect, LINE_ENDS[line_end])
    failures = collections.defaultdict(list)
    for cut in range(0, len(stream.data), step):
        script = lambda conversation, cut=cut: send_cut(conversation, stream.data, cut, how)
        with lab.upstream.script(script) as scenario:
            out = sdk.stream(lab.proxy.url, scenario)
            fault = fault_of(out, stream, cut)
            if fault:
                failures[fault].append((cut, out, raw(lab, sdk, scenario, fault, failures)))
    report = [explained(fault, cases, stream) for fault, cases in failures.items()]
    assert not report, "\n".join(report)


def fault_of(out, stream, cut):
    """Says what is wrong with the SDK's result for a stream that was cut here; None: nothing."""
    count = len(out.events)
    if out.events != stream.events[:count]:
        return "yields what was not sent"
    if not stream.whole_at(cut) <= count <= stream.readable_at(cut):
        return "yields too few events" if count < stream.whole_at(cut) else "yields an incomplete event"
    if out.error is None:
        # Within the line [DONE], all events have been sent already.
        is_done = cut >= stream.ends[-1] + len("data: [") and stream.complete_from > stream.ends[-1]
        return None if is_done else "raises nothing"
    if not out.error.is_own:
        return f"raises {out.error.kind}"
    # Some SDKs take their message from data that was complete except for its empty line.
    is_between = stream.readable_at(cut) > stream.whole_at(cut)
    if CLOSED not in out.error.message and not is_between:
        return "raises without the proxy's message"
    return None


def raw(lab, sdk, scenario, fault, failures):
    """Returns the raw response for the first case of each fault."""
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


def explained(fault, cases, stream):
    cut, out, received = cases[0]
    return (
        f"{fault}: {len(cases)} cuts, at {[case[0] for case in cases][:40]}\n"
        f"  first: sent …{stream.data[max(0, cut - 60) : cut]!r}\n"
        f"  received …{received[-500:]!r}\n"
        f"  {len(out.events)} events, error {out.error}"
    )


def reset(lab, sdk):
    stream = events.stream(sdk.dialect)

    def script(conversation):
        conversation.start_events()
        conversation.chunk(stream.data[: stream.ends[1] + 40])
        arrived.wait_for_client()
        conversation.reset()

    arrived = Arrival(2)
    with lab.upstream.script(script) as scenario:
        out = sdk.stream(lab.proxy.url, scenario, on_event=arrived.note)
    raised(out, CLOSED)
    equal(out.events, stream.events[:2], "events")


class Arrival:
    """Lets a script wait until the client has received a number of events."""

    def __init__(self, count):
        self.count, self.event = count, threading.Event()

    def note(self, so_far):
        if so_far >= self.count:
            self.event.set()

    def wait_for_client(self):
        assert self.event.wait(10), f"{self.count} events did not reach the client in 10 s"


def long_event(lab, sdk):
    """An event over 64 KiB, more than the proxy remembers of it."""
    stream = events.stream(sdk.dialect)
    cut = stream.ends[0]
    name = b"" if sdk.dialect == "openai" else b"event: content_block_delta\n"
    data = stream.data[:cut] + name + b'data: {"type":"content_block_delta","x":"' + b"y" * 200_000
    script = lambda conversation: send_cut(conversation, data, len(data), "write")
    with lab.upstream.script(script) as scenario:
        out = sdk.stream(lab.proxy.url, scenario)
    equal(out.events, stream.events[:1], "events")
    raised(out)


def compressed(lab, sdk):
    """No error event can be inserted: the stream just must not look complete."""
    stream = events.stream(sdk.dialect)
    data = gzip.compress(stream.data)

    def script(conversation):
        conversation.start_events([("Content-Encoding", "gzip")])
        conversation.chunk(data[: len(data) * 2 // 3])
        conversation.close()

    with lab.upstream.script(script) as scenario:
        out = sdk.stream(lab.proxy.url, scenario)
    assert out.error, f"raised nothing after {len(out.events)} events"
    equal(out.events, stream.events[: len(out.events)], "events")


def falls_silent(lab, sdk):
    stream = events.stream(sdk.dialect)

    def script(conversation):
        conversation.start_events()
        conversation.chunk(stream.data[: stream.ends[0]])
        closed.append(conversation.seconds_until_closed())

    closed = []
    with lab.upstream.script(script) as scenario:
        started = time.monotonic()
        out = sdk.stream(lab.strict_proxy.url, scenario)
        seconds = time.monotonic() - started
    raised(out, SILENT)
    equal(out.events, stream.events[:1], "events")
    # The machine may be busy; the SDK itself would wait 15 s.
    assert 0.9 < seconds < 10, f"--upstream-timeout 1 ended the stream after {seconds:.1f} s"


def stopped(lab, sdk):
    stream = events.stream(sdk.dialect)

    def script(conversation):
        conversation.start_events()
        conversation.chunk(stream.data[: stream.ends[0] + 30])
        arrived.wait_for_client()
        proxy.terminate()
        conversation.seconds_until_closed()

    arrived = Arrival(1)
    with Proxy("--target-url", lab.upstream.url, "--shutdown-timeout", "0") as proxy:
        with lab.upstream.script(script) as scenario:
            out = sdk.stream(proxy.url, scenario, on_event=arrived.note)
        raised(out, STOPPED)
        equal(out.events, stream.events[:1], "events")
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
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        conversation.head(200, headers)
        conversation.send(body[:-700])
        conversation.close()

    incomplete_response(lab, sdk, script)


def chunked_whole(lab, sdk):
    def script(conversation):
        headers = [("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")]
        conversation.head(200, headers)
        # Complete JSON, so that only the missing last chunk shows that it was cut.
        conversation.chunk(b'{"id":"1","choices":[],"content":[]}')
        conversation.close()

    incomplete_response(lab, sdk, script)


def incomplete_response(lab, sdk, script):
    """The proxy cannot add a message here. The SDKs for Node pass on the error of fetch."""
    with lab.upstream.script(script) as scenario:
        out = sdk.whole(lab.proxy.url, scenario)
    assert out.error, f"accepted an incomplete response: {out.response!r}"
    if "Python" in sdk.name:
        equal(raised(out).kind, "APIConnectionError", "errors")
