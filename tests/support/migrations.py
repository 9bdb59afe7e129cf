"""Alembic as people run it, on a database of a test."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal
from unittest.mock import patch

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from app.platform.postgres.base import uuid7
from tests.support.api import PROJECT, connected
from tests.support.stack import DataServices, as_asyncpg

A_MIGRATOR_WAITS = """
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
AND application_name = 'headroom-migrations' AND wait_event_type = 'Lock' AND state = 'active')
"""
FIRST = "0001"  # rows are put in when its tables are there
MIGRATE_SECONDS = 60.0
SETTINGS = {"lock_timeout": "100ms"}


async def empty_database(services: DataServices, name: str) -> str:
    """Its DSN. Made anew where it is there."""
    async with connected(services.primary_dsn) as connection:
        await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        await connection.execute(f'CREATE DATABASE "{name}"')
    return services.primary_dsn.removesuffix("/headroom") + f"/{name}"


async def alembic(dsn: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "alembic", *arguments),
        cwd=PROJECT,
        env={**os.environ, "DATABASE_URL": as_asyncpg(dsn)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


async def finished(process: asyncio.subprocess.Process) -> str:
    """What it printed; it has to succeed."""
    async with asyncio.timeout(MIGRATE_SECONDS):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def migrate(dsn: str, *arguments: str) -> str:
    return await finished(await alembic(dsn, *arguments))


async def walk(dsn: str, verb: Literal["upgrade", "downgrade"], revision: str) -> None:
    """In this process: to start another one takes longer than most revisions do."""
    with patch.dict(os.environ, DATABASE_URL=as_asyncpg(dsn)):
        await asyncio.to_thread(getattr(command, verb), Config(PROJECT / "alembic.ini"), revision)


async def until(connection: asyncpg.Connection, query: str) -> None:
    async with asyncio.timeout(MIGRATE_SECONDS):
        while not await connection.fetchval(query):  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.01)


@asynccontextmanager
async def held_open(dsn: str, *statements: str) -> AsyncIterator[asyncpg.Connection]:
    """A transaction that has done this, and then does nothing."""
    async with connected(dsn) as connection:
        transaction = connection.transaction()
        await transaction.start()
        for statement in statements:
            await connection.execute(statement)
        try:
            yield connection
        finally:
            await transaction.rollback()


async def operate(dsn: str, work: Callable[[], None]) -> None:
    """Do what a revision does, in a transaction as Alembic gives it one."""

    def run(connection: Connection) -> None:
        options = {"lock_attempts": 2, "session_settings": SETTINGS, "transaction_per_migration": True}
        context = MigrationContext.configure(connection, opts=options)
        with Operations.context(context), context.begin_transaction(_per_migration=True):
            work()

    engine = create_async_engine(as_asyncpg(dsn), connect_args={"server_settings": SETTINGS})
    try:
        async with engine.connect() as connection:
            await connection.run_sync(run)
    finally:
        await engine.dispose()


async def insert_rows(dsn: str, items: int, checkouts: int) -> None:
    """As the code of the first revision would: items of one organization, each with one open checkout at most."""
    organization, user = uuid7(), uuid7()
    ids = [uuid7() for _ in range(items)]
    async with connected(dsn) as connection:
        await connection.execute("INSERT INTO organizations (id, name) VALUES ($1, 'Test')", organization)
        await connection.execute(
            "INSERT INTO users (id, organization_id, email, full_name, role, password_hash)"
            " VALUES ($1, $2, $3, 'A Person', 'owner', '-')",
            *(user, organization, f"{user.hex}@example.com"),
        )
        await connection.executemany(
            "INSERT INTO equipment (organization_id, id, asset_tag, name, category) VALUES ($1, $2, $3, $3, 'camera')",
            [(organization, item, f"T-{number:05d}") for number, item in enumerate(ids)],
        )
        await connection.executemany(
            "INSERT INTO checkouts (organization_id, id, equipment_id, user_id, checked_out_at, due_at, returned_at)"
            " VALUES ($1, $2, $3, $4, now() - interval '9 days', now(), now() - $5 * interval '1 day')",
            [(organization, uuid7(), item, user, turn or None) for item in ids for turn in range(checkouts)],
        )
