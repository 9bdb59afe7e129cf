"""Who sends a request, and whether it may come in."""

from prometheus_client import Counter
from sqlalchemy.exc import DBAPIError
from starlette.types import Scope

from app.platform.http.hotpath import CHARGED
from app.platform.http.limit_problems import QuotaExceeded, ReducedCapacity
from app.platform.http.recording import header
from app.platform.limits import Account, Decision, LimitRule, RateLimiter, address_identity, caller_identity
from app.platform.postgres.errors import DatabaseError
from app.platform.security.api_keys import PREFIX, ApiKeys
from app.platform.security.caller import Caller
from app.platform.security.revocation import Revocations, RevocationsUnknown
from app.platform.security.tokens import InvalidToken, RevokedToken, TokenVerifier
from app.platform.telemetry.context import current

REFUSED = Counter("credentials_refused_total", "Requests whose credentials were not believed", ("kind", "reason"))

Identified = Caller | InvalidToken | RevocationsUnknown | None


def bearer_token(scope: Scope) -> str | None:
    """What the Authorization header carries; None where there is none, or of another scheme."""
    scheme, _, token = (header(scope, b"authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


async def identify(scope: Scope, verifier: TokenVerifier, api_keys: ApiKeys, revocations: Revocations) -> Identified:
    """The caller, or why nobody can be sure of them, or None without credentials. Left in the request's state."""
    token = bearer_token(scope)
    found = None if token is None else await verified(token, verifier, api_keys, revocations)
    scope.setdefault("state", {})["caller"] = found
    if isinstance(found, Caller):
        context = current()
        context.caller_id, context.organization_id = str(found.user_id), str(found.organization_id)
    elif token is not None:
        REFUSED.labels("api_key" if token.startswith(PREFIX) else "token", reason(found)).inc()
    return found


def reason(found: Identified) -> str:
    match found:
        case RevokedToken():
            return "revoked"
        case RevocationsUnknown():
            return "unknown"
        case _:
            return "invalid"


async def verified(token: str, verifier: TokenVerifier, api_keys: ApiKeys, revocations: Revocations) -> Identified:
    if token.startswith(PREFIX):
        return await verified_key(token, api_keys, revocations)
    try:
        caller = verifier.verify(token)
        if not revocations.is_fresh:
            await revocations.ready()
    except (InvalidToken, RevocationsUnknown) as error:
        return error
    return RevokedToken() if revocations.is_revoked(caller) else caller


async def verified_key(token: str, api_keys: ApiKeys, revocations: Revocations) -> Identified:
    """A key outlives a change of what its owner may do: it is looked up again, and is worth what they may now."""
    for _ in range(2):
        try:
            caller = await api_keys.verify(token)
            if not revocations.is_fresh:
                await revocations.ready()
        except (InvalidToken, RevocationsUnknown) as error:
            return error
        except (DatabaseError, DBAPIError, OSError, TimeoutError):
            return RevocationsUnknown()
        if not revocations.is_revoked(caller):
            return caller
        api_keys.forget(token)
    return RevokedToken()


def account_of(
    caller: Identified, rule: LimitRule, limiter: RateLimiter, organization_rule: LimitRule | None
) -> Account | None:
    """Whose limit the request is charged to (see `LimitRule.per`): that of the API key or the user, within their
    organization's, both as its tier has them; else the address'. None if nothing is limited.
    """
    if not limiter.enabled:
        return None
    context = current()
    if rule.per == "address" or not isinstance(caller, Caller):
        return limiter.account(address_identity(context.client_address), rule)
    whole = None
    if organization_rule is not None:
        whole = limiter.account(
            f"organization:{context.organization_id}", limiter.rule_for(caller.tier, organization_rule)
        )
    return limiter.account(caller_identity(caller, rule), limiter.rule_for(caller.tier, rule), whole)


async def admit(scope: Scope, account: Account, limiter: RateLimiter) -> QuotaExceeded | None:
    """Charge the rate limit, and have the answer tell what is left of it. The problem where that is not enough."""
    decision: Decision = scope["state"].pop(CHARGED, None) or await limiter.charge(account)
    current().extra_headers += decision.headers()
    if decision.allowed:
        return None
    return (ReducedCapacity if decision.is_local else QuotaExceeded)(decision.violated)
