"""What operators and load balancers ask: health, metrics, and the public keys. Never limited, logged or counted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI

from app.platform.postgres.health import DatabaseHealth, ServerHealth
from app.platform.resilience.drain import Drain
from app.platform.telemetry.exposition import expose_metrics
from app.platform.telemetry.fleet import FleetMetrics, fleet_router
from app.platform.telemetry.health import HealthChecks, Unhealthy, health_router
from app.resources import Resources, database_options
from app.settings import Settings


def operations_router(settings: Settings, app: FastAPI, drain: Drain) -> APIRouter:
    def parts() -> Resources:
        found: Resources = app.state.resources
        return found

    router = APIRouter(include_in_schema=False)
    router.include_router(
        health_router(
            health_checks(parts, database_options(settings).replica_names),
            instance=settings.instance_name,
            draining=lambda: drain.is_draining,
            pools=lambda: pools(parts().database.health()),
            cache=lambda: parts().redis.stats()._asdict(),
        )
    )
    if settings.metrics_enabled:
        expose_metrics(app)
        router.include_router(fleet_router(FleetMetrics(settings.metrics_peers)))

    @router.get("/.well-known/jwks.json")
    async def jwks() -> dict[str, Any]:
        return parts().signing_keys.jwks()

    return router


def health_checks(parts: Callable[[], Resources], replica_names: Sequence[str]) -> HealthChecks:
    """The primary is needed to write; without Redis or a replica the service is degraded, and answers."""
    checks = HealthChecks()
    checks.add("database", partial(primary, parts), critical=True)
    for number, name in enumerate(replica_names):
        checks.add(name, partial(replica, parts, number))

    async def redis() -> Mapping[str, Any]:
        return {"round_trip_ms": round(await parts().redis.ping() * 1_000, 2)}

    checks.add("redis", redis)
    return checks


async def primary(parts: Callable[[], Resources]) -> Mapping[str, Any]:
    return reported(parts().database.health().primary, well="up")


async def replica(parts: Callable[[], Resources], number: int) -> Mapping[str, Any]:
    return reported(parts().database.health().replicas[number], well="healthy")


def reported(server: ServerHealth, well: str) -> Mapping[str, Any]:
    """What the monitor saw last; asking again would cost the server a connection."""
    detail = asdict(server)
    if server.state != well:
        raise Unhealthy(server.state, detail)
    return detail


def pools(health: DatabaseHealth) -> Mapping[str, Any]:
    return {pool.server: asdict(pool) for pool in health.pools}
