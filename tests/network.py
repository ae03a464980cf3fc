#!/usr/bin/env python3
"""Peers whose packets vanish: hosts in network namespaces, with links that can lose and delay packets.

Each check has a client, the proxy and an upstream, each in a namespace of its own with a TUN device; this
program carries the packets between them, or drops them. It shows that the kernel's probes and limits free
what a vanished peer holds, and that a slow address is not abandoned for a dead one. A run takes 65 s.

Usage: tests/network.py [WORD]   (make test-network; checks with that word)
FLOW_PROXY_BIN names the binary; default: target/debug/flow-proxy. Needs root, `ip` (package iproute2) and
/dev/net/tun. Where these are missing it says so and ends well, unless REQUIRE_NETWORK=1.
"""

import ctypes
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARY = os.environ.get("FLOW_PROXY_BIN") or str(ROOT / "target/debug/flow-proxy")
# Seconds. Probes are sent after 15 s of silence and then every 5 s, three of them; the rest is slack.
VANISHED = 40
SOON = 10
WHOLE_RUN = 150
PREFIX = "flow-proxy-test"
ADDRESSES = {"proxy": ["10.99.0.1"], "client": ["10.99.0.2"], "upstream": ["10.99.0.3", "10.99.0.5"]}
UPSTREAM, OTHER = ADDRESSES["upstream"]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
# From linux/sched.h and linux/if_tun.h.
CLONE_NEWNET, TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x40000000, 0x400454CA, 0x0001, 0x1000
LIBC = ctypes.CDLL(None, use_errno=True)


class Missing(Exception):
    """What these tests need is not on this machine."""


def ip(*arguments):
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def wait_for(what, seconds, look):
    started = time.monotonic()
    while not (found := look()):
        if time.monotonic() - started > seconds:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.02)
    return found


def expect(condition, message):
    if not condition:
        raise AssertionError(message)


