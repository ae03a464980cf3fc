"""A headless Chromium, driven by ChromeDriver over WebDriver (W3C), with the standard library only."""

import base64
import http.client
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading

CHROMIUM, CHROMEDRIVER = "chromium", "chromedriver"
PACKAGES = ("chromium", "chromium-driver")
DEADLINE = 30.0
INSTALL_DEADLINE = 600
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-popup-blocking",
)


class NotInstalled(Exception):
    """There is no browser, and it cannot be installed."""


def install():
    """Installs what is missing, with Debian's package manager and as root only."""
    if shutil.which(CHROMIUM) and shutil.which(CHROMEDRIVER):
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise NotInstalled(f"install the packages {' and '.join(PACKAGES)}")
    print(f"installing {' and '.join(PACKAGES)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    options = ["-y", "-qq", "--no-install-recommends"]
    for command in (["update", "-qq"], ["install", *options, *PACKAGES]):
        done = subprocess.run(
            ["apt-get", *command],
            env=environment,
            capture_output=True,
            text=True,
            timeout=INSTALL_DEADLINE,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise NotInstalled(f"apt-get {command[0]}: {lines[-1]}")


class Browser:
    """A browser with one tab, in which the names `hosts` lead to 127.0.0.1 and the pages of `origins` may
    do what `https://` pages may. `logs` are kept: `browser` (messages), `performance` (events)."""

    def __init__(self, hosts, origins, logs=()):
        self.directory = tempfile.TemporaryDirectory(prefix="flow-proxy-browser-")
        self.session = None
        self.driver = subprocess.Popen(
            [CHROMEDRIVER, "--port=0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.port = self._read_port()
        rules = ", ".join(f"MAP {name} 127.0.0.1" for name in hosts)
        arguments = [
            *ARGUMENTS,
            f"--host-resolver-rules={rules}",
            f"--unsafely-treat-insecure-origin-as-secure={','.join(origins)}",
            f"--user-data-dir={self.directory.name}",
        ]
        options = {"binary": shutil.which(CHROMIUM), "args": arguments}
        wanted = {"goog:chromeOptions": options, "pageLoadStrategy": "normal"}
        wanted["goog:loggingPrefs"] = {name: "ALL" for name in logs}
        try:
            made = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        except BaseException:
            self.close()
            raise
        self.session = f"/session/{made['sessionId']}"
        self.tab = self._call("GET", f"{self.session}/window")

    def _read_port(self):
        for line in self.driver.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                threading.Thread(target=self.driver.stdout.read, daemon=True).start()
                return int(found[1])
        raise AssertionError("ChromeDriver did not start")

    def _call(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
            value = json.load(connection.getresponse())["value"]
        finally:
            connection.close()
        if isinstance(value, dict) and "error" in value:
            raise AssertionError(f"{method} {path}: {value['error']}: {value['message']}")
        return value

    def open(self, url):
        """Opens a URL as if it had been typed, after all other tabs have been closed."""
        for tab in self._call("GET", f"{self.session}/window/handles"):
            if tab != self.tab:
                self._call("POST", f"{self.session}/window", {"handle": tab})
                self._call("DELETE", f"{self.session}/window")
        self._call("POST", f"{self.session}/window", {"handle": self.tab})
        self._call("POST", f"{self.session}/url", {"url": url})

    def title(self):
        return self._call("GET", f"{self.session}/title")

    def source(self):
        return self._call("GET", f"{self.session}/source")

    def run(self, script, *arguments):
        """Returns the value of the function body, or of its promise."""
        body = {"script": script, "args": list(arguments)}
        return self._call("POST", f"{self.session}/execute/sync", body)

    def log(self, name):
        """Returns what a log has got since it was last asked for."""
        return self._call("POST", f"{self.session}/se/log", {"type": name})

    def press(self, key):
        """Presses a key, named by its code in WebDriver's table or by its character."""
        steps = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        actions = [{"type": "key", "id": "keyboard", "actions": steps}]
        self._call("POST", f"{self.session}/actions", {"actions": actions})

    def command(self, name, **parameters):
        """Returns what a command of the DevTools protocol returns."""
        body = {"cmd": name, "params": parameters}
        return self._call("POST", f"{self.session}/goog/cdp/execute", body)

    def show(self, width, scheme):
        """Sets the width of the window, in CSS pixels, and `light` or `dark`."""
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self.command("Emulation.setDeviceMetricsOverride", **metrics)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.command("Emulation.setEmulatedMedia", features=[feature])

    def picture(self, height=None):
        """Returns the page as PNG, down to `height` or whole."""
        size = self.run("const it = document.documentElement; return [innerWidth, it.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": size[0], "height": height or size[1], "scale": 1}
        taken = self.command("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(taken["data"])

    def click(self, selector):
        """Clicks the element as a user does: where it is, if nothing else is on top of it."""
        found = self._call(
            "POST", f"{self.session}/element", {"using": "css selector", "value": selector}
        )
        self._call("POST", f"{self.session}/element/{next(iter(found.values()))}/click", {})

    def close(self):
        try:
            if self.session:
                self._call("DELETE", self.session)
        finally:
            self.driver.kill()
            self.driver.wait()
            self.directory.cleanup()
