"""Reads never go behind the caller's own writes: how a WAL position travels from one request to the next.

In the `X-Consistency-Token` header for clients that pass it on, and in Redis, under the caller, for all others.
"""

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

    async def required(self, caller_id: str | None, token: str | None) -> int:
        """The WAL position that reads have to reach; 0 where any will do. A forged or expired token is as none."""
        if not self.enabled:
            return 0
        carried = (self._tokens.verify(token) or 0) if token else 0
        return max(carried, await self._remembered(caller_id) if caller_id else 0)

    async def remember(self, caller_id: str, position: int) -> None:
        """Without Redis the header alone has to do."""
        try:
            await self._redis.run(KEEP_GREATEST, [self._key(caller_id)], [sortable(position), REMEMBERED_SECONDS])
        except RedisError:
            return

    def token(self, position: int) -> str:
        return self._tokens.sign(position)

    async def _remembered(self, caller_id: str) -> int:
        try:
            found = await self._redis.execute("GET", self._key(caller_id))
        except RedisError:
            return 0
        return int(found, 16) if found else 0

    @staticmethod
    def _key(caller_id: str) -> str:
        return f"consistency:{{{caller_id}}}"
