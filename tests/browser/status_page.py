"""The proxy's own page, `/-/`, in a real browser: its checks, which run.py runs.

The proxy is `flow-proxy demo`, so that what the page shows comes from real requests: one configuration
is revoked, another one lacks a model and a budget.
"""

import ast
import http.client
import json
import re
import shlex
import subprocess
import tomllib

import driver
from clients.harness import Proxy, contains, equal, wait_for

# Seconds. The page asks every 2 s, and gives an answer 5 s.
SOON = 15.0
# What the web content accessibility guidelines (1.4.3, level AA) ask of text.
LEAST_CONTRAST = 4.5
# The proxy strips blanks, quotes and all but ASCII from names.
FOREIGN_MODEL = "<img/src=x/onerror=document.title=1>"
FOREIGN_AGENT = "<svg/onload=document.title=1>"
# A name that no proxy passes on, but that the page must not rely on.
HOSTILE_MODEL = """it's "so" \\ $(touch /tmp/x) `id` <b>\u202emoc</b>"""
UNUSUAL_MODEL = """it's "so" \\ $(touch /tmp/x) `id` !x"""

OVERFLOWING = """
return [...document.querySelectorAll("body *")].filter((it) => {
  const { right, width } = it.getBoundingClientRect();
  return width > 1 && right > innerWidth + 0.5 && !it.closest("thead");
}).map((it) => it.outerHTML.slice(0, 120))"""

CONTRASTS = """
const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
const light = (colour) => channels(colour).slice(0, 3).map((it) => it / 255)
  .map((it) => (it <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4))
  .reduce((sum, it, at) => sum + it * [0.2126, 0.7152, 0.0722][at], 0);
const isClear = (colour) => channels(colour)[3] === 0;
const behind = (it) => {
  while (it && isClear(getComputedStyle(it).backgroundColor)) it = it.parentElement;
  return it ? getComputedStyle(it).backgroundColor : "rgb(255, 255, 255)";
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const found = [];
while (walker.nextNode()) {
  const text = walker.currentNode, it = text.parentElement;
  if (!text.data.trim() || it.closest("script, svg, [hidden]")) continue;
  const [one, two] = [light(getComputedStyle(it).color), light(behind(it))].sort((a, b) => b - a);
  found.push([(one + 0.05) / (two + 0.05), text.data.slice(0, 40)]);
}
return found"""

TEXT = """const it = document.querySelector(arguments[0]);
return it?.checkVisibility() ? it.innerText : ''"""


class Desk:
    """What the checks share: the demo, which has served some requests, and a browser with its logs."""

    def __init__(self):
        self.proxy, self.used = Proxy(command=("demo",)), None
        self.browser = driver.Browser([], [], logs=("performance", "browser"))
        self.browser.command(
            "Browser.grantPermissions",
            permissions=["clipboardReadWrite", "clipboardSanitizedWrite"],
            origin=self.proxy.url,
        )

    def close(self):
        self.browser.close()

    def post(self, path, model, agent="desk/1.0", **more):
        """Sends a chat through the proxy. Returns the status."""
        messages = [{"role": "user", "content": "Hello"}]
        body = json.dumps({"model": model, "max_tokens": 64, "messages": messages, **more})
        headers = {"Content-Type": "application/json", "User-Agent": agent}
        return self._request("POST", path, body, headers)[0]

    def status(self):
        return json.loads(self._request("GET", "/-/status", None, {})[1])

    def _request(self, method, path, body, headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.port, timeout=SOON)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def use(self):
        """What the demo advises: one configuration fails, another one lacks a model and a budget."""
        if self.used is self.proxy:
            return
        equal(self._request("GET", "/v1/models", None, {"User-Agent": "desk/1.0"})[0], 200)
        for model, path, more in (
            ("demo-gpt", "/v1/chat/completions", {"stream": True}),
            ("demo-vip", "/v1/messages", {"stream": True}),
            ("demo-claude", "/v1/chat/completions", {"messages": [{"role": "user", "content": "much " * 2000}]}),
            ("demo-gpt", "/v1/chat/completions", {}),
            ("demo-gpt", "/v1/chat/completions", {}),
        ):
            equal(self.post(path, model, **more), 200, f"the status for {model}")
        self.used = self.proxy

    def open(self, width=1200, scheme="light"):
        """Opens the page of a proxy that has been used."""
        self.use()
        self.browser.show(width, scheme)
        self.browser.open(f"{self.proxy.url}/-/")
        self.wait_for_text("#summary", "available")

    def text(self, selector):
        return self.browser.run(TEXT, selector)

    def wait_for_text(self, selector, part):
        wait_for(f"{part!r} in {selector}", lambda: part in self.text(selector), SOON)

    def tell(self, change):
        """Lets the page have the status as `change` makes it."""
        status = self.status()
        change(status)
        script = "const told = arguments[0]; window.fetch = async () => new Response(told)"
        self.browser.run(script, json.dumps(status))

    def box(self, title):
        """What the connect box holds, and what its button puts on the clipboard."""
        self.browser.click(f"[data-copy='{title}']")
        self.wait_for_text(f"[data-copy='{title}']", "Copied")
        shown = self.browser.run(
            "return document.querySelector(arguments[0]).closest('.card').querySelector('pre').textContent",
            f"[data-copy='{title}']",
        )
        equal(self.browser.run("return navigator.clipboard.readText()"), shown, "the clipboard")
        return shown


