"""The numbers of the access line are those that the SDKs themselves read from the responses."""

import gzip
import re

from checks_demo import succeeded
from checks_forwarding import send_stream
from harness import REPOSITORY, Check, Proxy, equal, wait_for

ANSWERS = REPOSITORY / "tests/answers"
# Recorded from a real LiteLLM. Some of the input comes from a cache.
FILES = {
    "openai": ("chat-an-cached.txt", "chat-oa-cached-stream-usage.txt"),
    "anthropic": ("messages-an-cached.txt", "messages-an-cached-stream.txt"),
}
JSON = ("Content-Type", "application/json")


def checks(lab):
    for sdk in lab.sdks:
        named = lambda title, run, s=sdk: Check(f"{s.name}: {title}", lambda: run(lab, s))
        yield named("the log has the tokens that the SDK reads", same_tokens)
        yield named("the log has the tokens that the demo tells", demo_tokens)
        yield named("a stream that is left has the tokens told until then", left_stream)


def recorded(name):
    return (ANSWERS / name).read_bytes().partition(b"\r\n\r\n")[2]


def tokens_read(sdk, usages):
    """Input, cached and output of what the SDK made of the usage objects, of which the last counts."""
    usage = {}
    for found in usages:
        usage |= {name: value for name, value in found.items() if value}
    if sdk.dialect == "openai":
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        return usage["prompt_tokens"], cached, usage["completion_tokens"]
    cached = usage.get("cache_read_input_tokens", 0)
    new = usage["input_tokens"] + usage.get("cache_creation_input_tokens", 0)
    return new + cached, cached, usage["output_tokens"]


def usages_of(events):
    found = [event.get("usage") or event.get("message", {}).get("usage") for event in events]
    return [usage for usage in found if usage]


def tokens_logged(line):
    names = ("input_tokens", "cached_tokens", "output_tokens")
    found = [re.search(rf" {name}=(\d+)", line) for name in names]
    return tuple(number and int(number[1]) for number in found)


def access_line(proxy, number=1):
    def found():
        lines = [line for line in list(proxy.lines) if " duration_ms=" in line]
        return lines[number - 1] if len(lines) >= number else None

    return wait_for("the access line", found)


def same_tokens(lab, sdk):
    whole, stream = (recorded(name) for name in FILES[sdk.dialect])
    packed = [("Content-Encoding", "gzip")]
    ways = (
        (sdk.whole, lambda it: it.respond(200, whole, [JSON])),
        (sdk.whole, lambda it: it.respond(200, gzip.compress(whole), [JSON, *packed])),
        (sdk.stream, lambda it: send_stream(it, stream)),
        (sdk.stream, lambda it: send_stream(it, gzip.compress(stream), packed)),
    )
    for run, script in ways:
        with Proxy("--target-url", lab.upstream.url) as proxy, lab.upstream.script(script) as scenario:
            out = succeeded(run(proxy.url, scenario))
            line = access_line(proxy)
        usages = [out.response["usage"]] if out.response else usages_of(out.events)
        equal(tokens_logged(line), tokens_read(sdk, usages), "tokens")
        assert " end=ok model='demo-model' " in line, line
        agent = re.search(r" agent='([^' ]+)'", line)
        assert agent and sdk.dialect in agent[1].lower(), line


def demo_tokens(_lab, sdk):
    """The second request has its prompt from the cache in part."""
    with Proxy(command=["demo"]) as demo:
        for number, run in enumerate((sdk.whole, sdk.stream), 1):
            asks = run == sdk.stream and sdk.dialect == "openai"
            more = {"stream_options": {"include_usage": True}} if asks else {}
            out = succeeded(run(demo.url, more=more))
            line = access_line(demo, number)
            usages = [out.response["usage"]] if out.response else usages_of(out.events)
            equal(tokens_logged(line), tokens_read(sdk, usages), "tokens")
            assert (tokens_logged(line)[1] > 0) == (number > 1), line


def left_stream(lab, sdk):
    stream = recorded(FILES[sdk.dialect][1])
    first = stream.index(b"\n\n") + 2

    def script(conversation):
        conversation.start_events()
        conversation.chunk(stream[:first])
        conversation.seconds_until_closed()

    with Proxy("--target-url", lab.upstream.url) as proxy, lab.upstream.script(script) as scenario:
        out = sdk.leave_stream(proxy.url, scenario, lambda _count: None)
        line = access_line(proxy)
    usages = usages_of(out.events)
    expected = tokens_read(sdk, usages) if usages else (None, None, None)
    equal(tokens_logged(line), expected, "tokens")
    assert " 499 " in line and " end=client_gone " in line, line
