"""The attacks of smuggling.py. Each hides a request for a marker path in a carrier request."""

from dataclasses import dataclass
from enum import Enum
from typing import Callable

HOST = "Host: localhost\r\n"


class Second(Enum):
    """What the request for the marker path is."""

    # Part of the first request, or after bytes that end the connection: no server may parse it.
    HIDDEN = 1
    # A real second request: a control, which shows that a marker is detected.
    SENT = 2
    # A real second request, but the connection may be closed before it.
    SENT_IN_VAIN = 3


@dataclass
class Attack:
    name: str
    build: Callable[[str], str]
    # The expected statuses when sent directly to flow-proxy.
    direct: str
    second: Second = Second.HIDDEN

    def request(self, marker):
        return self.build(marker).encode("latin1")


def hidden(marker):
    return f"GET {marker} HTTP/1.1\r\n{HOST}\r\n"


def post(headers, body="", target="/v1/carrier", host=HOST, version="HTTP/1.1", method="POST"):
    return f"{method} {target} {version}\r\n{host}{headers}\r\n{body}"


def chunk(data):
    return f"{len(data):x}\r\n{data}\r\n"


# Some parsers read each of these as Transfer-Encoding: chunked, others do not.
CODINGS = {
    "TE xchunked": ("Transfer-Encoding: xchunked", "501"),
    "TE space before colon": ("Transfer-Encoding : chunked", "400"),
    "TE tab before colon": ("Transfer-Encoding\t: chunked", "400"),
    "TE vertical tab": ("Transfer-Encoding:\x0bchunked", "400"),
    "TE form feed": ("Transfer-Encoding:\x0cchunked", "400"),
    "TE NUL in value": ("Transfer-Encoding: chunked\x00", "400"),
    "TE NUL in name": ("Transfer-Encoding\x00: chunked", "400"),
    "TE no-break space": ("Transfer-Encoding: chunked\xa0", "501"),
    "TE high bit": ("Transfer-Encoding: c\xe8unked", "501"),
    "TE chunked, identity": ("Transfer-Encoding: chunked, identity", "501"),
    "TE identity, chunked": ("Transfer-Encoding: identity, chunked", "501"),
    "TE gzip, chunked": ("Transfer-Encoding: gzip, chunked", "501"),
    "TE chunked, chunked": ("Transfer-Encoding: chunked, chunked", "501"),
    "TE identity": ("Transfer-Encoding: identity", "501"),
    "TE leading comma": ("Transfer-Encoding: ,chunked", "501"),
    "TE trailing comma": ("Transfer-Encoding: chunked,", "501"),
    "TE quoted": ('Transfer-Encoding: "chunked"', "501"),
    "TE parameter": ("Transfer-Encoding: chunked;q=1", "501"),
    "TE empty": ("Transfer-Encoding:", "501"),
    "TE twice": ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "400"),
    "TE chunked then x": ("Transfer-Encoding: chunked\r\nTransfer-Encoding: x", "400"),
    "TE x then chunked": ("Transfer-Encoding: x\r\nTransfer-Encoding: chunked", "400"),
    "TE folded": ("Transfer-Encoding:\r\n chunked", "400"),
    "TE folded name": ("X: y\r\n Transfer-Encoding: chunked", "400"),
    "TE behind bare LF": ("X: y\nTransfer-Encoding: chunked", "400"),
    "TE behind bare CR": ("X: y\rTransfer-Encoding: chunked", "400"),
    "TE before bare LF": ("Transfer-Encoding: chunked\nX: y", "400"),
    "TE behind CR CR LF": ("X: y\r\r\nTransfer-Encoding: chunked", "400"),
    "TE leading CR": ("\rTransfer-Encoding: chunked", "400"),
    "TE no colon": ("Transfer-Encoding chunked", "400"),
    "TE equals sign": ("Transfer-Encoding= chunked", "400"),
}

