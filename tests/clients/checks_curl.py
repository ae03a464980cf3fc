"""curl, for what the SDKs do not do; and PyJWT on the tokens."""

import gzip
import json
import pathlib
import shutil
import subprocess
import tempfile
import warnings

import sdks
from checks_forwarding import send_stream
from harness import BINARY, Check, Skipped, clean_environment, contains, equal

SECRETS = {
    "plain": ("id", "FAKE-secret-not-real-but-long-enough", "tenant"),
    "accents": ("clïent", "FAKE-sécrèt-ßñ-not-real-but-long", "ténant"),
    "chinese": ("客户", "FAKE-密码-不是真的-not-real-long-enough", "租户"),
    "astral": ("😀", "FAKE-🔑-𝔰𝔢𝔠𝔯𝔢𝔱-not-real-but-long", "👩‍👩‍👧"),
    "quotes": ('a"b\\c/d', "FAKE-'\"\\-<>&-not-real-but-long-enough", "{}[]:,"),
    "controls": ("a\tb\nc\rd", "FAKE-\x01\x1f\x7f\x08\x0c-not-real-but-long", "\u2028\u2029\ufeff"),
    "spaces": (" id ", " FAKE secret, not real but long enough ", "\u00a0tenant\u00a0"),
    "short": ("i", "F", "t"),
    "long": ("i" * 3000, "FAKE-" + "s" * 3000, "t" * 3000),
}


def checks(lab):
    titles = {
        "models from the demo": models,
        "a stream from the demo with --http1.0": old_http,
        "forward mode: -x, to the target's host": forward_mode,
        "forward mode: a stream": forward_stream,
        "forward mode: another host gets 403": other_host,
        "forward mode: https gets 405": connect,
        "a body sent after 100 Continue": expects_continue,
        "a gzip response with --compressed": compressed,
        "a broken chunked response is an error": broken_chunks,
        "HEAD has no body": head,
    }
    for title, run in titles.items():
        yield Check(f"curl: {title}", lambda r=run: r(lab))
    yield Check("PyJWT: makes the same tokens, byte for byte", same_tokens)
    yield Check("PyJWT: verifies what the upstream gets", lambda: verifies(lab))


def curl(*arguments, code=0):
    """Returns what curl writes to stdout; `code` is the expected exit code."""
    if not shutil.which("curl"):
        raise Skipped("curl is not installed")
    command = ["curl", "-sS", "--max-time", "15", "--noproxy", "", *arguments]
    result = subprocess.run(command, capture_output=True, env=clean_environment(), timeout=20)
    problem = f"{command}: exit code {result.returncode}, not {code}\n{result.stderr!r}\n"
    assert result.returncode == code, problem + f"{result.stdout[-500:]!r}"
    return result.stdout.decode()


def models(lab):
    contains(curl(f"{lab.demo.url}/v1/models"), "demo-gpt")


def posted(more):
    body = json.dumps(sdks.request_of("openai", more))
    return ["-H", "Content-Type: application/json", "-d", body]


def old_http(lab):
    url = f"{lab.demo.url}/v1/chat/completions"
    text = curl("--http1.0", "-N", "-i", url, *posted({"stream": True}))
    head, body = text.split("\r\n\r\n", 1)
    assert "transfer-encoding" not in head.lower(), head
    assert body.endswith("data: [DONE]\n\n"), body[-100:]
    assert body.startswith("data: {"), body[:100]
    whole = curl("--http1.0", f"{lab.demo.url}/v1/models")
    contains([model["id"] for model in json.loads(whole)["data"]], "demo-gpt")


def forward_mode(lab):
    """The target's path is added, but not if the path begins with it already."""
    response = lambda it: it.respond(200, {"target": it.request.target})
    host = lab.upstream.url.removesuffix("/flow-llm-proxy")
    with lab.upstream.script(response) as scenario:
        for path in ("/flow-llm-proxy/v1/models?x=1", "/v1/models?x=1"):
            text = curl("-x", lab.proxy.url, "-H", f"x-scenario: {scenario}", host + path)
            equal(json.loads(text), {"target": "/flow-llm-proxy/v1/models?x=1"}, "responses")


def forward_stream(lab):
    data = b"data: 1\n\ndata: 2\n\n"
    with lab.upstream.script(lambda it: send_stream(it, data)) as scenario:
        url = f"{lab.upstream.url}/v1/chat/completions"
        header = f"x-scenario: {scenario}"
        equal(curl("-N", "-x", lab.proxy.url, "-H", header, url, *posted({})), data.decode())


