"""Reads never go behind the caller's own writes: how a WAL position travels from one request to the next.

In the `X-Consistency-Token` header for clients that pass it on, and in Redis, under the caller, for all others.
"""

import asyncio
from typing import Any

from redis.exceptions import RedisError

from app.platform.postgres.tokens import ConsistencyTokens
from app.platform.redis import RedisClient, Script, sortable

HEADER = b"x-consistency-token"
# Longer than any replica that still gets reads may lag.
REMEMBERED_SECONDS = 60

KEEP_GREATEST = Script("""
local known = redis.call('GET', KEYS[1])
if not known or known < ARGV[1] then redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) end
""")


class Consistency:
    def __init__(self, redis: RedisClient, tokens: ConsistencyTokens, *, enabled: bool = True) -> None:
        self._redis = redis
        self._tokens = tokens
        self.enabled = enabled

    def ask(self, caller_id: str) -> asyncio.Future[Any] | None:
        """What Redis remembers of the caller, for `required`, without waiting for it; None while Redis is away."""
        if not self.enabled:
            return None
        try:
            return self._redis.submit("GET", self._key(caller_id))
        except RedisError:
            return None

    async def required(self, token: str | None, remembered: asyncio.Future[Any] | None) -> int:
        """The WAL position that reads have to reach; 0 where any will do. A forged or expired token is as none."""
        if not self.enabled:
            return 0
        carried = (self._tokens.verify(token) or 0) if token else 0
        try:
            found = await remembered if remembered is not None else None
        except RedisError:
            found = None
        return max(carried, int(found, 16) if found else 0)

    async def remember(self, caller_id: str, position: int) -> None:
        """Without Redis the header alone has to do."""
        try:
            await self._redis.run(KEEP_GREATEST, [self._key(caller_id)], [sortable(position), REMEMBERED_SECONDS])
        except RedisError:
            return

    def token(self, position: int) -> str:
        return self._tokens.sign(position)

    @staticmethod
    def _key(caller_id: str) -> str:
        return f"consistency:{{{caller_id}}}"
