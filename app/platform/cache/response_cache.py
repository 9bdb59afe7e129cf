"""Whole answers, kept in memory and in Redis, void as soon as a write touches one of their tags.

An entry carries the generations of its tags as they were read before its answer was made. A hit is an entry whose
generations are those of now, read in the same command. So a write that commits while an answer is being made wins: the
entry is stored under a generation that is over. Nothing is deleted on a write, hence nothing can be put back after it.

Memory is looked at first, while it has its lease: then nothing in it lacks an acknowledged write (see `coherence`).
"""

import asyncio
import random
import struct
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from prometheus_client import Counter
from redis.exceptions import RedisError

from app.platform.cache.answer import Answer, Entry, decode, encode
from app.platform.cache.coherence import Coherence
from app.platform.cache.invalidation import Tags, position_of
from app.platform.cache.memory import Kept, MemoryTier, Watch
from app.platform.cache.refresh import Refreshes, head_start
from app.platform.cache.rules import CacheRule, redis_key
from app.platform.cache.single_flight import SingleFlight
from app.platform.cache.turns import Turns
from app.platform.redis import RedisClient
from app.platform.resilience.deadlines import DeadlineExceeded
from app.platform.telemetry.context import current
from app.platform.telemetry.metrics import BatchedCounter

LOOKUPS = Counter("cache_lookups_total", "Look-ups, by tier and what was found", ["tier", "result"])
STORES = Counter("cache_stores_total", "Answers made on a miss, by what became of them", ["result"])
JITTER = 0.1  # of the time to live: what was made at once doesn't end at once
FLIGHTS = Counter("cache_flights_total", "Misses, by who made the answer", ["role"])


@dataclass(frozen=True, slots=True)
class Hit:
    """`is_due`: to be made anew, see `refresh`."""

    answer: Answer
    age_seconds: int
    is_stale: bool = False
    is_due: bool = False
    kept: Kept | None = field(default=None, compare=False)  # in memory; None: in Redis

    @property
    def tier(self) -> Literal["memory", "redis"]:
        return "redis" if self.kept is None else "memory"


@dataclass(frozen=True, slots=True)
class Miss:
    """`fence`: what the answer may be stored under; None when it may not. `wal_required`: how far a replica has to be
    for its answer to be storable.
    """

    key: str
    tags: Sequence[str] = ()
    fence: bytes | None = None
    wal_required: int = 0
    watch: Watch | None = field(default=None, compare=False)  # on its tags, since before Redis was asked


@dataclass(frozen=True, slots=True)
class Question:
    """A look-up that has begun. `values` are on their way; or it was `refused` to ask; or `kept` is there already."""

    key: str
    tags: Sequence[str]
    kept: Kept | None = None
    watch: Watch | None = None
    values: asyncio.Future[Any] | None = None
    refused: str = ""


