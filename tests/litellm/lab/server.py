"""Starts LiteLLM with the fake provider behind it, and ends it."""

import http.client
import os
import pathlib
import socket
import subprocess
import tempfile
import time

from . import config
from .provider import Provider

HERE = pathlib.Path(__file__).resolve().parent
# Seconds. LiteLLM usually needs 8 of them, and twice that on a busy machine.
START_DEADLINE = 90
ATTEMPTS = 3
# Keys and proxies of the environment would change what LiteLLM does.
KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")


class LiteLLM:
    """LiteLLM on a free port of loopback. `port` and `provider` are for the checks."""

    def __init__(self, venv):
        self.venv = venv
        self.provider = Provider()
        self.directory = tempfile.TemporaryDirectory(prefix="flow-proxy-litellm-")
        self.log = pathlib.Path(self.directory.name) / "litellm.log"
        config.write(self.configuration, self.provider.url)
        self.process = None
        try:
            self.start()
        except BaseException:
            self.end()
            raise

    @property
    def configuration(self):
        return pathlib.Path(self.directory.name) / "config.yaml"

    def start(self):
        """Another program may take the free port before LiteLLM does, hence the attempts."""
        for attempt in range(ATTEMPTS):
            self.port = free_port()
            self.process = self.launch()
            if self.is_ready():
                return
            self.stop()
        last = self.log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"LiteLLM did not start in {ATTEMPTS} attempts:\n{last}")

    def launch(self):
        command = [str(self.venv / "bin" / "python"), str(self.venv / "bin" / "litellm")]
        listen = ["--host", "127.0.0.1", "--port", str(self.port), "--num_workers", "1"]
        with self.log.open("w") as log:
            return subprocess.Popen(
                [*command, "--config", str(self.configuration), *listen, "--telemetry", "False"],
                cwd=self.directory.name,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

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
                pass
            finally:
                connection.close()
            time.sleep(0.1)
        return False

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def end(self):
        self.stop()
        self.provider.let_go()
        self.directory.cleanup()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def environment():
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return {
        **kept,
        "PYTHONPATH": str(HERE.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "LITELLM_LOG": "CRITICAL",
        "LITELLM_TELEMETRY": "False",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        # It listens on loopback only, and all its credentials are fake.
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
