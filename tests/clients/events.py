"""Event streams as models send them, with every feature that makes cutting them difficult."""

import dataclasses
import json

CITY = "São 世界 😀 \"q\" \\ \n\t"


@dataclasses.dataclass
class Stream:
    """A stream: its bytes, its events as JSON, and the offset at which each event is complete."""

    data: bytes
    events: list
    # The offset after each event's JSON, and after its empty line.
    json_ends: list
    ends: list
    # The offset from which on the stream itself says that it is complete.
    complete_from: int

    def whole_at(self, cut):
        """How many events are complete, including their empty lines, in the first `cut` bytes."""
        return sum(end <= cut for end in self.ends)

    def readable_at(self, cut):
        """How many events have their complete JSON in the first `cut` bytes."""
        return sum(end <= cut for end in self.json_ends)


def chunk(delta, finish_reason=None, **more):
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000}
    return {**head, "model": "m", "choices": [choice], **more}


def openai_events():
    call = {"name": "weather", "arguments": json.dumps({"city": CITY, "ok": True})}
    calls = [{"index": 0, "id": "call_1", "type": "function", "function": call}]
    return [
        chunk({"role": "assistant", "content": CITY}, usage=None, extra={"a": [], "b": {}}),
        chunk({"tool_calls": calls}, x=[-1.5e-3, 0, 12, True, False, None, [[{}]]]),
        chunk({}, "tool_calls"),
    ]


def anthropic_events():
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    usage = {"input_tokens": 3, "output_tokens": 1}
    message |= {"stop_reason": None, "stop_sequence": None, "usage": usage}
    block = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
    part = {"type": "input_json_delta", "partial_json": json.dumps({"city": CITY, "n": -1.5e-3})}
    stop = {"stop_reason": "tool_use", "stop_sequence": None}
    return [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": part},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": CITY}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": stop, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]


def stream(dialect, line_end=b"\n"):
    """Every second event has its non-ASCII characters escaped; the others have them as UTF-8."""
    events = openai_events() if dialect == "openai" else anthropic_events()
    data, json_ends, ends = b": a comment" + line_end * 2, [], []
    for index, event in enumerate(events):
        if dialect == "anthropic":
            data += b"event: " + event["type"].encode() + line_end
        text = json.dumps(event, ensure_ascii=index % 2 == 1, separators=(",", ":"))
        data += b"data: " + text.encode()
        json_ends.append(len(data))
        data += line_end
        data += line_end
        ends.append(len(data))
    complete_from = len(data)
    if dialect == "openai":
        data += b"data: [DONE]"
        complete_from = len(data) + len(line_end)
        data += line_end * 2
    return Stream(data, events, json_ends, ends, complete_from)
