#!/usr/bin/env python3
"""Request smuggling: ambiguous framing, sent directly and through nginx and HAProxy in front.

flow-proxy must not see two requests where the client, or the front, sent one. Each attack hides a
request for a unique path, the marker, where a lax parser would find the next request. The upstream
behind flow-proxy records every request that it gets; no marker may be among them, unless the front
itself parsed it as a request and says so in its log.

Usage: tests/smuggling.py   (make test-smuggling)
FLOW_PROXY_BIN names the binary; default: target/debug/flow-proxy. Needs only Python's standard library.
"""

import concurrent.futures
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from smuggling_attacks import Second, attacks

ROOT = Path(__file__).resolve().parent.parent
# After a pause this long a response counts as complete: after many attacks the connection stays open.
# If the response is not the expected one, longer pauses are tried: the machine may be busy.
SILENCES_S = 1, 4, 12
DEADLINE_S = 15
AT_ONCE = 6


class Upstream:
    """Responds to every request with its path, and records all requests."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.seen = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        try:
            with client, client.makefile("rb") as stream:
                while self.serve_one(client, stream):
                    pass
        except OSError:
            pass  # The other side closed the connection.

    def serve_one(self, client, stream):
        line = stream.readline()
        if not line:
            return False
        headers = []
        while (header := stream.readline().rstrip(b"\r\n")) != b"":
            name, _, value = header.partition(b":")
            headers.append((name.strip().lower(), value.strip()))
        with self.lock:
            self.seen.append((line.decode("latin1").strip(), headers))
        path = line.split(b" ")[1]
        if b"/early" in path:
            # Does not read the body.
            self.respond(client, path, b"close")
            return False
        lengths = [value for name, value in headers if name == b"content-length"]
        if any(name == b"transfer-encoding" for name, _ in headers):
            while (size := int(stream.readline().split(b";")[0], 16)) > 0:
                stream.read(size + 2)
            while stream.readline().strip():
                pass
        elif lengths:
            stream.read(int(lengths[0]))
        self.respond(client, path, b"keep-alive")
        return True

    @staticmethod
    def respond(client, path, connection):
        body = b"path=" + path
        head = b"HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nConnection: %s\r\nContent-Length: %d\r\n\r\n"
        client.sendall(head % (connection, len(body)) + body)

    def paths(self):
        with self.lock:
            return [line.split(" ")[1] for line, _ in self.seen if line.count(" ") >= 1]


class Process:
    """A child process that is terminated at the end."""

    def __init__(self, command, work, name):
        self.out = work / f"{name}.out"
        with open(self.out, "wb") as out:
            self.child = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=work
            )

    def text(self):
        return self.out.read_text("latin1")

    def wait_for(self, pattern):
        return wait_for(lambda: re.search(pattern, self.text()), f"{pattern} in\n{self.text()}")

    def stop(self):
        self.child.terminate()
        try:
            self.child.wait(5)
        except subprocess.TimeoutExpired:
            self.child.kill()


def wait_for(condition, what, deadline=DEADLINE_S):
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    sys.exit(f"smuggling: not within {deadline} s: {what}")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def accepts(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


class Front:
    """A proxy in front of flow-proxy, and the requests that it forwarded."""

    def __init__(self, name, port, log=None):
        self.name, self.port, self.log = name, port, log

    def has_forwarded(self, marker, times):
        """Whether the front's log says that it forwarded the marker as a request at least `times` times."""
        line = re.compile(rf'^FORWARDED "\S+\s+\S*{re.escape(marker)}[\s?"]', re.M)
        end = time.monotonic() + 3
        while self.log and time.monotonic() < end:
            if len(line.findall(self.log())) >= times:
                return True
            time.sleep(0.1)
        return False


def find(name):
    """Finds a program in PATH and in the sbin directories; prints a line if it is missing."""
    program = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin")
    if not program:
        print(f"skip: {name} is not installed, so nothing is sent through it")
    return program


