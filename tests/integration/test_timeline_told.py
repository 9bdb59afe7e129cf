"""A request tells its process of a promotion, by what its caller or Redis knows; and nothing that is made up does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from app.platform.http import fleet_timeline
from app.platform.http.consistency import Consistency
from app.platform.postgres.positions import pack
from app.platform.postgres.tokens import ConsistencyTokens
from app.platform.redis import sortable
from tests.support.api import People, Person, in_process, new_app, running
from tests.support.calls import EQUIPMENT, body_of, item_body, problem_of
from tests.support.redis_server import RedisServer, redis_client, redis_server
from tests.support.stack import DataServices

pytestmark = pytest.mark.asyncio(loop_scope="session")

FORGED = ConsistencyTokens("a guess at the secret, just as long")
Tell = Callable[[httpx.AsyncClient, RedisServer, str, int, ConsistencyTokens], Awaitable[None]]


@pytest_asyncio.fixture(loop_scope="session")
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """Its own: what is told here would stop the writes of every other service."""
    with redis_server(tmp_path) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def told(services: DataServices, api_database: str, redis: RedisServer) -> AsyncIterator[FastAPI]:
    changes = {"redis_url": redis.url, "database_connect_timeout_ms": 1_000}
    async with running(new_app(services, api_database, **changes)) as app:
        yield app


async def by_the_header(
    client: httpx.AsyncClient, _redis: RedisServer, _caller: str, position: int, tokens: ConsistencyTokens
) -> None:
    await client.get(EQUIPMENT, headers={"X-Consistency-Token": tokens.sign(position)})


async def by_redis(
    client: httpx.AsyncClient, redis: RedisServer, caller: str, position: int, tokens: ConsistencyTokens
) -> None:
    async with redis_client(redis.url) as memory:
        await Consistency(memory, tokens).remember(caller, position)
        assert await memory.execute("EXISTS", f"consistency:written:{{{caller}}}")
    await client.get(EQUIPMENT)


async def by_the_fleet(
    _client: httpx.AsyncClient, redis: RedisServer, _caller: str, position: int, tokens: ConsistencyTokens
) -> None:
    async with redis_client(redis.url) as memory:
        await memory.execute("SET", fleet_timeline.KEY, tokens.sign(position))


@pytest.fixture
def tokens(people: People) -> ConsistencyTokens:
    """As the service makes them."""
    return ConsistencyTokens(people.settings.secret_key.get_secret_value())


ways = pytest.mark.parametrize("tell", [by_the_header, by_redis, by_the_fleet])


async def write_after(
    app: FastAPI, owner: Person, redis: RedisServer, tell: Tell, tokens: ConsistencyTokens
) -> httpx.Response:
    """Somebody tells of a timeline after that of the primary; then a write."""
    timeline = app.state.resources.database.primary.fence.timeline
    async with in_process(app, owner) as client:
        body_of(await client.post(EQUIPMENT, json=item_body()), 201)
        await tell(client, redis, str(owner.user_id), pack(timeline + 1, 0), tokens)
        await asyncio.sleep(1.5 * fleet_timeline.EXCHANGE_SECONDS)
        return await client.post(EQUIPMENT, json=item_body())


@ways
async def test_who_has_seen_a_newer_primary_stops_the_writes_to_the_old_one(
    told: FastAPI, owner: Person, redis: RedisServer, tokens: ConsistencyTokens, tell: Tell
) -> None:
    problem_of(await write_after(told, owner, redis, tell, tokens), 503)


@ways
async def test_what_is_made_up_stops_nothing(told: FastAPI, owner: Person, redis: RedisServer, tell: Tell) -> None:
    body_of(await write_after(told, owner, redis, tell, FORGED), 201)


async def test_what_is_made_up_does_not_keep_the_fleet_from_telling(
    told: FastAPI, redis: RedisServer, tokens: ConsistencyTokens
) -> None:
    database = told.state.resources.database
    timeline = database.primary.fence.timeline
    async with redis_client(redis.url) as memory:
        for made_up in (sortable(pack(7, 0)), "f" * 32, "\xff", ""):
            await memory.execute("SET", fleet_timeline.KEY, made_up)
            await fleet_timeline.exchange(memory, database, tokens)
            known = (await memory.execute("GET", fleet_timeline.KEY)).decode()
            assert tokens.verify(known) == pack(timeline, 0)
    assert database.primary.fence.timeline == timeline