class ResponseCache:
    """`await start()`, `await aclose()`. Raises nothing: without Redis everything is a miss, at once."""

    def __init__(
        self, redis: RedisClient, *, max_entry_bytes: int, memory_bytes: int = 0, enabled: bool = True
    ) -> None:
        self.enabled = enabled
        self.memory = MemoryTier(memory_bytes)
        self.memory_hits = BatchedCounter(LOOKUPS.labels("memory", "hit"))
        self._redis = redis
        self._max_entry_bytes = max_entry_bytes
        self._coherence = Coherence(redis, self.memory)
        self._tags = Tags(redis, self._coherence)
        self._flights = SingleFlight[Answer]()
        self._turns = Turns(redis)
        self._refreshes = Refreshes()

    async def start(self) -> None:
        """Without it the memory tier has no lease, and serves nothing."""
        if self.enabled:
            await self._coherence.start()

    def ask(self, key: str, tags: Sequence[str]) -> Question:
        """Look in memory and, if it isn't there, ask Redis, without waiting for it.

        `key` is from `answer_key`, `tags` are from `tag`, all of one scope.
        """
        kept = self.memory.get(key) if self.enabled else None
        return self._ask_redis(key, tags) if kept is None else Question(key, tags, kept)

    async def lookup(self, question: Question) -> Hit | Miss:
        """What is kept for the caller of the current request: nothing that lacks a write which they have to see."""
        if question.kept is not None:
            if (hit := self._recall(question.kept)) is not None:
                return hit
            question = self._ask_redis(question.key, question.tags)
        found, _, result = await self._answer(question)
        LOOKUPS.labels("redis", result).inc()
        return found

    def _recall(self, kept: Kept) -> Hit | None:
        now = time.monotonic()
        if not self.memory.may_serve(kept, now) or kept.wal_position < current().wal_required:
            return None
        self.memory_hits.inc()
        return Hit(kept.answer, age(kept.stored_at), now >= kept.fresh_until, now >= kept.due_at, kept)

    def _ask_redis(self, key: str, tags: Sequence[str]) -> Question:
        if not self.enabled:
            return Question(key, tags, refused="off")
        if not self._tags.are_settled(tags):
            return Question(key, tags, refused="unsettled")
        watch = self.memory.watch(tags)
        try:
            names = [redis_key("answer", key), *(redis_key("tag", tag) for tag in tags)]
            return Question(key, tags, watch=watch, values=self._redis.submit("MGET", *names))
        except RedisError:
            return Question(key, tags, refused="unavailable")

    async def _answer(self, question: Question) -> tuple[Hit | Miss, Miss, str]:
        """What is found, what would be if that were not, and what that is called."""
        if question.values is None or question.watch is None:
            miss = Miss(question.key, question.tags)
            return miss, miss, question.refused
        try:
            data, *values = await question.values
            if None in values:
                values = await self._tags.begin(question.tags)
        except RedisError:
            miss = Miss(question.key, question.tags)
            return miss, miss, "unavailable"
        fence = b",".join(values)
        entry = decode(data) if data is not None else None
        miss = Miss(question.key, question.tags, fence, max(map(position_of, values), default=0), question.watch)
        if entry is None:
            return miss, miss, "miss"
        if entry.fence != fence:
            return miss, miss, "invalidated"
        if entry.wal_position < current().wal_required:
            return miss, miss, "behind"
        self.memory.put(question.key, entry, question.watch)
        now = time.time()
        is_due = now >= entry.fresh_until - head_start(entry.seconds_to_make)
        return Hit(entry.answer, age(entry.stored_at), now >= entry.fresh_until, is_due), miss, "hit"

    async def fill(self, miss: Miss, rule: CacheRule, make: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """Make the answer and store it, once for all that miss it now. Raises what `make` raises.

        Only those share an answer who may: who read the same generations, and has to see the same writes.
        Switched off, everyone makes their own.
        """
        if not self.enabled:
            return await make()
        flight = (miss.key, miss.fence, current().wal_required)
        joined = flight in self._flights
        FLIGHTS.labels("follower" if joined else "leader").inc()
        try:
            answer = await self._flights.run(flight, partial(self._make_in_turn, miss, rule, make))
        except DeadlineExceeded:
            if not joined:
                raise
            return await make()
        return answer if rule.fresh_seconds(answer) or not joined else await make()

    def refresh(self, question: Question, rule: CacheRule, make: Callable[[], Coroutine[Any, Any, Answer]]) -> None:
        """Have a hit that is due made anew, in the background. Waits for nothing, raises nothing."""
        self._refreshes.start(question.key, partial(self._refresh, question, rule, make))

    async def _refresh(
        self, question: Question, rule: CacheRule, make: Callable[[], Coroutine[Any, Any, Answer]]
    ) -> str:
        found, miss, _ = await self._answer(self._ask_redis(question.key, question.tags))
        if miss.fence is None or (isinstance(found, Hit) and not found.is_due):
            return "not_due"  # another process has made it; or there is nowhere to keep it
        turn = await self._turns.take(miss.key)
        if turn is None:
            return "elsewhere"
        current().wal_required = max(current().wal_required, miss.wal_required)
        try:
            answer = await self._make_and_store(miss, rule, make)
        finally:
            self._turns.give_back(miss.key, turn)
        return "done" if rule.fresh_seconds(answer) else "failed"

    async def store(self, miss: Miss, answer: Answer, rule: CacheRule, seconds_to_make: float = 0.0) -> None:
        """Keep what was read, in the current request, with all writes up to `miss.wal_required`."""
        STORES.labels(await self._store(miss, answer, rule, seconds_to_make)).inc()

    async def _store(self, miss: Miss, answer: Answer, rule: CacheRule, seconds_to_make: float) -> str:
        fresh_seconds = rule.fresh_seconds(answer) * random.uniform(1 - JITTER, 1)
        if miss.fence is None or not fresh_seconds:
            return "refused"
        lifetime = fresh_seconds + (rule.stale_seconds if answer.cacheable else 0.0)
        now = time.time()
        position = max(miss.wal_required, current().wal_required)
        entry = Entry(miss.fence, now, now + fresh_seconds, now + lifetime, seconds_to_make, position, answer)
        try:
            data = encode(entry)
            if len(data) > self._max_entry_bytes:
                return "too_large"
            if miss.watch is not None:
                self.memory.put(miss.key, entry, miss.watch)
            await self._redis.execute("SET", redis_key("answer", miss.key), data, "PX", max(1, int(lifetime * 1_000)))
        except struct.error:
            return "too_large"
        except RedisError:
            return "unavailable"
        return "stored"

    async def invalidate(self, tags: Collection[str], wal_position: int = 0) -> None:
        """After the commit that touched them, with the position of the write-ahead log then. Raises nothing.

        When it returns, no process serves what lacks that commit; within the bounds of `coherence` and `Tags`.
        """
        if tags:
            self.memory.invalidate(tags)
            await self._tags.invalidate(tags, wal_position)

    async def aclose(self) -> None:
        self.memory_hits.flush()
        await self._refreshes.aclose()
        await self._tags.aclose()
        await self._coherence.aclose()

    async def _make_in_turn(
        self, miss: Miss, rule: CacheRule, make: Callable[[], Coroutine[Any, Any, Answer]]
    ) -> Answer:
        """Or have it made by another process that is at it already."""
        turn = None
        if miss.fence is not None:
            with suppress(RedisError):
                turn = await self._turns.take(miss.key)
                if turn is None and (answer := await self._made_elsewhere(miss)) is not None:
                    FLIGHTS.labels("elsewhere").inc()
                    return answer
        try:
            return await self._make_and_store(miss, rule, make)
        finally:
            if turn is not None:
                with suppress(RedisError):
                    self._turns.give_back(miss.key, turn)

    async def _made_elsewhere(self, miss: Miss) -> Answer | None:
        """None if it is not made there, or not for this caller. Raises RedisError."""
        for pause in self._turns.pauses():
            await asyncio.sleep(pause)
            taken = self._turns.is_taken(miss.key)  # asked first: who gives the turn back has stored before
            found, _, _ = await self._answer(self._ask_redis(miss.key, miss.tags))
            if isinstance(found, Hit):
                return found.answer
            if not await taken or found.fence != miss.fence:
                return None
        return None

    async def _make_and_store(
        self, miss: Miss, rule: CacheRule, make: Callable[[], Coroutine[Any, Any, Answer]]
    ) -> Answer:
        started = time.monotonic()
        answer = await make()
        await self.store(miss, answer, rule, time.monotonic() - started)
        return answer


def age(stored_at: float) -> int:
    return max(0, int(time.time() - stored_at))
