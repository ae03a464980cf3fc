"""What has passed is counted to the last token: log, status, metrics and `usage` say the same."""

import concurrent.futures
import json
import math
import pathlib
import re
import subprocess

from checks_usage import MODELS, WITH_USAGE, told
from clients import harness
from support import SHAPES, check, equal, send, served, wait_for

REQUESTS = 1000
CLIENTS = 8
KINDS = ("input", "cached", "output")


@check
def a_thousand_requests_of_eight_clients_are_counted_to_the_last_token(lab):
    with lab.proxy("alpha", "alpha-2") as proxy:
        half = REQUESTS // 2
        asked = ask_all(proxy, range(half))
        proxy.reload("alpha-2", "alpha-3")
        asked += ask_all(proxy, range(half, REQUESTS))
        expected = sums(told(response) for response in asked if tells(response))
        quiet = sum(not tells(response) for response in asked)
        status = json.loads(send(proxy.port, "GET", "/-/status").body)
        equal(status["requests"]["total"], REQUESTS, "requests")
        same(of_status(status["tokens"], status["cost"]), expected, "the status")
        equal(status["tokens"]["unknown"], quiet, "unknown")
        for part in ("configurations", "models", "clients"):
            rows = [of_status(row["tokens"], row["cost"]) for row in status[part]]
            same(sums(rows), expected, part)
            equal(sum(row["requests"] for row in status[part]), REQUESTS, f"requests of {part}")
        names = [row["name"] for row in status["configurations"]]
        equal(names, ["alpha-2", "alpha-3", "alpha"], "configurations, the removed one last")
        same(of_metrics(send(proxy.port, "GET", "/-/metrics").body.decode()), expected, "metrics")
        same(sums(map(of_log, asked)), expected, "the log")
        same(of_command(proxy, quiet), expected, "the command usage")


def ask_all(proxy, numbers):
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(lambda number: ask(proxy, number), numbers))


def ask(proxy, number):
    shape, model = SHAPES[number % len(SHAPES)], MODELS[number // len(SHAPES) % len(MODELS)]
    # Every other stream of chat completions tells no usage.
    has_usage = (shape.api, shape.is_streamed) == ("chat", True) and number % 4 == 1
    return served(proxy.ask(shape, model, more=WITH_USAGE if has_usage else ()))


def tells(response):
    return "input_tokens" in response.logged


def sums(rows):
    rows = list(rows)
    return [sum(row[index] or 0 for row in rows) for index in range(4)]


def same(got, expected, what):
    equal(got[:3], expected[:3], f"tokens of {what}")
    # Each line of the log has six digits.
    assert math.isclose(got[3], expected[3], rel_tol=1e-5), f"costs of {what}: {got} {expected}"


def of_status(tokens, cost):
    return [*(tokens[kind] for kind in KINDS), cost["total"]]


def of_log(response):
    names = ("input_tokens", "cached_tokens", "output_tokens")
    tokens = [int(response.logged.get(name, 0)) for name in names]
    return *tokens, float(response.logged.get("cost", 0))


def of_metrics(text):
    found = re.findall(r'^flow_proxy_tokens_total\{.*kind="(\w+)"\} (\d+)$', text, re.M)
    tokens = [sum(int(number) for kind, number in found if kind == wanted) for wanted in KINDS]
    costs = re.findall(r"^flow_proxy_cost_usd_total\{.*\} (\S+)$", text, re.M)
    return [*tokens, sum(map(float, costs))]
