"""A mixed load for five credentials of which only the first may do all."""

from support import check_in_each_shape, fresh, is_like

SCENE = [
    (20, "gpt-4o-mini"),
    (10, "vip-model"),
    (10, "gpt-4o-mini"),
    (6, "cooling"),
    (6, "gpt-4o-mini"),
]


@check_in_each_shape
def five_credentials_serve_all_that_one_of_them_can_serve(lab, shape):
    slow = fresh("slow")
    names = {"cooling": f"group-cooling{shape.suffix}"}
    models = [names.get(model, model) for count, model in SCENE for _ in range(count)]
    with lab.proxy("alpha", "beta", "poor", "expired", slow) as proxy:
        responses = [(model, proxy.ask(shape, model)) for model in models]
        good = [response for model, response in responses if model in ("gpt-4o-mini", "vip-model")]
        bad = [response for model, response in responses if model == names["cooling"]]
        failed = [response for response in good if response.status != 200]
        assert len(good) == 46 and not failed, failed
        wrong = [it for it in bad if it.status not in (429, 500) or it.attempts > 2]
        assert len(bad) == 6 and not wrong, wrong
        marked = sorted(mark.split(" Remaining")[0] for mark in proxy.marks())
    denied = "Configuration 'beta' may not use model '{}', passed over for it for 600 s"
    expected = [
        denied.format(names["cooling"]),
        denied.format("vip-model"),
        "Configuration 'expired' marked as failed.",
        "Configuration 'poor' budget exceeded, resting 300 s.",
        f"Configuration '{slow}' rate limited, resting ~60 s.",
    ]
    assert len(marked) == len(expected) and all(map(is_like, marked, expected)), marked
