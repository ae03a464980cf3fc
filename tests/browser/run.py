"""What web pages can do with the proxy, and its own page, in a real browser: `make test-browser` (`ONLY=WORD`).

A headless Chromium opens pages of several origins, which try every way that ways.js knows to have
the browser send a request. What the upstream gets is counted. Where Chromium cannot be installed it
says so and ends well, unless REQUIRE_BROWSER=1. All traffic is on loopback; a run takes two minutes.

Files: driver.py drives the browser; pages.py serves the pages; status_page.py has the checks of the proxy's
own page. FLOW_PROXY_BIN names the binary; the
default is target/release/flow-proxy.
"""

import json
import os
import pathlib
import re
import signal
import sys
import time

import driver
from pages import Sites

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "clients"))
import status_page  # noqa: E402
from clients import harness  # noqa: E402
from clients.harness import Proxy, contains, equal, wait_for  # noqa: E402
from clients.upstream import Upstream  # noqa: E402

# Seconds; several times the usual duration. A run that takes longer is ended and has failed.
WHOLE_RUN = 300
# After a page has tried everything: no request for so long, in seconds, means that no more come.
QUIET, QUIET_DEADLINE = 1.5, 30.0
# Ways that a page tries together: a browser lets requests wait where there are many.
AT_ONCE = 12
# What a browser does only for a page that does nothing else.
ALONE = ("speculation-prefetch", "speculation-prerender")
# A foreign site, one of a private address (which only this browser resolves so), and an allowed one.
EVIL, PRIVATE, ALLOWED = "evil.example", "10.20.30.40", "app.example"
# For some of the ways this browser sends nothing. For so many it must send something.
LEAST_TRIED = 85

DOCUMENT = """<!doctype html><title>untouched</title><script>
document.title = "acted";
fetch("/v1/of-a-document", { method: "POST", body: "{}" });
navigator.serviceWorker.register("/v1/worker.js");
</script><body onload="fetch('/v1/of-a-document')"><img src="/v1/last-of-a-document">"""


class Lab:
    """What the checks share."""

    def __init__(self):
        self.upstream = Upstream()
        self.upstream.scripts[None] = respond
        self.sites = Sites()
        self.proxy = Proxy(
            "--target-url", self.upstream.url, "--allow-origin", self.sites.origin(ALLOWED)
        )
        hosts = [EVIL, PRIVATE, ALLOWED, f"b.{EVIL}"]
        self.browser = driver.Browser(hosts, [self.sites.origin(host) for host in hosts])
        self.turn = 0

    def close(self):
        self.browser.close()

    def statuses(self, part):
        """The statuses of the proxy's responses by the paths of the requests that hold `part`."""
        lines = [re.search(r'"[A-Z]+ (\S+)" (\d+) ', line) for line in list(self.proxy.lines)]
        found = {}
        for match in filter(None, lines):
            if part in match[1]:
                found.setdefault(match[1], set()).add(int(match[2]))
        return found

    def received(self, part):
        return [it for it in list(self.upstream.requests) if part in it.target]

    def wait_until_quiet(self, is_complete=lambda: False):
        end = time.monotonic() + QUIET_DEADLINE
        known, since = len(self.proxy.lines), time.monotonic()
        while time.monotonic() - since < QUIET and time.monotonic() < end and not is_complete():
            time.sleep(0.05)
            if len(self.proxy.lines) != known:
                known, since = len(self.proxy.lines), time.monotonic()

    def try_all(self, host, policy="", proxy_host="127.0.0.1"):
        """Tries all ways from a page of `host`. Returns the statuses by way, and what has arrived."""
        self.turn += 1
        part = f"/v1/turn-{self.turn}/"
        other, local = self.sites.origin(f"b.{EVIL}"), self.sites.origin("localhost")
        base = f"http://{proxy_host}:{self.proxy.port}{part}"
        script = "[window.OTHER, window.LOCAL] = arguments; tryWays(arguments[2], arguments[3])"
        tried = lambda: {path.removeprefix(part): it for path, it in self.statuses(part).items()}
        page = f"{self.sites.origin(host)}/?policy={policy}"
        self.browser.open(page)
        names = self.browser.run("return NAMES")
        for some in groups(names):
            self.browser.open(page)
            self.browser.run(script, other, local, base, some)
            self.wait_until_quiet(lambda some=some: set(some) <= set(tried()))
        not_tried = sorted(set(names) - set(tried()))
        print(f"     {len(tried())} of {len(names)} ways tried; not: {not_tried}", flush=True)
        return tried(), self.received(part)

    def fetch(self, origin, path, options=None):
        """Status, readable header fields and body of a fetch by a page of `origin`, or its error."""
        self.browser.open(f"{origin}/")
        script = """return fetch(...arguments).then(
            async (it) => [it.status, Object.fromEntries(it.headers), await it.text()],
            (error) => [0, {}, String(error)])"""
        return self.browser.run(script, f"{self.proxy.url}{path}", options or {})