def start_nginx(work, proxy_port, processes):
    """Two servers: one buffers request bodies, one streams them."""
    if not (nginx := find("nginx")):
        return []
    ports = free_port(), free_port()
    folder = work / "nginx"
    folder.mkdir()
    folder.chmod(0o755)
    temp = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.getuid() == 0 else ""
    servers = "".join(
        f"""server {{
          listen 127.0.0.1:{port};
          ignore_invalid_headers off;
          location / {{
            proxy_pass http://flow_proxy;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_request_buffering {buffering};
          }}
        }}
        """
        for port, buffering in zip(ports, ("on", "off"))
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"""daemon off; pid {folder}/pid; {user} worker_processes 1;
        error_log {folder}/error.log;
        events {{ worker_connections 512; }}
        http {{
        {temp}
        log_format front '$forwarded "$request" $status';
        map $upstream_addr $forwarded {{ default FORWARDED; '' ANSWERED; '-' ANSWERED; }}
        access_log {folder}/access.log front;
        client_max_body_size 0;
        upstream flow_proxy {{ server 127.0.0.1:{proxy_port}; keepalive 4; }}
        {servers}
        }}
        """
    )
    process = Process([nginx, "-p", str(folder), "-c", str(config)], work, "nginx.process")
    processes.append(process)
    for port in ports:
        wait_for(lambda: accepts(port), f"nginx: {process.text()}")
    access = folder / "access.log"
    log = lambda: access.read_text("latin1")
    return [Front("nginx", ports[0], log), Front("nginx unbuffered", ports[1], log)]


def start_haproxy(work, proxy_port, processes):
    """Two frontends: the default, and `accept-invalid-http-request`, which accepts more."""
    if not (haproxy := find("haproxy")):
        return []
    ports = free_port(), free_port()
    sections = "".join(
        f"""
frontend front{port}
  bind 127.0.0.1:{port}
  {lax}
  log-format '%[var(txn.forwarded)] "%HM %HU %HV" %ST'
  http-request set-var(txn.forwarded) str(FORWARDED)
  default_backend flow_proxy
"""
        for port, lax in zip(ports, ("", "option accept-invalid-http-request"))
    )
    config = work / "haproxy.cfg"
    config.write_text(
        f"""global
  log stdout format raw local0
  maxconn 512
defaults
  mode http
  log global
  timeout connect 5s
  timeout client 5s
  timeout server 20s
  timeout http-keep-alive 5s
{sections}
backend flow_proxy
  http-reuse always
  server s 127.0.0.1:{proxy_port}
"""
    )
    process = Process([haproxy, "-db", "-f", str(config)], work, "haproxy.process")
    processes.append(process)
    for port in ports:
        wait_for(lambda: accepts(port), f"haproxy: {process.text()}")
    return [Front("haproxy", ports[0], process.text), Front("haproxy lax", ports[1], process.text)]


def start_proxy(work, upstream, processes):
    binary = Path(os.environ.get("FLOW_PROXY_BIN", ROOT / "target/debug/flow-proxy")).resolve()
    if not binary.exists():
        sys.exit(f"smuggling: no {binary}: make build, or set FLOW_PROXY_BIN")
    secret = {"clientId": "FAKE-id", "clientSecret": "FAKE-secret", "tenant": "FAKE-tenant"}
    secrets = work / "secrets.json"
    secrets.write_text(json.dumps([secret]))
    secrets.chmod(0o600)
    options = {
        "--port": "0",
        "--target-url": f"http://127.0.0.1:{upstream.port}",
        "--secrets-file": str(secrets),
        "--log-file": str(work / "flow-proxy.log"),
    }
    command = [str(binary), *(word for option in options.items() for word in option)]
    process = Process(command, work, "flow-proxy.process")
    processes.append(process)
    return Front("direct", int(process.wait_for(r"Listening on http://127.0.0.1:(\d+)").group(1)))