def seconds(text):
    """`9 min 40 s` in seconds."""
    units = {"s": 1, "min": 60, "h": 3600}
    return sum(int(n) * units[unit] for n, unit in re.findall(r"(\d+) (s|min|h)\b", text))


def fresh(desk):
    with Proxy(command=("demo",)) as proxy:
        desk.browser.show(1200, "light")
        desk.browser.open(f"{proxy.url}/-/")
        desk.wait_for_text("#summary", "3 of 3 configurations available")
        contains(desk.text("#empty"), f"No request yet. Try: curl -s {proxy.url}/v1/models")
        equal(desk.text("#recent"), "", "the last requests")
        contains(desk.text("#choose"), "MODEL")


def shown(desk):
    desk.open()
    desk.wait_for_text("#recent", "demo-claude")
    rows = desk.text("#configurations")
    for part in ("Failed", "401", "Next try in", "Budget spent", "Back in", "demo-vip denied", "Available"):
        contains(rows, part)
    contains(desk.text("#models"), "demo-claude")
    contains(desk.text("#clients"), "desk/1.0")
    contains(desk.text("#figures"), "known of 4 of 5 requests")
    contains(desk.text("#hour"), "a minute at ")
    bars = "return document.querySelectorAll('.chart .up:not([height=\"0\"])').length"
    assert desk.browser.run(bars) >= 2, "a bar of requests and one of tokens"
    equal(desk.browser.title(), "1 of 3 · flow-proxy")


def countdown(desk):
    desk.open()
    texts = "return [...document.querySelectorAll('#configurations .left')].map((it) => it.textContent)"
    left = lambda: [seconds(it) for it in desk.browser.run(texts)]
    before = left()
    equal(len(before), 3, "rests that are shown: of the credential, the budget and the model")
    told = [it["rest_s"] for it in desk.status()["configurations"] if it["rest_s"]]
    for rest in told:
        assert any(abs(rest - it) <= 2 for it in before), f"{rest} s are told, {before} are shown"
    is_less = lambda: all(now < was for now, was in zip(left(), before, strict=True))
    wait_for("all rests to be shorter", is_less, SOON)


def keeps_focus(desk):
    """Drawing again changes only what differs."""
    desk.open()
    desk.browser.run("document.querySelector('[data-copy=Codex]').focus()")
    desk.browser.run(
        "getSelection().selectAllChildren(document.querySelector('#configurations tbody th'))"
    )
    rests = desk.text("#configurations")
    wait_for("the page to be drawn again", lambda: desk.text("#configurations") != rests, SOON)
    equal(desk.browser.run("return document.activeElement.dataset.copy"), "Codex")
    equal(desk.browser.run("return String(getSelection())"), "demo-1", "the selection")


def foreign_names(desk):
    equal(desk.post("/v1/chat/completions", FOREIGN_MODEL, FOREIGN_AGENT), 200)
    desk.open()
    desk.wait_for_text("#recent", FOREIGN_MODEL)
    contains(desk.text("#models"), FOREIGN_MODEL)
    contains(desk.text("#clients"), FOREIGN_AGENT)
    contains(desk.text("#choose"), FOREIGN_MODEL)

    def rename(status):
        status["configurations"][0]["name"] = status["configurations"][0]["reason"] = HOSTILE_MODEL
        status["models"][0]["model"] = status["recent"][0]["model"] = HOSTILE_MODEL
        status["recent"][0]["id"] = status["summary"] = HOSTILE_MODEL

    desk.tell(rename)
    for part in ("#configurations", "#models", "#recent", "#summary"):
        desk.wait_for_text(part, "<b>\\u202emoc</b>")
    kinds = "return ['img', 'b', 'script'].map((it) => document.querySelectorAll(it + ':not(dd > b, .left)').length)"
    equal(desk.browser.run(kinds), [0, 0, 1], "img, b and script elements")
    assert desk.browser.title() != "1"


