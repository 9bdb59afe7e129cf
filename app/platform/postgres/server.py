"""One Postgres server as this process sees it: a pool of connections, and a way to drop them all at once."""

from dataclasses import dataclass
from typing import cast

from sqlalchemy import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.platform.postgres.connector import Connector
from app.platform.postgres.errors import DatabaseUnavailable
from app.platform.postgres.instrument import instrument
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
        self, name: str, url: str, options: DatabaseOptions, *, read_only: bool, primary: bool, size: int, overflow: int
    ) -> None:
        self.name = name
        self.in_use = 0
        self.connector = Connector(options, read_only=read_only, primary=primary)
        whole_url = make_url(url)
        server_url = whole_url.difference_update_query(["name", "probe"])
        self._probe_url = server_url.set(database=cast(str, whole_url.query.get("probe", whole_url.database)))
        self.engine = _create_engine(server_url, options, self.connector, size, overflow, autocommit=read_only)
        instrument(self.engine, name)
        self._pool.server = name

    @property
    def served_by(self) -> str:
        """As X-Served-By says it."""
        return "primary"

    async def connect(self) -> Connection:
        """A connection beside the pool, to probe it by; known to the connector as well."""
        _, arguments = self.engine.sync_engine.dialect.create_connect_args(self._probe_url)
        return await self.connector(**arguments)

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
