"""How Alembic reaches the database: one migrator at a time, never waiting long for a lock that queues up readers."""

import asyncio

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import app.features.checkouts.models
import app.features.equipment.models
import app.features.identity.models  # noqa: F401  (importing the models fills the metadata)
from app.platform.postgres.base import Base
from app.settings import Settings

# Any number that no other program on this database uses for an advisory lock.
MIGRATION_LOCK = 4_815_162_342
# A waiting ALTER TABLE blocks everyone who comes after it, so it gives up soon.
LOCK_TIMEOUT = "2s"
# How long to wait for another migrator to finish.
MIGRATOR_TIMEOUT = "120s"


def configure(**options: object) -> None:
    context.configure(
        target_metadata=Base.metadata,
        compare_type=True,
        compare_server_default=False,
        transaction_per_migration=True,
        **options,  # type: ignore[arg-type]
    )


def take_lock(connection: Connection) -> None:
    """Hold the migrator's lock for as long as this session lives, so a killed migrator leaves none behind."""
    connection.execute(text(f"SET lock_timeout = '{MIGRATOR_TIMEOUT}'"))
    connection.execute(text(f"SELECT pg_advisory_lock({MIGRATION_LOCK})"))
    connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
    connection.commit()


def migrate(connection: Connection) -> None:
    take_lock(connection)
    configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()


async def online() -> None:
    engine = create_async_engine(Settings().database_url.get_secret_value(), poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(migrate)
    finally:
        await engine.dispose()


if context.is_offline_mode():
    configure(dialect_name="postgresql", literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    asyncio.run(online())
