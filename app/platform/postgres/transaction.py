"""Connections whose COMMIT can't be mistaken, and which tell the WAL position that it reached."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

from app.platform.postgres.errors import CommitOutcomeUnknown, TransactionAborted
from app.platform.postgres.fence import Fence
from app.platform.postgres.labels import request_name
from app.platform.postgres.positions import pack
from app.platform.resilience.deadlines import remaining
from app.platform.telemetry.context import request_context

if TYPE_CHECKING:
    BaseConnection = asyncpg.Connection[asyncpg.Record]
else:
    BaseConnection = asyncpg.Connection

# pg_walfile_name() starts with the timeline, in hexadecimal; pg_control only knows that of the last checkpoint.
WRITTEN = "SELECT pg_current_wal_insert_lsn() AS lsn, left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) AS timeline"
SYNC_WAIT = "SyncRepWaitForLSN"  # where the server's warning comes from; its words are in the server's language
LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
GOODBYE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class TransactionLimits:
    """The connection's own limits, which a transaction lowers to what its request has left.

    `per_transaction` says them each time: behind a pooler nothing can be set per connection.
    """

    application_name: str
    statement_seconds: float
    lock_seconds: float
    idle_seconds: float
    read_only: bool = False
    per_transaction: bool = False

    def begin(self, mode: str) -> str:
        """BEGIN and its settings as one simple query: one round trip."""
        settings = "".join(f"SET LOCAL {name}='{value}';" for name, value in self._settings().items())
        return f"BEGIN{mode}{' READ ONLY' if self.read_only else ''};{settings}"

    def _settings(self) -> dict[str, str | int]:
        settings: dict[str, str | int] = {}
        left = remaining(self.statement_seconds)
        if self.per_transaction or left < self.statement_seconds:
            settings["statement_timeout"] = milliseconds(left)
        if self.per_transaction or left < self.lock_seconds:
            settings["lock_timeout"] = milliseconds(min(left, self.lock_seconds))
        if self.per_transaction:
            settings["idle_in_transaction_session_timeout"] = milliseconds(self.idle_seconds)
        if (context := request_context.get(None)) is not None:
            settings["application_name"] = request_name(self.application_name, context)
        return settings


def milliseconds(seconds: float) -> int:
    """At least one: zero would mean no limit."""
    return max(1, int(seconds * 1000))


class Connection(BaseConnection):
    """asyncpg's, with this room's transactions; SQLAlchemy's dialect asks `transaction()` for one."""

    limits: TransactionLimits
    address: tuple[str, int]
    fence: Fence | None = None  # of connections to the primary
    written: int = 0  # WAL position after the last COMMIT
    sync_wait_cancelled: bool = False

    def transaction(  # type: ignore[override]
        self, *, isolation: str | None = None, readonly: bool = False, deferrable: bool = False
    ) -> "Transaction":
        level = f" ISOLATION LEVEL {isolation.replace('_', ' ')}" if isolation else ""
        mode = f"{level}{' READ ONLY' if readonly else ''}{' DEFERRABLE' if deferrable else ''}"
        return Transaction(self, self.limits.begin(mode))

    async def close(self, *, timeout: float | None = None) -> None:
        """Bounded more tightly than SQLAlchemy's 2 s: a frozen server never says goodbye."""
        await super().close(timeout=min(timeout or GOODBYE_SECONDS, GOODBYE_SECONDS))

    def heed_warnings(self) -> None:
        self.add_log_listener(self._on_message)

    @staticmethod
    def _on_message(connection: Any, message: Any) -> None:
        if message.server_source_function == SYNC_WAIT:
            connection.sync_wait_cancelled = True


class Transaction:
    def __init__(self, connection: Connection, begin: str) -> None:
        self._connection = connection
        self._begin = begin

    async def start(self) -> None:
        await self._connection.execute(self._begin)

    async def rollback(self) -> None:
        await self._connection.execute("ROLLBACK")

    async def commit(self) -> None:
        connection = self._connection
        connection.written, connection.sync_wait_cancelled = 0, False
        answer = await self._commit()
        if connection.sync_wait_cancelled:
            raise CommitOutcomeUnknown("the wait for a synchronous standby was cancelled")
        if answer != "COMMIT":
            raise TransactionAborted("the transaction had failed before, and was rolled back")
        if not connection.limits.read_only:
            connection.written = await written_position(connection)
            if connection.fence is not None:
                connection.fence.check_commit(connection.written)

    async def _commit(self) -> str:
        """An ERROR is an answer: rolled back. Anything else leaves open whether the commit record was written."""
        try:
            return await self._connection.execute("COMMIT")
        except LOST as error:
            if getattr(error, "severity_en", None) == "ERROR":
                raise
            raise CommitOutcomeUnknown("the connection was lost during COMMIT") from error


async def written_position(connection: BaseConnection) -> int:
    """The WAL position that everything committed on this connection so far lies before.

    Read before COMMIT it would lie before the commit record: a replica that is there need not have the commit.
    Where it can't be read any more the commit is called unknown too: without it nobody could read their write.
    """
    try:
        row = await connection.fetchrow(WRITTEN)
    except LOST as error:
        raise CommitOutcomeUnknown("the connection was lost after COMMIT") from error
    assert row is not None
    return pack(int(row["timeline"], 16), row["lsn"])
