"""A small connection of its own to one server, asked for its WAL position again and again."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg

from app.platform.postgres.errors import DatabaseUnavailable
from app.platform.postgres.fence import TIMELINE
from app.platform.postgres.positions import pack
from app.platform.postgres.transaction import Connection

POSITION = f"""
SELECT pg_is_in_recovery() AS in_recovery,
       CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END AS lsn,
       {TIMELINE} AS timeline
"""
OWN_FAULT_FACTOR = 1.2

PROBE_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, DatabaseUnavailable)


@dataclass(frozen=True, slots=True)
class Sample:
    in_recovery: bool
    position: int
    asked_at: float  # time.monotonic()
    round_trip_seconds: float
    address: tuple[str, int]


class Probe:
    """`on_late` is called after the timeout, once per question; the answer has as long again before the probe gives up.

    `on_lost` is called as soon as the kernel knows that the connection is gone.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        timeout_seconds: float,
        *,
        on_late: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._connect = connect
        self._timeout = timeout_seconds
        self._on_late = on_late
        self._on_lost = on_lost
        self._connection: Connection | None = None

    async def ask(self) -> Sample:
        """Raises one of `PROBE_ERRORS`, a `TimeoutError` among them, and connects anew the next time."""
        connection = self._connection or await self._open()
        started = time.monotonic()
        try:
            row = await self._answer(connection)
        except BaseException:
            self.close()
            raise
        position = pack(row["timeline"], row["lsn"] or 0)
        return Sample(row["in_recovery"], position, started, time.monotonic() - started, connection.address)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.remove_termination_listener(self._lost)
            connection.terminate()

    async def _answer(self, connection: Connection) -> asyncpg.Record:
        question = asyncio.create_task(connection.fetchrow(POSITION))
        try:
            if await self._is_late(question):
                self._on_late()
            done, _ = await asyncio.wait({question}, timeout=self._timeout)
            if not done:
                raise TimeoutError("no answer")
            row = await question
        finally:
            if not question.done():
                self.close()  # first: to cancel a question on an open connection makes another one, to a frozen server
                question.cancel()
        assert row is not None
        return row

    async def _is_late(self, question: "asyncio.Task[asyncpg.Record | None]") -> bool:
        """A timeout that comes late itself tells of this process, which was too busy to look, not of the server."""
        started = time.monotonic()
        done, _ = await asyncio.wait({question}, timeout=self._timeout)
        return not done and time.monotonic() - started < self._timeout * OWN_FAULT_FACTOR

    async def _open(self) -> Connection:
        connection = self._connection = await self._connect()
        connection.add_termination_listener(self._lost)
        return connection

    def _lost(self, _connection: Any) -> None:
        self._connection = None
        self._on_lost()
