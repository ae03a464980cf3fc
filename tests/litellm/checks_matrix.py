"""All clients, models and APIs, each once beside a credential that may do all.

The client must get what LiteLLM gives to that credential, whole.
"""

import concurrent.futures
import functools
import json

from lab.clients import KINDS
from support import CHECKS, SHAPES, equal, fresh

MODELS = [
    "gpt-4o-mini",
    "claude-sonnet",
    "vip-model",
    "held",
    "held-claude",
    "provider-throttled",
    "provider-broken",
    "provider-gone",
    "group-cooling",
    "mixed-401",
    "no-such-model",
]
# What LiteLLM says depends on what it was asked before.
CHANGING = {"group-cooling": (429, 500), "mixed-401": (200, 401)}
# These serve the first request of a minute.
LIMITED = ("slow", "teamrpm", "userrpm", "mrpm", "enduser")
# Ids and times, which differ from response to response.
VARIABLE = {"id", "created", "created_at", "completed_at", "item_id", "request_id", "call_id"}
LAST = {"chat": b"[DONE]", "messages": b"message_stop", "responses": b"response.completed"}
AT_ONCE = 4


def checks_of_each_kind():
    for kind in KINDS:
        title = f"all models and APIs with {kind} and a good credential: as LiteLLM itself responds"
        CHECKS.append((title, lambda lab, kind=kind: all_with(lab, kind)))


def all_with(lab, kind):
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        cases = [(model, shape) for model in MODELS for shape in SHAPES]
        for future in [pool.submit(one, lab, kind, *case) for case in cases]:
            future.result()


def one(lab, kind, model, shape):
    client = fresh(kind)
    with lab.proxy(client, "alpha") as proxy:
        for number in range(3 if kind in LIMITED else 1):
            response = proxy.ask(shape, model)
            case = f"{client}, {model}, {shape}, request {number}: {response}"
            is_limited = kind == "enduser" and response.config == client and number > 0
            require(response, case, (429,) if is_limited else None, lab, model, shape)
            assert response.attempts <= 2, case
        assert proxy.process.poll() is None, f"the proxy has ended: {case}"
        equal(response.header("x-flow-proxy-error"), None, f"errors of the proxy in {case}")


def require(response, case, statuses, lab, model, shape):
    """Requires one of the statuses, or what LiteLLM responds to alpha."""
    statuses = statuses or CHANGING.get(model)
    equal(response.end, "ok", f"ends of {case}")
    if statuses:
        assert response.status in statuses, case
        return
    direct = direct_response(lab, model, shape)
    equal(response.status, direct.status, f"statuses of {case}")
    kinds = [it.header("content-type") for it in (response, direct)]
    equal(*kinds, f"content types of {case}")
    equal(comparable(response), comparable(direct), f"bodies of {case}")
    if response.status == 200 and shape.is_streamed:
        assert LAST[shape.api] in response.body[-2000:], case


@functools.lru_cache(maxsize=None)
def direct_response(lab, model, shape):
    return lab.ask(shape, "alpha", model)


def comparable(response):
    """Returns the body without what differs from response to response."""
    lines = response.body.decode().splitlines()
    return [comparable_line(line) for line in lines]


def comparable_line(line):
    name, _, data = line.partition("data: ") if line.startswith("data: ") else ("", "", line)
    try:
        return without_variable(json.loads(data))
    except ValueError:
        return name + data


def without_variable(value):
    if isinstance(value, dict):
        kept = [(name, part) for name, part in value.items() if name not in VARIABLE]
        return {name: without_variable(part) for name, part in kept}
    return [without_variable(part) for part in value] if isinstance(value, list) else value


checks_of_each_kind()
