"""LiteLLM's custom authentication, as Flow has it: the bearer token is the JWT of a client."""

import time

import jwt
from litellm import BudgetExceededError
from litellm.proxy._types import ProxyException, UserAPIKeyAuth, hash_token

from lab import clients


async def authenticate(request, api_key):
    client_id, claims = verified(api_key.removeprefix("Bearer ").strip())
    kind = clients.kind_of(client_id)
    if not claims.get("tenant"):
        raise rejected(401, "auth_error", "Authentication Error, the token names no tenant.")
    if kind in clients.REJECTED:
        raise rejected(*clients.REJECTED[kind])
    if kind == clients.LATE:
        let_in_late(client_id)
    limits = clients.KINDS.get(kind, clients.KINDS["alpha"])(client_id)
    spend, budget = limits.get("spend", 0.0), limits.get("max_budget")
    if budget is not None and spend > budget:
        raise BudgetExceededError(current_cost=spend, max_budget=budget)
    return UserAPIKeyAuth(
        api_key=hash_token(client_id), key_alias=client_id, user_id=client_id, **limits
    )


def verified(token):
    """Returns the client's id and the claims of a token whose signature and secret are right."""
    try:
        unverified = jwt.decode(token, options={"verify_signature": False})
        client_id = unverified["clientId"]
        secret = clients.secret_of(client_id)
        claims = jwt.decode(token, secret, algorithms=["HS256"])
        kinds = {*clients.KINDS, *clients.REJECTED, clients.LATE}
        is_known = clients.kind_of(client_id) in kinds
    except Exception as error:
        kind = type(error).__name__
        raise rejected(401, "auth_error", f"Authentication Error, invalid token ({kind}).")
    if not is_known or claims["clientSecret"] != secret:
        raise rejected(401, "auth_error", "Authentication Error, the client is not known.")
    return client_id, claims


def let_in_late(client_id):
    if time.time() < int(client_id.split("-")[1]):
        raise rejected(401, "auth_error", "Authentication Error, the client is not known yet.")


def rejected(status, kind, message):
    return ProxyException(message=message, type=kind, param="None", code=status)
