"""Word of a revocation through Redis: a wake-up, so that others ask the primary at once rather than at their next turn.

It carries nothing: who can write to Redis can make processes ask, and neither revoke a token nor bring one back. Word
that is lost costs the time to the next turn.
"""

import asyncio
from contextlib import suppress

from redis.exceptions import RedisError

from app.platform.redis import RedisClient
from app.platform.security.revocation import Revocations

CHANNEL = "revocations"
RECONNECT_SECONDS = 0.5
SILENCE_SECONDS = 60.0  # then the connection is tried by making it anew


def tell(redis: RedisClient) -> None:
    with suppress(RedisError):
        redis.submit("PUBLISH", CHANNEL, "")


async def listen(redis: RedisClient, revocations: Revocations) -> None:
    """Until it is cancelled, whether or not there is a Redis."""
    while True:
        with suppress(RedisError, OSError, TimeoutError):
            async with redis.subscription(CHANNEL) as next_message:
                while True:
                    revocations.wake()  # when connected, for what was said before
                    await next_message(SILENCE_SECONDS)
        await asyncio.sleep(RECONNECT_SECONDS)
