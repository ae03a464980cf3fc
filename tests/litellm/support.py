"""What the checks share: the proxy in front of LiteLLM, requests in three APIs, the log's marks."""

import base64
import collections
import hashlib
import hmac
import http.client
import itertools
import json
import pathlib
import re
import signal
import sys

from lab import clients as known

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
from clients.harness import Proxy, equal, wait_for  # noqa: E402

REQUEST_DEADLINE = 30.0
TENANT = "FAKE-tenant"
TEXT = "Say hello."
CHECKS, LONG_CHECKS = [], []
numbers = itertools.count(1)
# A field of the access line: a name, and a word or a text in quotes.
FIELD = r" (\w+)=('[^']*'|\S+)"


class Shape(collections.namedtuple("Shape", "api is_streamed")):
    """An API of LiteLLM, and whether the response is an event stream."""

    def __str__(self):
        return self.api + (", streamed" if self.is_streamed else "")

    @property
    def path(self):
        return {"chat": "/v1/chat/completions"}.get(self.api, f"/v1/{self.api}")

    @property
    def suffix(self):
        """Of the model groups that only this shape asks, see lab/config.py."""
        return f"-{self.api}-{'streamed' if self.is_streamed else 'whole'}"

    def body(self, model, text=TEXT, tool=None, more=()):
        body = {"model": model, "stream": self.is_streamed, **dict(more)}
        if self.api == "responses":
            body["input"] = text
        else:
            body["messages"] = [{"role": "user", "content": text}]
        if self.api == "messages":
            body["max_tokens"] = 100
        if tool is not None:
            body["tools"] = [self.tool(tool)]
        return body

    def tool(self, name):
        schema = {"type": "object", "properties": {"city": {"type": "string"}}}
        if self.api == "messages":
            return {"name": name, "input_schema": schema}
        function = {"name": name, "parameters": schema}
        is_chat = self.api == "chat"
        return {"type": "function", **({"function": function} if is_chat else function)}


SHAPES = [Shape(api, way) for api in ("chat", "messages", "responses") for way in (False, True)]
CHAT = SHAPES[0]


def check(run):
    """Registers a check, a function of the lab. Its name is a sentence."""
    CHECKS.append((run.__name__.replace("_", " "), run))
    return run


def check_in_each_shape(run):
    """Registers a check for each API, streamed and not."""
    for shape in SHAPES:
        title = f"{shape}: {run.__name__.replace('_', ' ')}"
        CHECKS.append((title, lambda lab, shape=shape: run(lab, shape)))
    return run


def long_check(run):
    """Registers a check that mostly waits: it runs beside the others."""
    LONG_CHECKS.append((run.__name__.replace("_", " "), run))
    return run


def fresh(kind):
    """Returns the id of a client of this kind whose limits are untouched."""
    return f"{kind}-{next(numbers)}"


def entry(client):
    """Returns the entry of secrets.json. A client that begins with `wrong` has a wrong secret."""
    secret = "FAKE-another-secret-of-thirty-two-bytes-or-more"
    if not client.startswith("wrong"):
        secret = known.secret_of(client)
    identity = client.replace("wrong", "alpha")
    return {"name": client, "clientId": identity, "clientSecret": secret, "tenant": TENANT}


def token(client):
    """Returns the JWT of a client, for requests that do not go through the proxy."""
    made = entry(client)
    payload = {field: made[field] for field in ("clientId", "clientSecret", "tenant")}
    parts = [{"alg": "HS256", "typ": "JWT"}, payload]
    signed = b".".join(encoded(json.dumps(part).encode()) for part in parts)
    signature = hmac.new(made["clientSecret"].encode(), signed, hashlib.sha256).digest()
    return (signed + b"." + encoded(signature)).decode()


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class Response:
    """A response; `config`, `attempts`, `end` and `logged` are from the access line, where there is one.

    `logged` has all fields of the line as texts.
    """

    def __init__(self, response, body):
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = body
        self.identity = self.config = self.attempts = self.end = None
        self.logged = {}

    def error(self):
        """Returns the error object of the body."""
        return json.loads(self.body)["error"]

    def header(self, name):
        return self.headers.get(name)

    def read_line(self, identity, line):
        self.identity = identity
        self.config = re.search(r" config='([^']*)'", line)[1]
        self.attempts = int(re.search(r" attempts=(\d+)", line)[1])
        self.end = re.search(r" end=(\w+)", line)[1]
        self.logged = {name: value.strip("'") for name, value in re.findall(FIELD, line)}
        return self

    def __repr__(self):
        text = self.body[:300].decode(errors="replace")
        return f"{self.status} by {self.config} in {self.attempts} attempts: {text}"


