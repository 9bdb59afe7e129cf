"""A `Database` for tests, and what they do to the servers behind it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from sqlalchemy import text

from app.platform.postgres.database import CommitHook, Database
from app.platform.postgres.options import DatabaseOptions
from app.platform.telemetry.context import RequestContext, request_context
from tests.support.stack import DataServices, superuser


@dataclass
class Seen:
    """What readers saw: reads from before their own write, and who answered."""

    stale: int = 0
    served_by: Counter[str] = field(default_factory=Counter)

    @property
    def share_of_replicas(self) -> float:
        return 1 - self.served_by["primary"] / self.served_by.total()


def database_options(services: DataServices, **changes: Any) -> DatabaseOptions:
    environment = services.environment
    values: dict[str, Any] = {
        "url": environment["DATABASE_URL"],
        "replica_urls": tuple(environment["DATABASE_REPLICA_URLS"].split(",")),
        "statement_cache_size": int(environment["DATABASE_STATEMENT_CACHE_SIZE"]),
        "readmit_seconds": 0.2,
    }
    return DatabaseOptions(**values | changes)


@asynccontextmanager
async def open_database(services: DataServices, *on_commit: CommitHook, **changes: Any) -> AsyncIterator[Database]:
    database = Database(database_options(services, **changes), on_commit=on_commit)
    await database.start()
    try:
        yield database
    finally:
        await database.aclose()


def new_request(**known: Any) -> RequestContext:
    """What a request finds: a context of its own, seen by everything that its task does from now on."""
    context = RequestContext(request_id="test", **known)
    request_context.set(context)
    return context


async def administer(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(superuser(dsn))
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@asynccontextmanager
async def server_setting(dsn: str, name: str, value: str) -> AsyncIterator[None]:
    await administer(dsn, f"ALTER SYSTEM SET {name} = '{value}'", "SELECT pg_reload_conf()")
    try:
        yield
    finally:
        await administer(dsn, f"ALTER SYSTEM RESET {name}", "SELECT pg_reload_conf()")


async def create_registers(database: Database, *names: str) -> None:
    """A table of versioned registers, one row per name, known to every replica when this returns."""
    async with database.write() as session:
        await session.execute(text("DROP TABLE IF EXISTS registers"))
        await session.execute(text("CREATE TABLE registers (name text PRIMARY KEY, version int NOT NULL)"))
        for name in names:
            await session.execute(text("INSERT INTO registers VALUES (:name, 0)"), {"name": name})
    written = await primary_lsn(database)
    await until(lambda: all(replica.position >= written for replica in database.replicas))


async def write_version(database: Database, name: str, version: int) -> None:
    async with database.write() as session:
        await session.execute(
            text("UPDATE registers SET version = :version WHERE name = :name"), {"name": name, "version": version}
        )


async def read_version(database: Database, name: str) -> int:
    async with database.read() as session:
        rows = await session.execute(text("SELECT version FROM registers WHERE name = :name"), {"name": name})
        return int(rows.scalar_one())


async def primary_lsn(database: Database) -> int:
    context = new_request()
    async with database.write() as session:
        await session.execute(text("SELECT 1"))
    return context.wal_written


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for doesn't know of it
            await asyncio.sleep(0.01)


@asynccontextmanager
async def repeated(work: Callable[[], Any], at_once: int) -> AsyncIterator[list[Any]]:
    """Does `work` again and again, `at_once` times side by side; yields what it returned or raised so far."""
    results: list[Any] = []

    async def repeat() -> None:
        while True:
            try:
                results.append(await work())
            except Exception as error:
                results.append(error)

    tasks = [asyncio.create_task(repeat()) for _ in range(at_once)]
    try:
        yield results
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
