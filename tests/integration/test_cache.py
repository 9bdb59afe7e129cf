import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from redis.crc import key_slot

from app.platform.cache import PUBLIC, Answer, CacheRule, Hit, Miss, ResponseCache, answer_key, tag, turns
from app.platform.cache.rules import redis_key
from app.platform.cache.turns import Turns
from app.platform.redis import RedisClient
from app.platform.resilience.deadlines import DeadlineExceeded
from app.platform.telemetry.context import RequestContext, request_context
from tests.support.redis_server import RedisServer, eventually, redis_client, redis_server, until_back

ORGANIZATION = "0198b2c4-7d5e-7000-8000-000000000001"
KEY = answer_key(ORGANIZATION, "user:1", "/equipment")
OTHER_KEY = answer_key(ORGANIZATION, "user:2", "/equipment")
TAGS = (tag(ORGANIZATION, "equipment"), tag(ORGANIZATION, "checkouts"))
TTL = CacheRule(60.0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[RedisClient]:
    async with redis_client(server.url) as client:
        await client.execute("FLUSHALL")
        yield client


@pytest.fixture
async def cache(client: RedisClient) -> AsyncIterator[ResponseCache]:
    async with new_cache(client) as cache:
        yield cache


class new_cache:
    def __init__(self, client: RedisClient) -> None:
        self.cache = ResponseCache(client, max_entry_bytes=10_000)

    async def __aenter__(self) -> ResponseCache:
        return self.cache

    async def __aexit__(self, *_: object) -> None:
        await self.cache.aclose()


def answer(body: object = "body", status: int = 200, *headers: tuple[bytes, bytes]) -> Answer:
    return Answer(status, ((b"content-type", b"application/json"), *headers), str(body).encode())


async def miss(cache: ResponseCache, key: str = KEY) -> Miss:
    found = await cache.lookup(cache.ask(key, TAGS))
    assert isinstance(found, Miss)
    return found


async def body(cache: ResponseCache, key: str = KEY) -> bytes | None:
    found = await cache.lookup(cache.ask(key, TAGS))
    return found.answer.body if isinstance(found, Hit) else None


async def is_void(cache: ResponseCache) -> bool:
    return await body(cache) is None


async def is_settled(cache: ResponseCache) -> bool:
    return (await miss(cache)).fence is not None


async def test_the_second_time_it_is_there_byte_for_byte(cache: ResponseCache) -> None:
    stored = answer("grüße", 200, (b"etag", b'"1"'))
    await cache.store(await miss(cache), stored, TTL)
    assert await cache.lookup(cache.ask(KEY, TAGS)) == Hit(stored, age_seconds=0)
    assert await body(cache, answer_key(ORGANIZATION, "user:2", "/equipment")) is None


async def test_an_entry_ends_with_its_time_and_tells_its_age(
    cache: ResponseCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cache.store(await miss(cache), answer(), CacheRule(0.05))
    assert await body(cache)
    await asyncio.sleep(0.08)
    assert await body(cache) is None

    await cache.store(await miss(cache), answer(), TTL)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 7)
    found = await cache.lookup(cache.ask(KEY, TAGS))
    assert isinstance(found, Hit)
    assert found.age_seconds in (6, 7)


@pytest.mark.parametrize("touched", TAGS)
async def test_a_write_to_any_of_its_tags_ends_it(cache: ResponseCache, touched: str) -> None:
    await cache.store(await miss(cache), answer(), TTL)
    await cache.invalidate([tag(ORGANIZATION, "documents"), tag("another", "equipment")])
    assert await body(cache)
    await cache.invalidate({touched})
    assert await body(cache) is None


async def test_a_write_during_the_fill_wins(cache: ResponseCache) -> None:
    reader = await miss(cache)
    await cache.invalidate(TAGS[:1])
    await cache.store(reader, answer("of before the write"), TTL)
    assert await body(cache) is None


async def test_a_tag_that_redis_has_lost_revives_nothing(cache: ResponseCache, client: RedisClient) -> None:
    await cache.store(await miss(cache), answer("old"), TTL)
    await cache.invalidate(TAGS)
    await client.execute("DEL", *(redis_key("tag", name) for name in TAGS))  # as by eviction
    assert await body(cache) is None
    assert await body(cache) is None


async def test_two_readers_that_begin_a_tag_agree(cache: ResponseCache) -> None:
    keys = [answer_key(ORGANIZATION, str(i)) for i in range(20)]
    misses = await asyncio.gather(*(miss(cache, key) for key in keys))
    assert len({found.fence for found in misses}) == 1


async def test_a_miss_tells_how_far_a_replica_has_to_be(cache: ResponseCache) -> None:
    assert (await miss(cache)).wal_required == 0
    await cache.invalidate(TAGS[:1], wal_position=2**40)
    await cache.invalidate(TAGS[1:], wal_position=7)
    assert (await miss(cache)).wal_required == 2**40
    await cache.invalidate(TAGS[:1], wal_position=5)  # of an earlier commit, told late
    assert (await miss(cache)).wal_required == 2**40


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (answer(status=404), "an error"),
        (answer("x" * 10_001), "too large"),
        (answer("ok", 200, (b"set-cookie", b"a=b")), "for one client"),
        (answer("ok", 200, (b"cache-control", b"private, no-store")), "not to be stored"),
        (answer("ok", 200, (b"x", b"y" * 70_000)), "a header beyond the form"),
    ],
)
async def test_what_is_not_kept(cache: ResponseCache, refused: Answer, why: str) -> None:
    await cache.store(await miss(cache), refused, TTL)
    assert await body(cache) is None, why


