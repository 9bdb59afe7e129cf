"""A deposed primary that is back, and waits for no standby: two servers that both take writes, of which one counts."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from app.platform.http.fleet_timeline import exchange
from app.platform.postgres import monitor
from app.platform.postgres.database import Database
from app.platform.postgres.errors import CommitOutcomeUnknown, DatabaseError, DatabaseUnavailable
from app.platform.postgres.positions import pack
from app.platform.postgres.tokens import ConsistencyTokens
from deploy.local.postgres import HOST, Server
from tests.support.database import (
    administer,
    create_registers,
    new_request,
    open_database,
    primary_lsn,
    until,
    write_version,
)
from tests.support.redis_server import redis_client
from tests.support.stack import DataServices, as_asyncpg, data_services, superuser

TOKENS = ConsistencyTokens("a secret of the tests")


@pytest.fixture(scope="module")
def services() -> Iterator[DataServices]:
    """Its own: a promotion can't be undone."""
    with data_services(replicas=1) as started:
        asyncio.run(split(started))
        yield started


async def split(services: DataServices) -> None:
    (promoted,) = services.replica_dsns
    async with open_database(services) as database:
        await create_registers(database, "a")
    old = services.services["primary"]
    await asyncio.to_thread(old.kill)
    await administer(promoted, "ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()")
    await administer(promoted, "SELECT pg_promote()")
    old.command.append("--synchronous_standby_names=")
    await asyncio.to_thread(old.start)


@pytest.fixture
def old(services: DataServices) -> Server:
    return services.cluster.primary


@pytest.fixture
def new(services: DataServices) -> Server:
    return services.cluster.replicas[0]


def reached(*servers: Server, **changes: Any) -> dict[str, Any]:
    """Options of a process that reaches these, tried in this order."""
    user = as_asyncpg(servers[0].dsn).partition("@")[0]
    hosts = "&".join(f"host={HOST}:{server.port}" for server in servers)
    return {"url": f"{user}@/headroom?{hosts}", "replica_urls": ()} | changes


async def version_on(server: Server) -> int:
    connection = await asyncpg.connect(superuser(server.dsn))
    try:
        return int(await connection.fetchval("SELECT version FROM registers WHERE name = 'a'"))
    finally:
        await connection.close()


async def test_a_process_that_starts_beside_an_old_primary_writes_to_the_new_one(
    services: DataServices, old: Server, new: Server
) -> None:
    async with open_database(services, **reached(old, new)) as database:
        await write_version(database, "a", 1)
    assert await version_on(new) == 1
    assert await version_on(old) != 1


async def test_control_without_the_fence_it_writes_to_the_old_one(
    services: DataServices, old: Server, new: Server
) -> None:
    async with open_database(services, **reached(old, new, fence_old_primaries=False)) as database:
        await write_version(database, "a", 2)
    assert await version_on(old) == 2
    assert await version_on(new) != 2


async def test_an_old_primary_is_not_found_again(services: DataServices, old: Server, new: Server) -> None:
    """When the connections to the new one are lost, and the old one is the first that is tried."""
    async with open_database(services, **reached(old, new)) as database:
        database.primary.writer.connector.move((HOST, old.port))
        await write_version(database, "a", 3)
    assert await version_on(new) == 3
    assert await version_on(old) != 3


async def test_a_replica_tells_of_the_promotion(services: DataServices, old: Server, new: Server) -> None:
    """The new primary, where reads went to it as to a replica: the old one is refused though no other is named."""
    async with open_database(services, **reached(old, replica_urls=(as_asyncpg(new.dsn),))) as database:
        await until(lambda: database.primary.fence.timeline == 2)
        await refused(database)
    assert await version_on(old) != 9


@pytest.mark.parametrize("told_by", ["a position", "the fleet"])
async def test_a_process_that_reaches_the_old_primary_alone_is_told(
    services: DataServices, old: Server, new: Server, told_by: str
) -> None:
    async with (
        redis_client(services.redis_url) as redis,
        open_database(services, **reached(old)) as database,
        open_database(services, **reached(new)) as other,
    ):
        await exchange(redis, database, TOKENS)
        await write_version(database, "a", 4)
        if told_by == "a position":
            database.heard(await primary_lsn(other))
        else:
            await exchange(redis, other, TOKENS)
            await exchange(redis, database, TOKENS)
        await refused(database)
    assert await version_on(old) == 4


async def write_and(database: Database, version: int, meanwhile: Callable[[], object]) -> None:
    """Something happens between the last statement and COMMIT."""
    async with database.write() as session:
        await session.execute(text(f"UPDATE registers SET version = {version} WHERE name = 'a'"))
        meanwhile()


async def test_the_connections_in_use_are_ended(services: DataServices, old: Server) -> None:
    async with open_database(services, **reached(old)) as database:
        with pytest.raises(DatabaseError):
            await write_and(database, 9, lambda: database.heard(pack(2, 0)))
    assert await version_on(old) != 9


async def test_what_was_committed_before_anybody_told_is_not_acknowledged(services: DataServices, old: Server) -> None:
    """The connection is still there: COMMIT itself tells the timeline."""
    async with open_database(services, **reached(old)) as database:
        new_request()
        with pytest.raises(CommitOutcomeUnknown, match="no longer the primary"):
            await write_and(database, 5, lambda: database.primary.fence.hear(2))
    assert await version_on(old) == 5


async def test_without_replicas_the_hosts_are_asked_now_and_then(
    services: DataServices, old: Server, new: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the worker is: nothing else would tell it."""
    monkeypatch.setattr(monitor, "LOOK_SECONDS", 0.05)
    async with open_database(services, **reached(old, new)) as database:
        database.primary.fence.timeline = 1
        database.primary.writer.connector.move((HOST, old.port))
        await until(lambda: database.primary.fence.timeline == 2)
        await until(lambda: database.primary.up and database.primary.address == (HOST, new.port))
        await write_version(database, "a", 6)
    assert await version_on(new) == 6


async def refused(database: Database) -> None:
    await until(lambda: not database.primary.up)
    with pytest.raises(DatabaseUnavailable):
        await write_version(database, "a", 9)
