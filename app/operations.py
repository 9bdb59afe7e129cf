"""What operators and load balancers ask: health, metrics, and the public keys. Never limited, logged or counted."""

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter, FastAPI

from app.platform.resilience.drain import Drain
from app.platform.telemetry.fleet import FleetMetrics, fleet_router
from app.platform.telemetry.health import HealthChecks, health_router
from app.platform.telemetry.metrics import expose_metrics
from app.resources import Resources
from app.settings import Settings


def operations_router(settings: Settings, app: FastAPI, drain: Drain) -> APIRouter:
    def parts() -> Resources:
        found: Resources = app.state.resources
        return found

    router = APIRouter(include_in_schema=False)
    router.include_router(
        health_router(
            health_checks(parts),
            instance=settings.instance_name,
            draining=lambda: drain.is_draining,
            pools=lambda: parts().database.pools(),
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


def health_checks(parts: Callable[[], Resources]) -> HealthChecks:
    """The primary is needed to write; without Redis or a replica the service is degraded, and answers."""
    checks = HealthChecks()

    async def redis() -> Mapping[str, Any]:
        return {"round_trip_ms": round(await parts().redis.ping() * 1_000, 2)}

    checks.add("redis", redis)
    return checks
