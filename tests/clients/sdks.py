"""The SDKs behind one interface, so that every check runs with all of them.

`whole` and `stream` send one request for a chat completion (OpenAI) or a message (Anthropic) and
return an `Outcome`. They raise nothing: the error is part of the outcome.
"""

import dataclasses
import itertools
import json
import queue
import subprocess
import threading

from harness import Skipped, clean_environment

TIMEOUT = 15.0
KEY = "FAKE-key-that-the-proxy-replaces"
PROMPT = "Good morning, 世界 😀!"


@dataclasses.dataclass
class SdkError:
    """What the SDK raised. `is_own`: its type is one that the SDK documents."""

    is_own: bool
    kind: str
    message: str
    status: int = None
    code: str = None
    body: object = None


@dataclasses.dataclass
class Outcome:
    """The events or the response as plain JSON, and the error, if one was raised."""

    events: list = dataclasses.field(default_factory=list)
    response: object = None
    error: SdkError = None

    def text(self):
        return "".join(map(event_text, self.events))


def event_text(event):
    if event.get("type") == "content_block_delta":
        return event["delta"].get("text", "")
    choices = event.get("choices") or [{}]
    return choices[0].get("delta", {}).get("content") or ""


def request_of(dialect, more):
    content = PROMPT
    base = {"model": "demo-model", "messages": [{"role": "user", "content": content}]}
    if dialect == "anthropic":
        base["max_tokens"] = 1000
    return {**base, **more}


class PythonSdk:
    """What the two Python SDKs have in common; both are generated from one template."""

    def __init__(self):
        self.clients = {}

    def client(self, base, scenario, retries, timeout):
        if base not in self.clients:
            self.clients[base] = self.make_client(base)
        headers = {"x-scenario": scenario} if scenario else {}
        options = {"max_retries": retries, "timeout": timeout, "default_headers": headers}
        return self.clients[base].with_options(**options)

    def whole(self, base, scenario=None, *, retries=0, timeout=TIMEOUT, more=None):
        client = self.client(base, scenario, retries, timeout)
        return self.caught(lambda out: self.set_response(out, self.create(client, more or {})))

    def stream(self, base, scenario=None, *, retries=0, timeout=TIMEOUT, more=None, on_event=None):
        """`on_event(count)` is called after each event; the stream is closed if it returns True."""
        client = self.client(base, scenario, retries, timeout)

        def run(out):
            with self.create(client, {**(more or {}), "stream": True}) as stream:
                for event in stream:
                    out.events.append(event.model_dump(mode="json", exclude_unset=True))
                    if on_event and on_event(len(out.events)):
                        return

        return self.caught(run)

    def leave_stream(self, base, scenario, on_event):
        """Reads one event and leaves."""
        return self.stream(base, scenario, on_event=lambda count: on_event(count) or True)

    def models(self, base):
        client = self.client(base, None, 0, TIMEOUT)
        return self.caught(lambda out: setattr(out, "response", [m.id for m in client.models.list()]))

    def create(self, client, more):
        return self.resource(client).create(**request_of(self.dialect, more))

    @staticmethod
    def set_response(out, response):
        out.response = response.model_dump(mode="json", exclude_unset=True)

    def caught(self, run):
        out = Outcome()
        try:
            run(out)
        except Exception as error:  # Any type: checks look at which one it is.
            out.error = self.error(error)
        return out

    def error(self, error):
        body = getattr(error, "body", None)
        code = getattr(error, "code", None)
        if self.dialect == "anthropic" and isinstance(body, dict):
            code = (body.get("error") or {}).get("type")
        status = getattr(error, "status_code", None)
        is_own = isinstance(error, self.own_errors)
        return SdkError(is_own, type(error).__name__, str(error), status, code, body)


class OpenAiPython(PythonSdk):
    name, dialect = "openai (Python)", "openai"

    def __init__(self):
        super().__init__()
        import openai

        self.module = openai
        self.own_errors = openai.APIError

    def make_client(self, base):
        return self.module.OpenAI(base_url=f"{base}/v1", api_key=KEY)

    def resource(self, client):
        return client.chat.completions


class AnthropicPython(PythonSdk):
    name, dialect = "anthropic (Python)", "anthropic"

    def __init__(self):
        super().__init__()
        import anthropic

        self.module = anthropic
        self.own_errors = anthropic.APIError

    def make_client(self, base):
        return self.module.Anthropic(base_url=base, api_key=KEY)

    def resource(self, client):
        return client.messages


class NodeDriver:
    """A Node process that runs requests: one JSON object per line in both directions, matched by `id`."""

    def __init__(self, script):
        self.serial = itertools.count(1)
        self.queues = {}
        self.writing = threading.Lock()
        self.process = subprocess.Popen(
            ["node", str(script)],
            cwd=script.parent,
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            message = json.loads(line)
            self.queues[message["id"]].put(message)

    def request(self, command):
        """Sends a command; yields its replies one by one."""
        serial = next(self.serial)
        replies = self.queues[serial] = queue.Queue()
        with self.writing:
            self.process.stdin.write(json.dumps({"id": serial, **command}) + "\n")
            self.process.stdin.flush()
        while True:
            try:
                message = replies.get(timeout=2 * TIMEOUT)
            except queue.Empty:
                raise AssertionError(f"no reply from node to {command}") from None
            yield message
            if "event" not in message:
                return

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class NodeSdk:
    """An SDK in the Node process."""

    def __init__(self, driver, name, dialect):
        self.driver, self.name, self.dialect = driver, name, dialect

    def command(self, op, base, scenario, retries, timeout, more):
        return {
            "op": op,
            "sdk": self.dialect,
            "base": base,
            "scenario": scenario,
            "retries": retries,
            "timeout": timeout * 1000,
            "request": request_of(self.dialect, more or {}),
        }

    def whole(self, base, scenario=None, *, retries=0, timeout=TIMEOUT, more=None):
        return self.run(self.command("whole", base, scenario, retries, timeout, more))

    def stream(self, base, scenario=None, *, retries=0, timeout=TIMEOUT, more=None, on_event=None):
        """As above, but `on_event` cannot end the stream."""
        return self.run(self.command("stream", base, scenario, retries, timeout, more), on_event)

    def leave_stream(self, base, scenario, on_event):
        """Reads one event and leaves."""
        command = self.command("stream", base, scenario, 0, TIMEOUT, None)
        return self.run({**command, "cancelAfter": 1}, on_event)

    def models(self, base):
        return self.run(self.command("models", base, None, 0, TIMEOUT, None))

    def run(self, command, on_event=None):
        out = Outcome()
        for message in self.driver.request(command):
            if "event" in message:
                out.events.append(message["event"])
                if on_event:
                    on_event(len(out.events))
            elif "error" in message:
                out.error = SdkError(**message["error"])
            else:
                out.response = message.get("response")
        return out


def python_module(name):
    """A module of the virtual environment."""
    try:
        return __import__(name)
    except ImportError:
        raise Skipped(f"the Python package {name} is not installed") from None
