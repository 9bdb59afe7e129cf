"""One Postgres server as this process sees it: a pool of connections, and a way to drop them all at once."""

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import asyncpg
import orjson
from sqlalchemy import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import greenlet_spawn

from app.platform.postgres.connector import Connector
from app.platform.postgres.errors import DatabaseUnavailable
from app.platform.postgres.fence import Fence
from app.platform.postgres.instrument import Meter, instrument
from app.platform.postgres.options import DatabaseOptions
from app.platform.postgres.pool import Pool
from app.platform.postgres.transaction import Connection


@dataclass(frozen=True, slots=True)
class PoolState:
    """Connections of one pool in this process."""

    server: str
    open: int
    in_use: int
    limit: int


class Server:
    """`in_use` counts the sessions that were given to it, those that wait for a connection included."""

    def __init__(
        self,
        name: str,
        url: str,
        options: DatabaseOptions,
        *,
        read_only: bool,
        size: int,
        overflow: int,
        fence: Fence | None = None,
    ) -> None:
        self.name = name
        self.in_use = 0
        self.connector = Connector(options, read_only=read_only, fence=fence)
        whole_url = make_url(url)
        server_url = whole_url.difference_update_query(["name", "probe"])
        self._probe_url = server_url.set(database=cast(str, whole_url.query.get("probe", whole_url.database)))
        self.engine = _create_engine(server_url, options, self.connector, size, overflow, autocommit=read_only)
        self._meter = Meter(name)
        instrument(self.engine, self._meter)
        self._pool.server = name

    @property
    def served_by(self) -> str:
        """As X-Served-By says it."""
        return "primary"

    async def fetch(self, sql: str, arguments: Sequence[Any]) -> list[Any]:
        """One statement, on a connection of the pool that is held for no longer than it takes."""
        held = await greenlet_spawn(self._pool.connect)
        connection = cast(Connection, held.driver_connection)
        try:
            return await self.fetch_on(connection, sql, arguments)
        except BaseException as error:
            if not isinstance(error, asyncpg.PostgresError) or connection.is_closed():
                held.invalidate(error)
            raise
        finally:
            await greenlet_spawn(held.close)

    async def fetch_on(self, connection: Connection, sql: str, arguments: Sequence[Any]) -> list[Any]:
        """The same on a connection that somebody holds."""
        sent, labelled = self._meter.sending(), self._meter.labelled(sql)
        try:
            records: list[Any] = await connection.fetch(labelled, *arguments)
        except BaseException as error:
            self._meter.failed(sent, labelled, error)
            raise
        self._meter.answered(sent, len(records), labelled)
        return records

    async def connect(self) -> Connection:
        """A connection beside the pool, to probe it by; known to the connector as well."""
        return await self.connector(**self._probe_arguments())

    async def newest_timeline(self) -> int:
        """Of all hosts that its URL names; 0 where that is one, or none answers."""
        return await self.connector.newest_timeline(**self._probe_arguments())

    def _probe_arguments(self) -> MutableMapping[str, Any]:
        _, arguments = self.engine.sync_engine.dialect.create_connect_args(self._probe_url)
        return arguments

    def pool_state(self) -> PoolState:
        pool = self._pool
        return PoolState(self.name, pool.checkedout() + pool.checkedin(), pool.checkedout(), pool.slots.limit)

    def cut_off(self) -> None:
        """Whoever waits for an answer of this server, or for a connection to it, is told at once."""
        self.connector.abort()
        self._pool.slots.refuse(DatabaseUnavailable(f"{self.name} is gone"))

    @property
    def _pool(self) -> Pool:
        return cast(Pool, self.engine.pool)

    async def aclose(self) -> None:
        await self.engine.dispose()


def _create_engine(
    url: URL, options: DatabaseOptions, connector: Connector, size: int, overflow: int, *, autocommit: bool
) -> AsyncEngine:
    """Reads are in AUTOCOMMIT, which saves their BEGIN and ROLLBACK; behind a pooler they need a transaction."""
    return create_async_engine(
        url,
        poolclass=Pool,
        json_deserializer=orjson.loads,
        pool_size=size,
        max_overflow=overflow,
        pool_timeout=options.pool_timeout_seconds,
        pool_recycle=options.pool_recycle_seconds,
        connect_args={
            "async_creator_fn": connector,
            "prepared_statement_cache_size": options.statement_cache_size,
        },
        **({"isolation_level": "AUTOCOMMIT"} if autocommit and not options.behind_pooler else {}),
    )
