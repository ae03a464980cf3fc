"""Real clients against the proxy: `make test-clients` (`ONLY=WORD`: only checks with that word).

Installs the SDKs of OpenAI and Anthropic for Python (requirements.txt) and for Node
(package-lock.json) under target/clients, and runs the checks of this directory with them, with curl
and with PyJWT, against target/release/flow-proxy or the binary that FLOW_PROXY_BIN names. Checks that
need something that is missing (node, npm, venv, curl, a package registry) are skipped, with a line
that says so. All traffic is on loopback; a run takes about two minutes.

Files: checks.py runs the checks_*.py; upstream.py is an upstream whose behaviour is scripted; sdks.py
puts the SDKs behind one interface, and driver.mjs those for Node; events.py makes the event streams.
"""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

import harness

HERE = pathlib.Path(__file__).resolve().parent
PLACE = harness.REPOSITORY / "target" / "clients"
INSTALL_DEADLINE = 300
# The first version with complete support for fetch and its streams.
OLDEST_NODE = 20


def main():
    if not os.access(harness.BINARY, os.X_OK):
        print(f"{harness.BINARY} is not there: cargo build --release", file=sys.stderr)
        return 1
    python = install_python_sdks() or sys.executable
    node = install_node_sdks()
    command = [str(python), str(HERE / "checks.py"), *(["--node", str(node)] if node else [])]
    environment = harness.clean_environment(
        FLOW_PROXY_BIN=str(pathlib.Path(harness.BINARY).resolve()),
        PYTHONDONTWRITEBYTECODE="1",
        PYTHONIOENCODING="utf-8",
    )
    return subprocess.run([*command, *sys.argv[1:]], env=environment).returncode


def install_python_sdks():
    """Returns the interpreter of the virtual environment, or None if it cannot be made."""
    requirements = HERE / "requirements.txt"
    place = PLACE / "venv"
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    steps = [
        [sys.executable, "-m", "venv", "--clear", str(place)],
        [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        + ["-r", str(requirements)],
    ]
    state = digest(requirements, sys.version.encode())
    return python if installed("Python SDKs and PyJWT", place, state, steps) else None


def install_node_sdks():
    """Returns the directory of driver.mjs and node_modules, or None if it cannot be made."""
    version = node_version()
    if version is None or not shutil.which("npm"):
        print("skip Node SDKs: node and npm are not installed", flush=True)
        return None
    if version < OLDEST_NODE:
        print(f"skip Node SDKs: node {version} is older than {OLDEST_NODE}", flush=True)
        return None
    place = PLACE / "node"
    place.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", ".npmrc", "driver.mjs"):
        shutil.copy(HERE / name, place / name)
    steps = [["npm", "ci", "--ignore-scripts", "--loglevel=error", "--prefix", str(place)]]
    state = digest(place / "package-lock.json", str(version).encode())
    return place if installed("Node SDKs", place, state, steps) else None


def node_version():
    """Returns the major version, or None."""
    try:
        result = subprocess.run(["node", "--version"], capture_output=True, text=True, timeout=20)
        return int(result.stdout.lstrip("v").split(".")[0])
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def digest(file, more):
    return hashlib.sha256(file.read_bytes() + more).hexdigest()


def installed(what, place, state, steps):
    """Runs the steps unless they have run for this state. Prints a line and returns False on failure."""
    stamp = place / ".installed"
    if stamp.exists() and stamp.read_text() == state:
        return True
    print(f"installing the {what} in {place}", flush=True)
    for step in steps:
        try:
            result = subprocess.run(
                step, cwd=HERE, capture_output=True, text=True, timeout=INSTALL_DEADLINE
            )
            problem = (result.stderr or result.stdout) if result.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = str(error)
        if problem:
            last = problem.strip().splitlines()[-1]
            print(f"skip {what}: could not be installed: {last}", flush=True)
            return False
    stamp.write_text(state)
    return True


if __name__ == "__main__":
    sys.exit(main())
