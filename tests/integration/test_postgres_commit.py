"""COMMIT while no synchronous standby answers: what may be told, and what may not."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
from sqlalchemy import text

from app.platform.postgres.database import Database
from app.platform.postgres.errors import CommitOutcomeUnknown
from app.platform.postgres.sessions import Commit
from app.platform.postgres.transaction import Connection
from tests.support.database import (
    administer,
    create_registers,
    new_request,
    open_database,
    read_version,
    until,
    write_version,
)
from tests.support.stack import DataServices, data_services, no_standby, superuser

WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@pytest.fixture(scope="module")
def services() -> Iterator[DataServices]:
    """Its own: these tests freeze servers."""
    with data_services() as started:
        yield started


@pytest.fixture
def commits() -> list[Commit]:
    return []


@pytest.fixture
async def database(services: DataServices, commits: list[Commit]) -> AsyncIterator[Database]:
    async def remember(commit: Commit) -> None:
        commits.append(commit)

    async with open_database(services, remember) as opened:
        await create_registers(opened, "a")
        commits.clear()
        yield opened


async def version_on_primary(services: DataServices) -> int:
    connection = await asyncpg.connect(services.primary_dsn)
    try:
        return int(await connection.fetchval("SELECT version FROM registers WHERE name = 'a'"))
    finally:
        await connection.close()


async def until_waiting(services: DataServices) -> int:
    """The process id of the backend whose COMMIT waits for a standby."""
    connection = await asyncpg.connect(superuser(services.primary_dsn))
    try:
        async with asyncio.timeout(5):
            while (pid := await connection.fetchval(WAITING)) is None:  # noqa: ASYNC110 - only Postgres knows
                await asyncio.sleep(0.01)
            return int(pid)
    finally:
        await connection.close()


async def test_a_caller_that_leaves_during_commit_does_not_cut_it(
    services: DataServices, database: Database, commits: list[Commit]
) -> None:
    with no_standby(services):
        write = asyncio.create_task(touching_write(database, 1))
        await until_waiting(services)
        write.cancel()
        with pytest.raises(asyncio.CancelledError):
            await write
        assert commits == []
    await until(lambda: bool(commits))
    assert commits[0].tags == {"register"}
    assert await version_on_primary(services) == 1


async def test_commits_under_way_are_waited_for_at_the_end(services: DataServices) -> None:
    seen: list[Commit] = []

    async def remember(commit: Commit) -> None:
        seen.append(commit)

    with no_standby(services):
        async with open_database(services, remember, replica_urls=()) as database:
            write = asyncio.create_task(touching_write(database, 2))
            await until_waiting(services)
            write.cancel()
            asyncio.get_running_loop().call_later(0.2, services.services["replica-1"].thaw)
    assert [commit.tags for commit in seen] == [{"register"}]


@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
async def test_a_wait_that_is_cut_short_is_no_success(
    services: DataServices, database: Database, commits: list[Commit], how: str
) -> None:
    context = new_request()
    with no_standby(services):
        write = asyncio.create_task(touching_write(database, 3))
        await administer(services.primary_dsn, f"SELECT {how}({await until_waiting(services)})")
        with pytest.raises(CommitOutcomeUnknown):
            await write
    assert [commit.tags for commit in commits] == [{"register"}], "what may have changed is dropped from the cache"
    new_request(wal_required=context.wal_written)
    assert await read_version(database, "a") == 3, "the caller can see what became of it"


async def test_control_the_driver_alone_calls_it_a_success(services: DataServices, database: Database) -> None:
    connection = await asyncpg.connect(services.primary_dsn)
    with no_standby(services):
        write = asyncio.create_task(connection.execute("UPDATE registers SET version = 4"))
        await administer(services.primary_dsn, f"SELECT pg_cancel_backend({await until_waiting(services)})")
        assert await write == "UPDATE 1"
    await connection.close()


async def test_commit_is_bounded(services: DataServices) -> None:
    async with open_database(services, commit_timeout_seconds=1.5) as database:
        await create_registers(database, "a")
        with no_standby(services), pytest.raises(CommitOutcomeUnknown, match="too long"):
            await write_version(database, "a", 6)
        await write_version(database, "a", 7)


async def test_a_connection_lost_during_commit_is_no_success(services: DataServices, database: Database) -> None:
    with no_standby(services):
        write = asyncio.create_task(write_version(database, "a", 8))
        await until_waiting(services)
        database.primary.writer.connector.abort()
        with pytest.raises(CommitOutcomeUnknown, match="lost"):
            await write


async def test_a_connection_that_says_no_goodbye_after_commit_takes_nothing_back(
    services: DataServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One on top of the pool's is closed as soon as it is given back, which is part of SQLAlchemy's commit."""

    async def no_goodbye(connection: Connection, *, timeout: float | None = None) -> None:
        connection.terminate()
        raise TimeoutError

    monkeypatch.setattr(Connection, "close", no_goodbye)
    async with open_database(services, pool_size=1, pool_overflow=1) as database:
        await create_registers(database, "a")
        async with database.write() as first:
            await first.execute(text("SELECT 1"))
            await write_version(database, "a", 9)
    assert await version_on_primary(services) == 9


async def touching_write(database: Database, version: int) -> None:
    async with database.write() as session:
        session.touch("register")
        await session.execute(text("UPDATE registers SET version = :version"), {"version": version})
