"""The primary is lost and a replica promoted: the service writes again by itself, and nothing is read from the past."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from app.platform.postgres.database import Database
from app.platform.postgres.errors import DatabaseError
from app.platform.postgres.positions import timeline_of
from app.platform.postgres.replica import State
from tests.support.database import (
    administer,
    create_registers,
    new_request,
    open_database,
    read_version,
    until,
    write_version,
)
from tests.support.stack import DataServices, data_services

SECONDS_TO_WRITE_AGAIN = 5.0


@pytest.fixture
def services() -> Iterator[DataServices]:
    """Its own: a promotion can't be undone."""
    with data_services() as started:
        yield started


@pytest.fixture
async def database(services: DataServices) -> AsyncIterator[Database]:
    hosts = "&".join(f"host=127.0.0.1:{server.port}" for server in services.cluster.servers)
    user = services.environment["DATABASE_URL"].partition("@")[0]
    async with open_database(services, url=f"{user}@/headroom?{hosts}") as opened:
        await create_registers(opened, "a")
        yield opened


async def promote(services: DataServices, replica: int) -> None:
    """The other replica goes on following the lost primary, so that commits can't wait for it."""
    dsn = services.replica_dsns[replica]
    await administer(dsn, "ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()")
    await administer(dsn, "SELECT pg_promote()")


async def position_of_write(database: Database, version: int) -> int:
    context = new_request()
    await write_version(database, "a", version)
    return context.wal_written


async def write_until_it_works(database: Database, version: int) -> float:
    """Seconds until a write succeeded; each attempt ends by itself, with an error that says what is known."""
    started = time.monotonic()
    while True:
        try:
            async with asyncio.timeout(SECONDS_TO_WRITE_AGAIN):
                await write_version(database, "a", version)
            return time.monotonic() - started
        except (DatabaseError, TimeoutError):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("loss", ["kill", "freeze"])
async def test_writes_go_on_after_a_promotion(services: DataServices, database: Database, loss: str) -> None:
    old = await position_of_write(database, 1)
    await asyncio.to_thread(getattr(services.services["primary"], loss))
    await promote(services, 0)
    assert await write_until_it_works(database, 2) < SECONDS_TO_WRITE_AGAIN
    new = await position_of_write(database, 3)
    assert (timeline_of(old), timeline_of(new)) == (1, 2)

    context = new_request(wal_required=new)
    assert await read_version(database, "a") == 3
    assert context.served_by == "primary"

    new_request(wal_required=old)
    assert await read_version(database, "a") >= 1

    await until(lambda: database.replicas[0].state is State.PROMOTED)
    assert database.health().primary.timeline == 2
