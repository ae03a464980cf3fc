"""Runs all checks, or those whose titles contain a given word.

run.py starts it in the virtual environment that it has made.
"""

import argparse
import functools
import pathlib
import socket
import sys

import checks_broken
import checks_curl
import checks_demo
import checks_errors
import checks_forwarding
import checks_usage
import harness
import sdks
from upstream import Upstream

# Seconds; several times the usual duration. A run that takes longer is ended and has failed.
WHOLE_RUN = 600
PARTS = (
    checks_demo,
    checks_forwarding,
    checks_usage,
    checks_errors,
    checks_broken,
    checks_curl,
)


class Lab:
    """What the checks share. A proxy starts when the first check needs it."""

    def __init__(self, node_directory):
        self.upstream = Upstream()
        self.credentials = harness.credentials(3)
        self.node = None
        self.sdks = list(self.python_sdks())
        if node_directory:
            self.node = sdks.NodeDriver(pathlib.Path(node_directory) / "driver.mjs")
            self.sdks += [
                sdks.NodeSdk(self.node, "openai (Node)", "openai"),
                sdks.NodeSdk(self.node, "anthropic (Node)", "anthropic"),
            ]

    @staticmethod
    def python_sdks():
        for make in (sdks.OpenAiPython, sdks.AnthropicPython):
            try:
                yield make()
            except ImportError:
                print(f"skip {make.name}: not installed", flush=True)

    @functools.cached_property
    def demo(self):
        return harness.Proxy(command=["demo"])

    @functools.cached_property
    def proxy(self):
        return harness.Proxy("--target-url", self.upstream.url, secrets=self.credentials)

    @functools.cached_property
    def single_proxy(self):
        """With a single credential: no failover is possible."""
        secrets = harness.credentials(1)
        return harness.Proxy("--target-url", self.upstream.url, secrets=secrets)

    @functools.cached_property
    def strict_proxy(self):
        limits = ("--upstream-timeout", "1", "--max-body", "16K")
        return harness.Proxy("--target-url", self.upstream.url, *limits)

    @functools.cached_property
    def patient_proxy(self):
        return harness.Proxy("--target-url", self.upstream.url, "--upstream-timeout", "4")

    @functools.cached_property
    def lost_proxy(self):
        """Nothing listens on its upstream's port."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        return harness.Proxy("--target-url", f"http://127.0.0.1:{port}/flow-llm-proxy")

    def end(self):
        harness.end_all_processes()
        if self.node:
            self.node.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--node", help="where driver.mjs and node_modules are")
    parser.add_argument("word", nargs="?", default="")
    arguments = parser.parse_args()
    lab = Lab(arguments.node)
    harness.start_watchdog(WHOLE_RUN, lab.end)
    try:
        checks = [check for part in PARTS for check in part.checks(lab)]
        chosen = [check for check in checks if arguments.word in check.title]
        results = harness.run_all(chosen)
    finally:
        lab.end()
    failed = results.failed + len(lab.upstream.errors)
    for error in lab.upstream.errors:
        print(f"FAIL a script of the upstream: {error}")
    print(f"{results.passed} passed, {failed} failed, {results.skipped} skipped", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
