"""What a replay says is done has reached a standby, as if it were the first answer.

A COMMIT whose wait for the synchronous standby was cut short is visible on the primary, and lost with it.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from tests.support.api import (
    People,
    api_settings,
    connected,
    create_database,
    in_database,
    in_process,
    new_app,
    running,
)
from tests.support.calls import EQUIPMENT, item_body, problem_of
from tests.support.database import administer
from tests.support.stack import DataServices, data_services, no_standby

DATABASE = "replays"
WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
LONG_ENOUGH_SECONDS = 1.0


@pytest.fixture(scope="module")
def services() -> Iterator[DataServices]:
    """Its own: these tests freeze servers."""
    with data_services() as started:
        asyncio.run(create_database(started, DATABASE))
        yield started


@pytest_asyncio.fixture
async def client(services: DataServices) -> AsyncIterator[httpx.AsyncClient]:
    people = People(services, dsn(services), api_settings(services, DATABASE))
    async with running(new_app(services, DATABASE)) as app, in_process(app, await people.join()) as client:
        yield client


def dsn(services: DataServices) -> str:
    return in_database(services.primary_dsn, DATABASE)


async def cut_the_wait_short(services: DataServices) -> None:
    async with connected(services.primary_dsn) as connection, asyncio.timeout(5):
        while (pid := await connection.fetchval(WAITING)) is None:  # noqa: ASYNC110 - it doesn't know of us
            await asyncio.sleep(0.01)
    await administer(services.primary_dsn, f"SELECT pg_cancel_backend({pid})")


async def post_twice_without_standby(services: DataServices, client: httpx.AsyncClient) -> asyncio.Task[httpx.Response]:
    """The repetition, under way; the first one's outcome was unknown."""
    body, headers = item_body(), {"Idempotency-Key": str(uuid4())}
    first = asyncio.create_task(client.post(EQUIPMENT, json=body, headers=headers))
    await cut_the_wait_short(services)
    problem_of(await first, 503, "outcome-unknown")
    again = asyncio.create_task(client.post(EQUIPMENT, json=body, headers=headers))
    await asyncio.wait([again], timeout=LONG_ENOUGH_SECONDS)
    return again


async def test_a_replay_waits_for_a_standby(services: DataServices, client: httpx.AsyncClient) -> None:
    with no_standby(services):
        again = await post_twice_without_standby(services, client)
        assert not again.done()
    answer = await again
    assert (answer.status_code, answer.headers["idempotency-replayed"]) == (201, "true")


async def test_control_a_lookup_that_writes_nothing_waits_for_nobody(
    services: DataServices, client: httpx.AsyncClient
) -> None:
    async with connected(dsn(services)) as connection:
        claim = await connection.fetchval("SELECT pg_get_functiondef('claim_idempotency_key'::regproc)")
        assert claim.count("FOR UPDATE") == 1
        await connection.execute(claim.replace("FOR UPDATE", ""))
    with no_standby(services):
        again = await post_twice_without_standby(services, client)
        assert again.done()
    assert (await again).status_code == 201