class Lab:
    """Three hosts, the packets between them, and a proxy on one of them."""

    count = 0
    lock = threading.Lock()

    def __init__(self):
        with Lab.lock:
            Lab.count += 1
            self.name = f"{PREFIX}-{os.getpid()}-{Lab.count}"
        self.directory = Path(tempfile.mkdtemp(prefix=PREFIX))
        self.devices, self.process = {}, None
        self.dropped, self.delays = set(), {}  # Addresses; the second in seconds, by source.

    def namespace(self, host):
        return f"{self.name}-{host}"

    def build(self):
        for host, addresses in ADDRESSES.items():
            namespace = self.namespace(host)
            ip("netns", "add", namespace)
            device = self.inside(host, open_tun)
            for address in addresses:
                ip("-n", namespace, "address", "add", f"{address}/24", "dev", "tun0")
                self.devices[socket.inet_aton(address)] = device
            ip("-n", namespace, "link", "set", "tun0", "up")
            ip("-n", namespace, "link", "set", "lo", "up")
        for device in set(self.devices.values()):
            threading.Thread(target=self.carry, args=(device,), daemon=True).start()

    def inside(self, host, act):
        """Calls `act` in the namespace of `host`: its sockets and devices belong there for good."""
        result = []

        def run():
            with open(f"/run/netns/{self.namespace(host)}") as namespace:
                if LIBC.setns(namespace.fileno(), CLONE_NEWNET):
                    result.append(OSError(ctypes.get_errno(), "setns"))
                    return
            try:
                result.append(act())
            except OSError as error:
                result.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if not result or isinstance(result[0], OSError):
            raise result[0] if result else Missing("a namespace")
        return result[0]

    def carry(self, device):
        """Passes on what a host sends, by its destination."""
        while True:
            try:
                packet = os.read(device, 65536)
            except OSError:
                return
            source, target = packet[12:16], packet[16:20]
            if packet[0] >> 4 != 4 or target not in self.devices:
                continue
            send = threading.Timer(self.delays.get(source, 0), self.deliver, (source, target, packet))
            send.daemon = True
            if source in self.delays:
                send.start()
            else:
                self.deliver(source, target, packet)

    def deliver(self, source, target, packet):
        if not self.dropped & {source, target}:
            try:
                os.write(self.devices[target], packet)
            except OSError:
                pass  # The check is over.

    def drop(self, address):
        self.dropped.add(socket.inet_aton(address))

    def restore(self):
        self.dropped.clear()

    def listen(self):
        return self.inside("upstream", lambda: socket.create_server(("", 8080)))

    def connect(self, host="client"):
        address = (ADDRESSES["proxy"][0], 8899)
        return self.inside(host, lambda: socket.create_connection(address, timeout=VANISHED + SOON))

    def start(self, *options, target=UPSTREAM):
        secrets = [{"name": "one", "clientId": "x", "clientSecret": "fake-secret", "tenant": "t"}]
        (self.directory / "secrets.json").write_text(json.dumps(secrets))
        command = [
            "ip", "netns", "exec", self.namespace("proxy"), BINARY, "--host", "0.0.0.0", "--port", "8899",
            "--log-file", "none", "--target-url", f"http://{target}:8080", "--allow-http-target", *options,
        ]  # fmt: skip
        with open(self.directory / "log", "wb") as log:
            environment = {"PATH": os.environ.get("PATH", "")}
            self.process = subprocess.Popen(
                command, cwd=self.directory, env=environment, stdin=subprocess.DEVNULL, stderr=log
            )
        wait_for("the proxy to listen", SOON, lambda: "Listening on" in self.log())

    def log(self):
        return (self.directory / "log").read_text()

    def access_line(self, number):
        lines = lambda: re.findall(r'"POST .*', self.log())
        return wait_for(f"access line {number}", SOON, lambda: lines()[number - 1 :])[0]

    def name_upstream(self, *addresses):
        """Lets upstream.test have these addresses, in the proxy's namespace."""
        directory = Path("/etc/netns") / self.namespace("proxy")
        directory.mkdir(parents=True)
        (directory / "hosts").write_text("".join(f"{it} upstream.test\n" for it in addresses))

    def upstream_connections(self):
        """Counts the proxy's open connections to the upstream's port."""
        table = Path(f"/proc/{self.process.pid}/net/tcp").read_text().splitlines()[1:]
        return sum(columns[2].endswith(":1F90") and columns[3] == "01" for columns in map(str.split, table))

    def close(self):
        if self.process:
            self.process.kill()
            self.process.wait()
        for host in ADDRESSES:
            remove_namespace(self.namespace(host))
        shutil.rmtree(self.directory, ignore_errors=True)


def open_tun():
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN | IFF_NO_PI))
    return device


def remove_namespace(name):
    subprocess.run(["ip", "netns", "delete", name], capture_output=True)
    shutil.rmtree(f"/etc/netns/{name}", ignore_errors=True)
    try:
        os.rmdir("/etc/netns")
    except OSError:
        pass  # Not ours alone, or not there.


def post(client):
    client.sendall(b"POST /v1/x HTTP/1.1\r\nHost: proxy\r\nContent-Length: 2\r\n\r\n{}")


def read_message(connection):
    """Reads a request or response with its body; b"" at the end of the connection."""
    message = b""
    while b"\r\n\r\n" not in message:
        piece = connection.recv(65536)
        if not piece:
            return b""
        message += piece
    head = message.partition(b"\r\n\r\n")[0]
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    while found and len(message) < len(head) + 4 + int(found[1]):
        message += connection.recv(65536)
    return message


def read_status(client):
    return int(read_message(client).split(b" ")[1])


def accept(listener, seconds=SOON):
    listener.settimeout(seconds)
    connection, _ = listener.accept()
    connection.settimeout(VANISHED + SOON)
    return connection


def serve(listener):
    """Answers all requests from now on, each connection in a thread of its own."""

    def serve_one(connection):
        try:
            while read_message(connection):
                connection.sendall(OK)
        except OSError:
            pass  # The connection has ended.

    def run():
        while True:
            try:
                connection = accept(listener, WHOLE_RUN)
            except OSError:
                return
            threading.Thread(target=serve_one, args=(connection,), daemon=True).start()

    threading.Thread(target=run, daemon=True).start()


