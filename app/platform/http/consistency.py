"""Reads never go behind the caller's own writes, nor behind what it has read: what one request leaves for the next.

The WAL position of a write goes into the `X-Consistency-Token` header for clients that pass it on, and into Redis,
under the caller, for all others; signed there as well, since a made-up one would send every read to the primary, or
stop all writes (see `fence`). Of a read Redis remembers which server it came from: the same one, or one that is
known to be past the time of that read, shows nothing older. While a caller stays on a server, that is written once in
`AHEAD_SECONDS`.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from app.platform.postgres.tokens import ConsistencyTokens
from app.platform.redis import Argument, RedisClient, Script, sortable
from app.platform.telemetry.context import LastRead

HEADER = b"x-consistency-token"
# Longer than any replica that still gets reads may lag.
REMEMBERED_SECONDS = 60

KEEP_GREATEST = Script("""
local known = redis.call('GET', KEYS[1])
if not known or known < ARGV[1] then redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) end
""")

# Another request of the caller, on another server, may have come in between: then it has read from several ("*").
KEEP_READ = Script("""
local known = redis.call('GET', KEYS[1]) or ''
local same = known == ARGV[1] or string.match(known, '^%S*') == ARGV[2]
local kept = same and (ARGV[2] .. ' ' .. ARGV[3]) or ('* ' .. ARGV[4])
redis.call('SET', KEYS[1], kept, 'EX', ARGV[5])
""")
AHEAD_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Requirements:
    """What reads have to show: at least this WAL position (0 where any will do), and nothing older than that read."""

    wal_position: int = 0
    last_read: LastRead | None = None


class Consistency:
    """`heard` is told of each position: one from after a promotion tells that an older primary was deposed."""

    def __init__(
        self,
        redis: RedisClient,
        tokens: ConsistencyTokens,
        *,
        enabled: bool = True,
        heard: Callable[[int], None] = lambda _position: None,
    ) -> None:
        self._redis = redis
        self._tokens = tokens
        self.enabled = enabled
        self._heard = heard

    def ask(self, caller_id: str) -> asyncio.Future[Any] | None:
        """What Redis remembers of the caller, for `required`, without waiting for it; None while Redis is away."""
        if not self.enabled:
            return None
        try:
            return self._redis.submit("MGET", self._key(caller_id), self._read_key(caller_id))
        except RedisError:
            return None

    async def required(self, token: str | None, remembered: asyncio.Future[Any] | None) -> Requirements:
        """A forged or expired token is as none."""
        if not self.enabled:
            return Requirements()
        carried = (self._tokens.verify(token) or 0) if token else 0
        try:
            written, read = await remembered if remembered is not None else (None, None)
        except RedisError:
            written, read = None, None
        position = max(carried, self._remembered(written) if written else 0)
        self._heard(position)
        return Requirements(position, _last_read(read) if read else None)

    async def remember(self, caller_id: str, position: int) -> None:
        """Without Redis the header alone has to do."""
        try:
            kept = sortable(position) + self._tokens.sign(position)
            await self._redis.run(KEEP_GREATEST, [self._key(caller_id)], [kept, REMEMBERED_SECONDS])
        except RedisError:
            return

    async def remember_read(self, caller_id: str, server: str, before: LastRead | None) -> None:
        """`before` is what was remembered when the request came in. Without Redis nothing is."""
        now = time.time()
        if not self.enabled or (before is not None and before.server == server and now <= before.until):
            return
        # Who stays on a replica need not say so each time. Of the primary it has to be known exactly.
        until = now if server.startswith("primary") else now + AHEAD_SECONDS
        based_on = "" if before is None else _written(*before)
        arguments: list[Argument] = [based_on, server, repr(until), repr(now), REMEMBERED_SECONDS]
        try:
            await self._redis.run(KEEP_READ, [self._read_key(caller_id)], arguments)
        except RedisError:
            return

    def token(self, position: int) -> str:
        return self._tokens.sign(position)

    def _remembered(self, kept: bytes) -> int:
        """What `remember` has kept; 0 for anything else."""
        return self._tokens.verify(kept[len(sortable(0)) :].decode("latin-1")) or 0

    @staticmethod
    def _key(caller_id: str) -> str:
        return f"consistency:written:{{{caller_id}}}"

    @staticmethod
    def _read_key(caller_id: str) -> str:
        return f"consistency:read:{{{caller_id}}}"


def _written(server: str, until: float) -> str:
    return f"{server} {until!r}"


def _last_read(remembered: bytes) -> LastRead:
    server, _, until = remembered.decode().partition(" ")
    return LastRead(server, float(until))
