"""Reads that can't write, and transactions that are on disk before anyone is told so."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import asyncpg
import pytest
from sqlalchemy import Float, Integer, Text, column, func, insert, literal_column, select, table, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from app.platform.postgres.database import Database
from app.platform.postgres.errors import (
    DatabaseBusy,
    DatabaseUnavailable,
    StatementTimeout,
    TransactionAborted,
    TransactionConflict,
)
from app.platform.postgres.prepared import Prepared, named
from app.platform.postgres.sessions import Commit, WriteSession
from app.platform.resilience.deadlines import deadline
from tests.support.database import create_registers, new_request, open_database, read_version, write_version
from tests.support.stack import DataServices

INSERT = text("INSERT INTO registers VALUES (:name, 1)")
REGISTERS = table("registers", column("name", Text), column("version", Integer))
VERSION = Prepared(select(REGISTERS.c.version).where(REGISTERS.c.name == named("name", None, REGISTERS.c.name)))
ONE = literal_column("1", Integer)
SLEEP = Prepared(
    select(ONE.label("one"), func.pg_sleep(named("seconds", 0, column("seconds", Float)), type_=Text).label("slept"))
)


@pytest.fixture
async def commits() -> list[Commit]:
    return []


@pytest.fixture
async def database(services: DataServices, commits: list[Commit]) -> AsyncIterator[Database]:
    async def remember(commit: Commit) -> None:
        commits.append(commit)

    async with open_database(services, remember, lock_timeout_seconds=0.3) as opened:
        await create_registers(opened, "a", "b")
        commits.clear()
        yield opened


@pytest.fixture
async def observer(services: DataServices) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(services.primary_dsn)
    yield connection
    await connection.close()


async def test_a_read_on_a_replica_refuses_to_write(database: Database) -> None:
    context = new_request()
    with pytest.raises(DBAPIError, match="read-only transaction"):
        async with database.read() as session:
            await session.execute(INSERT, {"name": "c"})
    assert context.served_by in ("replica:replica-1", "replica:replica-2")


async def test_a_read_on_the_primary_refuses_to_write(services: DataServices) -> None:
    async with open_database(services, replica_urls=()) as database:
        await create_registers(database)
        context = new_request()
        with pytest.raises(DBAPIError, match="read-only transaction"):
            async with database.read() as session:
                await session.execute(INSERT, {"name": "c"})
    assert context.served_by == "primary"


async def test_control_the_writer_on_the_same_server_does_write(services: DataServices) -> None:
    async with open_database(services, replica_urls=()) as database:
        await create_registers(database)
        async with database.write() as session:
            await session.execute(INSERT, {"name": "c"})
        assert await read_version(database, "c") == 1


LOCKED = select(REGISTERS.c.version).where(REGISTERS.c.name == "a").with_for_update()


async def test_a_transaction_that_writes_reads_at_the_primary_too(database: Database) -> None:
    """After its own write, and where it locks what it reads: a replica has neither."""
    async with database.write() as session:
        await session.execute(INSERT, {"name": "c"})
        assert await session.scalar(select(REGISTERS.c.version).where(REGISTERS.c.name == "c")) == 1
        assert await session.scalar(LOCKED) is not None
        assert await session.scalar(select(func.pg_is_in_recovery())) is False


async def test_control_a_read_is_elsewhere_and_can_not_lock(database: Database) -> None:
    async with database.read() as session:
        assert await session.scalar(select(func.pg_is_in_recovery())) is True
    with pytest.raises(DBAPIError, match="read-only transaction"):
        async with database.read() as session:
            await session.scalar(LOCKED)


async def test_a_snapshot_spans_statements(database: Database) -> None:
    new_request(wal_required=await _written(database, "a", 1))
    async with database.read() as session:
        await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        before = await session.scalar(text("SELECT version FROM registers WHERE name = 'a'"))
        await write_version(database, "a", 2)
        await asyncio.sleep(0.1)
        after = await session.scalar(text("SELECT version FROM registers WHERE name = 'a'"))
        prepared = await session.fetch(VERSION, {"name": "a"})
    assert before == after == prepared[0]["version"] == 1


async def test_a_session_that_took_its_connection_stays_there(database: Database) -> None:
    """Another server would not know of the snapshot."""

    async def read() -> None:
        async with database.read() as session:
            await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            for replica in database.replicas:
                replica.connector.abort()
            await session.execute(text("SELECT 1"))

    with pytest.raises(DatabaseUnavailable):
        await read()


async def test_control_a_session_that_did_not_goes_elsewhere(database: Database) -> None:
    async with database.read() as session:
        await session.execute(text("SELECT 1"))
        for replica in database.replicas:
            replica.connector.abort()
        assert await session.scalar(text("SELECT 1")) == 1


async def test_a_prepared_read_under_way_goes_elsewhere_too(database: Database) -> None:
    async with database.read() as session:
        read = asyncio.create_task(session.fetch(SLEEP, {"seconds": 0.5}))
        await asyncio.sleep(0.2)
        for replica in database.replicas:
            replica.connector.abort()
        [row] = await read
    assert row["one"] == 1


async def test_a_prepared_read_that_is_cancelled_leaves_no_connection_taken(database: Database) -> None:
    async with database.read() as session:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await session.fetch(SLEEP, {"seconds": 10})
        assert [row["one"] for row in await session.fetch(SLEEP, {"seconds": 0})] == [1]
    assert all(replica.pool_state().in_use == 0 for replica in database.replicas)


async def test_an_error_of_a_prepared_statement_leaves_its_connection_usable(database: Database) -> None:
    broken = Prepared(select((ONE // named("by", 0, column("by", Integer))).label("one")))
    async with database.read() as session:
        for _ in range(20):
            with pytest.raises(asyncpg.DivisionByZeroError):
                await session.fetch(broken, {"by": 0})
        assert await session.fetch(broken, {"by": 1}) == [{"one": 1}]


NEW = Prepared(insert(REGISTERS).returning(REGISTERS.c.name), columns=("name", "version"))


async def test_a_prepared_write_is_part_of_the_transaction(database: Database, observer: asyncpg.Connection) -> None:
    async def write_and_fail() -> None:
        async with database.write() as session:
            assert await session.fetch(NEW, {"name": "c", "version": 1}) == [{"name": "c"}]
            assert await observer.fetchval("SELECT count(*) FROM registers WHERE name = 'c'") == 0
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await write_and_fail()
    async with database.write() as session:
        await session.fetch(NEW, {"name": "d", "version": 1})
        await session.execute(INSERT, {"name": "e"})
    assert [row["name"] for row in await observer.fetch("SELECT name FROM registers ORDER BY name")] == [*"abde"]


async def test_writes_that_are_cut_off_leave_nothing_behind(database: Database, observer: asyncpg.Connection) -> None:
    """At whatever moment: a connection that came back in a transaction would swallow what others commit."""

    async def write(name: str) -> None:
        async with database.write() as session:
            await session.fetch(NEW, {"name": name, "version": 1})

    for number in range(200):
        with suppress(TimeoutError):
            async with asyncio.timeout(random.uniform(0, 0.004)):
                await write(f"cut off {number}")
    names = [f"whole {number}" for number in range(40)]
    for name in names:
        await write(name)
    found = await observer.fetch("SELECT name FROM registers WHERE name LIKE 'whole%'")
    assert {row["name"] for row in found} == set(names)


async def test_a_prepared_write_tells_of_a_constraint_as_others_do(database: Database) -> None:
    with pytest.raises(IntegrityError):
        async with database.write() as session:
            await session.fetch(NEW, {"name": "a", "version": 1})


async def test_a_prepared_write_whose_server_is_lost_is_told_as_unavailable(database: Database) -> None:
    async def write() -> None:
        async with database.write() as session:
            await session.fetch(NEW, {"name": "c", "version": 1})
            database.primary.writer.connector.abort()
            await session.fetch(NEW, {"name": "d", "version": 1})

    with pytest.raises(DatabaseUnavailable):
        await write()
    assert database.primary.writer.pool_state().in_use == 0


async def test_the_commit_is_done_when_the_block_ends(database: Database, observer: asyncpg.Connection) -> None:
    async with database.write() as session:
        await session.execute(INSERT, {"name": "c"})
        assert await observer.fetchval("SELECT count(*) FROM registers WHERE name = 'c'") == 0
    assert await observer.fetchval("SELECT count(*) FROM registers WHERE name = 'c'") == 1


async def test_an_exception_rolls_back(database: Database, observer: asyncpg.Connection, commits: list[Commit]) -> None:
    context = new_request()

    async def fail() -> None:
        async with database.write() as session:
            session.touch("registers")
            await session.execute(INSERT, {"name": "c"})
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await observer.fetchval("SELECT count(*) FROM registers WHERE name = 'c'") == 0
    assert (context.wal_written, commits) == (0, [])


async def test_what_was_touched_is_told_after_commit(database: Database, commits: list[Commit]) -> None:
    context = new_request()
    async with database.write() as session:
        session.touch("registers", "register:c")
        await session.execute(INSERT, {"name": "c"})
    assert commits == [Commit(context.wal_written, frozenset({"registers", "register:c"}))]


async def test_a_hook_that_fails_does_not_fail_the_request(services: DataServices) -> None:
    async def fail(_: Commit) -> None:
        raise RuntimeError

    async with open_database(services, fail) as database:
        await create_registers(database, "a")
        await write_version(database, "a", 7)
        new_request(wal_required=await _written(database, "a", 8))
        assert await read_version(database, "a") == 8


async def test_a_session_that_was_not_used_costs_nothing(database: Database, commits: list[Commit]) -> None:
    context = new_request()
    async with database.write():
        pass
    assert (context.queries, context.wal_written, commits) == (0, 0, [])


async def test_a_server_that_refuses_to_write_is_not_the_primary_any_more(database: Database) -> None:
    """As one that was demoted does; its connections are dropped, so that the next one looks for the primary."""

    async def write_read_only() -> None:
        async with database.write() as session:
            await session.execute(text("SET TRANSACTION READ ONLY"))
            await session.execute(INSERT, {"name": "c"})

    with pytest.raises(DatabaseUnavailable, match="no longer the primary"):
        await write_read_only()
    await write_version(database, "a", 1)


async def test_a_swallowed_failure_is_not_reported_as_a_commit(
    database: Database, observer: asyncpg.Connection
) -> None:
    """Postgres answers COMMIT with ROLLBACK then, and no error."""

    async def swallow() -> None:
        async with database.write() as session:
            await session.execute(INSERT, {"name": "c"})
            with pytest.raises(IntegrityError):
                await session.execute(INSERT, {"name": "a"})

    with pytest.raises(TransactionAborted):
        await swallow()
    assert await observer.fetchval("SELECT count(*) FROM registers WHERE name = 'c'") == 0


async def test_a_failure_within_a_savepoint_may_be_swallowed(database: Database, observer: asyncpg.Connection) -> None:
    async with database.write() as session:
        await session.execute(INSERT, {"name": "c"})
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                await session.execute(INSERT, {"name": "a"})
    assert await observer.fetchval("SELECT count(*) FROM registers WHERE name = 'c'") == 1


async def test_a_deferred_constraint_fails_the_commit_and_not_its_outcome(
    database: Database, observer: asyncpg.Connection
) -> None:
    async with database.write() as session:
        await session.execute(text("DELETE FROM registers"))
        await session.execute(text("ALTER TABLE registers ADD CONSTRAINT once UNIQUE (version) DEFERRABLE"))

    async def insert_the_same_twice() -> None:
        async with database.write() as session:
            await session.execute(text("SET CONSTRAINTS once DEFERRED"))
            await session.execute(INSERT, {"name": "c"})
            await session.execute(INSERT, {"name": "d"})

    with pytest.raises(IntegrityError):
        await insert_the_same_twice()
    assert await observer.fetchval("SELECT count(*) FROM registers WHERE version = 1") == 0


async def test_a_lock_that_is_not_free_is_busy(database: Database, observer: asyncpg.Connection) -> None:
    async with observer.transaction():
        await observer.execute("LOCK TABLE registers")
        with pytest.raises(DatabaseBusy, match="lock"):
            await write_version(database, "a", 1)


async def test_a_deadline_reaches_the_statement_of_a_write(database: Database, observer: asyncpg.Connection) -> None:
    deadline.set(asyncio.get_running_loop().time() + 0.15)
    with pytest.raises(StatementTimeout):
        async with database.write() as session:
            await session.execute(text("SELECT pg_sleep(3)"))
    assert await _running(observer, "pg_sleep") == 0


async def test_a_cancelled_read_ends_on_the_server_too(database: Database) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.15), database.read() as session:
            await session.execute(text("SELECT pg_sleep(3)"))
    async with database.read() as session:
        pids = await session.execute(
            text("SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(3)' AND state = 'active'")
        )
        assert pids.all() == []


async def test_a_conflict_is_run_again_where_the_service_says_so(database: Database) -> None:
    attempts = 0

    async def increment(session: WriteSession) -> int:
        nonlocal attempts
        attempts += 1
        await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
        version = await session.scalar(text("SELECT version FROM registers WHERE name = 'a'"))
        await asyncio.sleep(0.02)
        await session.execute(text("UPDATE registers SET version = :v WHERE name = 'a'"), {"v": version + 1})
        return attempts

    await asyncio.gather(*(database.transact(increment, attempts=20) for _ in range(5)))
    new_request(wal_required=await _written(database, "b", 1))
    assert await read_version(database, "a") == 5
    assert attempts > 5


async def test_control_without_another_attempt_the_conflict_is_raised(database: Database) -> None:
    async def increment(session: WriteSession) -> None:
        await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
        version = await session.scalar(text("SELECT version FROM registers WHERE name = 'a'"))
        await asyncio.sleep(0.02)
        await session.execute(text("UPDATE registers SET version = :v WHERE name = 'a'"), {"v": version + 1})

    results = await asyncio.gather(
        *(database.transact(increment, attempts=1) for _ in range(5)), return_exceptions=True
    )
    assert TransactionConflict in map(type, results)


async def cross(database: Database, attempts: int) -> tuple[list[object], int]:
    """Two that lock the same rows in opposite order, and both have the first one before they ask for the other."""
    begun, together = 0, asyncio.Barrier(2)

    def locking(*names: str) -> Callable[[WriteSession], Awaitable[None]]:
        async def work(session: WriteSession) -> None:
            nonlocal begun
            begun += 1
            meeting = begun <= 2
            for name in names:
                await session.execute(text("UPDATE registers SET version = 7 WHERE name = :name"), {"name": name})
                if meeting and name == names[0]:
                    await together.wait()

        return work

    both = (database.transact(locking(*names), attempts=attempts) for names in (("a", "b"), ("b", "a")))
    return list(await asyncio.gather(*both, return_exceptions=True)), begun


@pytest.fixture
async def patient(services: DataServices, database: Database) -> AsyncIterator[Database]:
    """Waits for locks longer than the server looks on at a deadlock (`deadlock_timeout`, 1 s), as by default."""
    async with open_database(services, lock_timeout_seconds=20) as opened:
        yield opened


async def test_a_deadlock_is_run_again_too(patient: Database) -> None:
    assert await cross(patient, attempts=3) == ([None, None], 3)


async def test_control_without_another_attempt_the_deadlock_is_raised(patient: Database) -> None:
    results, begun = await cross(patient, attempts=1)
    assert begun == 2
    assert [type(each) for each in results].count(TransactionConflict) == 1


async def test_queries_are_counted_and_say_their_route(database: Database) -> None:
    context = new_request(route="/api/v1/equipment/{id}")
    async with database.read() as session:
        statement = await session.scalar(text("SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()"))
        await session.execute(text("SELECT 1"))
    assert statement.startswith("/* /api/v1/equipment/{id} */ SELECT")
    assert context.queries == 2
    assert 0 < context.query_seconds < 5


async def test_a_write_says_which_request_it_belongs_to(database: Database) -> None:
    new_request(trace_id="4bf92f3577b34da6a3ce929d0e0e4736")
    name = text("SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()")
    async with database.write() as session:
        assert await session.scalar(name) == "headroom 4bf92f3577b34da6a3ce929d0e0e4736"


async def _written(database: Database, name: str, version: int) -> int:
    context = new_request()
    await write_version(database, name, version)
    return context.wal_written


async def _running(observer: asyncpg.Connection, query: str) -> int:
    found = await observer.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE $1 AND state = 'active' AND pid <> pg_backend_pid()",
        f"%{query}%",
    )
    return int(found)
