"""Memory tiers of several processes: none serves what lacks an acknowledged write, whatever happens to it."""

import asyncio
import multiprocessing
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import pytest

from app.platform.cache import Answer, CacheRule, Hit, Miss, ResponseCache, answer_key, coherence, tag
from app.platform.cache.coherence import CHANNEL, UNACKNOWLEDGED, Coherence
from app.platform.cache.memory import Watch
from app.platform.redis import RedisClient
from app.platform.telemetry.context import RequestContext, request_context
from tests.support.redis_server import RedisServer, eventually, redis_client, redis_server, until_back

ORGANIZATION = "0198b2c4-7d5e-7000-8000-000000000001"
TTL = CacheRule(60.0)
PROCESSES, KEYS, ROUNDS = 4, 12, 150


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


def name_of(key: int) -> str:
    return answer_key(ORGANIZATION, str(key))


def tags_of(key: int) -> list[str]:
    return [tag(ORGANIZATION, f"item-{key}")]


@pytest.fixture(autouse=True)
async def empty(server: RedisServer) -> None:
    async with redis_client(server.url) as client:
        await until_back(client)
        await client.execute("FLUSHALL")


@asynccontextmanager
async def started_cache(url: str) -> AsyncIterator[ResponseCache]:
    async with redis_client(url) as client:
        cache = ResponseCache(client, max_entry_bytes=10_000, memory_bytes=1_000_000)
        await cache.start()
        try:
            await has_lease(cache)
            yield cache
        finally:
            await cache.aclose()


async def has_lease(cache: ResponseCache) -> None:
    async def held() -> bool:
        return cache.memory.lease_until > time.monotonic()

    await eventually(held)


async def know_each_other() -> None:
    """Who has just begun to listen can't tell who else has a lease."""
    await asyncio.sleep(coherence.LEASE_SECONDS * 1.2)


@pytest.fixture
async def fleet(server: RedisServer) -> AsyncIterator[list[ResponseCache]]:
    async with AsyncExitStack() as stack:
        caches = [await stack.enter_async_context(started_cache(server.url)) for _ in range(PROCESSES)]
        await know_each_other()
        yield caches


async def keep(cache: ResponseCache, key: int, body: bytes) -> None:
    found = await cache.lookup(cache.ask(name_of(key), tags_of(key)))
    assert isinstance(found, Miss)
    await cache.store(found, Answer(200, (), body), TTL)


async def test_memory_answers_first_and_redis_fills_it(fleet: list[ResponseCache]) -> None:
    one, other, *_ = fleet
    await keep(one, 0, b"body")
    tiers = []
    for cache in (one, other, other):
        found = await cache.lookup(cache.ask(name_of(0), tags_of(0)))
        assert isinstance(found, Hit)
        tiers.append(found.tier)
    assert tiers == ["memory", "redis", "memory"]


async def test_a_write_waits_for_all_and_for_no_longer(fleet: list[ResponseCache]) -> None:
    one, other, *_ = fleet
    await keep(one, 0, b"old")
    await other.lookup(other.ask(name_of(0), tags_of(0)))
    unacknowledged = UNACKNOWLEDGED._value.get()
    await other.invalidate(tags_of(0))
    assert [len(cache.memory) for cache in fleet] == [0] * PROCESSES
    assert UNACKNOWLEDGED._value.get() == unacknowledged


# Random writes, replicas that lag, fills under way, and messages that come late


@dataclass
class Database:
    """A primary, and replicas that show it as it was up to 10 ms ago."""

    versions: list[int] = field(default_factory=lambda: [0] * KEYS)
    acknowledged: list[int] = field(default_factory=lambda: [0] * KEYS)
    log: list[tuple[float, int, int]] = field(default_factory=list)  # when, which, its version

    def commit(self, key: int) -> int:
        self.versions[key] += 1
        self.log.append((time.monotonic(), key, self.versions[key]))
        return len(self.log)

    async def read(self, key: int, wal_required: int) -> int:
        """From a replica, if it is as far as that."""
        await asyncio.sleep(random.uniform(0, 0.005))
        seen_at = time.monotonic() - random.uniform(0, 0.01)
        replayed = [entry for entry in self.log if entry[0] <= seen_at]
        log = self.log if len(replayed) < wal_required else replayed
        version = max((version for _, which, version in log if which == key), default=0)
        await asyncio.sleep(random.uniform(0, 0.005))
        return version


