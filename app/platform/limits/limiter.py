"""Asks Redis, and goes on without it."""

from functools import lru_cache, partial

from prometheus_client import Counter
from redis.exceptions import RedisError

from app.platform.limits.decision import Decision
from app.platform.limits.gcra import CHARGE, Charge, LocalBuckets
from app.platform.limits.rules import LimitRule
from app.platform.redis import RedisClient

DECISIONS = Counter("rate_limit_decisions_total", "Requests, by what the limiter said", ["rule", "source", "outcome"])


class RateLimiter:
    """One limit for the whole fleet, kept in Redis, on its clock.

    While Redis is away each process holds `local_share` of every limit by itself, so the fleet lets through at most
    `local_share` * processes of it. `scale` multiplies all amounts.
    """

    def __init__(self, redis: RedisClient, *, scale: float = 1.0, local_share: float, enabled: bool = True) -> None:
        self.enabled = enabled
        self._redis = redis
        self._buckets = LocalBuckets()
        self._shared_rule = lru_cache(maxsize=1_024)(partial(LimitRule.scaled, factor=scale))
        self._local_rule = lru_cache(maxsize=1_024)(partial(LimitRule.scaled, factor=scale * local_share))

    async def check(self, identity: str, rule: LimitRule) -> Decision:
        """Charge one request of `identity` (a short key, made by us: `user:...`, `address:...`). Raises nothing.

        Switched off, it lets everything pass and counts nothing.
        """
        if not self.enabled:
            return Decision(rule, Charge(0, (0,) * len(rule.limits)))
        try:
            decision, source = await self._ask_redis(identity, self._shared_rule(rule)), "redis"
        except RedisError:
            local = self._local_rule(rule)
            decision, source = Decision(local, self._buckets.charge(f"{identity}:{rule.name}", local)), "local"
        DECISIONS.labels(rule.short_name, source, "allowed" if decision.allowed else "limited").inc()
        return decision

    async def _ask_redis(self, identity: str, rule: LimitRule) -> Decision:
        keys = [f"limit:{{{identity}}}:{rule.name}:{limit.window_seconds}" for limit in rule.limits]
        costs = [us for limit in rule.limits for us in (limit.interval_us, limit.tolerance_us)]
        wait, *owed = await self._redis.run(CHARGE, keys, costs)
        return Decision(rule, Charge(wait, tuple(owed)))
