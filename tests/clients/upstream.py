"""An upstream of plain sockets that does what a script tells it: what no HTTP library would do.

A request names its script in the field `x-scenario`, which SDKs send as an extra header and the
proxy forwards. Scripts are functions that are given a `Conversation`. A thread for each connection,
port 0 on loopback, a deadline on every read.
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
    """What arrived."""

    def __init__(self, method, target, fields, body):
        self.method = method
        self.target = target
        self.fields = fields
        self.body = body

    def field(self, name):
        """The value of the first field of this name, or None."""
        return next((value for key, value in self.fields if key.lower() == name), None)

    def json(self):
        return json.loads(self.body)


class Conversation:
    """A request and the connection that its answer goes to."""

    def __init__(self, connection, request):
        self.connection = connection
        self.request = request
        self.is_open = True

    def send(self, data):
        self.connection.sendall(data)

    def answer(self, status, body, fields=()):
        """A whole answer; `body` is bytes, or anything else to be sent as JSON."""
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
            fields = [("Content-Type", "application/json"), *fields]
        self.head(status, [*fields, ("Content-Length", str(len(body)))])
        self.send(body)

    def head(self, status, fields):
        lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in fields)]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    def start_events(self, fields=()):
        kind = ("Content-Type", "text/event-stream; charset=utf-8")
        self.head(200, [kind, ("Transfer-Encoding", "chunked"), *fields])

    def chunk(self, data, declared=None):
        """One chunk; `declared` bytes long according to its size, if that is to be a lie."""
        size = len(data) if declared is None else declared
        end = b"\r\n" if size == len(data) else b""
        self.send(b"%x\r\n" % size + data + end)

    def end_chunks(self):
        self.send(b"0\r\n\r\n")

    def close(self):
        """Ends the connection as a process that ends does."""
        self.is_open = False
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    def reset(self):
        """Ends the connection as a crash does: with a reset."""
        self.is_open = False
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()

    def seconds_until_closed(self, deadline=DEADLINE):
        """Waits for the other side to close, and says how long that took; None: it did not."""
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
    """The listener. `requests` holds what arrived, in its order."""

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
        """Has `function` answer the requests that carry the name that is given."""
        name = f"scenario-{next(self._serial)}"
        self.scripts[name] = function
        try:
            yield name
        finally:
            del self.scripts[name]

    def requests_of(self, scenario):
        return [it for it in list(self.requests) if it.field("x-scenario") == scenario]

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
                script = self.scripts.get(request.field("x-scenario"), no_such_script)
                script(conversation)
                if not conversation.is_open:
                    return
        except OSError:
            pass  # The other side left, which scripts bring about.
        except Exception as error:  # A script that fails must not look like a proxy that does.
            self.errors.append(f"{type(error).__name__}: {error}")
        finally:
            connection.close()


def no_such_script(conversation):
    conversation.answer(404, {"error": {"message": "no such script", "code": "404"}})


def read_request(reader):
    """The next request, or None at the end of the connection."""
    line = reader.readline(65536).decode("latin-1").rstrip("\r\n")
    if not line:
        return None
    method, target, _ = line.split(" ", 2)
    fields = []
    while line := reader.readline(65536).decode("latin-1").rstrip("\r\n"):
        name, value = line.split(":", 1)
        fields.append((name, value.strip()))
    request = Request(method, target, fields, b"")
    if (request.field("transfer-encoding") or "").lower() == "chunked":
        request.body = read_chunks(reader)
    else:
        request.body = reader.read(int(request.field("content-length") or 0))
    return request


def read_chunks(reader):
    body = b""
    while size := int(reader.readline(1024).split(b";")[0], 16):
        body += reader.read(size)
        reader.readline(16)
    while reader.readline(65536).strip():
        pass
    return body