async def test_what_is_no_entry_is_a_miss(cache: ResponseCache, client: RedisClient) -> None:
    await client.execute("SET", redis_key("answer", KEY), b"\x01garbage")
    assert await body(cache) is None
    await client.execute("DEL", redis_key("tag", TAGS[0]))
    await client.execute("LPUSH", redis_key("tag", TAGS[0]), "a list")
    assert await body(cache) is None


async def test_an_entry_and_its_tags_are_in_one_slot_of_a_cluster() -> None:
    names = [redis_key("answer", KEY), *(redis_key("tag", name) for name in TAGS)]
    assert len({key_slot(name.encode()) for name in names}) == 1
    assert key_slot(redis_key("tag", tag(PUBLIC, "status")).encode()) != key_slot(names[0].encode())


# Random writes with fills under way: at the end, is what the cache says what the source says?


class Source:
    """Stands for the database: what readers read, at some moment of their slow query."""

    def __init__(self, keys: int) -> None:
        self.versions = [0] * keys

    async def read(self, key: int) -> int:
        await asyncio.sleep(random.uniform(0, 0.003))
        version = self.versions[key]
        await asyncio.sleep(random.uniform(0, 0.003))
        return version


async def stale_after_random_writes(
    read: Callable[[Source, int], Awaitable[int]], invalidate: Callable[[int], Awaitable[None]]
) -> int:
    """How many of 50 keys the cache has wrong when all is quiet."""
    source = Source(50)

    async def reader() -> None:
        for _ in range(40):
            await read(source, random.randrange(50))

    async def writer() -> None:
        for _ in range(20):
            key = random.randrange(50)
            source.versions[key] += 1
            await invalidate(key)
            await asyncio.sleep(random.uniform(0, 0.004))

    await asyncio.gather(*(reader() for _ in range(40)), *(writer() for _ in range(10)))
    cached = [await read(source, key) for key in range(50)]
    return sum(known != version for known, version in zip(cached, source.versions, strict=True))


async def test_random_writes_leave_nothing_stale(cache: ResponseCache) -> None:
    async def read(source: Source, key: int) -> int:
        name, tags = answer_key(ORGANIZATION, str(key)), [tag(ORGANIZATION, f"item-{key}")]
        found = await cache.lookup(cache.ask(name, tags))
        if isinstance(found, Hit):
            return int(found.answer.body)
        version = await source.read(key)
        await cache.store(found, answer(version), TTL)
        return version

    async def invalidate(key: int) -> None:
        await cache.invalidate([tag(ORGANIZATION, f"item-{key}")])

    assert await stale_after_random_writes(read, invalidate) == 0


