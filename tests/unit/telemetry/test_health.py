import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.platform.telemetry import health
from app.platform.telemetry.health import HealthChecks, Status, Unhealthy, health_router


async def fine() -> Mapping[str, Any]:
    return {"lag_bytes": 0}


async def broken() -> None:
    raise ConnectionError("postgresql://user:password@host refused")


async def lagging() -> None:
    raise Unhealthy("too far behind", {"lag_bytes": 10_000_000})


async def hanging() -> None:
    await asyncio.sleep(60)


def checks(**probes: Any) -> HealthChecks:
    made = HealthChecks()
    for name, probe in probes.items():
        made.add(name, probe, critical=name == "database")
    return made


async def ask(
    path: str, made: HealthChecks | None = None, *, draining: bool = False, method: str = "GET"
) -> httpx.Response:
    app = FastAPI()
    app.include_router(
        health_router(
            made or checks(),
            instance="api-1",
            draining=lambda: draining,
            pools=lambda: {"primary": {"size": 10}},
            cache=lambda: {"hits": 1},
        )
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.request(method, path)


async def test_all_is_well() -> None:
    response = await ask("/health", checks(database=fine, redis=fine))
    body = response.json()
    assert response.status_code == 200
    assert (body["status"], body["instance"]) == ("healthy", "api-1")
    assert (body["pools"], body["cache"]) == ({"primary": {"size": 10}}, {"hits": 1})
    assert body["checks"]["database"].items() >= {"status": "healthy", "critical": True, "lag_bytes": 0}.items()


async def test_what_the_service_can_do_without_degrades_it() -> None:
    made = checks(database=fine, redis=broken, replica=lagging)
    assert (await made.report()).status is Status.DEGRADED
    response = await ask("/health", made)
    assert response.status_code == 200
    shown = response.json()["checks"]
    assert shown["redis"]["error"] == "ConnectionError"
    assert shown["replica"].items() >= {"error": "too far behind", "lag_bytes": 10_000_000}.items()
    assert "password" not in response.text


async def test_without_the_database_it_is_unhealthy_but_alive_and_ready() -> None:
    made = checks(database=broken, redis=fine)
    assert (await ask("/health", made)).status_code == 503
    assert (await ask("/livez", made)).status_code == 200
    assert (await ask("/readyz", made)).status_code == 200


async def test_while_draining_it_is_alive_and_not_ready() -> None:
    assert (await ask("/livez", draining=True)).status_code == 200
    response = await ask("/readyz", draining=True)
    assert (response.status_code, response.json()) == (503, {"status": "draining"})


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_probes_may_ask_by_head(path: str) -> None:
    assert (await ask(path, method="HEAD")).status_code == 200


async def test_a_check_that_hangs_fails_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CHECK_SECONDS", 0.05)
    async with asyncio.timeout(1):
        report = await checks(database=fine, redis=hanging, replica=hanging).report()
    assert report.checks["redis"]["error"] == "TimeoutError"
    assert report.status is Status.DEGRADED


async def test_many_who_ask_cost_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = 0

    async def counting() -> None:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0.01)

    made = checks(database=counting)
    await asyncio.gather(*(made.report() for _ in range(50)))
    await made.report()
    assert runs == 1
    monkeypatch.setattr(health, "REUSE_SECONDS", 0)
    await made.report()
    assert runs == 2


async def test_one_who_gives_up_does_not_take_the_answer_from_others() -> None:
    async def slow() -> None:
        await asyncio.sleep(0.05)

    made = checks(database=slow)
    first = asyncio.create_task(made.report())
    await asyncio.sleep(0)
    second = asyncio.create_task(made.report())
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).status is Status.HEALTHY
