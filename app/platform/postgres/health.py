"""What /health tells of the database: for people, from what the monitor knows, without a query."""

from dataclasses import dataclass
from typing import Literal

from app.platform.postgres.positions import lsn_of, timeline_of
from app.platform.postgres.primary import Primary
from app.platform.postgres.replica import Replica
from app.platform.postgres.server import PoolState


@dataclass(frozen=True, slots=True)
class ServerHealth:
    name: str
    role: Literal["primary", "replica"]
    state: str  # up or down; of a replica: healthy, lagging, down or promoted
    timeline: int
    lsn: str  # as Postgres writes it
    round_trip_ms: float
    lag_bytes: int
    lag_seconds: float


@dataclass(frozen=True, slots=True)
class DatabaseHealth:
    """`healthy`; `degraded` while a replica is out of use; `unhealthy` without the primary."""

    status: Literal["healthy", "degraded", "unhealthy"]
    primary: ServerHealth
    replicas: tuple[ServerHealth, ...]
    pools: tuple[PoolState, ...]


def database_health(primary: Primary, replicas: list[Replica]) -> DatabaseHealth:
    all_eligible = all(replica.eligible for replica in replicas)
    return DatabaseHealth(
        ("healthy" if all_eligible else "degraded") if primary.up else "unhealthy",
        _server(primary, "primary", "primary", "up" if primary.up else "down", 0, 0.0),
        tuple(
            _server(replica, replica.name, "replica", replica.state, replica.lag_bytes, replica.lag_seconds)
            for replica in replicas
        ),
        tuple(server.pool_state() for server in (primary.writer, primary.reader, *replicas)),
    )


def _server(
    seen: Primary | Replica,
    name: str,
    role: Literal["primary", "replica"],
    state: str,
    lag_bytes: int,
    lag_seconds: float,
) -> ServerHealth:
    lsn = lsn_of(seen.position)
    return ServerHealth(
        name,
        role,
        state,
        timeline_of(seen.position),
        f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}",
        round(seen.round_trip_seconds * 1_000, 3),
        lag_bytes,
        round(lag_seconds, 3),
    )
