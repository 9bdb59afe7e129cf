"""Rate limits: declared at the endpoint, counted in Redis, held by each process alone while Redis is away."""

from app.platform.limits.decision import Decision
from app.platform.limits.limiter import RateLimiter
from app.platform.limits.rules import Limit, LimitRule, limiter, limits_of, parse_limits

__all__ = ["Decision", "Limit", "LimitRule", "RateLimiter", "limiter", "limits_of", "parse_limits"]
