"""Against `flow-proxy demo`: the basics work with every SDK."""

import sdks
from harness import Check, Proxy, contains, equal, wait_for

OPENAI_TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
ANTHROPIC_TOOL = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}


def checks(lab):
    for sdk in lab.sdks:
        if sdk.dialect == "openai":
            yield Check(f"{sdk.name}: lists the models", lambda s=sdk: lists_models(lab, s))
        yield Check(f"{sdk.name}: a response in one piece", lambda s=sdk: responds(lab, s))
        yield Check(f"{sdk.name}: a stream says the same", lambda s=sdk: streams(lab, s))
        yield Check(f"{sdk.name}: a tool is called", lambda s=sdk: calls_tool(lab, s))
        yield Check(
            f"{sdk.name}: a failover in a session goes unnoticed", lambda s=sdk: fails_over(s)
        )
    helpers = {
        "openai (Python)": (
            ("embeddings are decoded", openai_embeddings),
            ("an async stream says the same", openai_async),
        ),
        "anthropic (Python)": (
            ("the stream helper builds the message", anthropic_helper),
            ("tokens are counted", anthropic_counts),
        ),
    }
    for sdk in lab.sdks:
        for title, run in helpers.get(sdk.name, ()):
            yield Check(f"{sdk.name}: {title}", lambda s=sdk, r=run: r(s, lab.demo.url))


def succeeded(out):
    assert out.error is None, f"raised {out.error}"
    return out


def lists_models(lab, sdk):
    contains(succeeded(sdk.models(lab.demo.url)).response, "demo-gpt")


def response_text(sdk, response):
    if sdk.dialect == "openai":
        return response["choices"][0]["message"]["content"]
    return response["content"][0]["text"]


def responds(lab, sdk):
    out = succeeded(sdk.whole(lab.demo.url))
    contains(response_text(sdk, out.response), f'"{sdks.PROMPT}"')


def streams(lab, sdk):
    whole = response_text(sdk, succeeded(sdk.whole(lab.demo.url)).response)
    out = succeeded(sdk.stream(lab.demo.url))
    equal(out.text(), whole, "stream and response in one piece")
    assert len(out.events) > 10, f"only {len(out.events)} events"


def calls_tool(lab, sdk):
    tool = OPENAI_TOOL if sdk.dialect == "openai" else ANTHROPIC_TOOL
    more = {"tools": [tool]}
    response = succeeded(sdk.whole(lab.demo.url, more=more)).response
    events = succeeded(sdk.stream(lab.demo.url, more=more)).events
    if sdk.dialect == "openai":
        call = response["choices"][0]["message"]["tool_calls"][0]["function"]
        equal(call, {"name": "weather", "arguments": "{}"}, "tool calls")
        deltas = [event["choices"][0]["delta"] for event in events]
        calls = [delta["tool_calls"][0]["function"] for delta in deltas if "tool_calls" in delta]
        equal(calls[0]["name"], "weather", "streamed names")
        equal("".join(call["arguments"] for call in calls), "{}", "streamed arguments")
    else:
        block = response["content"][0]
        equal((block["type"], block["name"]), ("tool_use", "weather"), "blocks")
        parts = [event["delta"] for event in events if event["type"] == "content_block_delta"]
        equal("".join(part["partial_json"] for part in parts), "{}", "streamed input")


def fails_over(sdk):
    """One of the three demo configurations is revoked: the second request uses it."""
    with Proxy(command=["demo"]) as demo:
        for _ in range(4):
            succeeded(sdk.whole(demo.url))
            succeeded(sdk.stream(demo.url, more={"max_tokens": 3}))
        wait_for("the failover's line", lambda: demo.line_with("Failover successful - using"))
        wait_for("the verdict", lambda: demo.line_with("'demo-revoked' marked as failed"))


def openai_embeddings(sdk, base):
    client = sdk.client(base, None, 0, sdks.TIMEOUT)
    response = client.embeddings.create(model="demo-embedding", input=["one", "two", "one"])
    first, second, third = (item.embedding for item in response.data)
    equal(first, third, "embeddings of equal inputs")
    assert first != second and all(isinstance(number, float) for number in first), first


def openai_async(sdk, base):
    import asyncio

    async def run():
        async with sdk.module.AsyncOpenAI(base_url=f"{base}/v1", api_key=sdks.KEY) as client:
            request = sdks.request_of("openai", {"stream": True})
            stream = await client.chat.completions.create(**request)
            return "".join([sdks.event_text(event.model_dump()) async for event in stream])

    contains(asyncio.run(asyncio.wait_for(run(), sdks.TIMEOUT)), f'"{sdks.PROMPT}"')


def anthropic_helper(sdk, base):
    client = sdk.client(base, None, 0, sdks.TIMEOUT)
    with client.messages.stream(**sdks.request_of("anthropic", {})) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    equal(message.content[0].text, text, "message and stream")
    equal(message.stop_reason, "end_turn", "stop reasons")


def anthropic_counts(sdk, base):
    client = sdk.client(base, None, 0, sdks.TIMEOUT)
    request = sdks.request_of("anthropic", {})
    del request["max_tokens"]
    assert client.messages.count_tokens(**request).input_tokens > 0
