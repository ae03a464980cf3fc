"""What the checks share: the proxy as a child process, the runner of the checks, deadlines."""

import collections
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import traceback

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("FLOW_PROXY_BIN") or str(REPOSITORY / "target/release/flow-proxy")
# Other variables (keys, base URLs, proxies) would change what the SDKs do.
KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "CI")
START_DEADLINE = 10.0


class Skipped(Exception):
    """A tool that a check needs is missing."""


def clean_environment(**more):
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return {**kept, **more}


def wait_for(what, condition, deadline=5.0):
    """Waits until `condition` returns a true value, and returns that value."""
    end = time.monotonic() + deadline
    while not (result := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {deadline:g} s")
        time.sleep(0.01)
    return result


def equal(left, right, what="values"):
    assert left == right, f"{what} differ:\n  got      {left!r}\n  expected {right!r}"


def contains(text, part):
    assert part in str(text), f"{part!r} is not in {text!r}"


def credentials(count):
    """Returns configurations for a secrets file: visibly fake, and not only ASCII."""
    fields = lambda n: {
        "name": f"client-{n}",
        "clientId": f"FAKE-id-{n}",
        "clientSecret": f"FAKE-sécret-{n}-not-real-but-long-enough",
        "tenant": "FAKE-ténant-世界",
    }
    return [fields(n) for n in range(1, count + 1)]


class Proxy:
    """A running flow-proxy, on a free port if none is given."""

    started = []

    def __init__(self, *arguments, secrets=None, command=(), port=0):
        self.directory = tempfile.TemporaryDirectory(prefix="flow-proxy-clients-")
        path = pathlib.Path(self.directory.name)
        (path / "secrets.json").write_text(json.dumps(secrets or credentials(3)))
        (path / "secrets.json").chmod(0o600)
        self.lines = []
        self.process = subprocess.Popen(
            [BINARY, *command, "--port", str(port), *arguments],
            cwd=path,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        Proxy.started.append(self)
        threading.Thread(target=self._read_log, daemon=True).start()
        what = f"the Listening line of {BINARY}"
        line = wait_for(what, lambda: self.line_with("Listening on http://"), START_DEADLINE)
        self.url = line.split("Listening on ")[1].split()[0].rstrip("/")
        self.port = int(self.url.rsplit(":", 1)[1])

    def _read_log(self):
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    def line_with(self, text):
        return next((line for line in list(self.lines) if text in line), None)

    def terminate(self):
        self.process.terminate()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.directory.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


Check = collections.namedtuple("Check", "title run")
Results = collections.namedtuple("Results", "passed failed skipped")


def run_all(checks):
    """Runs the checks in order and prints a line for each."""
    counts = {"ok": 0, "FAIL": 0, "skip": 0}
    for check in checks:
        started = time.monotonic()
        verdict, detail = "ok", ""
        try:
            check.run()
        except Skipped as why:
            verdict, detail = "skip", f": {why}"
        except AssertionError as error:
            verdict, detail = "FAIL", f"\n{indented(str(error))}"
        except Exception:
            verdict, detail = "FAIL", f"\n{indented(traceback.format_exc())}"
        counts[verdict] += 1
        seconds = time.monotonic() - started
        print(f"{verdict:4} {check.title} ({seconds:.1f} s){detail}", flush=True)
    return Results(counts["ok"], counts["FAIL"], counts["skip"])


def side_by_side(lab, run):
    """Runs a slow check with all SDKs at the same time."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for attempt in [pool.submit(run, lab, sdk) for sdk in lab.sdks]:
            attempt.result()


def indented(text):
    return "\n".join("     " + line for line in text.splitlines())


def end_all_processes():
    for proxy in Proxy.started:
        proxy.kill()


def start_watchdog(seconds, also_end):
    """Ends all processes and the run if it takes longer than `seconds`."""

    def bark():
        print(f"FAIL the run took longer than {seconds} s: ended", flush=True)
        also_end()
        end_all_processes()
        sys.stdout.flush()
        os._exit(1)

    timer = threading.Timer(seconds, bark)
    timer.daemon = True
    timer.start()