def send(port, method, path, body=None, headers=()):
    """Sends a request on a connection of its own and reads the response to its end."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_DEADLINE)
    try:
        connection.request(method, path, body=body, headers=dict(headers))
        response = connection.getresponse()
        return Response(response, response.read())
    finally:
        connection.close()


def send_json(port, shape, body, headers=()):
    kind = {"Content-Type": "application/json", "User-Agent": "checks"}
    return send(port, "POST", shape.path, json.dumps(body), {**kind, **dict(headers)})


class FlowProxy(Proxy):
    """The binary in front of LiteLLM, with an entry for each of these clients."""

    def __init__(self, lab, *clients, options=()):
        self.clients = clients
        self.access_lines = {}
        arguments = ("--target-url", f"http://127.0.0.1:{lab.litellm.port}", "--log-level", "DEBUG")
        super().__init__(*arguments, *options, secrets=[entry(client) for client in clients])

    def _read_log(self):
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))
            if identity := re.search(r" id=(check-\d+)", line):
                self.access_lines[identity[1]] = line

    def ask(self, shape, model="gpt-4o-mini", text=TEXT, tool=None, more=()):
        return self.post(shape.path, shape.body(model, text, tool, more))

    def post(self, path, body):
        return self.send("POST", path, json.dumps(body))

    def send(self, method, path, body=None, headers=()):
        """Sends a request, and waits for its access line."""
        identity = f"check-{next(numbers)}"
        kind = {"Content-Type": "application/json"} if body is not None else {}
        headers = {"x-request-id": identity, **kind, **dict(headers)}
        response = send(self.port, method, path, body, headers)
        found = lambda: self.access_lines.get(identity)
        return response.read_line(identity, wait_for(f"the access line of {method} {path}", found))

    def reload(self, *clients):
        """Replaces the entries of the secrets file."""
        self.clients = clients
        path = pathlib.Path(self.directory.name) / "secrets.json"
        path.write_text(json.dumps([entry(client) for client in clients]))
        self.hang_up()

    def hang_up(self):
        """Sends SIGHUP and waits until the secrets are loaded."""
        loaded = lambda: sum("Reloaded " in line for line in list(self.lines))
        before = loaded()
        self.process.send_signal(signal.SIGHUP)
        wait_for("the reload", lambda: loaded() > before)

    def marks(self):
        """Returns what the log says about configurations that rest or have failed, in order."""
        messages = [line.split(" - ", 2)[-1] for line in list(self.lines)]
        return [message for message in messages if message.startswith("Configuration '")]

    def use(self, shape, client, model="gpt-4o-mini"):
        """Sends requests until `client` has served one or was asked in vain; returns that one."""
        for _ in range(len(self.clients)):
            response = self.ask(shape, model)
            if response.config == client or response.attempts > 1:
                return response
        raise AssertionError(f"{client} was not asked: {response}")


def served(response, by=None, attempts=None):
    """Requires a 200 that came whole; by this configuration, in so many attempts."""
    equal(response.status, 200, f"statuses of {response}")
    equal(response.end, "ok", f"ends of {response}")
    if by is not None:
        equal(response.config, by, f"configurations of {response}")
    if attempts is not None:
        equal(response.attempts, attempts, f"attempts of {response}")
    return response


def passed_on(response, status, attempts):
    equal(
        (response.status, response.attempts), (status, attempts), f"{response}: statuses, attempts"
    )
    return response


def expect_marks(proxy, *expected):
    """Requires exactly these marks, in this order.

    `~60` stands for a number near it: the Date of a busy LiteLLM is some seconds old.
    """
    got = proxy.marks()
    fits = len(got) == len(expected) and all(map(is_like, got, expected))
    assert fits, f"marks differ:\n  got      {got!r}\n  expected {list(expected)!r}"


def is_like(got, expected):
    pattern = re.escape(expected).replace(re.escape("~60"), "(?:5[5-9]|6[0-5])")
    return re.fullmatch(pattern, got) is not None
