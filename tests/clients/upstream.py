"""A scripted upstream on plain sockets: it can do what no HTTP library would do.

A request names its script in the header `x-scenario`, which SDKs send as an extra header and the
proxy forwards. A script is a function that gets a `Conversation`. One thread per connection, port 0
on loopback, a timeout on every read.
"""

import contextlib
import itertools
import json
import socket
import struct
import threading
import time

DEADLINE = 15.0


class Request:
    """A request as it arrived."""

    def __init__(self, method, target, headers, body):
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body

    def header(self, name):
        """The value of the first header with this name, or None."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    def json(self):
        return json.loads(self.body)


class Conversation:
    """A request and its connection."""

    def __init__(self, connection, request):
        self.connection = connection
        self.request = request
        self.is_open = True

    def send(self, data):
        self.connection.sendall(data)

    def respond(self, status, body, headers=()):
        """Sends a complete response; `body` is bytes, or a value that is sent as JSON."""
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers = [("Content-Type", "application/json"), *headers]
        self.head(status, [*headers, ("Content-Length", str(len(body)))])
        self.send(body)

    def head(self, status, headers):
        lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in headers)]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    def start_events(self, headers=()):
        kind = ("Content-Type", "text/event-stream; charset=utf-8")
        self.head(200, [kind, ("Transfer-Encoding", "chunked"), *headers])

    def chunk(self, data, declared=None):
        """Sends one chunk; `declared` is its chunk size, if that differs from its length."""
        size = len(data) if declared is None else declared
        end = b"\r\n" if size == len(data) else b""
        self.send(b"%x\r\n" % size + data + end)

    def end_chunks(self):
        self.send(b"0\r\n\r\n")

    def close(self):
        """Closes the connection, as a process does when it ends."""
        self.is_open = False
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    def reset(self):
        """Resets the connection, as a crash does."""
        self.is_open = False
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()

    def seconds_until_closed(self, deadline=DEADLINE):
        """Waits until the other side closes. Returns the seconds, or None if it did not close."""
        started = time.monotonic()
        self.connection.settimeout(deadline)
        try:
            while self.connection.recv(4096):
                pass
        except socket.timeout:
            return None
        except OSError:
            pass
        self.close()
        return time.monotonic() - started


class Upstream:
    """The listener. `requests` holds the requests in order of arrival."""

    def __init__(self):
        self.scripts = {}
        self.requests = []
        self.errors = []
        self._serial = itertools.count(1)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/flow-llm-proxy"
        threading.Thread(target=self._accept, daemon=True).start()

    @contextlib.contextmanager
    def script(self, function):
        """Lets `function` respond to the requests that carry the name that this yields."""
        name = f"scenario-{next(self._serial)}"
        self.scripts[name] = function
        try:
            yield name
        finally:
            del self.scripts[name]

    def requests_of(self, scenario):
        return [it for it in list(self.requests) if it.header("x-scenario") == scenario]

    def _accept(self):
        while True:
            connection, _ = self._listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        connection.settimeout(60.0)
        try:
            reader = connection.makefile("rb")
            while (request := read_request(reader)) is not None:
                self.requests.append(request)
                conversation = Conversation(connection, request)
                script = self.scripts.get(request.header("x-scenario"), no_such_script)
                script(conversation)
                if not conversation.is_open:
                    return
        except OSError:
            pass  # The other side closed the connection, which scripts provoke.
        except Exception as error:  # A failing script must not look like a failing proxy.
            self.errors.append(f"{type(error).__name__}: {error}")
        finally:
            connection.close()


def no_such_script(conversation):
    conversation.respond(404, {"error": {"message": "no such script", "code": "404"}})


def read_request(reader):
    """The next request, or None at the end of the connection."""
    line = reader.readline(65536).decode("latin-1").rstrip("\r\n")
    if not line:
        return None
    method, target, _ = line.split(" ", 2)
    headers = []
    while line := reader.readline(65536).decode("latin-1").rstrip("\r\n"):
        name, value = line.split(":", 1)
        headers.append((name, value.strip()))
    request = Request(method, target, headers, b"")
    if (request.header("transfer-encoding") or "").lower() == "chunked":
        request.body = read_chunks(reader)
    else:
        request.body = reader.read(int(request.header("content-length") or 0))
    return request


def read_chunks(reader):
    body = b""
    while size := int(reader.readline(1024).split(b";")[0], 16):
        body += reader.read(size)
        reader.readline(16)
    while reader.readline(65536).strip():
        pass
    return body
