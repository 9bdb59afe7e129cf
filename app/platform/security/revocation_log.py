"""The table of revocations: what ends tokens before their time, and how every process learns of it.

A revocation says of a subject (a session, a user, an API key) which epoch its tokens need at least. Epochs are counted
in the database, so that no clock takes part: a token that was issued in the second of a revocation is not in doubt.

Rows are read by the transactions that wrote them: those that were under way at the last reading (`pg_snapshot_xmin`)
are read again. To ask for ids above the last one would miss whatever commits out of order.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
from sqlalchemy import BigInteger, delete, func, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from app.platform.postgres import WriteSession
from app.platform.postgres.base import Base
from app.platform.postgres.errors import DatabaseUnavailable
from app.platform.postgres.server import Server
from app.platform.postgres.transaction import Connection

TAG = "revocations"
ENDED = 2**31 - 1  # no token has a higher epoch: nothing of the subject is good any more
ALL = 0  # as `since`: every revocation that is kept
MAX_ROWS = 100_000  # of one reading, which takes 0.2 s then; at most so many are kept in mind
KEPT_SECONDS = 86_400  # the longest life of an access token that the settings allow

LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, DatabaseUnavailable)

SINCE = """
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS oldest, subject, least_epoch
FROM (SELECT 1) AS always LEFT JOIN revocations
    ON transaction_id >= {since} AND created_at > now() - interval '{seconds} seconds'
LIMIT {limit}
"""
CAUGHT_UP = """
SELECT pg_is_in_recovery() AND pg_last_wal_replay_lsn() >= pg_last_wal_receive_lsn() AS caught_up
"""


class Revocation(Base):
    __tablename__ = "revocations"

    transaction_id: Mapped[int] = mapped_column(
        BigInteger, primary_key=True, server_default=text("pg_current_xact_id()::text::bigint")
    )
    subject: Mapped[UUID] = mapped_column(primary_key=True)
    least_epoch: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Revoked(NamedTuple):
    """Tokens of the subject with an epoch below `least_epoch` are no good."""

    subject: UUID
    least_epoch: int


class Behind(Exception):
    """The replica has received more than it shows."""


async def revoke(session: WriteSession, subject: UUID, least_epoch: int = ENDED) -> None:
    """In the transaction that ends a session, disables a user or changes what one may do."""
    statement = insert(Revocation).values(subject=subject, least_epoch=least_epoch)
    higher = func.greatest(Revocation.least_epoch, statement.excluded.least_epoch)
    key = [Revocation.transaction_id, Revocation.subject]
    await session.execute(statement.on_conflict_do_update(index_elements=key, set_={"least_epoch": higher}))
    session.touch(TAG)


async def expire(session: WriteSession) -> None:
    """Those that no token is left of."""
    age = func.now() - text(f"interval '{KEPT_SECONDS} seconds'")
    await session.execute(delete(Revocation).where(Revocation.created_at < age))


class RevocationLog:
    """Reads from one server, on a connection beside its pool: a pool that is exhausted must not hide a revocation."""

    def __init__(self, server: Server, keep_seconds: float) -> None:
        self._server = server
        self._keep_seconds = int(keep_seconds)
        self._connection: asyncio.Task[Connection] | None = None
        self._since = ALL  # on this connection: another server may count transactions differently

    async def read(self) -> list[Revoked]:
        """Those that are new. Raises one of `LOST`, and connects anew then; cancelled, it goes on connecting."""
        return await self._with_connection(self._new_rows)

    async def read_caught_up(self) -> list[Revoked]:
        """Of a replica that shows all that it has received; raises `Behind` where it doesn't, or one of `LOST`."""
        return await self._with_connection(self._new_rows_if_caught_up)

    def close(self) -> None:
        task, self._connection, self._since = self._connection, None, ALL
        if task is None:
            return
        if task.done() and not task.cancelled() and task.exception() is None:
            task.result().terminate()
        task.cancel()

    async def _with_connection(self, work: Callable[[Connection], Awaitable[list[Revoked]]]) -> list[Revoked]:
        if self._connection is None:
            self._connection = asyncio.create_task(self._server.connect())
            self._connection.add_done_callback(_seen)
        connecting = self._connection
        try:
            connection = await asyncio.shield(connecting)
        except LOST:
            self.close()
            raise
        try:
            return await work(connection)
        except Behind:
            raise
        except BaseException:
            self.close()
            raise

    async def _new_rows_if_caught_up(self, connection: Connection) -> list[Revoked]:
        [row] = await self._fetch(connection, CAUGHT_UP)
        if not row["caught_up"]:
            raise Behind(self._server.name)
        return await self._new_rows(connection)

    async def _new_rows(self, connection: Connection) -> list[Revoked]:
        query = SINCE.format(since=self._since, seconds=self._keep_seconds, limit=MAX_ROWS)
        rows = await self._fetch(connection, query)
        self._since = rows[0]["oldest"]
        return [Revoked(row["subject"], row["least_epoch"]) for row in rows if row["subject"] is not None]

    async def _fetch(self, connection: Connection, query: str) -> list[Any]:
        """Behind a pooler only a transaction keeps a statement on the server where it was prepared."""
        if not connection.limits.per_transaction:
            return await connection.fetch(query)
        transaction = connection.transaction(readonly=True)
        await transaction.start()
        rows = await connection.fetch(query)
        await transaction.rollback()
        return rows


def _seen(task: "asyncio.Task[Connection]") -> None:
    """Nobody need wait for it any more: then asyncio should not complain of an error that no one has looked at."""
    if not task.cancelled():
        task.exception()
