"""Who sends a request, and whether it may come in."""

from starlette.types import Scope

from app.platform.http.hotpath import CHARGED
from app.platform.http.recording import header
from app.platform.limits import Account, Decision, LimitRule, RateLimiter, address_identity
from app.platform.security.caller import Caller
from app.platform.security.tokens import InvalidToken, TokenVerifier
from app.platform.telemetry.context import current

Identified = Caller | InvalidToken | None


def bearer_token(scope: Scope) -> str | None:
    """What the Authorization header carries; None where there is none, or of another scheme."""
    scheme, _, token = (header(scope, b"authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def identify(scope: Scope, verifier: TokenVerifier) -> Identified:
    """The caller, or what is wrong with the credentials, or None where there are none. Left in the request's state."""
    found: Identified = None
    if (token := bearer_token(scope)) is not None:
        try:
            found = verifier.verify(token)
        except InvalidToken as error:
            found = error
    scope.setdefault("state", {})["caller"] = found
    if isinstance(found, Caller):
        context = current()
        context.caller_id, context.organization_id = str(found.user_id), str(found.organization_id)
    return found


def account_of(caller: Identified, rule: LimitRule, limiter: RateLimiter) -> Account | None:
    """Whose limit the request is charged to: the user's, else the address's; None if nothing is limited."""
    if not limiter.enabled:
        return None
    context = current()
    known = isinstance(caller, Caller)
    return limiter.account(f"user:{context.caller_id}" if known else address_identity(context.client_address), rule)


async def admit(scope: Scope, account: Account, limiter: RateLimiter) -> bool:
    """Charge the rate limit, and have the answer tell what is left of it."""
    decision: Decision = scope["state"].pop(CHARGED, None) or await limiter.charge(account)
    current().extra_headers += decision.headers()
    return decision.allowed