def groups(names):
    """Which ways a page tries together."""
    rest = [name for name in names if name not in ALONE]
    return [[name] for name in ALONE] + [
        rest[start : start + AT_ONCE] for start in range(0, len(rest), AT_ONCE)
    ]


def respond(conversation):
    """The upstream: JSON, as LiteLLM answers, or a document that tries to act as the proxy's."""
    more = [("Access-Control-Allow-Origin", "*"), ("x-litellm-model-id", "m"), ("x-internal", "1")]
    if conversation.request.target.endswith("/document"):
        kind = ("Content-Type", "text/html")
        return conversation.respond(200, DOCUMENT.encode(), [kind, *more])
    conversation.respond(200, {"spent": conversation.request.method}, more)


def foreign(host, policy="", proxy_host="127.0.0.1"):
    def check(lab):
        tried, received = lab.try_all(host, policy, proxy_host)
        equal([f"{it.method} {it.target}" for it in received], [], "what reached the upstream")
        equal({way: it for way, it in tried.items() if it != {403}}, {}, "responses other than 403")
        assert len(tried) >= LEAST_TRIED, f"the browser tried {len(tried)} ways only"

    return check


def other_names(lab):
    """Under some of them the browser does not say whose page asks."""
    names = ["localhost", "localhost.", "a.localhost", "[::1]", "[::ffff:127.0.0.1]", EVIL]
    lab.browser.open(lab.sites.origin(EVIL))
    for index, name in enumerate(names):
        url = f"http://{name}:{lab.proxy.port}/v1/by-name-{index}"
        lab.browser.run("add('img', { src: arguments[0], ...hidden })", url)
    expected = {f"/v1/by-name-{index}": {403} for index in range(len(names))}
    lab.wait_until_quiet(lambda: set(lab.statuses("/v1/by-name-")) == set(expected))
    equal(lab.statuses("/v1/by-name-"), expected)
    equal(lab.received("/v1/by-name-"), [])


def local(lab):
    tried, received = lab.try_all("localhost")
    origin = lab.sites.origin("localhost")
    origins = {it.header("origin") for it in received}
    equal(origins, {origin}, "the origins of what reached the upstream")
    for way in ("fetch-cors", "fetch-cors-POST-json", "xhr-POST", "event-source"):
        assert 200 in tried[way] or 204 in tried[way], f"{way}: {tried[way]}"
    for way in ("img", "iframe", "script", "form-GET", "img-of-a-null-origin"):
        equal(tried[way], {403}, way)


def rebinding(lab):
    """A name of the attacker's leads to the proxy itself."""
    for way in ("GET", "POST"):
        lab.browser.open(f"http://{EVIL}:{lab.proxy.port}/v1/rebound")
        contains(lab.browser.source(), "--allow-host")
        lab.browser.run(
            "fetch('/v1/rebound', { method: arguments[0], referrerPolicy: 'no-referrer' })", way
        )
    lab.wait_until_quiet()
    equal(lab.statuses("/v1/rebound"), {"/v1/rebound": {403}})
    equal(lab.received("/v1/rebound"), [])