def exchange(port, request, silence_s):
    """Sends `request` and returns all bytes until the connection closes or pauses."""
    response = b""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as client:
        try:
            client.sendall(request)
        except OSError:
            pass  # Rejected before all of it was sent.
        client.settimeout(silence_s)
        try:
            while piece := client.recv(65536):
                response += piece
        except OSError:
            pass
    return response


def summary(response):
    """The statuses of the responses; those of the front itself in brackets."""
    heads = re.split(rb"(?=HTTP/1\.[01] \d{3} )", response)
    cells = []
    for head in heads[1:]:
        status = head[9:12].decode()
        headers = head.lower()
        ours = b"x-upstream:" in headers or b"x-request-id:" in headers or status == "100"
        cells.append(status if ours else f"({status})")
    return "+".join(cells) if cells else "none"


def run(front, attack, number, upstream):
    """Sends one attack through one front. Returns the table's cell, the marker, and what went wrong
    for the next client, or None."""
    marker = f"/marker-{number}-{front.name.replace(' ', '-')}"
    for silence_s in SILENCES_S:
        cell = summary(exchange(front.port, attack.request(marker), silence_s))
        if front.log or cell in attack.direct.split(" or "):
            break
    # The next client on the connections behind the front must get its own response.
    victim = f"/v1/victim{marker.replace('marker', 'v')}"
    request = f"GET {victim} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    response = exchange(front.port, request.encode(), DEADLINE_S)
    if not response.endswith(f"path={victim}".encode()):
        return cell, marker, f"the next client got {response[:300]!r}"
    return cell, marker, None


def judge(front, attack, marker, cell, upstream):
    """The table's note beside the statuses, and what went wrong, or None."""
    seen = [path for path in upstream.paths() if path.partition("?")[0].endswith(marker)]
    is_expected = front.log is not None or cell in attack.direct.split(" or ")
    if seen and attack.second is Second.HIDDEN and not front.has_forwarded(marker, len(seen)):
        return " SMUGGLED", f"the upstream got {seen}"
    if not is_expected:
        return " !", f"{cell}, not {attack.direct}"
    if not seen and attack.second is Second.SENT:
        return " LOST", "the second request is lost"
    return " parsed" if seen and front.log else "", None


def check_forwarded_headers(upstream):
    """Each forwarded request has unambiguous framing, whatever was sent."""
    for line, headers in upstream.seen:
        names = [name for name, _ in headers]
        framing = names.count(b"content-length") + names.count(b"transfer-encoding")
        if framing > 1 or names.count(b"host") != 1:
            yield f"forwarded with ambiguous framing: {line} {headers}"


def main():
    upstream = Upstream()
    processes = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        work.chmod(0o755)
        try:
            direct = start_proxy(work, upstream, processes)
            fronts = [direct]
            fronts += start_nginx(work, direct.port, processes)
            fronts += start_haproxy(work, direct.port, processes)
            return attack_all(fronts, upstream)
        finally:
            for process in reversed(processes):
                process.stop()


def attack_all(fronts, upstream):
    todo = attacks()
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        results = [
            [pool.submit(run, front, attack, number, upstream) for front in fronts]
            for number, attack in enumerate(todo)
        ]
        results = [[cell.result() for cell in row] for row in results]
    problems = list(check_forwarded_headers(upstream))
    width = max(len(attack.name) for attack in todo)
    print("Statuses; in brackets: the front's own response.")
    print("parsed: the front itself parsed the hidden request as one, and its log says so.\n")
    print("attack".ljust(width), *(front.name.ljust(17) for front in fronts))
    for attack, row in zip(todo, results):
        cells = []
        for front, (cell, marker, problem) in zip(fronts, row):
            note, wrong = judge(front, attack, marker, cell, upstream)
            found = [what for what in (problem, wrong) if what]
            problems += [f"{attack.name}, {front.name}: {what}" for what in found]
            cells.append((cell + note).ljust(17))
        print(attack.name.ljust(width), *cells)
    for problem in problems:
        print("FAILED:", problem)
    names = ", ".join(front.name for front in fronts)
    print(f"\n{len(todo)} attacks, each in {len(fronts)} setups ({names}): {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
