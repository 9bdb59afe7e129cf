"""The primary and its replicas behind two doors: `read()` and `write()`."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from app.platform.postgres.budget import Fleet, capacity, check_budget, primary_pools, replica_pools
from app.platform.postgres.errors import READ_ONLY, DatabaseUnavailable, TransactionConflict, sqlstate, translated
from app.platform.postgres.health import DatabaseHealth, database_health
from app.platform.postgres.monitor import Monitor
from app.platform.postgres.options import DatabaseOptions
from app.platform.postgres.primary import Primary
from app.platform.postgres.replica import Replica
from app.platform.postgres.routing import ReadRoute, Router
from app.platform.postgres.server import Server
from app.platform.postgres.sessions import Commit, Finishing, ReadSession, WriteSession
from app.platform.resilience.retries import RetryBudget
from app.platform.telemetry.context import current

logger = logging.getLogger(__name__)

CommitHook = Callable[[Commit], Awaitable[None]]
HOOK_SECONDS = 1.0
CONFLICT_PAUSE_SECONDS = 0.01
T = TypeVar("T")


class Database:
    """Lives as long as the process: `await start()`, `await aclose()`."""

    def __init__(
        self,
        options: DatabaseOptions,
        *,
        on_commit: Sequence[CommitHook] = (),
        before_commit: Sequence[Finishing] = (),
    ) -> None:
        self._options = options
        self._before_commit = tuple(before_commit)
        self._hooks = tuple(on_commit)
        self._retries = RetryBudget("transaction")
        self._shielded_tasks: set[asyncio.Task[None]] = set()
        self.primary = Primary(options)
        self.replicas = [
            Replica(name, url, options) for name, url in zip(options.replica_names, options.replica_urls, strict=True)
        ]
        self._monitor = Monitor(self.primary, self.replicas, options)
        self._router = Router(self._monitor, self.primary.reader, options)

    async def start(self) -> None:
        """Returns whether or not the servers answer: a service that is up before its database serves once that is."""
        await self._monitor.start()

    async def aclose(self) -> None:
        """Waits for the commits under way."""
        if self._shielded_tasks:
            await asyncio.wait(self._shielded_tasks, timeout=self._options.commit_timeout_seconds)
        await self._monitor.aclose()
        await self.primary.aclose()
        for replica in self.replicas:
            await replica.aclose()

    @asynccontextmanager
    async def read(self, *, fresh: bool = False) -> AsyncIterator[ReadSession]:
        """A session on a server that has everything that the request requires (`wal_required` of its context), and
        nothing older than what the caller has read before (`last_read`).

        `fresh`: on the primary as long as it answers. For who may do what, which no lagging replica should say.
        """
        context = current()
        required = context.wal_required
        server = self.primary.reader if fresh else await self._router.choose(required, context.last_read)
        route = ReadRoute(self._router, server, required)
        session = ReadSession(route, direct=not self._options.behind_pooler)
        try:
            yield session
        except Exception as error:
            if typed := translated(error):
                raise typed from error
            raise
        finally:
            route.leave()
            if session.in_transaction():
                with suppress(DBAPIError):  # what was read is known: a server that is gone by now is the next one's
                    await session.close()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[WriteSession]:
        """One transaction: committed when the block ends, rolled back when it raises."""
        current().served_by = self.primary.writer.served_by
        session = WriteSession(
            self.primary.writer,
            on_commit=self._committed,
            before_commit=self._before_commit,
            commit_seconds=self._options.commit_timeout_seconds,
        )
        try:
            try:
                yield session
            except BaseException:
                await self._shielded(session.finish(commit=False))
                raise
            await self._shielded(session.finish(commit=True))
        except Exception as error:
            if sqlstate(error) == READ_ONLY:
                self.primary.demoted()
                raise DatabaseUnavailable("the server is no longer the primary") from error
            if typed := translated(error):
                raise typed from error
            raise

    async def transact(self, work: Callable[[WriteSession], Awaitable[T]], *, attempts: int = 3) -> T:
        """Runs `work` in a transaction, and all of it again after a serialization failure or a deadlock.

        For work that has no effects but those of its transaction. Raises `TransactionConflict` after the last attempt,
        or when too many conflict for all of them to be tried again.
        """
        self._retries.attempted()
        for attempt in range(1, attempts):
            try:
                return await self._once(work)
            except TransactionConflict:
                if not self._retries.allow():
                    raise
                await asyncio.sleep(random.uniform(0, CONFLICT_PAUSE_SECONDS * 2**attempt))
        return await self._once(work)

    async def _once(self, work: Callable[[WriteSession], Awaitable[T]]) -> T:
        async with self.write() as session:
            result = await work(session)
        return result

    def use_credentials(self, url: str, replica_urls: Sequence[str]) -> None:
        """User and password of these URLs, for new connections; what is open stays. The servers stay the same.

        Raises ValueError where the number of replicas is another.
        """
        pairs = zip(self.replicas, replica_urls, strict=True)
        renewed: list[tuple[Server, dict[str, str]]] = [(replica, credentials_of(own)) for replica, own in pairs]
        renewed += [(server, credentials_of(url)) for server in (self.primary.writer, self.primary.reader)]
        for server, credentials in renewed:
            server.connector.credentials = credentials

    def heard(self, position: int) -> None:
        """Of a position that somebody has written. One from after a promotion ends the use of an older primary."""
        self.primary.heard(position)

    def health(self) -> DatabaseHealth:
        return database_health(self.primary, self.replicas)

    async def check_budget(self, fleet: Fleet) -> None:
        """Asks each server that answers what it allows; raises `ConnectionBudgetExceeded`."""
        if self._options.behind_pooler:
            return
        check_budget(fleet, primary_pools(self._options), await capacity(self.primary.writer))
        for replica in self.replicas:
            if replica.eligible:
                check_budget(fleet, replica_pools(self._options), await capacity(replica))

    async def _committed(self, position: int | None, tags: frozenset[str]) -> None:
        """After an unknown outcome the caller may look: its commit record, if there is one, lies before that."""
        if position is None:
            position = await self._monitor.position_after(time.monotonic())
        commit = Commit(position, tags)
        context = current()
        context.wal_written = max(context.wal_written, position)
        for hook in self._hooks:
            try:
                async with asyncio.timeout(HOOK_SECONDS):
                    await hook(commit)
            except Exception:
                logger.exception("a hook failed after COMMIT")

    async def _shielded(self, work: Coroutine[Any, Any, None]) -> None:
        """Goes on to its end when the caller is cancelled: a client that leaves must not cut a COMMIT in two."""
        task = asyncio.create_task(work)
        self._shielded_tasks.add(task)
        task.add_done_callback(self._shielded_tasks.discard)
        await asyncio.shield(task)


def credentials_of(url: str) -> dict[str, str]:
    parsed = make_url(url)
    found = {"user": parsed.username, "password": parsed.password}
    return {name: str(value) for name, value in found.items() if value is not None}
