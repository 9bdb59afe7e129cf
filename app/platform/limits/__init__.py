"""Rate limits: declared at the endpoint, counted in Redis, held by each process alone while Redis is away."""

from app.platform.limits.decision import Decision
from app.platform.limits.identity import address_identity, caller_identity
from app.platform.limits.leases import Account
from app.platform.limits.limiter import RateLimiter
from app.platform.limits.rules import (
    ConcurrencyRule,
    Limit,
    Limiter,
    LimitRule,
    concurrency_of,
    limiter,
    limits_of,
    parse_limits,
)

__all__ = [
    "Account",
    "ConcurrencyRule",
    "Decision",
    "Limit",
    "LimitRule",
    "Limiter",
    "RateLimiter",
    "address_identity",
    "caller_identity",
    "concurrency_of",
    "limiter",
    "limits_of",
    "parse_limits",
]
