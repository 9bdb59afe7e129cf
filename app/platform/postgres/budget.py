"""Whether the connections that a fleet may open fit into what its servers allow."""

from dataclasses import dataclass

from sqlalchemy import text

from app.platform.postgres.options import DatabaseOptions
from app.platform.postgres.server import Server

LIMITS = {"names": ["max_connections", "superuser_reserved_connections", "reserved_connections"]}
PROBES = 2  # connections beside the pools, per process and server: the monitor's, and the one that hears of revocations


class ConnectionBudgetExceeded(Exception):
    """More connections than the server has for us: some worker would be refused under load, at the worst moment."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """All processes that share the servers."""

    instances: int
    workers: int  # per instance

    @property
    def processes(self) -> int:
        return self.instances * self.workers


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a server says of itself: `max_connections`, and how many of those it keeps for superusers."""

    server: str
    max_connections: int
    reserved: int


async def capacity(server: Server) -> Capacity:
    async with server.engine.connect() as connection:
        rows = await connection.execute(
            text("SELECT name, setting::int AS setting FROM pg_settings WHERE name = ANY(:names)"), LIMITS
        )
        found: dict[str, int] = {row.name: row.setting for row in rows}
    return Capacity(server.name, found.pop("max_connections"), sum(found.values()))


def primary_pools(options: DatabaseOptions) -> tuple[int, ...]:
    return (options.pool_size + options.pool_overflow, options.primary_read_connections)


def replica_pools(options: DatabaseOptions) -> tuple[int, ...]:
    return (options.pool_size + options.pool_overflow,)


def check_budget(fleet: Fleet, pools: tuple[int, ...], capacity: Capacity) -> None:
    """Raises `ConnectionBudgetExceeded` with the arithmetic."""
    needed = fleet.processes * (sum(pools) + PROBES)
    available = capacity.max_connections - capacity.reserved
    if needed <= available:
        return
    per_process = " + ".join(str(size) for size in (*pools, PROBES))
    raise ConnectionBudgetExceeded(
        f"{capacity.server}: {fleet.instances} instances x {fleet.workers} workers x ({per_process}) connections"
        f" = {needed}, but max_connections {capacity.max_connections} - {capacity.reserved} reserved = {available}."
        " Lower DATABASE_POOL_SIZE, DATABASE_POOL_OVERFLOW or the workers, raise max_connections, or use PgBouncer."
    )