def other_host(lab):
    text = curl("-i", "-x", lab.proxy.url, "http://elsewhere.invalid/v1/models")
    contains(text, "HTTP/1.1 403")
    contains(text, '"code":"forbidden"')


def connect(lab):
    """curl prints the head of a response to CONNECT, but not its body."""
    text = curl("-i", "-x", lab.proxy.url, "https://elsewhere.invalid/v1/models", code=56)
    contains(text, "HTTP/1.1 405")
    contains(text.lower(), "x-flow-proxy-error: method_not_allowed")


def expects_continue(lab):
    """curl waits for 100 Continue above 1 MiB; the proxy does not buffer bodies above 2 MiB."""
    response = lambda it: it.respond(200, {"length": len(it.request.body)})
    for size in (1_500_000, 5_000_000):
        with lab.upstream.script(response) as scenario:
            command = ["curl", "-sS", "--max-time", "15", "-v", "-H", "Expect: 100-continue"]
            command += ["-H", f"x-scenario: {scenario}", "--data-binary", "@-"]
            command += ["--noproxy", "*", f"{lab.proxy.url}/v1/files"]
            if not shutil.which("curl"):
                raise Skipped("curl is not installed")
            result = subprocess.run(command, input=b"x" * size, capture_output=True, timeout=20)
        equal(json.loads(result.stdout), {"length": size}, "bodies")
        contains(result.stderr, "HTTP/1.1 100")


def compressed(lab):
    body = gzip.compress("zipped 世界".encode())
    headers = [("Content-Encoding", "gzip"), ("Content-Type", "text/plain")]
    with lab.upstream.script(lambda it: it.respond(200, body, headers)) as scenario:
        text = curl("--compressed", "-H", f"x-scenario: {scenario}", f"{lab.proxy.url}/v1/x")
        equal(text, "zipped 世界", "texts")


def broken_chunks(lab):
    """curl's exit code 18: the response is incomplete."""

    def script(conversation):
        conversation.head(200, [("Transfer-Encoding", "chunked")])
        conversation.chunk(b"half")
        conversation.close()

    def short(conversation):
        conversation.head(200, [("Content-Length", "100")])
        conversation.send(b"half")
        conversation.close()

    for broken in (script, short):
        with lab.upstream.script(broken) as scenario:
            url = f"{lab.proxy.url}/v1/x"
            equal(curl("-H", f"x-scenario: {scenario}", url, code=18), "half", "texts")


def head(lab):
    text = curl("-I", f"{lab.demo.url}/v1/models")
    contains(text, "HTTP/1.1 200")


def claims(client_id, secret, tenant):
    return {"clientId": client_id, "clientSecret": secret, "tenant": tenant}


def encoded(payload):
    jwt = sdks.python_module("jwt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyJWT warns about short keys.
        return jwt.encode(payload, payload["clientSecret"], algorithm="HS256")


def same_tokens():
    sdks.python_module("jwt")
    configurations = [{"name": name, **claims(*SECRETS[name])} for name in SECRETS]
    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory) / "secrets.json"
        for ascii_only in (True, False):
            file.write_text(json.dumps(configurations, ensure_ascii=ascii_only), encoding="utf-8")
            file.chmod(0o600)
            for name, fields in SECRETS.items():
                command = [BINARY, "token", name, "--secrets-file", str(file)]
                environment = clean_environment()
                result = subprocess.run(
                    command, capture_output=True, cwd=directory, env=environment, timeout=10
                )
                equal(result.stdout.decode(), encoded(claims(*fields)) + "\n", f"{name}: tokens")


def verifies(lab):
    """The token of each of the three credentials."""
    jwt = sdks.python_module("jwt")
    with lab.upstream.script(lambda it: it.respond(200, {})) as scenario:
        for _ in lab.credentials:
            curl("-H", f"x-scenario: {scenario}", f"{lab.proxy.url}/v1/models")
        headers = [it.header("authorization") for it in lab.upstream.requests_of(scenario)]
    by_token = {f"Bearer {encoded(token_claims(it))}": it for it in lab.credentials}
    equal(sorted(headers), sorted(by_token), "tokens")
    for header in headers:
        credential = by_token[header]
        token = header.removeprefix("Bearer ")
        payload = jwt.decode(token, credential["clientSecret"], algorithms=["HS256"])
        equal(payload, token_claims(credential), "claims")
        equal(jwt.get_unverified_header(token), {"alg": "HS256", "typ": "JWT"}, "headers")


def token_claims(it):
    return claims(it["clientId"], it["clientSecret"], it["tenant"])
