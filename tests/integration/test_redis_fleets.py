"""The same client on a Redis Cluster, and on the master that Sentinel names.

What happens when they lose a master is in tests/faults/test_redis_failover.py.
"""

import asyncio
from collections.abc import Iterator

import pytest
from redis.crc import key_slot
from redis.exceptions import ResponseError

from app.platform.cache import Answer, CacheRule, Hit, Miss, ResponseCache, answer_key, tag
from app.platform.http.consistency import Consistency
from app.platform.limits import LimitRule, RateLimiter, parse_limits
from app.platform.postgres.tokens import ConsistencyTokens
from app.platform.redis import RedisUnavailable, Script
from tests.support.redis_fleets import Cluster, Watched, cli, redis_cluster, redis_sentinel
from tests.support.redis_server import redis_client

ADD_UP = Script("""
local total = 0
for _, key in ipairs(KEYS) do total = total + redis.call('INCRBY', key, ARGV[1]) end
return total
""")
KEYS = 60
RULE: LimitRule = parse_limits("5/minute;50/hour", "fleet")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with redis_sentinel(tmp_path_factory.mktemp("sentinel")) as started:
        yield started


async def test_keys_of_all_masters_are_written_and_read(cluster: Cluster) -> None:
    async with redis_client(cluster.url, timeout_seconds=1) as client:
        names = [f"spread:{number}" for number in range(KEYS)]
        await asyncio.gather(*(client.execute("SET", name, name) for name in names))
        assert await asyncio.gather(*(client.execute("GET", name) for name in names)) == [
            name.encode() for name in names
        ]
        assert client.stats().connected
        assert await client.ping() > 0
    assert all(int(cli(node.port, "DBSIZE")) > 0 for node in cluster.nodes[:3])


async def test_a_script_has_its_keys_in_one_slot_by_their_tag(cluster: Cluster) -> None:
    async with redis_client(cluster.url, timeout_seconds=1) as client:
        for number in range(12):  # on whichever master: each learns the script by itself
            keys = [f"sum:{{{number}}}:a", f"sum:{{{number}}}:b"]
            assert await client.run(ADD_UP, keys, [2]) == 4
            assert await client.execute("MGET", *keys) == [b"2", b"2"]


async def test_control_without_a_tag_it_is_refused(cluster: Cluster) -> None:
    async with redis_client(cluster.url, timeout_seconds=1) as client:
        with pytest.raises(ResponseError, match="same slot"):
            await client.execute("MGET", "sum:a", "sum:b")


async def test_every_pattern_works_on_it(cluster: Cluster) -> None:
    """Limits, consistency, and the cache with its scripts and its messages, for callers on all masters."""
    async with redis_client(cluster.url, timeout_seconds=1) as client:
        limiter = RateLimiter(client, local_share=1.0)
        consistency = Consistency(client, ConsistencyTokens("a secret of at least 32 characters."))
        for number in range(12):
            decisions = [await limiter.check(f"user:{number}", RULE) for _ in range(8)]
            assert sum(decision.allowed for decision in decisions) == 5
            await consistency.remember(f"caller-{number}", 4_711 + number)
            required = await consistency.required(None, consistency.ask(f"caller-{number}"))
            assert required.wal_position == 4_711 + number
        await limiter.aclose()
        caches = [ResponseCache(client, max_entry_bytes=10_000, memory_bytes=100_000) for _ in range(2)]
        for cache in caches:
            await cache.start()
        for number in range(12):
            await voided_in_both(caches, f"org-{number}")
        for cache in caches:
            await cache.aclose()


async def voided_in_both(caches: list[ResponseCache], scope: str) -> None:
    key, tags = answer_key(scope, "/list"), (tag(scope, "things"),)
    first, second = caches
    missed = await first.lookup(first.ask(key, tags))
    assert isinstance(missed, Miss)
    await first.store(missed, Answer(200, (), b"things"), CacheRule(30, ("things",)))
    for cache in caches:
        assert isinstance(await cache.lookup(cache.ask(key, tags)), Hit)
    await second.invalidate(tags, 1)
    for cache in caches:
        assert isinstance(await cache.lookup(cache.ask(key, tags)), Miss)


async def test_a_slot_that_moved_is_followed(cluster: Cluster) -> None:
    async with redis_client(cluster.url, timeout_seconds=1) as client:
        await client.execute("GET", "moving")
        slot = key_slot(b"moving")
        owner = next(node for node in cluster.nodes[:3] if not cli(node.port, "GET", "moving").startswith("MOVED"))
        target = next(node for node in cluster.nodes[1:3] if node is not owner)
        cluster.move(slot, owner, target)
        assert await client.execute("SET", "moving", "there") == b"OK"
        assert cli(target.port, "GET", "moving") == "there"


async def test_a_slot_on_its_way_is_asked_for_at_both_ends(cluster: Cluster) -> None:
    async with redis_client(cluster.url, timeout_seconds=1) as client:
        await client.execute("GET", "travelling")
        slot = str(key_slot(b"travelling"))
        owner = next(node for node in cluster.nodes[:3] if not cli(node.port, "GET", "travelling").startswith("MOVED"))
        target = next(node for node in cluster.nodes[1:3] if node is not owner)
        cli(target.port, "CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.name(owner))
        cli(owner.port, "CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.name(target))
        try:
            assert await client.execute("SET", "travelling", "there") == b"OK"
            assert await client.execute("GET", "travelling") == b"there"
        finally:
            cluster.move(int(slot), owner, target)


async def test_the_master_that_sentinel_names_is_found(watched: Watched) -> None:
    async with redis_client(watched.url, timeout_seconds=1) as client:
        assert await client.execute("SET", "a", "there") == b"OK"
        assert await client.run(ADD_UP, ["{s}:a", "{s}:b"], [1]) == 2
    assert cli(watched.master.port, "GET", "a") == "there"


async def test_a_sentinel_that_is_frozen_is_not_waited_for(watched: Watched) -> None:
    watched.sentinels[0].freeze()
    try:
        async with redis_client(watched.url, timeout_seconds=1) as client:
            assert await client.execute("SET", "b", "there") == b"OK"
    finally:
        watched.sentinels[0].thaw()


async def test_nobody_there_is_unavailable_and_nothing_hangs() -> None:
    for url in ("redis+sentinel://127.0.0.1:1,127.0.0.1:2/none", "redis+cluster://127.0.0.1:1,127.0.0.1:2"):
        async with redis_client(url) as client, asyncio.timeout(10):
            for _ in range(5):
                with pytest.raises(RedisUnavailable):
                    await client.execute("GET", "a")