async def test_control_delete_on_write_leaves_stale_entries(client: RedisClient) -> None:
    async def read(source: Source, key: int) -> int:
        if (found := await client.execute("GET", f"item:{key}")) is not None:
            return int(found)
        version = await source.read(key)
        await client.execute("SET", f"item:{key}", version)
        return version

    async def invalidate(key: int) -> None:
        await client.execute("DEL", f"item:{key}")

    assert await stale_after_random_writes(read, invalidate) > 0


# Times


BRIEF = CacheRule(0.1, stale_seconds=60)


async def look(cache: ResponseCache) -> Hit:
    found = await cache.lookup(cache.ask(KEY, TAGS))
    assert isinstance(found, Hit)
    return found


async def refreshed(cache: ResponseCache, rule: CacheRule, *answers: Answer | Exception) -> int:
    """How often it was made anew when ten ask for it in turn."""
    made = 0

    async def make() -> Answer:
        nonlocal made
        made += 1
        outcome = answers[min(made, len(answers)) - 1]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    for _ in range(10):
        if (await look(cache)).is_due:
            cache.refresh(cache.ask(KEY, TAGS), rule, make)
        await asyncio.sleep(0.01)
    return made


async def test_stale_while_it_is_made_anew(cache: ResponseCache) -> None:
    await cache.store(await miss(cache), answer("old"), BRIEF)
    await asyncio.sleep(0.1)
    old = await look(cache)
    assert (old.answer.body, old.is_stale, old.is_due) == (b"old", True, True)
    assert await refreshed(cache, TTL, answer("new")) == 1
    new = await look(cache)
    assert (new.answer.body, new.is_stale, new.is_due) == (b"new", False, False)


async def test_control_without_leave_to_be_stale_it_is_gone(cache: ResponseCache) -> None:
    await cache.store(await miss(cache), answer("old"), CacheRule(0.1))
    await asyncio.sleep(0.1)
    assert await body(cache) is None


async def test_stale_while_it_can_not_be_made(cache: ResponseCache) -> None:
    await cache.store(await miss(cache), answer("old"), BRIEF)
    await asyncio.sleep(0.1)
    assert await refreshed(cache, TTL, RuntimeError("away"), answer("unavailable", 503), answer("new")) == 3
    assert (await look(cache)).answer.body == b"new"


async def test_what_a_write_made_void_is_never_stale_but_gone(cache: ResponseCache) -> None:
    await cache.store(await miss(cache), answer("old"), BRIEF)
    await cache.invalidate(TAGS)
    assert await body(cache) is None


async def test_made_anew_before_its_end_the_sooner_the_longer_it_takes(cache: ResponseCache) -> None:
    await cache.store(await miss(cache), answer("slow"), TTL, seconds_to_make=1e9)
    slow = await look(cache)
    assert (slow.is_due, slow.is_stale) == (True, False)
    await cache.store(await miss(cache, OTHER_KEY), answer("fast"), TTL, seconds_to_make=1e-9)
    fast = await cache.lookup(cache.ask(OTHER_KEY, TAGS))
    assert isinstance(fast, Hit)
    assert not fast.is_due


async def test_two_instances_make_it_anew_once(server: RedisServer, client: RedisClient) -> None:
    query = Query(answer("new"))
    async with redis_client(server.url) as other_client, new_cache(client) as one, new_cache(other_client) as other:
        await one.store(await miss(one), answer("old"), TTL, seconds_to_make=1e9)
        for cache in (one, other):
            for _ in range(5):
                cache.refresh(cache.ask(KEY, TAGS), TTL, query)
        await eventually(lambda: is_body(one, b"new"))
    assert query.count == 1


async def is_body(cache: ResponseCache, expected: bytes) -> bool:
    return await body(cache) == expected


async def test_that_nothing_is_there_is_kept_for_as_long_as_is_declared(cache: ResponseCache) -> None:
    nothing = answer("nothing", 404, (b"cache-control", b"no-store"))
    await cache.store(await miss(cache), nothing, TTL)
    assert await body(cache) is None
    await cache.store(await miss(cache), nothing, CacheRule(60.0, negative_seconds=5))
    assert await body(cache) == b"nothing"
    await cache.invalidate(TAGS)
    assert await body(cache) is None


