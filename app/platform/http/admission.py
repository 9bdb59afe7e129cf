"""Who sends a request, and whether it may come in."""

import asyncio

from starlette.types import Scope

from app.platform.http.consistency import HEADER as CONSISTENCY_HEADER
from app.platform.http.consistency import Consistency
from app.platform.http.recording import header
from app.platform.limits import LimitRule, RateLimiter, address_identity
from app.platform.security.caller import Caller
from app.platform.security.tokens import InvalidToken, TokenVerifier
from app.platform.telemetry.context import current

Identified = Caller | InvalidToken | None


def identify(scope: Scope, verifier: TokenVerifier) -> Identified:
    """The caller, or what is wrong with the credentials, or None where there are none. Left in the request's state."""
    scheme, _, token = (header(scope, b"authorization") or "").partition(" ")
    found: Identified = None
    if scheme.lower() == "bearer":
        try:
            found = verifier.verify(token.strip())
        except InvalidToken as error:
            found = error
    scope.setdefault("state", {})["caller"] = found
    if isinstance(found, Caller):
        context = current()
        context.caller_id, context.organization_id = str(found.user_id), str(found.organization_id)
    return found


async def admit(
    scope: Scope, caller: Identified, rule: LimitRule, limiter: RateLimiter, consistency: Consistency
) -> bool:
    """Charge the rate limit, and learn how fresh the caller's reads have to be, in one trip to Redis."""
    context = current()
    known = isinstance(caller, Caller)
    identity = f"user:{context.caller_id}" if known else address_identity(context.client_address)
    token = header(scope, CONSISTENCY_HEADER)
    decision, required = await asyncio.gather(
        limiter.check(identity, rule), consistency.required(context.caller_id if known else None, token)
    )
    if limiter.enabled:
        context.extra_headers += decision.headers()
    context.wal_required = max(context.wal_required, required)
    return decision.allowed or not limiter.enabled
