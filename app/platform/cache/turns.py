"""Whose turn it is to make an answer: single flight across processes, by a lease in Redis.

Who has the turn makes the answer and stores it; others look for it until it is there, and make it themselves when the
turn was given back without one, or when its time is over. So a maker that dies holds the others up for `TURN_SECONDS`
at most, and one that takes longer than that is joined by a second.
"""

import asyncio
import secrets
import time
from collections.abc import Iterator

from app.platform.cache.rules import redis_key
from app.platform.redis import RedisClient
from app.platform.resilience.deadlines import remaining

TURN_SECONDS = 2.0
FIRST_PAUSE_SECONDS = 0.002
LONGEST_PAUSE_SECONDS = 0.05

GIVE_BACK = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class Turns:
    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def take(self, key: str) -> str | None:
        """What to give back; None while another process has it. Raises RedisError."""
        token = secrets.token_hex(8)
        milliseconds = int(TURN_SECONDS * 1_000)
        taken = await self._redis.execute("SET", redis_key("turn", key), token, "NX", "PX", milliseconds)
        return None if taken is None else token

    def give_back(self, key: str, token: str) -> None:
        """Waits for nothing: if Redis doesn't hear of it, the turn ends with its time. Raises RedisError."""
        self._redis.submit("EVAL", GIVE_BACK, 1, redis_key("turn", key), token)

    def is_taken(self, key: str) -> "asyncio.Future[int]":
        """Raises RedisError."""
        return self._redis.submit("EXISTS", redis_key("turn", key))

    def pauses(self) -> Iterator[float]:
        """Seconds to wait between looks, as long as it makes sense to look."""
        end, pause = time.monotonic() + remaining(TURN_SECONDS), FIRST_PAUSE_SECONDS
        while time.monotonic() < end:
            yield pause
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
