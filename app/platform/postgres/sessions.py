"""What repositories are given: a session that can only read, or one transaction on the primary."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import asyncpg
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util import greenlet_spawn

from app.platform.postgres import metrics
from app.platform.postgres.errors import CommitOutcomeUnknown, drivers_own
from app.platform.postgres.prepared import Prepared, Row, Values
from app.platform.postgres.routing import ReadRoute
from app.platform.postgres.server import Server
from app.platform.postgres.transaction import Connection


@dataclass(frozen=True, slots=True)
class Commit:
    """A transaction that lasts, or may last (`CommitOutcomeUnknown`): what it touched is to be invalidated in any case.

    Replicas at `wal_position` or past it have it.
    """

    wal_position: int
    tags: frozenset[str]


# Called with the WAL position, or with None where the outcome is unknown, and the tags that were touched.
Committed = Callable[[int | None, frozenset[str]], Awaitable[None]]
# Called with the session at the end of its transaction: what it does commits with the rest, or undoes all of it.
Finishing = Callable[["WriteSession"], Awaitable[None]]


class DivertingSession(Session):
    """Repeats a statement elsewhere when its server fails. That is safe: it only reads, in a transaction of its own."""

    route: ReadRoute

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        return self._wherever_it_works(super().execute, *args, **kwargs)

    def scalar(self, *args: Any, **kwargs: Any) -> Any:
        return self._wherever_it_works(super().scalar, *args, **kwargs)

    def scalars(self, *args: Any, **kwargs: Any) -> Any:
        return self._wherever_it_works(super().scalars, *args, **kwargs)

    def connection(self, *args: Any, **kwargs: Any) -> Any:
        """Whoever asks for the connection itself may have set something on it, and stays there."""
        self.route.pinned = True
        return super().connection(*args, **kwargs)

    def _wherever_it_works(self, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        while True:
            try:
                result = run(*args, **kwargs)
            except Exception as error:
                if not self.route.divert(error):
                    raise
                self.start_over()
            else:
                self.route.answered = True
                return result

    def start_over(self) -> None:
        """On the route's next server. What was loaded so far stays readable; a rollback would expire it."""
        self.expunge_all()
        self.rollback()
        self.bind = self.route.server.engine.sync_engine


class ReadSession(AsyncSession):
    """Reads from one server; the database itself refuses a write. Each statement is a transaction of its own.

    Where several statements have to see the same state, say so before the first one:
    `await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})`.
    """

    sync_session_class = DivertingSession

    def __init__(self, route: ReadRoute, *, direct: bool = True) -> None:
        super().__init__(route.server.engine, expire_on_commit=False, autoflush=False)
        self._route = self._diverting.route = route
        self._direct = direct  # False: each read needs a transaction around it

    async def fetch(self, prepared: Prepared, values: Values) -> list[Row]:
        """The rows of one statement, at the least cost: nothing is held before and after it."""
        if self._route.pinned:
            return await through(self, prepared, values)
        if not self._direct:
            return await self._fetch_in_transaction(prepared, values)
        arguments = prepared.arguments(values)
        while True:
            try:
                records = await self._route.server.fetch(prepared.sql, arguments)
            except Exception as error:
                if not self._route.divert(error):
                    raise
                await greenlet_spawn(self._diverting.start_over)
            else:
                self._route.answered = True
                return [dict(record) for record in records]

    async def _fetch_in_transaction(self, prepared: Prepared, values: Values) -> list[Row]:
        """An error ends the transaction, so that the next read begins one; and it is the driver's, as without it."""
        try:
            return await through(self, prepared, values)
        except BaseException as error:
            await greenlet_spawn(self._diverting.start_over)
            if driver := drivers_own(error):
                raise driver from error
            raise

    @property
    def _diverting(self) -> DivertingSession:
        return cast(DivertingSession, self.sync_session)