class Clock:
    def __init__(self):
        self.started = time.monotonic()

    def expect(self, what, least, most):
        took = time.monotonic() - self.started
        expect(least <= took <= most, f"{what} after {took:.1f} s, not {least} to {most} s")


def has_ended(connection):
    try:
        return connection.recv(65536) == b""
    except ConnectionError:
        return True


def a_vanished_client_of_a_silent_upstream_frees_its_worker(lab):
    lab.start("--workers", "1", "--client-timeout", "30")
    expect_a_free_worker(lab, 20, VANISHED)


# Linux ends a connection by TCP_USER_TIMEOUT, here 60 s, where it is set, and not by the number of probes.
def a_vanished_client_frees_its_worker_after_the_default_timeout(lab):
    lab.start("--workers", "1")
    expect_a_free_worker(lab, 20, 60 + SOON)


def expect_a_free_worker(lab, least, most):
    """Lets a client vanish whose upstream is silent; its worker must be free after these seconds."""
    listener = lab.listen()
    client = lab.connect()
    post(client)
    upstream = accept(listener)
    read_message(upstream)
    lab.drop(ADDRESSES["client"][0])
    clock = Clock()
    upstream.settimeout(most + SOON)
    expect(has_ended(upstream), "the upstream's connection goes on")
    clock.expect("the upstream's connection ended", least, most)
    line = lab.access_line(1)
    expect(" 499 " in line and "end=client_gone" in line, line)
    serve(listener)
    neighbour = lab.connect("proxy")
    post(neighbour)
    expect(read_status(neighbour) == 200, "the worker is not free")


def a_client_that_vanishes_in_a_streamed_response_ends_it(lab):
    lab.start("--client-timeout", "10")
    listener = lab.listen()
    client = lab.connect()
    post(client)
    upstream = accept(listener)
    read_message(upstream)
    upstream.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    client.recv(1)
    lab.drop(ADDRESSES["client"][0])
    clock = Clock()
    try:
        while time.monotonic() - clock.started < VANISHED + SOON:
            upstream.sendall(b"9\r\ndata: x\n\n\r\n")
            time.sleep(0.2)  # The upstream's own pace.
    except ConnectionError:
        pass
    clock.expect("the stream ended", 20, VANISHED)
    line = lab.access_line(1)
    expect("end=client_gone" in line or "end=client_timeout" in line, line)


def an_upstream_that_vanishes_in_mid_request_is_an_error(lab):
    lab.start()
    listener = lab.listen()
    client = lab.connect()
    post(client)
    upstream = accept(listener)  # Open until the end: without a name Python would close it at once.
    read_message(upstream)
    lab.drop(UPSTREAM)
    clock = Clock()
    response = read_message(client)
    clock.expect("an error", 20, VANISHED)
    expect(response.startswith(b"HTTP/1.1 502 "), response)
    expect(b"x-should-retry: false" in response, "the upstream may have worked on the request")


def an_idle_upstream_that_has_just_vanished_is_an_error_and_then_forgotten(lab):
    lab.start()
    serve(lab.listen())
    client = lab.connect()
    post(client)
    expect(read_status(client) == 200, "the upstream serves")
    lab.drop(UPSTREAM)
    clock = Clock()
    post(client)
    expect(read_status(client) == 502, "an upstream that is not there")
    clock.expect("an error", 5, VANISHED)
    lab.restore()
    clock = Clock()
    post(client)
    expect(read_status(client) == 200, "the upstream is there again")
    clock.expect("the response", 0, SOON)


def an_idle_upstream_that_vanished_is_noticed_without_a_request(lab):
    lab.start()
    serve(lab.listen())
    client = lab.connect()
    post(client)
    expect(read_status(client) == 200, "the upstream serves")
    expect(lab.upstream_connections() == 1, "the connection is kept")
    lab.drop(UPSTREAM)
    clock = Clock()
    wait_for("the idle connection's end", VANISHED, lambda: lab.upstream_connections() == 0)
    clock.expect("the idle connection's end", 20, VANISHED)
    lab.restore()
    clock = Clock()
    post(client)
    expect(read_status(client) == 200, "the upstream is there again")
    clock.expect("the response", 0, 3)