# A header for the length of the hidden request; some parsers read it as the length, others do not.
LENGTHS = {
    "CL plus sign": ("Content-Length: +{n}", "400"),
    "CL minus": ("Content-Length: -{n}", "400"),
    "CL hex": ("Content-Length: 0x{n:x}", "400"),
    "CL list same": ("Content-Length: {n}, {n}", "400"),
    "CL list different": ("Content-Length: 0, {n}", "400"),
    "CL twice same": ("Content-Length: {n}\r\nContent-Length: {n}", "400"),
    "CL twice, 0 first": ("Content-Length: 0\r\nContent-Length: {n}", "400"),
    "CL twice, 0 last": ("Content-Length: {n}\r\nContent-Length: 0", "400"),
    "CL decimal point": ("Content-Length: {n}.0", "400"),
    "CL exponent": ("Content-Length: {n}e0", "400"),
    "CL underscore": ("Content-Length: 0_{n}", "400"),
    "CL trailing text": ("Content-Length: {n} a", "400"),
    "CL semicolon": ("Content-Length: {n};", "400"),
    "CL vertical tab": ("Content-Length: {n}\x0b", "400"),
    "CL NUL": ("Content-Length: {n}\x00", "400"),
    "CL quoted": ('Content-Length: "{n}"', "400"),
    "CL empty": ("Content-Length:", "400"),
    "CL over 64 bits": ("Content-Length: {over}", "400"),
    "CL space before colon": ("Content-Length : {n}", "400"),
    "CL folded": ("Content-Length:\r\n {n}", "400"),
    "CL folded digits": ("Content-Length: 0\r\n {n}", "400"),
    "CL behind bare LF": ("X: y\nContent-Length: {n}", "400"),
    "CL behind bare CR": ("X: y\rContent-Length: {n}", "400"),
    "CL leading zeros": ("Content-Length: 000{n}", "200"),
    "CL padded": ("Content-Length: \t {n} \t", "200"),
    "CL named hop-by-hop": ("Connection: Content-Length\r\nContent-Length: {n}", "200"),
    "CL named with close": ("Connection: close, Content-Length\r\nContent-Length: {n}", "200"),
    "CL and Expect": ("Expect: 100-continue\r\nContent-Length: {n}", "200 or 100+200"),
    "CL and unknown Expect": ("Expect: x-100\r\nContent-Length: {n}", "417"),
    "CL and Upgrade": ("Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: {n}", "200"),
}