async def fetch(session: AsyncSession, prepared: Prepared, values: Values) -> list[Row]:
    """The rows of a prepared statement, in whatever session there is."""
    if isinstance(session, ReadSession | WriteSession):
        return await session.fetch(prepared, values)
    return await through(session, prepared, values)


async def through(session: AsyncSession, prepared: Prepared, values: Values) -> list[Row]:
    """By way of SQLAlchemy: in the session's transaction."""
    return [dict(row) for row in (await session.execute(prepared.statement, values)).mappings()]


class WriteSession(AsyncSession):
    """One transaction on the primary."""

    def __init__(
        self, server: Server, *, on_commit: Committed, commit_seconds: float, before_commit: Sequence[Finishing] = ()
    ) -> None:
        super().__init__(server.engine, expire_on_commit=False)
        self.before_commit = before_commit
        self._server = server
        self._on_commit = on_commit
        self._commit_seconds = commit_seconds
        self._tags: set[str] = set()
        self._committing = asyncio.Lock()

    def touch(self, *tags: str) -> None:
        """Names what this transaction changes: cached answers with one of these tags are dropped after COMMIT."""
        self._tags.update(tags)

    @property
    def touched(self) -> frozenset[str]:
        return frozenset(self._tags)

    async def fetch(self, prepared: Prepared, values: Values) -> list[Row]:
        """The rows of one statement, in the transaction. Raises `sqlalchemy.exc.IntegrityError`, as `execute` does."""
        driver = await self._begun()
        try:
            records = await self._server.fetch_on(driver, prepared.sql, prepared.arguments(values))
        except asyncpg.IntegrityConstraintViolationError as error:
            raise IntegrityError(prepared.sql, None, error) from error
        except BaseException as error:
            if driver.is_closed() or not isinstance(error, asyncpg.PostgresError):
                await self.invalidate()
            raise
        return [dict(record) for record in records]

    async def commit(self) -> None:
        """Bounded. Raises `CommitOutcomeUnknown` where the server's word is missing."""
        if not self.in_transaction():
            return
        tags = self.touched
        async with self._committing:
            await self.flush()
            for finish in self.before_commit:
                await finish(self)
            try:
                written = await self._commit()
            except CommitOutcomeUnknown:
                await self._on_commit(None, tags)
                raise
        await self._on_commit(written, tags)

    async def finish(self, *, commit: bool) -> None:
        """Commits if asked to, and gives the connection back in any case."""
        try:
            if commit:
                await self.commit()
        finally:
            async with self._committing:
                await self.close()

    async def _commit(self) -> int:
        driver = await self._driver_connection()
        driver.written = 0
        try:
            async with asyncio.timeout(self._commit_seconds):
                await super().commit()
            # Gone with its COMMIT told, it is one of those on top, which are closed as soon as they are given back.
            if not driver.written and (driver.is_closed() or driver.is_in_transaction()):
                raise CommitOutcomeUnknown("COMMIT was not sent")
        except TimeoutError as error:
            metrics.COMMITS.labels("unknown").inc()
            raise CommitOutcomeUnknown("COMMIT took too long") from error
        except CommitOutcomeUnknown:
            metrics.COMMITS.labels("unknown").inc()
            raise
        except Exception:
            metrics.COMMITS.labels("failed").inc()
            raise
        metrics.COMMITS.labels("committed").inc()
        return driver.written

    async def _begun(self) -> Connection:
        """The driver's connection, in the transaction, which SQLAlchemy begins with the first statement it runs.

        A BEGIN that is cut off takes its connection with it: the next one on it would be part of that transaction.
        """
        raw = await (await self.connection()).get_raw_connection()
        adapted = cast(Any, raw.dbapi_connection)
        if adapted._transaction is None:
            try:
                await adapted._start_transaction()
            except BaseException as error:
                await self.invalidate()
                raise error.__cause__ or error from None
        return cast(Connection, raw.driver_connection)

    async def _driver_connection(self) -> Connection:
        raw = await (await self.connection()).get_raw_connection()
        connection = raw.driver_connection
        assert isinstance(connection, Connection)
        return connection
