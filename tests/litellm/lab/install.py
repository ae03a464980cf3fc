"""Makes the virtual environment that LiteLLM runs in: once, and again when what is pinned changes.

It is in `${XDG_CACHE_HOME:-$HOME/.cache}/flow-proxy-tests/litellm-VERSION`; FLOW_PROXY_TEST_CACHE
is a folder in the place of `…/flow-proxy-tests`. It takes a minute and 760 MB.
"""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import subprocess
import sys
import time

REQUIREMENTS = pathlib.Path(__file__).resolve().with_name("requirements.txt")
OLDEST_PYTHON = (3, 11)
# Seconds; several times the usual duration.
DEADLINE = 600


class NotInstalled(Exception):
    """LiteLLM cannot be had here; the message says why."""


def install():
    """Returns the folder of the virtual environment."""
    if sys.version_info < OLDEST_PYTHON:
        raise NotInstalled("it needs Python 3.11 or newer")
    folder = cache() / f"litellm-{version()}"
    state = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    stamp = folder / ".installed"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent / f"{folder.name}.lock"):
            if not stamp.exists() or stamp.read_text() != state:
                stamp.unlink(missing_ok=True)
                fill(folder)
                stamp.write_text(state)
    except OSError as error:
        raise NotInstalled(f"{folder}: {error.strerror}")
    return folder


def cache():
    if chosen := os.environ.get("FLOW_PROXY_TEST_CACHE"):
        return pathlib.Path(chosen).absolute()
    caches = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(caches) / "flow-proxy-tests"


def version():
    lines = REQUIREMENTS.read_text().splitlines()
    pinned = next(line for line in lines if line.startswith("litellm=="))
    return pinned.removeprefix("litellm==").split()[0]


@contextlib.contextmanager
def locked(path):
    """Two runs do not install at the same time."""
    end = time.monotonic() + DEADLINE
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise NotInstalled(f"another run has held {path} for {DEADLINE} s")
                time.sleep(0.5)
        yield


def fill(folder):
    print(f"installing LiteLLM {version()} in {folder}, 760 MB", flush=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    pip += ["--disable-pip-version-check", "--no-input", "--retries", "2"]
    steps = [
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [*pip, "--require-hashes", "--only-binary", ":all:", "-r", str(REQUIREMENTS)],
    ]
    for step in steps:
        try:
            result = subprocess.run(
                step,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=DEADLINE,
            )
        except subprocess.TimeoutExpired:
            raise NotInstalled(f"not within {DEADLINE} s")
        if result.returncode:
            last = result.stdout.strip().splitlines()[-1:] or ["no message"]
            raise NotInstalled(last[0])