# A chunked body; {hidden} is the request, {chunk} the request as a chunk, {shifted}: see shifted().
CHUNKS = {
    "chunk bare LF after size": ("3\nabc\r\n0\r\n\r\n{hidden}", "400"),
    "chunk bare CR after size": ("3\rabc\r\n0\r\n\r\n{hidden}", "400"),
    "chunk bare LF after data": ("3\r\nabc\n0\r\n\r\n{hidden}", "400"),
    "chunk last with bare LF": ("0\n\n{hidden}", "400"),
    "chunk last CRLF LF": ("0\r\n\n{hidden}", "400"),
    "chunk last LF CRLF": ("0\n\r\n{hidden}", "400"),
    "chunk extension with LF": ("2;\nxx\r\n{size2}\r\n0\r\n\r\n{hidden}\r\n0\r\n\r\n", "400"),
    "chunk extension with LF, shifted": ("{shifted}", "400"),
    "chunk extension with CR": ("2;\rxx\r\n{size2}\r\n0\r\n\r\n{hidden}\r\n0\r\n\r\n", "400"),
    "chunk extension with NUL": ("3;\x00\r\nabc\r\n0\r\n\r\n{hidden}", "400"),
    "chunk size empty": ("\r\n\r\n{hidden}", "400"),
    "chunk size only extension": (";x\r\n\r\n{hidden}", "400"),
    "chunk size 0x": ("0x3\r\nabc\r\n0\r\n\r\n{hidden}", "400"),
    "chunk size plus": ("+3\r\nabc\r\n0\r\n\r\n{hidden}", "400"),
    "chunk size minus": ("-1\r\nabc\r\n0\r\n\r\n{hidden}", "400"),
    "chunk size minus zero": ("-0\r\n\r\n{hidden}", "400"),
    "chunk size underscore": ("0_0\r\n\r\n{hidden}", "400"),
    "chunk size space before": (" 3\r\nabc\r\n0\r\n\r\n{hidden}", "400"),
    "chunk size space after": ("3 \r\nabc\r\n0\r\n\r\n{hidden}", "400"),
    "chunk size tab": ("3\t;x\r\nabc\r\n0\r\n\r\n{hidden}", "400"),
    "chunk size over 64 bits": ("10000000000000000\r\n\r\n{hidden}", "400"),
    "chunk size over 32 bits": ("100000000\r\n0\r\n\r\n{hidden}", "none"),
    "chunk size wraps": ("fffffffffffffffe\r\n0\r\n\r\n{hidden}", "none"),
    "chunk size 17 zeros": ("00000000000000000\r\n\r\n{hidden}", "400"),
    "chunk size not hex": ("g\r\n\r\n{hidden}", "400"),
    "chunk size high bit": ("\xb3\r\nabc\r\n0\r\n\r\n{hidden}", "400"),
    "chunk data too long": ("3\r\nabcXX0\r\n\r\n{hidden}", "400"),
    "chunk data not ended": ("3\r\nabc0\r\n\r\n{hidden}", "400"),
    "chunk trailer without colon": ("0\r\nX\r\n\r\n{hidden}", "400"),
    "chunk trailer folded": ("0\r\nX: y\r\n z\r\n\r\n{hidden}", "400"),
    "chunk trailer with LF": ("0\r\nX: y\n\n{hidden}", "400"),
    "chunk trailer with CR": ("0\r\nX: y\r\r{hidden}", "400"),
    "chunk trailer NUL": ("0\r\nX: \x00\r\n\r\n{hidden}", "400"),
    "chunk trailer is a request": ("0\r\nGET {marker} HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
    "chunk trailer framing": ("{chunk}0\r\nContent-Length: 9\r\nHost: x\r\n\r\n", "200"),
    "chunk whole": ("{chunk}0\r\n\r\n", "200"),
}

# Heads; {hidden} is the request that follows.
HEADS = {
    "bare LF everywhere": ("GET /v1/carrier HTTP/1.1\nHost: localhost\n\n{hidden}", "400"),
    "bare LF ends the head": ("GET /v1/carrier HTTP/1.1\r\nHost: localhost\r\n\n{hidden}", "400"),
    "LF CR LF": ("GET /v1/carrier HTTP/1.1\r\nHost: localhost\n\r\n{hidden}", "400"),
    "CR CR": ("GET /v1/carrier HTTP/1.1\r\nHost: localhost\r\r{hidden}", "400"),
    "NUL in a value": ("GET /v1/carrier HTTP/1.1\r\nHost: localhost\r\nX: \x00\r\n\r\n{hidden}", "400"),
    "NUL ends the value": ("GET /v1/carrier HTTP/1.1\r\nHost: localhost\x00\r\n\r\n{hidden}", "400"),
    "obs-fold": ("GET /v1/carrier HTTP/1.1\r\nHost: localhost\r\nX: y\r\n z\r\n\r\n{hidden}", "400"),
    "folded first line": ("GET /v1/carrier HTTP/1.1\r\n X: y\r\nHost: localhost\r\n\r\n{hidden}", "400"),
    "Host folded": ("GET /v1/carrier HTTP/1.1\r\nHost:\r\n localhost\r\n\r\n{hidden}", "400"),
    "empty name": ("GET /v1/carrier HTTP/1.1\r\nHost: localhost\r\n: x\r\n\r\n{hidden}", "400"),
    "name with a space": ("GET /v1/carrier HTTP/1.1\r\nHost: localhost\r\nX Y: z\r\n\r\n{hidden}", "400"),
    "no Host": ("GET /v1/carrier HTTP/1.1\r\n\r\n{hidden}", "400"),
    "two Hosts": ("GET /v1/carrier HTTP/1.1\r\nHost: localhost\r\nHost: x\r\n\r\n{hidden}", "400"),
    "Host with a path": ("GET /v1/carrier HTTP/1.1\r\nHost: localhost/x\r\n\r\n{hidden}", "400"),
    "version 2.0": ("GET /v1/carrier HTTP/2.0\r\nHost: localhost\r\n\r\n{hidden}", "505"),
    "version 0.9": ("GET {marker}\r\n\r\n", "400"),
    "version lower case": ("GET /v1/carrier http/1.1\r\nHost: localhost\r\n\r\n{hidden}", "400"),
    "version 1.1 twice": ("GET {marker} HTTP/1.1 HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
    "version 1.10": ("GET /v1/carrier HTTP/1.10\r\nHost: localhost\r\n\r\n{hidden}", "400"),
    "two spaces": ("GET  {marker} HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
    "tab for space": ("GET\t{marker}\tHTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
    "line break in the target": ("GET /v1/a\nGET {marker} HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
    "CR in the target": ("GET /v1/a\rGET {marker} HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
    "absolute-form, other host": ("GET http://other.example{marker} HTTP/1.1\r\nHost: localhost\r\n\r\n", "403"),
    "absolute-form, other Host": ("GET http://other.example{marker} HTTP/1.1\r\nHost: other.example\r\n\r\n", "403"),
    "CONNECT with a body": ("CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {n}\r\n\r\n{hidden}", "405"),
    "dot segments": ("GET /v1/../..{marker} HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
    "encoded CRLF in the target": ("GET /v1/a%0d%0a%0d%0aGET%20{marker}%20HTTP/1.1 HTTP/1.1\r\nHost: localhost\r\n\r\n", "200"),
    "1.0 and TE": ("POST /v1/carrier HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n{hidden}", "400"),
    "1.0, no keep-alive": ("GET /v1/carrier HTTP/1.0\r\nHost: localhost\r\n\r\n{hidden}", "200"),
    "Connection: close": ("GET /v1/carrier HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n{hidden}", "200"),
    "websocket": ("GET /v1/carrier HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: RkFLRS1mYWtlLUZBS0UtMQ==\r\n\r\n{hidden}", "426"),
    "Connection: Transfer-Encoding": ("POST /v1/carrier HTTP/1.1\r\nHost: localhost\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n", "200"),
    "Connection: Host": ("POST /v1/carrier HTTP/1.1\r\nHost: localhost\r\nConnection: Host\r\nContent-Length: {n}\r\n\r\n{hidden}", "200"),
}

# Requests that get their response before the body was read: the rest of the body must not become the
# next request.
UNREAD = {
    "GET": ("GET", "/v1/carrier", "200"),
    "HEAD": ("HEAD", "/v1/carrier", "200"),
    "DELETE": ("DELETE", "/v1/carrier", "200"),
    "OPTIONS": ("OPTIONS", "/v1/carrier", "200"),
    "TRACE": ("TRACE", "/v1/carrier", "405"),
    "own page": ("GET", "/-/health", "200"),
    "own page, unknown": ("POST", "/-/unknown", "404"),
    "dot segment": ("POST", "/v1/%2e%2e/x", "400"),
    "other host": ("POST", "http://other.example/", "403"),
    "upstream responds early": ("POST", "/v1/early", "200"),
}


def classic():
    """CL.TE and TE.CL with plain headers, and with one header obfuscated."""
    yield Attack("CL.TE", lambda m: cl_te("Transfer-Encoding: chunked", m), "400")
    yield Attack("TE.CL", lambda m: te_cl("Transfer-Encoding: chunked", m), "400")
    yield Attack("CL.TE, mixed case", lambda m: cl_te("tRANSFER-eNCODING: cHUNKED", m), "400")
    yield Attack("CL.TE, named hop-by-hop", lambda m: cl_te(
        "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked", m), "400")
    yield Attack("TE.CL, named hop-by-hop", lambda m: te_cl(
        "Connection: Content-Length\r\nTransfer-Encoding: chunked", m), "400")
    for name, (header, alone) in CODINGS.items():
        both = "400"
        yield Attack(f"CL.TE, {name}", lambda m, f=header: cl_te(f, m), both)
        yield Attack(f"TE.CL, {name}", lambda m, f=header: te_cl(f, m), both)
        yield Attack(name, lambda m, f=header: post(f + "\r\n", hidden(m)), alone)


def cl_te(header, marker):
    """A parser that uses Transfer-Encoding finds a second request."""
    body = "0\r\n\r\n" + hidden(marker)
    return post(f"Content-Length: {len(body)}\r\n{header}\r\n", body)


def te_cl(header, marker):
    """A parser that uses Content-Length finds a second request."""
    body = chunk(hidden(marker)) + "0\r\n\r\n"
    return post(f"Content-Length: {body.index('GET')}\r\n{header}\r\n", body)


def lengths():
    for name, (header, direct) in LENGTHS.items():
        def build(marker, header=header):
            body = hidden(marker)
            return post(header.format(n=len(body), over=2**64 + len(body)) + "\r\n", body)
        yield Attack(name, build, direct)


def shifted(request):
    """One chunk and the last chunk. A parser that reads the LF in the extension as the line end finds
    the chunk's data earlier, and the request after its last chunk."""
    tail = "\r\n0\r\n\r\n" + request
    data = "a" * 10 + tail
    return f"{len(data):x};\n{'z' * (len(tail) - 2)}\r\n{data}\r\n0\r\n\r\n"


def chunks():
    for name, (body, direct) in CHUNKS.items():
        def build(marker, body=body):
            request = hidden(marker)
            # For a parser that reads a LF as a line end, the rest is one chunk of this size.
            size2 = f"{len(request) + 5:x}"
            body = body.format(
                hidden=request, chunk=chunk(request), shifted=shifted(request), size2=size2, marker=marker
            )
            return post("Transfer-Encoding: chunked\r\n", body)
        yield Attack(name, build, direct)


def heads():
    for name, (text, direct) in HEADS.items():
        def build(marker, text=text):
            request = hidden(marker)
            return text.format(hidden=request, chunk=chunk(request), n=len(request), marker=marker)
        yield Attack(name, build, direct)


def unread():
    for name, (method, target, direct) in UNREAD.items():
        def build(marker, method=method, target=target):
            body = hidden(marker)
            return post(f"Content-Length: {len(body)}\r\n", body, target=target, method=method)
        yield Attack(f"unread body, {name}", build, direct)
        def build_chunked(marker, method=method, target=target):
            body = chunk(hidden(marker)) + "0\r\n\r\n"
            return post("Transfer-Encoding: chunked\r\n", body, target=target, method=method)
        yield Attack(f"unread chunks, {name}", build_chunked, direct)

    def too_large(marker):
        return post(f"Content-Length: {200 << 20}\r\n", hidden(marker) * 3)
    yield Attack("unread body, too large", too_large, "413")

    def streamed(marker):
        # Too large to be buffered: still being forwarded when the upstream responds.
        body = hidden(marker) * 40_000
        return post(f"Content-Length: {len(body)}\r\n", body, target="/v1/early")
    yield Attack("unread body, 3 MB and an early response", streamed, "200")


def controls():
    """Two real requests: shows that a marker is detected."""
    def two(first):
        return lambda marker: first + hidden(marker)
    yield Attack("control: pipelined", two(post("", method="GET")), "200+200", second=Second.SENT)
    yield Attack("control: behind a length", two(post("Content-Length: 3\r\n", "abc")), "200+200", second=Second.SENT)
    yield Attack("CONNECT, then a request", two(
        "CONNECT localhost:1 HTTP/1.1\r\nHost: localhost:1\r\n\r\n"),
        "405+200 or 405", second=Second.SENT_IN_VAIN)
    yield Attack("control: behind chunks", two(post(
        "Transfer-Encoding: chunked\r\n", "3;x=y\r\nabc\r\n0\r\nX: y\r\n\r\n")), "200+200", second=Second.SENT)


def attacks():
    return [*controls(), *classic(), *lengths(), *chunks(), *heads(), *unread()]
