"""Takes the pictures of the proxy's own page that README shows: `make screenshots`.

The page is the binary's; what it shows is an hour of made-up traffic.
"""

import datetime
import math
import pathlib
import sys

import driver

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "clients"))
import status_page  # noqa: E402
from clients import harness  # noqa: E402

PICTURES = harness.REPOSITORY / "docs"
WIDTH = 1200
# Bytes; README is not to be slow.
LARGEST = 150_000


def moment(seconds_from_now):
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    return (now + datetime.timedelta(seconds=seconds_from_now)).isoformat().replace("+00:00", "Z")


def tokens(input_tokens, cached, output, known, unknown=0):
    names = ("input", "cached", "output", "known", "unknown")
    return dict(zip(names, (input_tokens, cached, output, known, unknown), strict=True))


def configuration(name, requests, counted, total, **more):
    return {
        **{"name": name, "state": "available", "reason": None, "since": None, "until": None},
        **{"rest_s": None, "in_flight": 0, "rejected": 0, "spend": None, "budget": None, "models": []},
        **{"requests": requests, "tokens": counted, "cost": {"total": total, "unknown": 0}},
        **more,
    }


def rest(state, reason, since, until):
    return {
        **{"state": state, "reason": reason, "rest_s": until},
        **{"since": moment(-since), "until": moment(until)},
    }


def busy_hour(status):
    """Three configurations, one of which is limited and one of which has failed."""
    minutes = [minute(at) for at in range(60)]
    last_hour = sum(it["requests"] for it in minutes)
    status.update(
        version="0.2.0",
        started_at=moment(-15_060),
        target="https://flow.ciandt.com/flow-llm-proxy",
        summary=f"1 of 3 configurations available. {last_hour} requests in the last hour, 9 failed over.",
        workers={"busy": 3, "total": 256},
        connections=12,
        requests={
            **{"total": 3412, "in_flight": 3, "last_hour": last_hour, "failed_over": 9},
            "by_status": {"2xx": 3390, "4xx": 15, "5xx": 4, "499": 3},
        },
        tokens=tokens(12_480_512, 9_320_448, 401_230, 3100, 312),
        cost={"total": 41.2518, "unknown": 0},
        configurations=[
            configuration(
                *("primary-1", 1402, tokens(5_120_448, 4_001_792, 160_112, 1290, 112), 17.25),
                **rest("limited", "429 rate limit", 12, 41),
                **{"rejected": 3, "spend": 62.1, "budget": 100.0},
                models=[{"model": "vip-model", "state": "denied", "rest_s": 584}],
            ),
            configuration(
                *("primary-2", 1103, tokens(4_899_840, 3_498_240, 149_876, 1003, 100), 15.1),
                **rest("failed", "401 rejected", 192, 228),
                **{"rejected": 2, "spend": 31.04, "budget": 100.0},
            ),
            configuration(
                *("fallback", 907, tokens(2_460_224, 1_820_416, 91_242, 807, 100), 8.9),
                **{"in_flight": 3, "spend": 88.7, "budget": 250.0},
            ),
        ],
        minutes=minutes,
    )


def minute(at):
    requests = round(14 + 9 * math.sin(at / 8) + 4 * math.sin(at * 1.9))
    return {
        **{"minute": moment(60 * (at - 59)), "requests": requests},
        **{"errors": 2 if at in (22, 23, 51) else 0, "output_tokens": requests * (90 + at * 37 % 50)},
    }


def main():
    driver.install()
    desk = status_page.Desk()
    harness.start_watchdog(60, desk.close)
    try:
        PICTURES.mkdir(exist_ok=True)
        for scheme in ("light", "dark"):
            desk.open(WIDTH, scheme)
            desk.tell(busy_hour)
            desk.wait_for_text("#configurations", "primary-1")
            desk.browser.run("document.getAnimations().forEach((it) => it.cancel())")
            end = desk.browser.run(
                "return document.querySelector('#h-models').getBoundingClientRect().top + scrollY"
            )
            picture = desk.browser.picture(round(end) - 12)
            assert len(picture) < LARGEST, f"{len(picture)} bytes"
            path = pathlib.Path(PICTURES, f"status-{scheme}.png")
            path.write_bytes(picture)
            print(f"{path.relative_to(harness.REPOSITORY)}: {len(picture)} bytes")
    finally:
        harness.end_all_processes()
        desk.close()


if __name__ == "__main__":
    main()
