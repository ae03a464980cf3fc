"""LiteLLM's configuration: models with a fake provider behind them. JSON, since that is YAML."""

import json

# The shapes of requests that have a group of their own: a group that cools down keeps its state.
GROUP_SUFFIXES = [""] + [
    f"-{api}-{form}" for api in ("chat", "messages", "responses") for form in ("whole", "streamed")
]
COOLDOWN_SECONDS = 5


def write(path, provider):
    """Writes the file for a provider that listens at the URL `provider`."""
    openai = lambda behaviour, **more: deployment("openai/fake-", behaviour, f"{provider}/v1", more)
    anthropic = lambda behaviour: deployment("anthropic/claude-fake-", behaviour, provider, {})
    models = [
        ("gpt-4o-mini", openai("ok")),
        ("claude-sonnet", anthropic("ok")),
        ("vip-model", openai("ok")),
        ("held", openai("held")),
        ("held-claude", anthropic("held")),
        ("cut", openai("cut")),
        # These do what the request's text says, see provider.py.
        ("scripted", openai("scripted")),
        ("scripted-claude", anthropic("scripted")),
        ("provider-throttled", openai("throttled")),
        ("provider-broken", openai("broken")),
        ("provider-gone", openai("gone")),
    ]
    for suffix in GROUP_SUFFIXES:
        cooling = {"cooldown_time": COOLDOWN_SECONDS}
        models += [
            ("group-cooling" + suffix, openai("broken", **cooling)),
            ("group-cooling" + suffix, openai("gone", **cooling)),
            ("mixed-401" + suffix, openai("unauthorized", **cooling)),
            ("mixed-401" + suffix, openai("ok", **cooling)),
        ]
    path.write_text(json.dumps(configuration(models), indent=1))


def deployment(prefix, behaviour, base, more):
    return {
        "model": prefix + behaviour,
        "api_key": "FAKE-key-of-the-provider",
        "api_base": base,
        "max_retries": 0,
        "cooldown_time": 0,
        "input_cost_per_token": 1e-06,
        "output_cost_per_token": 2e-06,
        **more,
    }


def configuration(models):
    return {
        "model_list": [{"model_name": name, "litellm_params": made} for name, made in models],
        "litellm_settings": {
            "enable_post_custom_auth_checks": True,
            "drop_params": True,
            "num_retries": 0,
        },
        "router_settings": {"allowed_fails": 0},
        "general_settings": {
            "custom_auth": "lab.flow_auth.authenticate",
            "custom_auth_run_common_checks": True,
        },
    }
