"""What a process does with what Redis says. Whether the limit holds is asked of a real Redis: test_limits.py."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from app.platform.limits import Account, RateLimiter, parse_limits
from app.platform.limits.gcra import RECALL
from app.platform.redis import RedisClient
from app.platform.redis.client import Message

RULE = parse_limits("200/hour")
OWED = 3_600_000_000
NOTHING_FREE = [0, 1, 0, OWED]
TAKEN_BACK = [0, 0, 0, OWED]
LENT_TO_OTHERS = [0, 500_000, 5, OWED]


class ScriptedRedis:
    """Answers to charges as it is told, one after the other, and has some messages on its channel."""

    def __init__(self, *answers: list[int], messages: tuple[bytes, ...] = ()) -> None:
        self.answers = list(answers)
        self.messages = list(messages)
        self.asked = asyncio.Event()

    async def run(self, *_: Any) -> list[int]:
        self.asked.set()
        return self.answers.pop(0) if self.answers else TAKEN_BACK

    @asynccontextmanager
    async def subscription(self, channel: str) -> AsyncIterator[Callable[[float], Awaitable[Message]]]:
        assert channel == RECALL

        async def next_message(seconds: float) -> Message:
            if not self.messages:
                await asyncio.sleep(seconds)
                raise TimeoutError
            return Message(channel.encode(), self.messages.pop(0))

        yield next_message


def limiter_on(redis: ScriptedRedis) -> tuple[RateLimiter, Account]:
    limiter = RateLimiter(cast(RedisClient, redis), local_share=0.5)
    return limiter, limiter.account("user:1", RULE)


async def after_a_wait(lent_meanwhile: int) -> bool:
    """Whether a request passes that waits for what others give back, when all that there is went to one before it."""
    redis = ScriptedRedis(LENT_TO_OTHERS, NOTHING_FREE)
    limiter, account = limiter_on(redis)
    asking = asyncio.create_task(limiter.charge(account))
    await redis.asked.wait()
    await asyncio.sleep(0)
    account.grant(lent_meanwhile, time.monotonic())
    return (await asking).allowed


async def test_who_waited_takes_what_the_process_was_lent_meanwhile() -> None:
    assert await after_a_wait(lent_meanwhile=1)


async def test_control_where_it_was_lent_nothing_the_request_is_refused() -> None:
    assert not await after_a_wait(lent_meanwhile=0)


@pytest.mark.parametrize("noise", [(), (b"\xff\xfe",)], ids=["alone", "after what is no key"])
async def test_what_is_called_back_is_given_back(noise: tuple[bytes, ...]) -> None:
    redis = ScriptedRedis([10, 0, 0, OWED])
    limiter, account = limiter_on(redis)
    assert (await limiter.charge(account)).allowed
    assert account.held == 10
    redis.messages = [*noise, account.keys[0].encode()]
    giving_back = asyncio.create_task(limiter.run())
    while account.held:
        assert time.monotonic() < account.ends_at, "it is given back then anyhow"
        await asyncio.sleep(0.001)
    giving_back.cancel()
    await asyncio.wait([giving_back])
    await limiter.aclose()
