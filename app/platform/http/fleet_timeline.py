"""Which timeline the primary is on, as the whole fleet knows it: one process that heard of a promotion tells the rest.

A process that can reach nothing but an old primary learns from here that it is old. Kept for as long as any process
lives, and as long as a consistency token after that; and signed as one, since a timeline that never was would stop all
writes. Without Redis each process knows what it has heard itself.
"""

import asyncio
from contextlib import suppress

from redis.exceptions import RedisError

from app.platform.postgres import Database
from app.platform.postgres.positions import pack
from app.platform.postgres.tokens import ConsistencyTokens
from app.platform.redis import RedisClient, Script

EXCHANGE_SECONDS = 1.0
KEPT_SECONDS = 300
KEY = "postgres:timeline"

# Another process may have told of a newer one since it was read; who comes too late tells the next time.
TELL = Script("""
if (redis.call('GET', KEYS[1]) or '') == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end
""")


async def exchange(redis: RedisClient, database: Database, tokens: ConsistencyTokens) -> None:
    """Once; bounded by the time that Redis has to answer. What is forged or expired is as none."""
    with suppress(RedisError):
        known = await redis.execute("GET", KEY) or b""
        database.heard(tokens.verify(known.decode("latin-1")) or 0)
        newest = tokens.sign(pack(database.primary.fence.timeline, 0))
        await redis.run(TELL, [KEY], [known, newest, KEPT_SECONDS])


async def keep_exchanging(redis: RedisClient, database: Database, tokens: ConsistencyTokens) -> None:
    """Until it is cancelled, whether or not there is a Redis."""
    while True:
        await asyncio.sleep(EXCHANGE_SECONDS)
        await exchange(redis, database, tokens)
