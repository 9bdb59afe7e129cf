"""How many requests of one caller may be under way at once: a semaphore over all processes, of places that lapse.

A place is given back when its request ends. One whose process died lapses after `PLACE_SECONDS`; a request that takes
longer than that goes on without one. While Redis is away each process gives `local_share` of the places by itself, and
at least one.
"""

import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from prometheus_client import Counter as Metric
from redis.exceptions import RedisError

from app.platform.redis import RedisClient, Script

PLACE_SECONDS = 60

PLACES = Metric("concurrency_limit_places_total", "Requests that asked for a place", ["rule", "source", "outcome"])

# KEYS: a sorted set of places by their end. ARGV: how many there are, the name of this one, milliseconds that it lasts.
ENTER = Script("""
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
""")


class Places:
    def __init__(self, redis: RedisClient, *, local_share: float) -> None:
        self._redis = redis
        self._local_share = local_share
        self._local: Counter[str] = Counter()  # of the requests under way: it holds no more keys than there are

    @asynccontextmanager
    async def place(self, identity: str, rule: str, most: int) -> AsyncIterator[bool]:
        """Whether there was one; it is kept to the end of the block. Raises nothing."""
        key, token = f"limit:{{{identity}}}:{rule}:places", secrets.token_hex(8)
        try:
            entered, source = (
                bool(await self._redis.run(ENTER, [key], [most, token, int(PLACE_SECONDS * 1_000)])),
                "redis",
            )
        except RedisError:
            entered, source = self._local[key] < max(1, int(most * self._local_share)), "local"
        PLACES.labels(rule, source, "allowed" if entered else "limited").inc()
        if entered:
            self._local[key] += 1
        try:
            yield entered
        finally:
            if entered:
                self._leave(key, token)

    def _leave(self, key: str, token: str) -> None:
        self._local[key] -= 1
        if not self._local[key]:
            del self._local[key]
        with suppress(RedisError):
            self._redis.submit("ZREM", key, token)