# Redis away


async def test_frozen_everything_is_a_miss_and_soon_without_a_wait(
    cache: ResponseCache, client: RedisClient, server: RedisServer
) -> None:
    await cache.store(await miss(cache), answer(), TTL)
    server.freeze()
    try:
        while client.stats().breaker == "closed":
            found = await miss(cache)
            await cache.store(found, answer(), TTL)
        started = time.monotonic()
        for _ in range(100):
            found = await miss(cache)
            assert found.fence is None
            await cache.store(found, answer(), TTL)
        assert time.monotonic() - started < 0.1
    finally:
        server.thaw()
    await until_back(client)
    assert await body(cache) == b"body"


async def test_a_write_while_redis_is_frozen_is_not_lost(
    cache: ResponseCache, client: RedisClient, server: RedisServer
) -> None:
    await cache.store(await miss(cache), answer("old"), TTL)
    async with new_cache(client) as other_process:
        assert await body(other_process) == b"old"
        server.freeze()
        try:
            await cache.invalidate(TAGS, wal_position=9)
        finally:
            server.thaw()
        await until_back(client)
        # Who owes Redis the invalidation believes nothing of what Redis has.
        assert await body(cache) is None
        await eventually(lambda: is_void(other_process))
        assert (await miss(other_process)).wal_required == 9
        await eventually(lambda: is_settled(cache))


async def test_killed_and_back_empty(cache: ResponseCache, client: RedisClient, server: RedisServer) -> None:
    await cache.store(await miss(cache), answer(), TTL)
    server.kill()
    try:
        assert await body(cache) is None
        await cache.invalidate(TAGS)
    finally:
        server.start()
    await until_back(client)
    await eventually(lambda: is_settled(cache))
    await cache.store(await miss(cache), answer("new"), TTL)
    assert await body(cache) == b"new"


async def test_switched_off_it_asks_nothing(client: RedisClient) -> None:
    cache = ResponseCache(client, max_entry_bytes=10_000, enabled=False)
    await client.aclose()
    assert await cache.lookup(cache.ask(KEY, TAGS)) == Miss(KEY, TAGS)


# Single flight


