"""Replicas frozen, killed and back, under load: no read fails, and none waits for long."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from app.platform.postgres.database import Database
from app.platform.postgres.errors import DatabaseBusy, DatabaseUnavailable
from app.platform.postgres.replica import State
from app.platform.postgres.routing import ReadRoute
from tests.support.database import (
    administer,
    create_registers,
    new_request,
    open_database,
    read_version,
    repeated,
    server_setting,
    until,
)
from tests.support.stack import DataServices, data_services

LOAD = 20
SLOW_COUNT = "SELECT count(*) FROM registers, pg_sleep(1)"
LOCK = "ALTER TABLE registers ADD COLUMN IF NOT EXISTS extra int"
FROZEN_SECONDS = 5.0
BOUND_SECONDS = 4.0  # 0.7 and a reconnection where the load leaves the cores free


@pytest.fixture(scope="module")
def services() -> Iterator[DataServices]:
    """Its own: these tests kill servers."""
    with data_services() as started:
        yield started


@pytest.fixture
async def database(services: DataServices) -> AsyncIterator[Database]:
    async with open_database(services) as opened:
        await create_registers(opened, "a")
        yield opened


async def timed_read(database: Database) -> tuple[str | None, float]:
    started = time.perf_counter()
    context = new_request()
    await read_version(database, "a")
    return context.served_by, time.perf_counter() - started


async def until_it_serves(server: str, results: list[Any]) -> None:
    before = len(results)
    await until(lambda: server in [served_by for served_by, _ in results[before:]])


def assert_unharmed(results: list[Any]) -> None:
    failed = [result for result in results if isinstance(result, BaseException)]
    assert not failed, (len(failed), len(results), failed[0])
    assert len(results) > LOAD
    assert max(seconds for _, seconds in results) < BOUND_SECONDS


async def test_a_frozen_replica_costs_no_read(services: DataServices, database: Database) -> None:
    frozen = services.services["replica-1"]
    async with repeated(lambda: timed_read(database), LOAD) as results:
        await asyncio.sleep(0.3)
        frozen.freeze()
        await asyncio.sleep(FROZEN_SECONDS)
        assert database.replicas[0].state is State.DOWN
        frozen.thaw()
        await until_it_serves("replica:replica-1", results)
    assert_unharmed(results)


async def test_a_killed_replica_costs_no_read(services: DataServices, database: Database) -> None:
    killed = services.services["replica-2"]
    async with repeated(lambda: timed_read(database), LOAD) as results:
        await asyncio.sleep(0.3)
        await asyncio.to_thread(killed.kill)
        await asyncio.sleep(0.5)
        assert database.replicas[1].state is State.DOWN
        await asyncio.to_thread(killed.start)
        await until_it_serves("replica:replica-2", results)
    assert_unharmed(results)


async def test_the_primary_takes_over_when_all_are_gone(services: DataServices, database: Database) -> None:
    replicas = [services.services["replica-1"], services.services["replica-2"]]
    async with repeated(lambda: timed_read(database), LOAD) as results:
        await asyncio.sleep(0.3)
        replicas[0].freeze()
        await asyncio.to_thread(replicas[1].kill)
        await until(lambda: not any(replica.eligible for replica in database.replicas))
        results.append(await timed_read(database))
        assert results[-1][0] == "primary"
        replicas[0].thaw()
        await asyncio.to_thread(replicas[1].start)
        await until(lambda: all(replica.eligible for replica in database.replicas))
    assert_unharmed(results)


async def test_reads_that_take_over_the_primary_are_held_to_their_share(services: DataServices) -> None:
    """The replicas are lost; whatever the load, reads get `primary_read_share` of the pool and writes keep theirs."""
    away = ("postgresql+asyncpg://headroom@127.0.0.1:1/headroom",)
    async with open_database(services, replica_urls=away, pool_size=4, pool_timeout_seconds=0.3) as database:
        reads = asyncio.gather(*(_slow_read(database) for _ in range(10)), return_exceptions=True)
        await asyncio.sleep(0.1)
        assert database.primary.reader.pool_state().in_use == 2
        async with database.write() as session:
            assert await session.scalar(text("SELECT 1")) == 1
        outcomes = [type(outcome) for outcome in await reads]
    assert outcomes.count(DatabaseBusy) == 8


async def test_control_without_diversion_reads_fail(
    services: DataServices, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ReadRoute, "divert", lambda self, error: False)
    killed = services.services["replica-2"]
    async with repeated(lambda: timed_read(database), LOAD) as results:
        await asyncio.sleep(0.3)
        await asyncio.to_thread(killed.kill)
        await asyncio.sleep(0.3)
    await asyncio.to_thread(killed.start)
    assert DatabaseUnavailable in map(type, results)


async def test_a_recovery_conflict_is_retried_elsewhere(services: DataServices) -> None:
    """Replay cancels a query that is in its way, with 40001: here an exclusive lock on the table that it reads."""
    first = services.environment["DATABASE_REPLICA_URLS"].split(",")[:1]
    async with open_database(services, replica_urls=tuple(first)) as database:
        await create_registers(database, "a")
        async with server_setting(services.replica_dsns[0], "max_standby_streaming_delay", "0"):
            context = new_request()
            read = asyncio.create_task(_slow_count(database))
            await asyncio.sleep(0.3)
            assert context.served_by == "replica:replica-1"
            await administer(services.primary_dsn, LOCK)
            assert await read == 1
        assert context.served_by == "primary"
        assert database.replicas[0].eligible


async def test_control_the_conflict_is_real(services: DataServices, database: Database) -> None:
    async with server_setting(services.replica_dsns[0], "max_standby_streaming_delay", "0"):
        connection = await asyncpg.connect(services.replica_dsns[0])
        read = asyncio.create_task(connection.fetchval(SLOW_COUNT))
        await asyncio.sleep(0.3)
        await administer(services.primary_dsn, LOCK)
        with pytest.raises(asyncpg.SerializationError, match="conflict with recovery"):
            await read
        await connection.close()


async def test_a_read_that_queues_behind_replay_goes_elsewhere(services: DataServices) -> None:
    """Replay waits for a long read to let go of a table, and everybody else for replay."""
    first = services.environment["DATABASE_REPLICA_URLS"].split(",")[:1]
    async with open_database(services, replica_urls=tuple(first)) as database:
        await create_registers(database, "a")
        async with server_setting(services.replica_dsns[0], "max_standby_streaming_delay", "30s"):
            holder = await asyncpg.connect(services.replica_dsns[0])
            async with holder.transaction():
                await holder.fetch("SELECT * FROM registers")
                await administer(services.primary_dsn, LOCK)
                context = new_request()
                async with asyncio.timeout(20), database.read() as session:
                    assert context.served_by == "replica:replica-1"
                    await until(lambda: database.replicas[0].lag_bytes > 0)
                    assert await session.scalar(text("SELECT count(*) FROM registers")) == 1
                assert context.served_by == "primary"
                assert database.replicas[0].eligible
            await holder.close()


async def _slow_count(database: Database) -> int:
    async with database.read() as session:
        return int(await session.scalar(text(SLOW_COUNT)) or 0)


async def _slow_read(database: Database) -> None:
    async with database.read() as session:
        await session.execute(text("SELECT pg_sleep(1)"))
