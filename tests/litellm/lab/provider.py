"""The fake provider behind LiteLLM: the APIs of OpenAI and Anthropic, in the process of the checks.

The model's name says what it does: `…fake-BEHAVIOUR`. `ok` responds. `held` waits in the middle
until the check lets it go, `cut` breaks off there. `scripted` fails as the request's text says (see `script`).
`throttled`, `unauthorized` and `broken` fail with 429, 401 and 500, `gone` closes the connection.
"""

import http.server
import json
import socket
import struct
import threading

# Fixed: two responses must be comparable.
CREATED = 1768471200
WORDS = ["Invented ", "text ", "from ", "the ", "provider."]
FAILURES = {
    "throttled": {"status": 429, "type": "rate_limit_error", "message": "Too fast.", "after": "7"},
    "unauthorized": {"status": 401, "type": "authentication_error", "message": "No such key."},
    "broken": {"status": 500, "type": "api_error", "message": "Broken."},
}
SCRIPT = "The provider fails: "
HOLD_DEADLINE = 20.0


def script(status, message, kind="invalid_request_error", after=None, param=None):
    """Returns the request text that makes a `scripted` model fail with this error."""
    fields = {"status": status, "message": message, "type": kind, "after": after, "param": param}
    return SCRIPT + json.dumps(fields)


class Provider:
    """Listens on a free port of loopback until the process ends."""

    def __init__(self):
        self.release = threading.Event()
        self.let_go()
        self.held = 0
        provider = self

        class Handler(Conversation):
            owner = provider

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def hold(self):
        """From now on requests for a `held` model wait until `let_go`."""
        self.held = 0
        self.release.clear()

    def let_go(self):
        self.release.set()


class Conversation(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    # Otherwise the body waits 40 ms for the acknowledgement of the head.
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        behaviour = body["model"].partition("fake-")[2] or "ok"
        api = self.path.rstrip("/").rsplit("/", 1)[-1]
        if behaviour == "gone":
            self.abort()
        elif behaviour in FAILURES:
            self.fail(FAILURES[behaviour])
        elif behaviour == "scripted" and (found := find_script(body)):
            self.fail(found)
        elif api in ("count_tokens", "input_tokens"):
            self.send(200, {"input_tokens": 20})
        elif api in EVENTS:
            respond = self.stream if body.get("stream") else self.whole
            respond(api, body["model"], behaviour)
        else:
            self.send(404, {"error": {"message": f"no such path: {self.path}"}})

    def hold(self):
        self.owner.held += 1
        self.owner.release.wait(HOLD_DEADLINE)

    def abort(self):
        """Closes with a reset, as a server that crashes."""
        option = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
        self.close_connection = True

    def fail(self, error):
        fields = {"type": error["type"], "message": error["message"]}
        if self.path.endswith("/messages"):
            body = {"type": "error", "error": fields}
        else:
            body = {"error": {**fields, "param": error.get("param"), "code": None}}
        self.send(error["status"], body, error.get("after"))

    def send(self, status, body, after=None):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if after:
            self.send_header("Retry-After", after)
        self.end_headers()
        self.wfile.write(data)

    def whole(self, api, model, behaviour):
        if behaviour == "held":
            self.hold()
        self.send(200, WHOLE[api](model))

    def stream(self, api, model, behaviour):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        events = EVENTS[api](model)
        for index, event in enumerate(events):
            if behaviour == "held" and index == len(events) // 2:
                self.hold()
            if behaviour == "cut" and index == len(events) // 2:
                # Without the last chunk. A reset could take back what was sent.
                self.close_connection = True
                return
            data = (f"event: {event['type']}\n" if "type" in event else "").encode()
            self.chunk(data + b"data: " + json.dumps(event).encode() + b"\n\n")
        if api == "completions":
            self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


def find_script(value):
    """Returns the script in the texts of a request, wherever its API puts them."""
    if isinstance(value, str):
        return json.loads(value[len(SCRIPT) :]) if value.startswith(SCRIPT) else None
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for part in parts if (found := find_script(part))), None)


# The same in each API: 20 tokens of input, of which 12 are from the cache and 4 new in Anthropic's.
CHAT_USAGE = {
    "prompt_tokens": 20,
    "prompt_tokens_details": {"cached_tokens": 12},
    "completion_tokens": 5,
    "total_tokens": 25,
}
RESPONSES_USAGE = {
    "input_tokens": 20,
    "input_tokens_details": {"cached_tokens": 12},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 25,
}


def chat(model):
    message = {"role": "assistant", "content": "".join(WORDS)}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    top = {"id": "chatcmpl-fake", "object": "chat.completion", "created": CREATED}
    return {**top, "model": model, "choices": [choice], "usage": CHAT_USAGE}


def chat_events(model):
    top = {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": CREATED}
    deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in WORDS), {}]
    return [
        {**top, "model": model, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        for delta, reason in zip(deltas, [None] * (len(deltas) - 1) + ["stop"])
    ] + [{**top, "model": model, "choices": [], "usage": CHAT_USAGE}]


TEXT = {"type": "output_text", "text": "".join(WORDS), "annotations": []}
ITEM = {"id": "msg_fake", "type": "message", "role": "assistant"}
FINISHED_ITEM = {**ITEM, "status": "completed", "content": [TEXT]}


def responses(model, status="completed"):
    is_over = status == "completed"
    return {
        "id": "resp_fake",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "model": model,
        "output": [FINISHED_ITEM] if is_over else [],
        "usage": RESPONSES_USAGE if is_over else None,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }


def responses_events(model):
    place = {"output_index": 0, "content_index": 0, "item_id": "msg_fake"}
    begun = {**ITEM, "status": "in_progress", "content": []}
    events = [
        {"type": "response.created", "response": responses(model, "in_progress")},
        {"type": "response.output_item.added", "output_index": 0, "item": begun},
        {"type": "response.content_part.added", **place, "part": {**TEXT, "text": ""}},
        *({"type": "response.output_text.delta", **place, "delta": word} for word in WORDS),
        {"type": "response.output_text.done", **place, "text": "".join(WORDS)},
        {"type": "response.content_part.done", **place, "part": TEXT},
        {"type": "response.output_item.done", "output_index": 0, "item": FINISHED_ITEM},
        {"type": "response.completed", "response": responses(model)},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def messages(model, is_over=True):
    return {
        "id": "msg_fake",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": "".join(WORDS)}] if is_over else [],
        "stop_reason": "end_turn" if is_over else None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 4,
            "cache_read_input_tokens": 12,
            "cache_creation_input_tokens": 4,
            "output_tokens": 5,
        },
    }


def messages_events(model):
    delta = lambda word: {"type": "text_delta", "text": word}
    ending = {"stop_reason": "end_turn", "stop_sequence": None}
    return [
        {"type": "message_start", "message": messages(model, False)},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": delta(word)} for word in WORDS),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": ending, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]


# By the last segment of the path.
WHOLE = {"completions": chat, "responses": responses, "messages": messages}
EVENTS = {
    "completions": chat_events,
    "responses": responses_events,
    "messages": messages_events,
}
