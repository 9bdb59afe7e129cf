"""A process that dies between COMMIT and invalidation: what it made stale is shown until its time is over, no longer.

Nobody else knows of the write, so the declared `ttl_seconds` + `stale_seconds` are the bound. Controls: where the
process lives nothing is shown at all of what was before, and where the declared time is long it is shown for longer.
"""

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from multiprocessing.connection import Connection

import pytest

from app.platform.cache import Answer, CacheRule, Hit, ResponseCache, answer_key, tag
from app.platform.redis import RedisClient
from tests.support.redis_server import RedisServer, eventually, redis_client, redis_server

ORGANIZATION = "0198b2c4-7d5e-7000-8000-000000000001"
KEY, TAGS = answer_key(ORGANIZATION, "list"), [tag(ORGANIZATION, "rooms")]
BRIEF = CacheRule(ttl_seconds=1.0, stale_seconds=1.0)
BOUND_SECONDS = BRIEF.ttl_seconds + BRIEF.stale_seconds
LONG = CacheRule(ttl_seconds=60.0)
SOURCE = "source"  # stands for the database: what is there is committed


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as started:
        yield started


@asynccontextmanager
async def started(url: str) -> AsyncIterator[tuple[RedisClient, ResponseCache]]:
    async with redis_client(url) as client:
        cache = ResponseCache(client, max_entry_bytes=10_000, memory_bytes=1_000_000)
        await cache.start()
        try:
            await eventually(partial(has_lease, cache))
            yield client, cache
        finally:
            await cache.aclose()


async def has_lease(cache: ResponseCache) -> bool:
    return cache.memory.lease_until > time.monotonic()


def write(url: str, pipe: Connection, dies: bool) -> None:
    """In a process of its own, when it is told to."""

    async def commit_and_invalidate() -> None:
        async with started(url) as (client, cache):
            pipe.send("ready")
            await asyncio.to_thread(pipe.recv)
            await client.execute("SET", SOURCE, "after")
            if dies:
                os.kill(os.getpid(), signal.SIGKILL)
            await cache.invalidate(TAGS, 1)

    asyncio.run(commit_and_invalidate())


async def read(client: RedisClient, cache: ResponseCache, rule: CacheRule) -> bytes:
    async def query() -> Answer:
        return Answer(200, (), await client.execute("GET", SOURCE))

    found = await cache.lookup(cache.ask(KEY, TAGS))
    if isinstance(found, Hit):
        return found.answer.body
    return (await cache.fill(found, rule, query)).body


@asynccontextmanager
async def writing(url: str, *, dies: bool) -> AsyncIterator[Callable[[], None]]:
    """A process that is ready to write, and what has it do so, and waits for its end."""
    pipe, theirs = multiprocessing.Pipe()
    writer = multiprocessing.get_context("spawn").Process(target=write, args=(url, theirs, dies))
    writer.start()

    def go() -> None:
        pipe.send("go")
        writer.join(30)
        assert writer.exitcode == (-signal.SIGKILL if dies else 0)

    try:
        assert await asyncio.to_thread(pipe.poll, 30)
        yield go
    finally:
        writer.kill()


async def last_shown(server: RedisServer, rule: CacheRule, *, dies: bool) -> float:
    """Seconds from when it was kept to when the answer of before was last shown, looking until the bound is over."""
    async with started(server.url) as (client, cache), writing(server.url, dies=dies) as go:
        await client.execute("FLUSHALL")
        await client.execute("SET", SOURCE, "before")
        kept_at, shown = time.monotonic(), 0.0
        assert await read(client, cache, rule) == b"before"
        await asyncio.to_thread(go)
        assert await client.execute("GET", SOURCE) == b"after"
        while (asked_at := time.monotonic()) < kept_at + BOUND_SECONDS + 0.5:
            if await read(client, cache, rule) == b"before":
                shown = asked_at - kept_at
            await asyncio.sleep(0.02)
    return shown


async def test_what_is_stale_then_is_shown_no_longer_than_is_declared(server: RedisServer) -> None:
    shown = await last_shown(server, BRIEF, dies=True)
    assert 0 < shown <= BOUND_SECONDS


async def test_control_declared_for_longer_it_is_shown_for_longer(server: RedisServer) -> None:
    assert await last_shown(server, LONG, dies=True) > BOUND_SECONDS


async def test_control_of_a_process_that_lives_nothing_stale_is_shown(server: RedisServer) -> None:
    assert await last_shown(server, BRIEF, dies=False) == 0
