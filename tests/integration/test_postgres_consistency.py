"""Read your writes: a caller that carries its position never reads behind it, and without it does."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import text

from app.platform.postgres.database import Database
from app.platform.postgres.positions import pack
from app.platform.telemetry.context import LastRead, request_context
from tests.support.database import (
    Seen,
    create_registers,
    new_request,
    open_database,
    read_version,
    repeated,
    server_setting,
    until,
    write_version,
)
from tests.support.stack import DataServices

CALLERS = [f"caller-{number}" for number in range(20)]
ROUNDS = 15

Write = Callable[[Database, str, int], Awaitable[int]]


@pytest.fixture
async def database(services: DataServices) -> AsyncIterator[Database]:
    patient = {"consistency_wait_seconds": 0.5, "probe_timeout_seconds": 1.0}  # the load takes the servers' cores
    async with open_database(services, **patient) as opened:
        await create_registers(opened, *CALLERS)
        yield opened


async def position_after_commit(database: Database, name: str, version: int) -> int:
    context = new_request()
    await write_version(database, name, version)
    return context.wal_written


async def position_before_commit(database: Database, name: str, version: int) -> int:
    async with database.write() as session:
        await session.execute(
            text("UPDATE registers SET version = :version WHERE name = :name"), {"name": name, "version": version}
        )
        lsn = await session.scalar(text("SELECT pg_current_wal_insert_lsn()"))
    return pack(1, lsn)


async def no_position(database: Database, name: str, version: int) -> int:
    await write_version(database, name, version)
    return 0


async def write_then_read(database: Database, write: Write) -> Seen:
    seen = Seen()

    async def call(name: str) -> None:
        for version in range(1, ROUNDS + 1):
            required = await write(database, name, version)
            context = new_request(wal_required=required)
            seen.stale += await read_version(database, name) < version
            seen.served_by[str(context.served_by)] += 1

    await asyncio.gather(*map(call, CALLERS))
    return seen


async def test_none_stale_while_one_replica_is_delayed(services: DataServices, database: Database) -> None:
    async with server_setting(services.replica_dsns[0], "recovery_min_apply_delay", "300ms"):
        seen = await write_then_read(database, position_after_commit)
    assert seen.stale == 0
    assert seen.share_of_replicas >= 0.8


async def test_none_stale_while_all_replicas_are_delayed(services: DataServices, database: Database) -> None:
    first, second = services.replica_dsns
    async with (
        server_setting(first, "recovery_min_apply_delay", "300ms"),
        server_setting(second, "recovery_min_apply_delay", "300ms"),
    ):
        seen = await write_then_read(database, position_after_commit)
    assert seen.stale == 0


async def test_control_without_a_position_reads_are_stale(services: DataServices, database: Database) -> None:
    async with server_setting(services.replica_dsns[0], "recovery_min_apply_delay", "300ms"):
        seen = await write_then_read(database, no_position)
    assert seen.stale > 0


async def test_control_with_the_position_before_commit_reads_are_stale(
    services: DataServices, database: Database
) -> None:
    """The delayed replica has replayed all but the commit record. One caller, so that no other commit holds it back."""
    stale = 0
    async with server_setting(services.replica_dsns[0], "recovery_min_apply_delay", "100ms"):
        for version in range(1, 21):
            new_request(wal_required=await position_before_commit(database, CALLERS[0], version))
            stale += await read_version(database, CALLERS[0]) < version
            await asyncio.sleep(0.12)
    assert stale > 0


async def reads_back_in_time(database: Database, *, remembered: bool) -> int:
    """One caller reads again and again what another one writes; the sum of the times that it saw an older version."""
    back, seen, ended, server = 0, 0, 0.0, ""
    async with repeated(lambda: write_next(database), 1):
        for _ in range(150):
            new_request(last_read=LastRead(server, ended) if remembered and server else None)
            async with database.read() as session:
                version = await session.scalar(text("SELECT version FROM registers WHERE name = 'caller-0'"))
            ended, server = time.time(), request_context.get().read_from or ""
            back += version < seen
            seen = max(seen, version)
            await asyncio.sleep(0.005)
    return back


async def write_next(database: Database) -> None:
    async with database.write() as session:
        await session.execute(text("UPDATE registers SET version = version + 1 WHERE name = 'caller-0'"))


async def test_a_caller_that_is_remembered_reads_nothing_older(services: DataServices, database: Database) -> None:
    async with server_setting(services.replica_dsns[0], "recovery_min_apply_delay", "300ms"):
        assert await reads_back_in_time(database, remembered=True) == 0


async def test_control_a_caller_that_is_not_remembered_reads_back_in_time(
    services: DataServices, database: Database
) -> None:
    async with server_setting(services.replica_dsns[0], "recovery_min_apply_delay", "300ms"):
        assert await reads_back_in_time(database, remembered=False) > 0


async def test_reads_stay_on_replicas_that_keep_up(database: Database) -> None:
    seen = await write_then_read(database, position_after_commit)
    assert seen.stale == 0
    assert seen.share_of_replicas >= 0.8
    assert min(seen.served_by["replica:replica-1"], seen.served_by["replica:replica-2"]) > 0


async def test_a_replica_too_far_behind_gets_no_reads_until_it_has_caught_up(
    services: DataServices, database: Database
) -> None:
    async with open_database(services, max_lag_seconds=0.5) as strict:
        late = strict.replicas[0]
        async with server_setting(services.replica_dsns[0], "recovery_min_apply_delay", "5s"):
            await write_version(strict, CALLERS[0], 99)
            await until(lambda: late.state == "lagging")
            assert 0.5 < late.lag_seconds < 5
            assert {await _served_by(strict) for _ in range(20)} == {"replica:replica-2"}
        await until(lambda: late.eligible)
        assert late.lag_seconds < 0.5


async def test_lag_does_not_grow_while_nothing_is_written(database: Database) -> None:
    await until(lambda: all(replica.lag_seconds < 0.2 for replica in database.replicas))
    await asyncio.sleep(1.0)
    assert all(replica.lag_seconds < 0.2 for replica in database.replicas)


async def _served_by(database: Database) -> str | None:
    context = new_request()
    await read_version(database, CALLERS[0])
    return context.served_by


async def test_a_caller_is_not_bound_to_a_server_for_good(database: Database) -> None:
    """Once the others are known to be past its last read, any of them will do."""
    last = LastRead("replica-1", time.time())
    await asyncio.sleep(0.5)
    chosen = set()
    for _ in range(50):
        context = new_request(last_read=last)
        async with database.read():
            chosen.add(context.read_from)
    assert chosen == {"replica-1", "replica-2"}


async def test_after_the_loss_of_its_server_a_caller_reads_nothing_older(
    services: DataServices, database: Database
) -> None:
    async with server_setting(services.replica_dsns[0], "recovery_min_apply_delay", "300ms"):
        await write_next(database)
        context = new_request(last_read=LastRead("one that is gone", time.time()))
        async with database.read() as session:
            seen = await session.scalar(text("SELECT version FROM registers WHERE name = 'caller-0'"))
        assert seen == 1
        assert context.read_from in ("replica-2", "primary-read")
