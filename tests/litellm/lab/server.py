"""Starts LiteLLM with the fake provider behind it, and ends it."""

import http.client
import os
import pathlib
import socket
import subprocess
import tempfile
import threading
import time

from . import config
from .provider import Provider

CODE = pathlib.Path(__file__).resolve().parents[1]
# Seconds. LiteLLM usually needs 5 of them, and three times that on a busy machine.
START_DEADLINE = 120
# Keys and proxies of the environment would change what LiteLLM does.
KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")


class LiteLLM:
    """LiteLLM on a free port of loopback. `port` and `provider` are for the checks."""

    def __init__(self, venv):
        self.provider = Provider()
        self.venv = venv
        self.lock = threading.Lock()
        self.directory = tempfile.TemporaryDirectory(prefix="flow-proxy-litellm-")
        self.process = None
        try:
            self.start()
        except BaseException:
            self.end()
            raise

    def start(self):
        directory = pathlib.Path(self.directory.name)
        config.write(directory / "config.yaml", self.provider.url)
        log = directory / "litellm.log"
        with socket.create_server(("127.0.0.1", 0)) as listener, log.open("w") as output:
            self.port = listener.getsockname()[1]
            self.process = subprocess.Popen(
                [str(self.venv / "bin" / "python"), "-m", "lab.serve", str(listener.fileno())],
                cwd=directory,
                env=environment(directory / "config.yaml"),
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        if not self.is_ready():
            last = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"LiteLLM did not start:\n{last}")

    def restart_after_crash(self):
        """Starts it once more if its process has ended by itself, which it does not do in order: Python
        crashes in it now and then. False: it runs."""
        with self.lock:
            # None: it has been started anew for another check, or runs.
            crash = self.process.poll()
            if crash is None:
                return False
            print(f"     LiteLLM has crashed ({crash}) and is started once more", flush=True)
            self.start()
            return True

    def is_ready(self):
        """Waits until it responds; False: it has ended, or takes too long."""
        end = time.monotonic() + START_DEADLINE
        while time.monotonic() < end and self.process.poll() is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                connection.request("GET", "/health/liveliness")
                if connection.getresponse().status == 200:
                    return True
            except (OSError, http.client.HTTPException):
                time.sleep(0.1)
            finally:
                connection.close()
        return False

    def end(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.provider.let_go()
        self.directory.cleanup()


def environment(configuration):
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return {
        **kept,
        "CONFIG_FILE_PATH": str(configuration),
        "PYTHONPATH": str(CODE),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "LITELLM_LOG": "CRITICAL",
        "LITELLM_TELEMETRY": "False",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        # It listens on loopback only, and all its credentials are fake.
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