class Query:
    """Takes a while, and counts."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers) or [answer()]
        self.count = 0

    async def __call__(self) -> Answer:
        self.count += 1
        made = self.answers[min(self.count, len(self.answers)) - 1]
        await asyncio.sleep(0.05)
        return made


async def test_simultaneous_misses_are_one_query(cache: ResponseCache) -> None:
    query = Query()

    async def request() -> Answer:
        return await cache.fill(await miss(cache), TTL, query)

    answers = await asyncio.gather(*(request() for _ in range(100)))
    assert query.count == 1
    assert answers == [answer()] * 100
    assert await body(cache) == b"body"


async def queries_of_a_thousand_misses(server: RedisServer, client: RedisClient) -> int:
    """By two instances, all at once."""
    query = Query()

    async def request(cache: ResponseCache, missed: Miss) -> Answer:
        return await cache.fill(missed, TTL, query)

    async with redis_client(server.url) as other_client, new_cache(client) as one, new_cache(other_client) as other:
        misses = [(cache, await miss(cache)) for cache in (one, other) for _ in range(500)]
        answers = await asyncio.gather(*(request(*each) for each in misses))
    assert answers == [answer()] * 1_000
    return query.count


async def test_a_thousand_misses_over_two_instances_are_one_query(server: RedisServer, client: RedisClient) -> None:
    assert await queries_of_a_thousand_misses(server, client) == 1


async def test_control_without_turns_each_instance_makes_its_own(
    server: RedisServer, client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def take(*_: object) -> str:
        return "always"

    monkeypatch.setattr(Turns, "take", take)
    assert await queries_of_a_thousand_misses(server, client) == 2


async def test_a_maker_that_died_holds_others_up_no_longer_than_its_turn(
    cache: ResponseCache, client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.2)
    assert await Turns(client).take(KEY) is not None  # and never gives it back
    started = time.monotonic()
    assert await cache.fill(await miss(cache), TTL, Query()) == answer()
    assert time.monotonic() - started >= 0.15
    assert await body(cache) == b"body"


async def test_what_can_not_be_kept_is_made_by_who_waited(server: RedisServer, client: RedisClient) -> None:
    query = Query(answer("private", 200, (b"set-cookie", b"a=b")), answer("own", 200, (b"set-cookie", b"a=b")))
    async with redis_client(server.url) as other_client, new_cache(client) as one, new_cache(other_client) as other:
        first, second = await miss(one), await miss(other)
        made = await asyncio.gather(one.fill(first, TTL, query), other.fill(second, TTL, query))
    assert {each.body for each in made} == {b"private", b"own"}


async def test_switched_off_nobody_shares(client: RedisClient) -> None:
    cache = ResponseCache(client, max_entry_bytes=10_000, enabled=False)
    query = Query()
    await asyncio.gather(*(cache.fill(Miss(KEY), TTL, query) for _ in range(10)))
    assert query.count == 10


async def test_control_without_single_flight_each_is_a_query(
    server: RedisServer, client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fill(self: ResponseCache, missed: Miss, rule: CacheRule, query: Query) -> Answer:
        made = await query()
        await self.store(missed, made, rule)
        return made

    monkeypatch.setattr(ResponseCache, "fill", fill)
    assert await queries_of_a_thousand_misses(server, client) == 1_000


async def test_without_redis_each_instance_makes_it_once(tmp_path: Path) -> None:
    with redis_server(tmp_path) as lost:
        async with redis_client(lost.url) as client:
            await client.ping()
            lost.kill()
            assert await queries_of_a_thousand_misses(lost, client) == 2


async def test_who_reads_after_a_write_does_not_join_a_flight_of_before(cache: ResponseCache) -> None:
    query = Query(answer("before"), answer("after"))
    before = asyncio.create_task(cache.fill(await miss(cache), TTL, query))
    await asyncio.sleep(0)
    await cache.invalidate(TAGS)
    assert await cache.fill(await miss(cache), TTL, query) == answer("after")
    assert await before == answer("before")
    assert await body(cache) == b"after"


async def test_a_caller_gets_no_hit_that_lacks_their_write(cache: ResponseCache) -> None:
    await cache.store(await miss(cache), answer("before"), TTL)
    token = request_context.set(RequestContext(request_id="1", wal_required=100))
    await cache.store(await miss(cache), answer("with it"), TTL)
    assert await body(cache) == b"with it"
    request_context.set(RequestContext(request_id="2", wal_required=101))
    assert await body(cache) is None
    request_context.reset(token)
    assert await body(cache) == b"with it"  # whoever need not see it may


async def test_who_has_to_see_a_write_does_not_join_who_has_not(cache: ResponseCache) -> None:
    query = Query(answer("of a lagging replica"), answer("of the primary"))
    found = await miss(cache)
    first = asyncio.create_task(cache.fill(found, TTL, query))
    await asyncio.sleep(0)
    token = request_context.set(RequestContext(request_id="1", wal_required=100))
    assert await cache.fill(found, TTL, query) == answer("of the primary")
    request_context.reset(token)
    await first


async def test_an_error_is_its_own_callers(cache: ResponseCache) -> None:
    query = Query(answer("busy", 503))
    found = await miss(cache)
    await asyncio.gather(*(cache.fill(found, TTL, query) for _ in range(5)))
    assert query.count == 5


async def test_the_deadline_of_one_is_not_that_of_all(cache: ResponseCache) -> None:
    found = await miss(cache)

    async def out_of_time() -> Answer:
        await asyncio.sleep(0.01)
        raise DeadlineExceeded

    leader = asyncio.create_task(cache.fill(found, TTL, out_of_time))
    await asyncio.sleep(0)
    assert await cache.fill(found, TTL, Query()) == answer()
    with pytest.raises(DeadlineExceeded):
        await leader
