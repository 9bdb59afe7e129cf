"""How Alembic reaches the database: one migrator at a time, never waiting long for a lock that queues up readers.

`alembic -x lock_timeout=1000 -x lock_attempts=100 upgrade head` is more patient: milliseconds, and how often to try.
"""

import asyncio
import logging

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import app.features.api_keys.models
import app.features.checkouts.models
import app.features.equipment.models
import app.features.identity.models
import app.features.organizations.models
import app.platform.audit.tables
import app.platform.http.kept_answers
import app.platform.mail.outbox
import app.platform.security.revocation_log  # noqa: F401  (importing the models fills the metadata)
from app.platform.postgres.base import Base
from app.settings import Settings
from migrations.locking import LOCK_ATTEMPTS, LOCK_TIMEOUT_MS, become_the_migrator, patiently, wait_for_replicas
from migrations.rights import grant, service_role

# A statement that holds a table's lock for longer is an outage: it is ended, and belongs into steps (operations.py).
STATEMENT_TIMEOUT_MS = 5_000


SETTINGS = Settings()
MIGRATION_URL = SETTINGS.owner_url
SERVICE_ROLE = service_role(SETTINGS.database_url.get_secret_value(), MIGRATION_URL)
CHOSEN = context.get_x_argument(as_dictionary=True)
ATTEMPTS = int(CHOSEN.get("lock_attempts", LOCK_ATTEMPTS))


def session_settings() -> dict[str, str]:
    return {
        "lock_timeout": f"{CHOSEN.get('lock_timeout', LOCK_TIMEOUT_MS)}ms",
        "statement_timeout": f"{STATEMENT_TIMEOUT_MS}ms",
        # Locks are held until COMMIT returns: it must not wait for a standby that is away.
        "synchronous_commit": "local",
    }


def configure(**options: object) -> None:
    context.configure(
        target_metadata=Base.metadata,
        compare_type=True,
        compare_server_default=False,
        transaction_per_migration=True,
        session_settings=session_settings(),
        lock_attempts=ATTEMPTS,
        **options,  # type: ignore[arg-type]
    )


def names_of_partitions(connection: Connection) -> frozenset[str]:
    """The models know of the whole tables alone."""
    found = frozenset(connection.execute(text("SELECT relname FROM pg_class WHERE relispartition")).scalars())
    connection.commit()
    return found


def migrate(connection: Connection) -> None:
    """Revisions that are done stay done: what follows an attempt that failed begins where it stopped."""
    applied: list[object] = []
    become_the_migrator(connection)
    partitions = names_of_partitions(connection)

    def run() -> None:
        configure(
            connection=connection,
            include_name=lambda name, *_: name not in partitions,
            on_version_apply=lambda step, **_: applied.append(step),
        )
        with context.begin_transaction():
            context.run_migrations()

    patiently(connection, run, ATTEMPTS)
    if SERVICE_ROLE is not None:
        grant(connection, SERVICE_ROLE)
    if applied:
        wait_for_replicas(connection)


async def online() -> None:
    engine = create_async_engine(
        MIGRATION_URL,
        poolclass=NullPool,
        connect_args={
            "server_settings": session_settings() | {"application_name": "headroom-migrations"},
            "target_session_attrs": "read-write",
        },
    )
    try:
        async with engine.connect() as connection:
            await connection.run_sync(migrate)
    finally:
        await engine.dispose()


if context.is_offline_mode():
    configure(dialect_name="postgresql", literal_binds=True)
    for name, value in session_settings().items():
        context.execute(f"SET {name} = '{value}'")
    with context.begin_transaction():
        context.run_migrations()
else:
    logging.basicConfig(format="%(levelname)s %(message)s")  # a test or a program that configures logging keeps its own
    logging.getLogger("alembic.runtime.migration").setLevel(logging.INFO)
    asyncio.run(online())
