"""A master is lost: Sentinel names another, or the cluster does, and the client goes there by itself."""

import asyncio
from collections.abc import Iterator
from functools import partial

import pytest
from redis.exceptions import RedisError

from app.platform.redis import RedisClient, RedisUnavailable
from tests.support.redis_fleets import Cluster, Watched, cli, redis_cluster, redis_sentinel
from tests.support.redis_server import eventually, redis_client, until_back

KEYS = 60


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with redis_sentinel(tmp_path_factory.mktemp("sentinel")) as started:
        yield started


async def works(client: RedisClient, name: str) -> bool:
    try:
        return bool(await client.execute("SET", name, "there") == b"OK")
    except RedisError:
        return False


async def test_a_master_that_is_killed_takes_only_its_own_slots_until_its_replica_has_them(cluster: Cluster) -> None:
    lost = cluster.nodes[0]
    async with redis_client(cluster.url, timeout_seconds=0.5) as client:
        names = [f"kept:{number}" for number in range(KEYS)]
        homes = {name: not cli(lost.port, "GET", name).startswith("MOVED") for name in names}
        await asyncio.gather(*(client.execute("SET", name, "1") for name in names))
        lost.kill()
        outcomes = await asyncio.gather(*(client.execute("GET", name) for name in names), return_exceptions=True)
        for name, outcome in zip(names, outcomes, strict=True):
            assert isinstance(outcome, RedisUnavailable) if homes[name] else outcome == b"1"
        mine = next(name for name in names if homes[name])
        await eventually(partial(works, client, mine), 20)
        assert await client.execute("GET", mine) == b"there"
        lost.start()


@pytest.mark.parametrize("fault", ["killed", "frozen", "asked for"])
async def test_a_failover_is_followed(watched: Watched, fault: str) -> None:
    async with redis_client(watched.url, timeout_seconds=0.5) as client:
        assert await works(client, "before")
        if fault == "killed":
            watched.master.kill()
        elif fault == "frozen":
            watched.master.freeze()
        else:
            cli(watched.ports[0], "SENTINEL", "FAILOVER", "headroom")
        await eventually(partial(is_served_by, client, watched.replica.port), 20)
        if fault == "frozen":  # it comes back, still thinking that it is the master
            watched.master.thaw()
        await until_back(client)
        for number in range(20):
            await eventually(partial(works, client, f"after:{number}"))
            assert cli(watched.replica.port, "GET", f"after:{number}") == "there"


async def is_served_by(client: RedisClient, port: int) -> bool:
    """As a master: before a failover a replica has what is written, too."""
    try:
        role, *_ = await client.execute("ROLE")
        settings = await client.execute("CONFIG", "GET", "port")
    except RedisError:
        return False
    return bool(role == b"master" and int(settings[b"port"]) == port)
