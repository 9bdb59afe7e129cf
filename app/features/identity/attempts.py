"""Guessing is slowed: by account and address together, by account, and by user for codes.

A stranger who guesses at an account uses up what addresses have that were never logged in from; the owner, at one that
was, meets only the limit of their own address. So nobody is locked out of their account by others.
"""

from hashlib import blake2b
from uuid import UUID

from app.features.identity.repository import Row
from app.platform.http.limit_problems import AbnormalUsage
from app.platform.limits import LimitRule, RateLimiter, parse_limits
from app.platform.telemetry.context import current

FROM_ADDRESS = parse_limits("10/minute;100/hour", "login-address")
FROM_STRANGERS = parse_limits("60/hour", "login-strangers")
CODES = parse_limits("10/minute;60/hour", "second-factor")


async def admit_address(limiter: RateLimiter, email: str) -> None:
    """Raises `AbnormalUsage`."""
    await _charge(limiter, f"login:{_name(email)}:{current().client_address}", FROM_ADDRESS)


async def admit_stranger(limiter: RateLimiter, email: str, account: Row | None) -> None:
    """The same for an account that is there and one that is not. Raises `AbnormalUsage`."""
    if account is None or not account["known_address"]:
        await _charge(limiter, f"login:{_name(email)}", FROM_STRANGERS)


async def admit_code(limiter: RateLimiter, user_id: UUID) -> None:
    """Raises `AbnormalUsage`."""
    await _charge(limiter, f"code:{user_id}", CODES)


def _name(email: str) -> str:
    return blake2b(email.encode(), digest_size=12).hexdigest()


async def _charge(limiter: RateLimiter, identity: str, rule: LimitRule) -> None:
    decision = await limiter.check(identity, rule)
    if limiter.enabled and not decision.allowed:
        headers = {name.decode(): value.decode() for name, value in decision.headers() if name == b"retry-after"}
        raise AbnormalUsage("Too many attempts; Retry-After says when to come back.", headers=headers)
