"""More callers than connections: they wait, for a bounded time, and closed connections are not handed out."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from app.platform.postgres.budget import ConnectionBudgetExceeded, Fleet
from app.platform.postgres.database import Database
from app.platform.postgres.errors import DatabaseBusy, DatabaseUnavailable
from tests.support.database import administer, create_registers, new_request, open_database
from tests.support.stack import DataServices, as_asyncpg

SMALL = {"pool_size": 5, "pool_overflow": 0, "replica_urls": ()}


async def read_for(database: Database, seconds: float) -> None:
    async with database.read() as session:
        await session.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})


async def write_for(database: Database, seconds: float) -> None:
    async with database.write() as session:
        await session.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})


@pytest.mark.parametrize("work", [read_for, write_for])
async def test_200_callers_share_five_connections(
    services: DataServices, work: Callable[[Database, float], Awaitable[None]]
) -> None:
    async with open_database(services, **SMALL, pool_timeout_seconds=10) as database:
        started = time.perf_counter()
        await asyncio.gather(*(work(database, 0.01) for _ in range(200)))
        assert time.perf_counter() - started > 200 * 0.01 / 5
        assert all(pool.open <= 5 and pool.in_use == 0 for pool in database.health().pools)


async def test_a_wait_for_a_connection_is_bounded(services: DataServices) -> None:
    async with open_database(services, **SMALL, pool_timeout_seconds=0.2) as database:
        started = time.perf_counter()
        outcomes = await asyncio.gather(*(read_for(database, 1) for _ in range(20)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes].count(DatabaseBusy) == 15
        assert time.perf_counter() - started < 3


async def test_waits_and_holds_are_measured(services: DataServices) -> None:
    waits = {"server": "primary-read"}
    holds = {"server": "primary-read", "route": "/hold"}
    before = REGISTRY.get_sample_value("postgres_pool_wait_seconds_total", waits) or 0
    async with open_database(services, **SMALL) as database:
        new_request(route="/hold")
        await asyncio.gather(*(read_for(database, 0.05) for _ in range(20)))
    assert (REGISTRY.get_sample_value("postgres_pool_wait_seconds_total", waits) or 0) - before > 1
    assert REGISTRY.get_sample_value("postgres_connection_hold_seconds_count", holds) == 20
    assert (REGISTRY.get_sample_value("postgres_connection_hold_seconds_sum", holds) or 0) >= 20 * 0.05


async def test_connections_that_were_closed_are_not_handed_out(services: DataServices) -> None:
    async with open_database(services, **SMALL) as database:
        await asyncio.gather(*(read_for(database, 0.01) for _ in range(5)))
        await administer(
            services.primary_dsn,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'headroom'",
        )
        await asyncio.sleep(0.1)
        await asyncio.gather(*(read_for(database, 0.01) for _ in range(20)))


async def test_a_database_that_is_not_there_is_unavailable(services: DataServices) -> None:
    url = "postgresql+asyncpg://headroom:x@127.0.0.1:1/headroom"
    async with open_database(services, url=url, replica_urls=()) as database:
        assert database.health().status == "unhealthy"
        with pytest.raises(DatabaseUnavailable):
            await read_for(database, 0)
        with pytest.raises(DatabaseUnavailable):
            await write_for(database, 0)


async def test_replicas_go_on_serving_without_a_primary(services: DataServices) -> None:
    async with open_database(services, url="postgresql+asyncpg://headroom:x@127.0.0.1:1/headroom") as database:
        await read_for(database, 0)
        assert database.health().status == "unhealthy"


async def test_health_tells_of_servers_and_pools(services: DataServices) -> None:
    async with open_database(services) as database:
        await create_registers(database)
        health = database.health()
    assert health.status == "healthy"
    assert (health.primary.state, health.primary.timeline) == ("up", 1)
    assert [(replica.name, replica.state) for replica in health.replicas] == [
        ("replica-1", "healthy"),
        ("replica-2", "healthy"),
    ]
    assert [pool.server for pool in health.pools] == ["primary", "primary-read", "replica-1", "replica-2"]


async def test_a_fleet_that_fits_is_accepted(services: DataServices) -> None:
    async with open_database(services) as database:
        await database.check_budget(Fleet(instances=2, workers=2))


async def test_behind_a_pooler_the_budget_is_not_asked(services: DataServices) -> None:
    """How many share the pooler can't be seen from here."""
    async with open_database(services, statement_cache_size=0) as database:
        await database.check_budget(Fleet(instances=10, workers=4))


async def test_a_fleet_that_does_not_fit_is_refused_with_the_arithmetic(services: DataServices) -> None:
    direct = {"url": as_asyncpg(services.primary_dsn), "replica_urls": tuple(map(as_asyncpg, services.replica_dsns))}
    async with open_database(services, statement_cache_size=256, **direct) as database:
        with pytest.raises(ConnectionBudgetExceeded) as refused:
            await database.check_budget(Fleet(instances=10, workers=4))
    assert "10 instances x 4 workers x (15 + 5 + 2) connections = 880" in str(refused.value)
    assert "max_connections 200 - 3 reserved = 197" in str(refused.value)
