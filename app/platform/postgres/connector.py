"""Opens the connections to one server, or to the primary among several hosts; knows all that are open."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import asyncpg

from app.platform.postgres.errors import DatabaseUnavailable
from app.platform.postgres.fence import TIMELINE, Fence
from app.platform.postgres.options import DatabaseOptions
from app.platform.postgres.transaction import Connection, TransactionLimits, milliseconds

Address = tuple[str, int]

# OSError includes the timeout; the third says that every host is a standby, the last that it is an old primary.
CONNECT_ERRORS = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.TargetServerAttributeNotMatched,
    asyncpg.InterfaceError,
    DatabaseUnavailable,
)


class Connector:
    """Opens connections to one server, or to the primary among several hosts; knows all that are open.

    `fence` is the primary's.
    """

    def __init__(self, options: DatabaseOptions, *, read_only: bool, fence: Fence | None) -> None:
        self._options = options
        self._read_only = read_only
        self._fence = fence
        self._lock_seconds = options.lock_seconds(on_replica=fence is None)
        self._open: WeakSet[Connection] = WeakSet()
        self._opening: set[asyncio.Timeout] = set()
        self._preferred: Address | None = None
        self.credentials: dict[str, str] = {}  # in place of the URL's, since those were changed

    async def __call__(self, *, host: str | list[str], port: int | list[int] = 5432, **arguments: Any) -> Connection:
        """Tries each host for the connect timeout, the one that was the primary last time first."""
        reason: Exception | None = None
        addresses = self._addresses(host, port)
        if self._fence is not None and not self._fence.timeline:  # the first of them may be an old primary
            self._fence.hear(await self.newest_timeline(host=host, port=port, **arguments))
        for address in addresses:
            try:
                connection = await self._admitted(address, arguments)
            except CONNECT_ERRORS as error:
                reason = error
                continue
            self._preferred = address
            return connection
        raise DatabaseUnavailable(f"no connection to {host}") from reason

    def move(self, address: Address) -> None:
        """Tries `address` first from now on, and ends the connections to other hosts."""
        self._preferred = address
        self.abort(keep=address)

    def abort(self, keep: Address | None = None) -> None:
        """Ends connections without a goodbye, those to `keep` excepted; whoever waits for an answer fails at once."""
        for connection in list(self._open):
            if connection.address != keep:
                connection.terminate()
        for scope in self._opening:
            if not scope.expired():
                scope.reschedule(asyncio.get_running_loop().time())

    def _addresses(self, host: str | list[str], port: int | list[int]) -> list[Address]:
        hosts = [host] if isinstance(host, str) else host
        ports = [port] * len(hosts) if isinstance(port, int) else port
        return sorted(zip(hosts, ports, strict=True), key=lambda address: address != self._preferred)

    async def newest_timeline(self, *, host: str | list[str], port: int | list[int] = 5432, **arguments: Any) -> int:
        """Asks all hosts, standbys too, on connections of their own; 0 where there is one alone, or none answers."""
        addresses = self._addresses(host, port)
        if len(addresses) == 1:
            return 0
        return max(await asyncio.gather(*(self._timeline(address, arguments) for address in addresses)))

    async def _timeline(self, address: Address, arguments: Mapping[str, Any]) -> int:
        with suppress(*CONNECT_ERRORS):
            async with asyncio.timeout(self._options.connect_timeout_seconds):
                connection = await self._connect(address, arguments)
                try:
                    return int(await connection.fetchval(f"SELECT {TIMELINE}"))
                finally:
                    connection.terminate()
        return 0

    async def _admitted(self, address: Address, arguments: Mapping[str, Any]) -> Connection:
        if self._fence is None:
            return await self._connect(address, arguments)
        connection = await self._connect(address, {**arguments, "target_session_attrs": "primary"})
        try:
            async with asyncio.timeout(self._options.connect_timeout_seconds):
                await self._fence.admit(connection, address)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _connect(self, address: Address, arguments: Mapping[str, Any]) -> Connection:
        async with asyncio.timeout(self._options.connect_timeout_seconds) as scope:
            self._opening.add(scope)
            try:
                connection = await asyncpg.connect(
                    host=address[0],
                    port=address[1],
                    connection_class=Connection,
                    statement_cache_size=self._options.statement_cache_size,
                    server_settings=self._settings(),
                    **dict(arguments) | self.credentials,
                )
            finally:
                self._opening.discard(scope)
        connection.address, connection.fence = address, self._fence
        connection.limits = self._limits()
        connection.heed_warnings()
        self._open.add(connection)
        return connection

    def _limits(self) -> TransactionLimits:
        options = self._options
        return TransactionLimits(
            options.application_name,
            options.statement_timeout_seconds,
            self._lock_seconds,
            options.idle_in_transaction_seconds,
            read_only=self._read_only,
            per_transaction=options.behind_pooler,
        )

    def _settings(self) -> dict[str, str]:
        options = self._options
        settings = {"application_name": options.application_name}
        if options.behind_pooler:
            return settings
        return settings | {
            "default_transaction_read_only": "on" if self._read_only else "off",
            "statement_timeout": str(milliseconds(options.statement_timeout_seconds)),
            "lock_timeout": str(milliseconds(self._lock_seconds)),
            "idle_in_transaction_session_timeout": str(milliseconds(options.idle_in_transaction_seconds)),
            "jit": "off",
        }