@dataclass
class Traffic:
    database: Database = field(default_factory=Database)
    behind: int = 0  # reads that lacked a write which was acknowledged before they began
    from_memory: int = 0

    async def read(self, cache: ResponseCache, key: int) -> int:
        context = RequestContext(request_id="-")
        token = request_context.set(context)
        try:
            found = await cache.lookup(cache.ask(name_of(key), tags_of(key)))
            if isinstance(found, Hit):
                self.from_memory += found.tier == "memory"
                return int(found.answer.body)
            version = await self.database.read(key, found.wal_required)
            await cache.store(found, Answer(200, (), b"%d" % version), TTL)
            return version
        finally:
            request_context.reset(token)

    async def reader(self, cache: ResponseCache) -> None:
        for _ in range(ROUNDS):
            key = random.randrange(KEYS)
            acknowledged = self.database.acknowledged[key]
            self.behind += await self.read(cache, key) < acknowledged
            await asyncio.sleep(random.uniform(0, 0.002))

    async def writer(self, cache: ResponseCache) -> None:
        for _ in range(ROUNDS // 6):
            key = random.randrange(KEYS)
            position = self.database.commit(key)
            version = self.database.versions[key]
            await self.invalidate(cache, key, position)
            self.database.acknowledged[key] = max(version, self.database.acknowledged[key])
            await asyncio.sleep(random.uniform(0, 0.02))

    async def invalidate(self, cache: ResponseCache, key: int, position: int) -> None:
        await cache.invalidate(tags_of(key), position)

    async def run(self, caches: list[ResponseCache]) -> int:
        """What is stale in any process when all is quiet."""
        await asyncio.gather(
            *(self.reader(cache) for cache in caches for _ in range(4)), *(self.writer(cache) for cache in caches)
        )
        await asyncio.sleep(0.05)
        known = [[await self.read(cache, key) for key in range(KEYS)] for cache in caches]
        return sum(version != self.database.versions[key] for each in known for key, version in enumerate(each))


MOST_RUNS = 10  # of a control: each has a chance


async def ever_behind(caches: list[ResponseCache]) -> bool:
    """Whether some reader, in some run, met what lacks an acknowledged write."""
    for _ in range(MOST_RUNS):
        traffic = Traffic()
        await traffic.run(caches)
        if traffic.behind:
            return True
    return False


@pytest.fixture
def late_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, each up to 4 ms after it came."""
    subscription = RedisClient.subscription

    @asynccontextmanager
    async def slowly(self: RedisClient, *channels: str) -> AsyncIterator[Callable[[float], Any]]:
        async with subscription(self, *channels) as next_message:

            async def late(seconds: float) -> Any:
                message = await next_message(seconds)
                await asyncio.sleep(random.uniform(0, 0.004))
                return message

            yield late

    monkeypatch.setattr(RedisClient, "subscription", slowly)


@pytest.mark.usefixtures("late_messages")
async def test_random_writes_leave_nothing_stale_in_any_tier(fleet: list[ResponseCache]) -> None:
    traffic = Traffic()
    assert await traffic.run(fleet) == 0
    assert traffic.behind == 0
    assert traffic.from_memory > 100


@pytest.mark.usefixtures("late_messages")
async def test_control_a_write_that_waits_for_nobody_is_missed(
    fleet: list[ResponseCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(*_: object) -> None:
        return None

    monkeypatch.setattr(Coherence, "acknowledged", at_once)
    assert await ever_behind(fleet)


async def test_control_fills_that_come_in_whatever_happened_meanwhile_are_stale(
    fleet: list[ResponseCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watch, "is_undisturbed", True)
    assert await ever_behind(fleet)


class DeleteOnWrite(Traffic):
    """The usual way: what a write touches is deleted, and whoever misses it puts what they have read."""

    def __init__(self, client: RedisClient) -> None:
        super().__init__()
        self.client = client

    async def read(self, cache: ResponseCache, key: int) -> int:
        if (found := await self.client.execute("GET", f"item:{key}")) is not None:
            return int(found)
        version = await self.database.read(key, 0)
        await self.client.execute("SET", f"item:{key}", version)
        return version

    async def invalidate(self, cache: ResponseCache, key: int, position: int) -> None:
        await self.client.execute("DEL", f"item:{key}")


async def test_control_delete_on_write_leaves_stale_entries(fleet: list[ResponseCache], server: RedisServer) -> None:
    async with redis_client(server.url) as client:
        stale = 0
        for _ in range(MOST_RUNS):
            stale = stale or await DeleteOnWrite(client).run(fleet)
        assert stale > 0


async def test_memory_gives_no_caller_what_lacks_their_write(fleet: list[ResponseCache]) -> None:
    """Their token says how far the answer has to be. Whoever need not see it is given what is there."""
    one, *_ = fleet
    await keep(one, 0, b"before")
    tiers = []
    for required in (0, 100):
        token = request_context.set(RequestContext(request_id="-", wal_required=required))
        found = await one.lookup(one.ask(name_of(0), tags_of(0)))
        tiers.append(found.tier if isinstance(found, Hit) else "none")
        request_context.reset(token)
    assert tiers == ["memory", "none"]


# A process that hears nothing


def run_deaf(url: str, forever: bool, pipe: Connection) -> None:
    """Keeps `old`, then serves from memory without ever letting its event loop run, and tells when it did so last."""

    async def run() -> None:
        async with started_cache(url) as cache:
            await keep(cache, 0, b"old")
            pipe.send("kept")
            await asyncio.to_thread(pipe.recv)
            if forever:
                cache.memory.lease_until = float("inf")
            served = 0.0
            while not pipe.poll():
                if cache.memory.get(name_of(0)) is not None:
                    served = time.monotonic()
                time.sleep(0.001)  # noqa: ASYNC251 - it is deaf
            pipe.send(served)

    asyncio.run(run())


async def served_after_the_write(server: RedisServer, *, forever: bool, freeze: bool) -> float:
    """Seconds from when a write was acknowledged until the deaf process served, for the last time, what lacks it."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=run_deaf, args=(server.url, forever, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        async with started_cache(server.url) as cache:
            assert await asyncio.to_thread(pipe.recv) == "kept"
            await know_each_other()
            pipe.send("serve")
            await asyncio.sleep(0.1)
            assert process.pid is not None
            if freeze:
                os.kill(process.pid, signal.SIGSTOP)
            await cache.invalidate(tags_of(0))
            acknowledged = time.monotonic()
            os.kill(process.pid, signal.SIGCONT)
            await asyncio.sleep(0.2)
            pipe.send("stop")
            served: float = await asyncio.to_thread(pipe.recv)
            return served - acknowledged
    finally:
        process.kill()
        process.join()


@pytest.mark.parametrize("freeze", [False, True], ids=["blocked", "stopped"])
async def test_a_process_that_hears_nothing_serves_nothing_stale(server: RedisServer, freeze: bool) -> None:
    assert await served_after_the_write(server, forever=False, freeze=freeze) < 0


async def test_control_without_an_end_of_its_lease_it_does(server: RedisServer) -> None:
    assert await served_after_the_write(server, forever=True, freeze=True) > 0


# Redis away


async def test_without_redis_memory_serves_no_longer_than_its_lease(server: RedisServer) -> None:
    async with started_cache(server.url) as cache:
        await keep(cache, 0, b"old")
        server.kill()
        try:
            killed = time.monotonic()
            assert cache.memory.lease_until < killed + coherence.LEASE_SECONDS
            await cache.invalidate(tags_of(0))  # when this returns, so have all leases
            assert time.monotonic() > killed + coherence.LEASE_SECONDS - coherence.HEARTBEAT_SECONDS
            assert cache.memory.get(name_of(0)) is None
        finally:
            server.start()
        await has_lease(cache)
        assert len(cache.memory) == 0
        await asyncio.sleep(0.6)  # what it owes Redis is paid
        await keep(cache, 0, b"new")
        assert cache.memory.get(name_of(0)) is not None


async def test_after_a_silence_memory_serves_again(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis was frozen, or the process was."""
    monkeypatch.setattr(coherence, "SILENCE_SECONDS", 0.3)
    async with started_cache(server.url) as cache:
        server.freeze()
        try:
            await asyncio.sleep(1)
        finally:
            server.thaw()
        await has_lease(cache)
        await asyncio.sleep(0.6)  # what it owes Redis is paid
        await keep(cache, 0, b"new")
        assert cache.memory.get(name_of(0)) is not None


async def test_a_message_that_can_not_be_read_begins_a_new_memory(server: RedisServer) -> None:
    async with started_cache(server.url) as cache:
        await keep(cache, 0, b"old")
        async with redis_client(server.url) as client:
            await client.execute("PUBLISH", CHANNEL, b"void \xff\xfe")

        async def cleared() -> bool:
            return len(cache.memory) == 0

        await eventually(cleared)
        await has_lease(cache)
