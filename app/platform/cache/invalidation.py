"""Tags: each has a generation, and whatever was cached under another generation is void.

A generation is random, never a count: a tag that Redis has lost begins anew, and can't come back to a generation that
an old entry still carries. It is kept as `generation:position`, with the position of the write-ahead log after the last
commit that touched the tag: what a replica says that is not that far yet must not be cached under this generation.
"""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from prometheus_client import Counter
from redis.exceptions import RedisError

from app.platform.cache.coherence import CHANNEL, Coherence
from app.platform.cache.rules import redis_key
from app.platform.redis import Argument, RedisClient, Script, sortable

KEEP_MS = 86_400_000  # longer than any replica lags: then the position is of no use any more
RETRY_SECONDS = 0.25
MAX_OWED = 10_000

INVALIDATIONS = Counter("cache_invalidated_tags_total", "Tags of committed writes, by what became of them", ["result"])

# KEYS: tags of one scope. ARGV: new generation, WAL position, milliseconds to keep; channel and message for the memory
# tiers, which hear of it when the old generation has ended (an empty channel: not from here). The position never goes
# back, since of two commits the later one may come first.
INVALIDATE = Script("""
for _, key in ipairs(KEYS) do
  local old = redis.call('GET', key)
  local position = old and string.match(old, ':(%x+)$') or ''
  if position < ARGV[2] then position = ARGV[2] end
  redis.call('SET', key, ARGV[1] .. ':' .. position, 'PX', ARGV[3])
end
if ARGV[4] ~= '' then redis.call('PUBLISH', ARGV[4], ARGV[5]) end
""")

# The tags' values, begun with ARGV[1] where there are none.
BEGIN = Script("""
local values = {}
for i, key in ipairs(KEYS) do
  redis.call('SET', key, ARGV[1], 'NX', 'PX', ARGV[2])
  values[i] = redis.call('GET', key)
end
return values
""")


def new_generation() -> str:
    return secrets.token_urlsafe(12)


def position_of(value: bytes) -> int:
    return int(value.rpartition(b":")[2], 16)


class Tags:
    """The tags in Redis, and those that Redis still has to be told of.

    When Redis is away at a commit, this process owes it the invalidation: it trusts no entry with such a tag, and tries
    again until Redis has heard of it, within `RETRY_SECONDS` and the breaker's time of its return. Until then another
    process may serve what it finds. A process that dies owing, or owing more than `MAX_OWED` tags, leaves entries
    that are stale until the end of their time to live.
    """

    def __init__(self, redis: RedisClient, coherence: Coherence) -> None:
        self._redis = redis
        self._coherence = coherence
        self._owed: dict[str, int] = {}  # tag: position
        self._retry: asyncio.Task[None] | None = None

    def are_settled(self, tags: Sequence[str]) -> bool:
        return not self._owed or self._owed.keys().isdisjoint(tags)

    async def begin(self, tags: Sequence[str]) -> list[bytes]:
        """Raises RedisError."""
        keys = [redis_key("tag", tag) for tag in tags]
        values: list[bytes] = await self._redis.run(BEGIN, keys, [f"{new_generation()}:{sortable(0)}", KEEP_MS])
        return values

    async def invalidate(self, tags: Collection[str], wal_position: int) -> None:
        """Returns when no process serves from memory what depends on them. Raises nothing."""
        self._owe(tags, wal_position)
        try:
            await self._pay(dict.fromkeys(tags, wal_position))
        except RedisError:
            INVALIDATIONS.labels("deferred").inc(len(tags))
            if self._retry is None or self._retry.done():
                self._retry = asyncio.create_task(self._pay_later())
            await self._coherence.lapsed()

    async def aclose(self) -> None:
        """One last attempt at what is owed."""
        if self._retry is not None:
            self._retry.cancel()
        with suppress(RedisError):
            await self._pay(self._owed)

    def _owe(self, tags: Collection[str], wal_position: int) -> None:
        for tag in tags:
            if tag not in self._owed and len(self._owed) >= MAX_OWED:
                INVALIDATIONS.labels("lost").inc()
                continue
            self._owed[tag] = max(wal_position, self._owed.get(tag, 0))

    async def _pay(self, owed: Mapping[str, int]) -> None:
        """Tell Redis, by one script per scope. Raises RedisError."""
        scopes: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for tag, position in owed.items():
            scopes[tag.partition(":")[0]][tag] = position
        await asyncio.gather(*map(self._pay_scope, scopes.values()))

    async def _pay_scope(self, owed: dict[str, int]) -> None:
        keys = [redis_key("tag", tag) for tag in owed]
        with self._coherence.round(owed) as round:
            # Between the nodes of a cluster messages lose their order, or get lost: there a second trip, to the node
            # that all listen to, keeps it.
            channel = "" if self._redis.is_cluster else CHANNEL
            values: list[Argument] = [new_generation(), sortable(max(owed.values())), KEEP_MS, channel, round.message]
            await self._redis.run(INVALIDATE, keys, values)
            if not channel:
                await self._redis.execute("PUBLISH", CHANNEL, round.message)
            INVALIDATIONS.labels("done").inc(len(owed))
            for tag, position in owed.items():
                if self._owed.get(tag) == position:
                    del self._owed[tag]
            await self._coherence.acknowledged(round)

    async def _pay_later(self) -> None:
        while self._owed:
            await asyncio.sleep(RETRY_SECONDS)
            with suppress(RedisError):
                await self._pay(self._owed)