def typed(lab):
    lab.browser.open(f"{lab.proxy.url}/v1/typed")
    contains(lab.browser.source(), "spent")
    equal(len(lab.received("/v1/typed")), 1)


def document(lab):
    lab.browser.open(f"{lab.proxy.url}/v1/document")
    last = "/v1/last-of-a-document"
    wait_for("the end of the document", lambda: lab.statuses(last))
    lab.wait_until_quiet()
    equal(lab.browser.title(), "untouched", "the title, which its script changes")
    equal(lab.statuses(last), {last: {403}})
    equal([it.target for it in lab.received("of-a-document")], [])
    equal(lab.statuses("/v1/worker.js"), {})


def readable(host):
    def check(lab):
        headers = {"content-type": "application/json", "authorization": "Bearer x", "x-own": "1"}
        options = {"method": "POST", "body": "{}", "headers": headers}
        status, fields, body = lab.fetch(lab.sites.origin(host), "/v1/readable", options)
        equal((status, json.loads(body) if status else body), (200, {"spent": "POST"}))
        names = {"x-request-id", "x-litellm-model-id"}
        equal(names & set(fields), names, "readable header fields")
        assert "x-internal" not in fields, fields
        for path, options, expected in (
            ("/v1/..%2fx", {}, 400),
            ("/v1/x", {"headers": {"x-long": "x" * 70_000}}, 431),
        ):
            status, fields, body = lab.fetch(lab.sites.origin(host), path, options)
            equal((status, "flow-proxy: " in body), (expected, True), path)
            assert "x-flow-proxy-error" in fields, fields
        equal(lab.fetch(lab.sites.origin(host), "/-/health")[0], 0, "the status of /-/health")

    return check


CHECKS = {
    "a foreign page reaches nothing": foreign(EVIL),
    "a foreign page that hides where it is from reaches nothing": foreign(EVIL, "no-referrer"),
    "a foreign page that hides where it is from reaches nothing at a private address": foreign(
        EVIL, "no-referrer", PRIVATE
    ),
    "a foreign page that tells all reaches nothing": foreign(EVIL, "unsafe-url"),
    "a foreign page reaches nothing by other names of the proxy": other_names,
    "a page of a private address reaches nothing": foreign(PRIVATE),
    "a page of this machine reaches what its scripts ask for": local,
    "a name that is bound to this machine reaches nothing": rebinding,
    "an address that is typed is served": typed,
    "a document of the upstream acts in no origin": document,
    "a page of this machine reads answers and errors": readable("localhost"),
    "a page of an allowed origin reads answers and errors": readable(ALLOWED),
}


def main():
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    if not os.access(harness.BINARY, os.X_OK):
        print(f"{harness.BINARY} is not there: cargo build --release", file=sys.stderr)
        return 1
    # So that all that was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        driver.install()
    except driver.NotInstalled as why:
        is_required = os.environ.get("REQUIRE_BROWSER") == "1"
        print(f"Chromium cannot be installed, its checks are left out: {why}", flush=True)
        return 1 if is_required else 0
    labs = []
    close = lambda: [lab.close() for lab in labs]
    harness.start_watchdog(WHOLE_RUN, close)
    checks = []
    try:
        for kind, titles in ((Lab, CHECKS), (status_page.Desk, status_page.CHECKS)):
            chosen = [(title, run) for title, run in titles.items() if word in title]
            if chosen:
                labs.append(kind())
            checks += [
                harness.Check(title, lambda run=run, lab=labs[-1]: run(lab)) for title, run in chosen
            ]
        results = harness.run_all(checks)
    finally:
        harness.end_all_processes()
        close()
    print(f"{results.passed} passed, {results.failed} failed", flush=True)
    return 1 if results.failed else 0


if __name__ == "__main__":
    sys.exit(main())