def copies(desk):
    desk.open()

    def rename(status):
        status["models"].insert(0, {**status["models"][0], "model": UNUSUAL_MODEL})

    desk.tell(rename)
    desk.wait_for_text("#boxes", "touch")
    base = desk.proxy.url
    curl = shlex.split(desk.box("curl").replace("\\\n", ""))
    equal((curl[2], json.loads(curl[-1])["model"]), (f"{base}/v1/chat/completions", UNUSUAL_MODEL))
    claude = desk.box("Claude Code")
    equal(shlex.split(claude)[-1], UNUSUAL_MODEL)
    contains(claude, f"export ANTHROPIC_BASE_URL={base}\n")
    codex = tomllib.loads(desk.box("Codex"))
    equal((codex["model"], codex["model_providers"]["flow"]["base_url"]), (UNUSUAL_MODEL, f"{base}/v1"))
    contains(desk.box("Any OpenAI client"), f"export OPENAI_BASE_URL={base}/v1\n")
    for title in ("OpenAI SDK", "Anthropic SDK"):
        calls = ast.walk(ast.parse(desk.box(title)))
        words = {it.arg: it.value for it in calls if isinstance(it, ast.keyword)}
        equal(ast.literal_eval(words["model"]), UNUSUAL_MODEL, title)


def copied_command(desk):
    """The command does what it says, with a model that was chosen."""
    equal(desk.post("/v1/chat/completions", FOREIGN_MODEL), 200)
    desk.open()
    desk.wait_for_text("#choose", FOREIGN_MODEL)
    desk.browser.run(
        """const it = document.querySelector("#model"); it.value = arguments[0];
        it.dispatchEvent(new Event("change", { bubbles: true }))""",
        FOREIGN_MODEL,
    )
    command = desk.box("curl")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=SOON)
    contains(done.stdout, "data: [DONE]")
    # A request is counted at its end, which its client may see a moment earlier.
    models = lambda: [it["model"] for it in desk.status()["recent"] if it["agent"].startswith("curl")]
    equal(wait_for("the command's request", models), [FOREIGN_MODEL])


def without_clipboard(desk):
    desk.open()
    desk.browser.run("navigator.clipboard.writeText = () => Promise.reject(new Error('none'))")
    contains(desk.box("Claude Code"), "ANTHROPIC_AUTH_TOKEN")


def only_here(desk):
    desk.browser.log("performance")
    desk.browser.log("browser")
    desk.open()
    asked = set()

    def has_asked_again():
        for line in desk.browser.log("performance"):
            event = json.loads(line["message"])["message"]
            if event["method"] == "Network.requestWillBeSent":
                asked.add(event["params"]["request"]["url"])
        return any(it.endswith("/-/status") for it in asked)

    wait_for("a request for the status", has_asked_again, SOON)
    desk.box("curl")
    has_asked_again()
    asked = {it for it in asked if not it.startswith("data:")}
    equal(asked, {f"{desk.proxy.url}/-/", f"{desk.proxy.url}/-/status"}, "URLs")
    equal([it["message"] for it in desk.browser.log("browser")], [], "messages of the browser")


def readable(scheme):
    def check(desk):
        for width in (1200, 360):
            desk.open(width, scheme)
            desk.wait_for_text("#recent", "desk/1.0")
            found = desk.browser.run(CONTRASTS)
            assert len(found) > 100, f"{len(found)} texts only"
            weak = [it for it in found if it[0] < LEAST_CONTRAST]
            equal(weak, [], f"texts with a contrast under {LEAST_CONTRAST} at {width} px")

    return check


