"""The web sites of the test: one server, whose pages have as many origins as names lead to it."""

import http.server
import pathlib
import threading
import urllib.parse

HERE = pathlib.Path(__file__).resolve().parent


class Sites:
    """Serves on a free port of 127.0.0.1 until the process ends."""

    def __init__(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def origin(self, host):
        return f"http://{host}:{self.port}"


class Handler(http.server.BaseHTTPRequestHandler):
    """`to` in the query is where a page leads, `policy` its referrer policy."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = {name: values[0] for name, values in urllib.parse.parse_qs(url.query).items()}
        make = PAGES.get(url.path)
        if make is None:
            return self.respond(404, "text/plain", "", {})
        status, kind, body, headers = make(query)
        if policy := query.get("policy"):
            headers["Referrer-Policy"] = policy
        self.respond(status, kind, body, headers)

    do_POST = do_GET

    def respond(self, status, kind, body, headers):
        self.send_response(status)
        headers = {**headers, "Content-Type": kind, "Content-Length": str(len(body.encode()))}
        for name, value in {**headers, "Access-Control-Allow-Origin": "*"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())


def html(body, headers=()):
    return 200, "text/html", f"<!doctype html><title>page</title><body>{body}", dict(headers)


def redirect(query):
    return int(query.get("status", 302)), "text/plain", "", {"Location": query["to"]}


def worker(query):
    url = repr(query["to"])
    code = f"importScripts({url})" if query["way"] == "import" else f"fetch({url}, {{mode: 'no-cors'}})"
    return 200, "text/javascript", code, {}


PAGES = {
    "/": lambda _: html('<script src="/ways.js"></script>'),
    "/ways.js": lambda _: (200, "text/javascript", (HERE / "ways.js").read_text(), {}),
    "/empty.js": lambda _: (200, "text/javascript", "", {}),
    "/redirect": redirect,
    "/worker.js": worker,
    "/refresh": lambda query: html(f'<meta http-equiv=refresh content="0;url={query["to"]}">'),
    "/refresh-header": lambda query: html("", {"Refresh": f"0;url={query['to']}"}),
    "/link": lambda query: html("", {"Link": f"<{query['to']}>; rel=preload; as=script"}),
    "/report": lambda query: html(
        '<img src="/x">', {"Content-Security-Policy": f"img-src 'none'; report-uri {query['to']}"}
    ),
}
