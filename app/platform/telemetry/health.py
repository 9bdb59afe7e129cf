"""Three questions about health: is the process alive, should it get requests, and how are the things it needs?

Only the last looks at shared dependencies. If readiness did, one slow database would take every instance out at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

CHECK_SECONDS = 1.0  # a check that takes longer has failed
REUSE_SECONDS = 1.0  # so that asking often costs the dependencies nothing

Detail = Mapping[str, Any]
Probe = Callable[[], Awaitable[Detail | None]]


class Status(StrEnum):
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


class Unhealthy(Exception):
    """For probes that can tell more than that they failed: the detail is shown."""

    def __init__(self, reason: str, detail: Detail | None = None) -> None:
        super().__init__(reason)
        self.detail = detail or {}


@dataclass(frozen=True, slots=True)
class Report:
    status: Status
    checks: dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Check:
    probe: Probe
    critical: bool


class HealthChecks:
    """Named probes: each returns what there is to show, or raises. Run side by side, once for all who ask meanwhile."""

    def __init__(self) -> None:
        self._checks: dict[str, _Check] = {}
        self._running: asyncio.Task[Report] | None = None
        self._report: Report | None = None
        self._asked = 0.0

    def add(self, name: str, probe: Probe, *, critical: bool = False) -> None:
        """Without a critical one the service is unhealthy, without another one degraded."""
        self._checks[name] = _Check(probe, critical)

    async def report(self) -> Report:
        """At most REUSE_SECONDS old; takes CHECK_SECONDS at most."""
        if self._report is not None and monotonic() - self._asked < REUSE_SECONDS:
            return self._report
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await asyncio.shield(self._running)  # one who leaves doesn't take it from the others

    async def _run(self) -> Report:
        try:
            results = await asyncio.gather(*(_outcome(check) for check in self._checks.values()))
            self._report = _report(dict(zip(self._checks, results, strict=True)))
            self._asked = monotonic()
            return self._report
        finally:
            self._running = None


async def _outcome(check: _Check) -> dict[str, Any]:
    started = monotonic()
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            found: dict[str, Any] = {"status": Status.HEALTHY, **(await check.probe() or {})}
    except Unhealthy as error:
        found = {"status": Status.UNHEALTHY, "error": str(error), **error.detail}
    except Exception as error:  # whatever the client library raises; its name alone, since messages hold addresses
        found = {"status": Status.UNHEALTHY, "error": type(error).__name__}
    return {**found, "critical": check.critical, "duration_ms": round((monotonic() - started) * 1_000, 1)}


def _report(checks: dict[str, dict[str, Any]]) -> Report:
    failed = [check for check in checks.values() if check["status"] != Status.HEALTHY]
    if any(check["critical"] for check in failed):
        return Report(Status.UNHEALTHY, checks)
    return Report(Status.DEGRADED if failed else Status.HEALTHY, checks)


def health_router(
    checks: HealthChecks,
    *,
    instance: str,
    draining: Callable[[], bool],
    pools: Callable[[], Detail],
    cache: Callable[[], Detail],
) -> APIRouter:
    """`/livez` and `/readyz` for load balancers; `/health` for operators: keep it off the public port."""
    router = APIRouter(include_in_schema=False)

    @router.api_route("/livez", methods=["GET", "HEAD"])
    async def livez() -> Response:
        return JSONResponse({"status": "alive"})

    @router.api_route("/readyz", methods=["GET", "HEAD"])
    async def readyz() -> Response:
        if draining():
            return JSONResponse({"status": "draining"}, status_code=503, headers={"Retry-After": "1"})
        return JSONResponse({"status": "ready"})

    @router.get("/health")
    async def health() -> Response:
        report = await checks.report()
        body = {
            "status": report.status,
            "checks": report.checks,
            "pools": pools(),
            "cache": cache(),
            "instance": instance,
        }
        return JSONResponse(body, status_code=503 if report.status is Status.UNHEALTHY else 200)

    return router
