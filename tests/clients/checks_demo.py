"""Against `flow-proxy demo`: the basics work with every SDK."""

import json

import sdks
from harness import Check, Proxy, contains, equal, wait_for

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
OPENAI_TOOL = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
ANTHROPIC_TOOL = {"name": "weather", "input_schema": CITY}
INPUT = {"city": "example"}


def checks(lab):
    basics = (
        ("the demo responds in one piece", responds),
        ("a stream of the demo says the same", streams),
        ("the demo calls a tool only if asked to", calls_tool),
        ("failovers in a session with the demo go unnoticed", fails_over),
    )
    for sdk in lab.sdks:
        if sdk.dialect == "openai":
            title = f"{sdk.name}: the demo lists its models"
            yield Check(title, lambda s=sdk: lists_models(lab, s))
        for title, run in basics:
            yield Check(f"{sdk.name}: {title}", lambda s=sdk, r=run: r(lab, s))
    helpers = {
        "openai (Python)": (
            ("embeddings of the demo are decoded", openai_embeddings),
            ("an async stream of the demo says the same", openai_async),
            ("the demo has the Responses API", openai_responses),
            ("the demo calls a tool in the Responses API", openai_responses_call),
        ),
        "anthropic (Python)": (
            ("the stream helper builds the demo's message", anthropic_helper),
            ("the demo counts tokens", anthropic_counts),
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
    if sdk.dialect == "openai":
        offered, asked = {"tools": [OPENAI_TOOL]}, {"tool_choice": "required"}
    else:
        offered, asked = {"tools": [ANTHROPIC_TOOL]}, {"tool_choice": {"type": "any"}}
    words = succeeded(sdk.whole(lab.demo.url, more=offered)).response
    contains(response_text(sdk, words), f'"{sdks.PROMPT}"')
    more = offered | asked
    response = succeeded(sdk.whole(lab.demo.url, more=more)).response
    events = succeeded(sdk.stream(lab.demo.url, more=more)).events
    if sdk.dialect == "openai":
        call = response["choices"][0]["message"]["tool_calls"][0]["function"]
        equal((call["name"], json.loads(call["arguments"])), ("weather", INPUT), "tool calls")
        deltas = [event["choices"][0]["delta"] for event in events]
        calls = [delta["tool_calls"][0]["function"] for delta in deltas if "tool_calls" in delta]
        equal(calls[0]["name"], "weather", "streamed names")
        streamed = "".join(call["arguments"] for call in calls)
        equal(json.loads(streamed), INPUT, "streamed arguments")
    else:
        block = response["content"][0]
        equal((block["name"], block["input"]), ("weather", INPUT), "blocks")
        parts = [event["delta"] for event in events if event["type"] == "content_block_delta"]
        streamed = "".join(part["partial_json"] for part in parts)
        equal(json.loads(streamed), INPUT, "streamed input")


def fails_over(_lab, sdk):
    """Of the demo's configurations one is revoked; another one lacks a model, and has a limit and a budget."""
    with Proxy(command=["demo"]) as demo:
        for model in ("demo-vip", "demo-gpt", "demo-gpt"):
            for _ in range(4):
                succeeded(sdk.whole(demo.url, more={"model": model}))
            succeeded(sdk.stream(demo.url, more={"model": model, "max_tokens": 3}))
        for text in (
            "Failover successful - using",
            "'demo-revoked' marked as failed",
            "'demo-1' may not use model 'demo-vip'",
            "'demo-1' rate limited, resting 5 s",
        ):
            wait_for(f"the line {text}", lambda text=text: demo.line_with(text))
    expensive = {"messages": [{"role": "user", "content": "much " * 4000}]}
    with Proxy(command=["demo"]) as demo:
        for _ in range(3):
            succeeded(sdk.whole(demo.url, more=expensive))
        spent = "'demo-1' budget exceeded, resting"
        wait_for(f"the line {spent}", lambda: demo.line_with(spent))


def openai_responses(sdk, base):
    client = sdk.client(base, None, 0, sdks.TIMEOUT)
    request = {"model": "demo-model", "input": sdks.PROMPT}
    whole = client.responses.create(**request)
    contains(whole.output_text, f'"{sdks.PROMPT}"')
    with client.responses.stream(**request) as stream:
        parts = [event.delta for event in stream if event.type == "response.output_text.delta"]
        streamed = stream.get_final_response()
    equal("".join(parts), whole.output_text, "stream and response in one piece")
    equal(streamed.output_text, whole.output_text, "the stream's last event and the response")
    equal(streamed.usage.output_tokens, whole.usage.output_tokens, "output tokens")


def openai_responses_call(sdk, base):
    client = sdk.client(base, None, 0, sdks.TIMEOUT)
    tool = {"type": "function", "strict": False, **OPENAI_TOOL["function"]}
    request = {"model": "demo-model", "input": "weather?", "tools": [tool]}
    equal(client.responses.create(**request).output[0].type, "message", "a tool that is only offered")
    with client.responses.stream(**request, tool_choice="required") as stream:
        call = stream.get_final_response().output[0]
    equal((call.name, json.loads(call.arguments)), ("weather", INPUT), "calls")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    request["input"] = [{"role": "user", "content": "weather?"}, call.model_dump(), result]
    contains(client.responses.create(**request).output_text, '"sunny"')


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
