"""Revisions go up and down with rows in the tables, one migrator at a time, and leave nothing half done."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError, IntegrityError

from migrations import lint
from migrations.locking import LONGEST_PAUSE_SECONDS, MIGRATOR, pause_seconds
from migrations.operations import backfill, create_index_concurrently, drop_index_concurrently, set_not_null
from tests.support.api import PROJECT, connected
from tests.support.database import administer
from tests.support.migrations import (
    A_MIGRATOR_WAITS,
    FIRST,
    alembic,
    empty_database,
    finished,
    held_open,
    insert_rows,
    migrate,
    operate,
    until,
    walk,
)
from tests.support.stack import DataServices

HEAD = lint.revisions()[-1].revision
FINGERPRINT = """
SELECT (SELECT md5(string_agg(e::text, '' ORDER BY id)) FROM (SELECT id, asset_tag, name, status FROM equipment) e),
       (SELECT md5(string_agg(c::text, '' ORDER BY id)) FROM (SELECT id, checked_out_at, returned_at FROM checkouts) c)
"""
VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('ix_numbers')"
NULLABLE = "SELECT NOT attnotnull FROM pg_attribute WHERE attrelid = 'numbers'::regclass AND attname = 'twice'"


@pytest.fixture
async def dsn(services: DataServices) -> str:
    return await empty_database(services, "migrations")


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    async with connected(dsn) as connection:
        yield connection


@pytest.fixture
async def numbers(connection: asyncpg.Connection) -> asyncpg.Connection:
    """A table of 25 rows, of two columns in its key."""
    await connection.execute("CREATE TABLE numbers (a int, b int, twice int, PRIMARY KEY (a, b))")
    await connection.execute("INSERT INTO numbers SELECT n / 10, n, NULL FROM generate_series(1, 25) AS n")
    return connection


def test_there_is_one_head() -> None:
    revisions = lint.revisions()
    assert [revision.down_revision for revision in revisions[1:]] == [revision.revision for revision in revisions[:-1]]


async def test_every_revision_goes_up_and_down_and_up_with_rows_in_it(dsn: str, connection: asyncpg.Connection) -> None:
    await walk(dsn, "upgrade", FIRST)
    await insert_rows(dsn, items=20, checkouts=3)
    rows = await connection.fetchrow(FINGERPRINT)
    for revision in lint.revisions()[1:]:
        for verb, target in (("upgrade", "+1"), ("downgrade", "-1"), ("upgrade", revision.revision)):
            await walk(dsn, verb, target)
            assert await connection.fetchrow(FINGERPRINT) == rows, (verb, target)
    assert await connection.fetchval(
        "SELECT bool_and(updated_at = coalesce(returned_at, checked_out_at)) FROM checkouts"
    )
    await walk(dsn, "downgrade", FIRST)
    assert await connection.fetchrow(FINGERPRINT) == rows
    await walk(dsn, "downgrade", "base")
    await walk(dsn, "upgrade", "head")


async def test_the_revisions_make_what_the_models_say(dsn: str) -> None:
    await walk(dsn, "upgrade", "head")
    assert "No new upgrade operations" in await migrate(dsn, "check")


def test_the_sql_of_the_revisions_is_safe() -> None:
    assert lint.main() == 0


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX ix ON checkouts (note);",
        "ALTER TABLE checkouts ADD COLUMN x int NOT NULL;",
        "ALTER TABLE checkouts ADD CONSTRAINT x CHECK (note <> '');",
    ],
)
def test_control_unsafe_sql_is_noticed(tmp_path: Path, statement: str) -> None:
    file = tmp_path / "0009_unsafe.sql"
    file.write_text(f"SET lock_timeout = '1s';\nSET statement_timeout = '5s';\n{statement}\n")
    squawk = [str(Path(sys.executable).with_name("squawk")), "--config", str(PROJECT / ".squawk.toml"), str(file)]
    assert subprocess.run(squawk, check=False, capture_output=True).returncode == 1


async def test_two_migrators_at_once_do_the_work_once(dsn: str) -> None:
    outputs = await asyncio.gather(*(migrate(dsn, "upgrade", "head") for _ in range(2)))
    assert sorted(output.count("Running upgrade") for output in outputs) == [0, len(lint.revisions())]


async def test_a_migrator_that_waits_for_another_holds_up_no_index(dsn: str, numbers: asyncpg.Connection) -> None:
    async with connected(dsn) as other:
        await other.execute("SELECT pg_advisory_lock($1)", MIGRATOR)
        second = await alembic(dsn, "upgrade", "head")
        await asyncio.sleep(1.5)
        assert second.returncode is None
        await numbers.execute("CREATE INDEX CONCURRENTLY ix_numbers ON numbers (b)", timeout=10)
    await finished(second)


async def test_control_a_session_inside_the_lock_function_does(dsn: str, numbers: asyncpg.Connection) -> None:
    async with connected(dsn) as other, connected(dsn) as second:
        await other.execute("SELECT pg_advisory_lock($1)", MIGRATOR)
        waiting = asyncio.create_task(second.execute("SELECT pg_advisory_lock($1)", MIGRATOR))
        await asyncio.sleep(0.2)
        await numbers.execute("SET statement_timeout = '1s'")
        with pytest.raises(asyncpg.QueryCanceledError):
            await numbers.execute("CREATE INDEX CONCURRENTLY ix_numbers ON numbers (b)")
        await other.execute("SELECT pg_advisory_unlock($1)", MIGRATOR)
        await waiting


async def test_a_lock_that_does_not_come_free_ends_the_migration_and_says_who_has_it(dsn: str) -> None:
    await walk(dsn, "upgrade", "0002")
    async with held_open(dsn, "SELECT count(*) FROM checkouts") as holder:
        await asyncio.sleep(1.1)
        process = await alembic(dsn, "-x", "lock_timeout=50", "-x", "lock_attempts=2", "upgrade", "head")
        output, _ = await process.communicate()
        assert process.returncode != 0
        assert "attempt 1 of 2" in output.decode()
        assert f"pid {holder.get_server_pid()} (" in output.decode().splitlines()[-1]
        assert "SELECT count(*) FROM checkouts" in output.decode().splitlines()[-1]
    assert "0002" in await migrate(dsn, "current")


async def test_a_revision_that_waited_in_vain_is_done_when_the_lock_is_free(
    dsn: str, connection: asyncpg.Connection
) -> None:
    await walk(dsn, "upgrade", "0002")
    async with held_open(dsn, "SELECT count(*) FROM checkouts"):
        process = await alembic(dsn, "-x", "lock_timeout=50", "upgrade", "head")
        await until(connection, A_MIGRATOR_WAITS)
        await asyncio.sleep(0.3)
    assert "trying again" in await finished(process)
    assert f"{HEAD} (head)" in await migrate(dsn, "current")


async def test_new_code_is_let_in_when_the_replicas_have_the_tables(
    services: DataServices, dsn: str, connection: asyncpg.Connection
) -> None:
    delayed = services.replica_dsns[0]
    await administer(delayed, "SELECT pg_wal_replay_pause()")
    try:
        process = await alembic(dsn, "upgrade", "head")
        await until(connection, "SELECT to_regclass('alembic_version') IS NOT NULL")
        await until(connection, f"SELECT count(*) FROM alembic_version WHERE version_num = '{HEAD}'")
        await asyncio.sleep(1)
        assert process.returncode is None
    finally:
        await administer(delayed, "SELECT pg_wal_replay_resume()")
    await finished(process)
    async with connected(delayed.removesuffix("/headroom") + "/migrations") as replica:
        assert await replica.fetchval("SELECT version_num FROM alembic_version") == HEAD


async def test_pauses_grow_and_differ() -> None:
    pauses = [pause_seconds(attempt) for attempt in (1, 1, 1, 30, 30, 30)]
    assert len(set(pauses)) == len(pauses)
    assert max(pauses[:3]) < min(pauses[3:])
    assert max(pauses) <= LONGEST_PAUSE_SECONDS


def fill(**options: Any) -> None:
    backfill("numbers", ("a", "b"), "twice = 2 * numbers.b", "twice IS NULL", **options)


async def test_a_backfill_commits_batch_by_batch(dsn: str, numbers: asyncpg.Connection) -> None:
    await operate(dsn, lambda: fill(batch_rows=10, pause_seconds=0))
    assert await numbers.fetchval("SELECT bool_and(twice = 2 * b) FROM numbers")
    batches = await numbers.fetch("SELECT count(*) FROM numbers GROUP BY xmin::text ORDER BY 1")
    assert [batch["count"] for batch in batches] == [5, 10, 10]


async def test_a_backfill_goes_on_where_it_stopped(dsn: str, numbers: asyncpg.Connection) -> None:
    async with held_open(dsn, "UPDATE numbers SET twice = twice WHERE b = 15"):
        with pytest.raises(CommandError, match="no lock in 2 attempts"):
            await operate(dsn, lambda: fill(batch_rows=10, pause_seconds=0))
        assert await numbers.fetchval("SELECT count(*) FROM numbers WHERE twice IS NOT NULL") == 10
    await operate(dsn, lambda: fill(batch_rows=10, pause_seconds=0))
    assert await numbers.fetchval("SELECT bool_and(twice = 2 * b) FROM numbers")


async def test_an_index_that_failed_is_built_anew(dsn: str, numbers: asyncpg.Connection) -> None:
    await numbers.execute("UPDATE numbers SET twice = 1 WHERE b < 3")

    def build() -> None:
        create_index_concurrently("ix_numbers", "numbers", ["twice"], unique=True)

    with pytest.raises(IntegrityError):
        await operate(dsn, build)
    assert await numbers.fetchval(VALID) is False
    await numbers.execute("UPDATE numbers SET twice = b")
    for _ in range(2):
        await operate(dsn, build)
        assert await numbers.fetchval(VALID) is True
    await operate(dsn, lambda: drop_index_concurrently("ix_numbers", "numbers"))
    assert await numbers.fetchval(VALID) is None


async def test_not_null_is_refused_as_long_as_there_is_one(dsn: str, numbers: asyncpg.Connection) -> None:
    with pytest.raises(DBAPIError, match="is violated by some row"):
        await operate(dsn, lambda: set_not_null("numbers", "twice"))
    assert await numbers.fetchval(NULLABLE)
    await numbers.execute("UPDATE numbers SET twice = 1")
    await operate(dsn, lambda: set_not_null("numbers", "twice"))
    assert not await numbers.fetchval(NULLABLE)
    assert await numbers.fetchval("SELECT count(*) FROM pg_constraint WHERE conrelid = 'numbers'::regclass") == 1