def an_upstream_that_is_not_there_is_an_error_after_10_s(lab):
    lab.start()
    lab.drop(UPSTREAM)
    client = lab.connect()
    clock = Clock()
    post(client)
    response = read_message(client)
    clock.expect("an error", 9, 13)
    expect(response.startswith(b"HTTP/1.1 502 "), response)
    expect(b"x-should-retry" not in response, "nothing was sent")


def a_slow_first_address_is_not_abandoned_for_a_dead_one(lab):
    lab.name_upstream(UPSTREAM, OTHER)
    lab.drop(OTHER)
    lab.delays[socket.inet_aton(UPSTREAM)] = 0.4
    lab.start(target="upstream.test")
    serve(lab.listen())
    client = lab.connect()
    clock = Clock()
    post(client)
    expect(read_status(client) == 200, "the first address serves")
    # Connecting and the response take 0.4 s each.
    clock.expect("the response", 0.8, 2)


def a_dead_first_address_costs_a_quarter_of_a_second(lab):
    lab.name_upstream(UPSTREAM, OTHER)
    lab.drop(UPSTREAM)
    lab.start(target="upstream.test")
    serve(lab.listen())
    client = lab.connect()
    clock = Clock()
    post(client)
    expect(read_status(client) == 200, "the second address serves")
    clock.expect("the response", 0.25, 1.5)


CHECKS = [
    a_vanished_client_of_a_silent_upstream_frees_its_worker,
    a_vanished_client_frees_its_worker_after_the_default_timeout,
    a_client_that_vanishes_in_a_streamed_response_ends_it,
    an_upstream_that_vanishes_in_mid_request_is_an_error,
    an_idle_upstream_that_has_just_vanished_is_an_error_and_then_forgotten,
    an_idle_upstream_that_vanished_is_noticed_without_a_request,
    an_upstream_that_is_not_there_is_an_error_after_10_s,
    a_slow_first_address_is_not_abandoned_for_a_dead_one,
    a_dead_first_address_costs_a_quarter_of_a_second,
]


def run(check, lab, failures):
    name = check.__name__.replace("_", " ")
    try:
        check(lab)
        print(f"ok: {name}", flush=True)
    except Exception as error:  # noqa: BLE001
        failures.append(name)
        print(f"FAILED: {name}: {type(error).__name__}: {error}\n{lab.log()}", file=sys.stderr, flush=True)


def remove_leftovers():
    """Removes what a run left behind that was killed."""
    for name in os.listdir("/run/netns") if os.path.isdir("/run/netns") else []:
        found = re.match(rf"{PREFIX}-(\d+)-", name)
        if found and not os.path.exists(f"/proc/{found[1]}"):
            remove_namespace(name)


def main():
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    if not os.access(BINARY, os.X_OK):
        print(f"{BINARY} is not there: cargo build", file=sys.stderr)
        return 1
    # So that all that was made is removed.
    for number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM:
        signal.signal(number, lambda *_: sys.exit(1))
    signal.alarm(WHOLE_RUN)
    labs, failures, threads = [], [], []
    try:
        try:
            if os.geteuid() or not shutil.which("ip"):
                raise Missing("root and the command ip (package iproute2) are needed")
            remove_leftovers()
            for check in CHECKS:
                if word in check.__name__:
                    labs.append(Lab())
                    labs[-1].build()
                    threads.append(threading.Thread(target=run, args=(check, labs[-1], failures), daemon=True))
        except (Missing, OSError) as error:
            is_required = os.environ.get("REQUIRE_NETWORK") == "1"
            print(f"{'FAILED' if is_required else 'skip'}: network namespaces: {error}", file=sys.stderr)
            return int(is_required)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return int(bool(failures) or not threads)
    finally:
        for lab in labs:
            lab.close()


if __name__ == "__main__":
    sys.exit(main())
