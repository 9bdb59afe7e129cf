"""Which timeline the primary is on, as the whole fleet knows it: one process that heard of a promotion tells the rest.

A process that can reach nothing but an old primary learns from here that it is old. Kept for as long as any process
lives, and `KEPT_SECONDS` longer. Without Redis each process knows what it has heard itself.
"""

import asyncio
from contextlib import suppress

from redis.exceptions import RedisError

from app.platform.postgres import Database
from app.platform.postgres.positions import pack
from app.platform.redis import RedisClient, Script, sortable

EXCHANGE_SECONDS = 1.0
KEPT_SECONDS = 300  # as long as a consistency token
KEY = "postgres:timeline"

EXCHANGE = Script("""
local known = redis.call('GET', KEYS[1])
if not known or known < ARGV[1] then known = ARGV[1] end
redis.call('SET', KEYS[1], known, 'EX', ARGV[2])
return known
""")


async def exchange(redis: RedisClient, database: Database) -> None:
    """Once; bounded by the time that Redis has to answer."""
    with suppress(RedisError, ValueError):
        known = await redis.run(EXCHANGE, [KEY], [sortable(database.primary.fence.timeline), KEPT_SECONDS])
        database.heard(pack(int(known, 16), 0))


async def keep_exchanging(redis: RedisClient, database: Database) -> None:
    """Until it is cancelled, whether or not there is a Redis."""
    while True:
        await asyncio.sleep(EXCHANGE_SECONDS)
        await exchange(redis, database)