def narrow(desk):
    def lengthen(status):
        name = "x" * 64
        for kind, key in (("configurations", "name"), ("models", "model"), ("clients", "agent")):
            status[kind][0][key] = name
        tokens = {"input": 10**9, "cached": 10**8, "output": 10**8, "known": 9, "unknown": 1}
        cost = {"total": 12345.67, "unknown": 0}
        for it in (status["configurations"][0], status["models"][0], status["clients"][0], status):
            it.update(tokens=tokens, cost=cost)
        status["configurations"][0].update(requests=10**6, spend=12345.67, budget=20000.0)
        status["recent"][0].update(tokens=tokens, cost=12.3456, status=502, end="upstream_timeout")
        status["recent"][0].update(path=f"/{'y' * 300}", id="z" * 64, model=name, agent=name)

    for width in (360, 700, 1089, 1200):
        desk.open(width)
        desk.tell(lengthen)
        desk.wait_for_text("#recent", "y" * 300)
        equal(desk.browser.run(OVERFLOWING), [], f"what is too wide at {width} px")
        wide = desk.browser.run("return document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"the page is {wide} px too wide at {width} px"


def by_keyboard(desk):
    desk.open()
    names = []
    for _ in range(8):
        desk.browser.press("\ue004")
        names.append(
            desk.browser.run(
                """const it = document.activeElement;
                return [it.dataset.copy || it.id, getComputedStyle(it).outlineStyle]"""
            )
        )
    titles = [name for name, _ in names]
    equal(titles[:3], ["model", "curl", "Claude Code"], "what Tab reaches")
    equal({style for name, style in names if name}, {"solid"}, "outlines")


def labelled(desk):
    desk.open()
    bare = desk.browser.run(
        """const all = (it) => [...document.querySelectorAll(it)];
        return [...all("th:not([scope])"), ...all("table:not([aria-labelledby])"),
          ...all("svg:not([aria-hidden], [aria-label], [hidden])"), ...all("button:not([aria-label])"),
          ...all("select").filter((it) => !it.labels.length), ...all("[aria-live]"),
        ].map((it) => it.outerHTML.slice(0, 100))"""
    )
    equal(bare, [], "elements without a name")
    levels = desk.browser.run("return [...document.querySelectorAll('h1, h2, h3')].map((it) => it.localName)")
    equal((levels[0], levels.count("h1"), "h2" in levels), ("h1", 1, True), "headings")


def many_rows(desk):
    desk.open()
    most_used = "most-used/1"

    def add(status):
        row = {**status["clients"][0], "requests": 1}
        status["clients"] = [{**row, "agent": f"agent-{at}"} for at in range(200)]
        status["clients"].append({**row, "agent": most_used, "requests": 9})

    desk.tell(add)
    desk.wait_for_text("#h-clients", "20 of 201")
    rows = "return [...document.querySelectorAll('#clients tbody th')].map((it) => it.textContent)"
    names = desk.browser.run(rows)
    equal((len(names), names[0]), (20, most_used))


def only_while_visible(desk):
    desk.open()
    desk.browser.run(
        """window.asked = window.looked = 0;
        const real = fetch;
        window.fetch = (...it) => { asked += 1; return real(...it); };
        Object.defineProperty(document, "hidden", { get: () => { looked += 1; return isAway; } });
        window.isAway = true;"""
    )
    # Each timer looks whether the page is visible, at every tick.
    wait_for("the timers", lambda: desk.browser.run("return looked") >= 8, SOON)
    equal(desk.browser.run("return asked"), 0, "requests while hidden")
    desk.browser.run("isAway = false; document.dispatchEvent(new Event('visibilitychange'))")
    equal(desk.browser.run("return asked"), 1, "requests when visible again")


def gone(desk):
    desk.open()
    equal(desk.text("#gone"), "", "what is said of a proxy that answers")
    port = desk.proxy.port
    desk.proxy.kill()
    desk.wait_for_text("#gone", "No answer from the proxy since ")
    assert re.search(r"since \d\d:\d\d:\d\d\.", desk.text("#gone")), desk.text("#gone")
    contains(desk.browser.title(), "no answer")
    contains(desk.text("#recent"), "demo-claude")
    desk.proxy = Proxy(command=("demo",), port=port)
    wait_for("the page to recover", lambda: not desk.text("#gone"), SOON)
    contains(desk.text("#summary"), "3 of 3 configurations available")
    equal(desk.browser.title(), "3 of 3 · flow-proxy")


CHECKS = {
    "the page of a proxy without requests says what to try": fresh,
    "the page shows what has passed, and which configurations are ill and why": shown,
    "the page counts the rests down": countdown,
    "the page keeps focus and selection while it is drawn again": keeps_focus,
    "the page shows names from outside as text": foreign_names,
    "the page copies what tools need, quoted for their language": copies,
    "the page copies a command that works": copied_command,
    "the page copies without a clipboard": without_clipboard,
    "the page asks for nothing but itself and the status": only_here,
    "the page has enough contrast in light": readable("light"),
    "the page has enough contrast in dark": readable("dark"),
    "the page is never wider than its window": narrow,
    "the page is used with a keyboard": by_keyboard,
    "the page names its tables, pictures and controls": labelled,
    "the page shows the busiest of many clients": many_rows,
    "the page asks only while it is visible": only_while_visible,
    "the page says that the proxy is gone, and recovers": gone,
}
