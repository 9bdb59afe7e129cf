"""Whole answers, kept in Redis, void as soon as a write touches one of their tags.

An entry carries the generations of its tags as they were read before its answer was made. A hit is an entry whose
generations are those of now, read in the same command. So a write that commits while an answer is being made wins: the
entry is stored under a generation that is over. Nothing is deleted on a write, hence nothing can be put back after it.
"""

import struct
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from prometheus_client import Counter
from redis.exceptions import RedisError

from app.platform.cache.answer import Answer, Entry, decode, encode
from app.platform.cache.invalidation import Tags, position_of
from app.platform.cache.rules import redis_key
from app.platform.cache.single_flight import SingleFlight
from app.platform.redis import RedisClient
from app.platform.resilience.deadlines import DeadlineExceeded
from app.platform.telemetry.context import current

LOOKUPS = Counter("cache_lookups_total", "Look-ups, by tier and what was found", ["tier", "result"])
STORES = Counter("cache_stores_total", "Answers made on a miss, by what became of them", ["result"])
FLIGHTS = Counter("cache_flights_total", "Misses, by who made the answer", ["role"])


@dataclass(frozen=True, slots=True)
class Hit:
    answer: Answer
    age_seconds: int
    tier: Literal["redis"] = "redis"


@dataclass(frozen=True, slots=True)
class Miss:
    """`fence`: what the answer may be stored under; None when it may not. `wal_required`: how far a replica has to be
    for its answer to be storable.
    """

    key: str
    fence: bytes | None = None
    wal_required: int = 0


class ResponseCache:
    """Raises nothing: without Redis everything is a miss, at once."""

    def __init__(self, redis: RedisClient, *, max_entry_bytes: int, enabled: bool = True) -> None:
        self.enabled = enabled
        self._redis = redis
        self._max_entry_bytes = max_entry_bytes
        self._tags = Tags(redis)
        self._flights = SingleFlight[Answer]()

    async def lookup(self, key: str, tags: Sequence[str]) -> Hit | Miss:
        """What is kept for the caller of the current request: nothing that lacks a write which they have to see.

        `key` is from `answer_key`, `tags` are from `tag`, all of one scope.
        """
        found, result = await self._look_up(key, tags)
        LOOKUPS.labels("redis", result).inc()
        return found

    async def _look_up(self, key: str, tags: Sequence[str]) -> tuple[Hit | Miss, str]:
        if not self.enabled:
            return Miss(key), "off"
        if not self._tags.are_settled(tags):
            return Miss(key), "unsettled"
        try:
            names = [redis_key("answer", key), *(redis_key("tag", tag) for tag in tags)]
            data, *values = await self._redis.execute("MGET", *names)
            if None in values:
                values = await self._tags.begin(tags)
        except RedisError:
            return Miss(key), "unavailable"
        fence = b",".join(values)
        entry = decode(data) if data is not None else None
        miss = Miss(key, fence, max(map(position_of, values), default=0))
        if entry is None:
            return miss, "miss"
        if entry.fence != fence:
            return miss, "invalidated"
        if entry.wal_position < current().wal_required:
            return miss, "behind"
        return Hit(entry.answer, max(0, int(time.time() - entry.stored_at))), "hit"

    async def fill(self, miss: Miss, ttl_seconds: float, make: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """Make the answer and store it, once for all that miss it now. Raises what `make` raises.

        Only those share an answer who may: who read the same generations, and has to see the same writes.
        """
        flight = (miss.key, miss.fence, current().wal_required)
        joined = flight in self._flights
        FLIGHTS.labels("follower" if joined else "leader").inc()
        try:
            answer = await self._flights.run(flight, partial(self._make_and_store, miss, ttl_seconds, make))
        except DeadlineExceeded:
            if not joined:
                raise
            return await make()
        return answer if answer.cacheable or not joined else await make()

    async def store(self, miss: Miss, answer: Answer, ttl_seconds: float) -> None:
        """Keep what was read, in the current request, with all writes up to `miss.wal_required`."""
        STORES.labels(await self._store(miss, answer, ttl_seconds)).inc()

    async def _store(self, miss: Miss, answer: Answer, ttl_seconds: float) -> str:
        if miss.fence is None or not answer.cacheable:
            return "refused"
        try:
            wal_position = max(miss.wal_required, current().wal_required)
            data = encode(Entry(miss.fence, time.time(), wal_position, answer))
            if len(data) > self._max_entry_bytes:
                return "too_large"
            await self._redis.execute("SET", redis_key("answer", miss.key), data, "PX", int(ttl_seconds * 1_000))
        except struct.error:
            return "too_large"
        except RedisError:
            return "unavailable"
        return "stored"

    async def invalidate(self, tags: Collection[str], wal_position: int = 0) -> None:
        """After the commit that touched them, with the position of the write-ahead log then. Raises nothing."""
        if tags:
            await self._tags.invalidate(tags, wal_position)

    async def aclose(self) -> None:
        await self._tags.aclose()

    async def _make_and_store(
        self, miss: Miss, ttl_seconds: float, make: Callable[[], Coroutine[Any, Any, Answer]]
    ) -> Answer:
        answer = await make()
        await self.store(miss, answer, ttl_seconds)
        return answer
