"""The binary in front of a real LiteLLM: `make test-litellm` (`ONLY=WORD`: checks with that word).

Installs LiteLLM in a cache folder (lab/install.py), starts it with a fake provider behind it, and
runs the checks of the checks_*.py against target/release/flow-proxy or the binary that
FLOW_PROXY_BIN names. Where LiteLLM cannot be installed it says so and ends well, unless
REQUIRE_LITELLM=1. All traffic is on loopback; a run takes two minutes.
"""

import os
import signal
import sys
import threading
import time

import checks_counts  # noqa: F401
import checks_limits  # noqa: F401
import checks_matrix  # noqa: F401
import checks_order  # noqa: F401
import checks_phrases  # noqa: F401
import checks_probes  # noqa: F401
import checks_provider  # noqa: F401
import checks_scene  # noqa: F401
import checks_usage  # noqa: F401
import checks_verdicts  # noqa: F401
import support
from clients import harness
from lab import install, server

# Seconds; several times the usual duration. A run that takes longer is ended and has failed.
WHOLE_RUN = 600


class Lab:
    """What the checks share."""

    def __init__(self, litellm):
        self.litellm = litellm

    def proxy(self, *clients, options=()):
        return support.FlowProxy(self, *clients, options=options)

    def ask(self, shape, client, model="gpt-4o-mini", text=support.TEXT, identity=None):
        """Asks LiteLLM itself, without the proxy. The id is that of the request, for LiteLLM."""
        headers = {"Authorization": f"Bearer {support.token(client)}"}
        if identity:
            headers["x-request-id"] = identity
        return support.send_json(self.litellm.port, shape, shape.body(model, text), headers)

    def until_spent(self, shape, client):
        """LiteLLM counts what a response costs a little after it."""
        asked = lambda: self.ask(shape, client).status != 200
        support.wait_for(f"the end of the budget of {client}", asked)


def main():
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    if not os.access(harness.BINARY, os.X_OK):
        print(f"{harness.BINARY} is not there: cargo build --release", file=sys.stderr)
        return 1
    # So that all that was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        venv = install.install()
    except install.NotInstalled as why:
        is_required = os.environ.get("REQUIRE_LITELLM") == "1"
        print(f"LiteLLM cannot be installed, its checks are left out: {why}", flush=True)
        return 1 if is_required else 0
    return run_with(venv, word)


def run_with(venv, word):
    started = time.monotonic()
    try:
        litellm = server.LiteLLM(venv)
    except RuntimeError as error:
        print(f"FAIL {error}\n0 passed, 1 failed", flush=True)
        return 1
    harness.start_watchdog(WHOLE_RUN, litellm.end)
    try:
        print(f"LiteLLM is ready after {time.monotonic() - started:.1f} s", flush=True)
        results = run_all(Lab(litellm), word)
    finally:
        harness.end_all_processes()
        litellm.end()
    print(f"{results.passed} passed, {results.failed} failed", flush=True)
    return 1 if results.failed else 0


def run_all(lab, word):
    """The long checks mostly wait, so they run beside the others; their lines come last."""
    chosen = lambda checks: [(title, run) for title, run in checks if word in title]
    beside = [(title, Beside(run, lab)) for title, run in chosen(support.LONG_CHECKS)]
    checks = [(title, lambda run=run: run_once(lab, run)) for title, run in chosen(support.CHECKS)]
    checks += [(title, thread.result) for title, thread in beside]
    return harness.run_all([harness.Check(*check) for check in checks])


def run_once(lab, run):
    """Runs a check, and once more if LiteLLM has crashed meanwhile."""
    port = lab.litellm.port
    try:
        run(lab)
    except Exception:
        # Its port is another one if it was started anew for a check beside this one.
        if not lab.litellm.restart_after_crash() and lab.litellm.port == port:
            raise
        run(lab)


class Beside(threading.Thread):
    """A check in a thread of its own, which does not outlive a run that is ended."""

    def __init__(self, run, lab):
        super().__init__(daemon=True)
        self.check = lambda: run_once(lab, run)
        self.error = None
        self.start()

    def run(self):
        try:
            self.check()
        except BaseException as error:
            self.error = error

    def result(self):
        self.join()
        if self.error:
            raise self.error


if __name__ == "__main__":
    sys.exit(main())
