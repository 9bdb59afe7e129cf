"""Redis is never needed to answer: dead or frozen, the service goes on, and takes it back when it returns."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest

from tests.support.api import API, People, Person, in_process, new_app, running
from tests.support.calls import EQUIPMENT, add_item, body_of, check_out, get_item, give_back, listed, problem_of
from tests.support.redis_server import RedisServer, eventually, redis_server
from tests.support.stack import DataServices

pytestmark = pytest.mark.asyncio(loop_scope="session")

BURST = 30
Service = Callable[..., Any]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def service(services: DataServices, api_database: str, owner: Person, redis: RedisServer) -> Service:
    """A client of an application that has this Redis, with the patience that it has in production."""

    @asynccontextmanager
    async def open_service(**changes: Any) -> AsyncIterator[httpx.AsyncClient]:
        settings = {"redis_url": redis.url, "redis_timeout_ms": 50, **changes}
        async with running(new_app(services, api_database, **settings)) as app, in_process(app, owner) as client:
            yield client

    return open_service


@asynccontextmanager
async def killed(redis: RedisServer) -> AsyncIterator[None]:
    redis.kill()
    try:
        yield
    finally:
        redis.start()


@asynccontextmanager
async def frozen(redis: RedisServer) -> AsyncIterator[None]:
    redis.freeze()
    try:
        yield
    finally:
        redis.thaw()


away = pytest.mark.parametrize("away", [killed, frozen])


async def is_cached(client: httpx.AsyncClient) -> bool:
    return (await client.get(EQUIPMENT)).headers["x-cache"] == "hit"


@away
async def test_everything_works_on_without_it_and_with_it_again(
    service: Service, redis: RedisServer, away: Any
) -> None:
    async with service() as client:
        await add_item(client)
        await eventually(partial(is_cached, client))
        async with away(redis):
            item = await add_item(client, name="Without")
            assert (await get_item(client, item["id"]))["name"] == "Without"
            checkout = await check_out(client, item["id"])
            await give_back(client, checkout["id"])
            assert len(await listed(client)) == 2
            assert not await is_cached(client)
            assert body_of(await client.get(f"{API}/analytics/equipment"))["items"] == 2
            problem_of(await client.get(f"{EQUIPMENT}?unknown=1"), 422)
        await eventually(partial(is_cached, client))
        assert len(await listed(client)) == 2


@away
async def test_many_at_once_are_all_answered_and_soon(service: Service, redis: RedisServer, away: Any) -> None:
    async with service() as client:
        await add_item(client)
        async with away(redis):
            slowest = 0.0
            for _ in range(5):
                started = time.monotonic()
                answers = await asyncio.gather(*(client.get(EQUIPMENT) for _ in range(20)))
                slowest = max(slowest, time.monotonic() - started)
                assert Counter(answer.status_code for answer in answers) == {200: 20}
            assert slowest < 2


@away
async def test_limits_hold_by_each_process_alone(service: Service, redis: RedisServer, away: Any) -> None:
    """At this scale a list may be asked for twice a second, and without Redis once."""
    async with service(rate_limit_scale=0.02, rate_limit_local_share=0.5) as client:
        async with away(redis):
            started = time.monotonic()
            answers = [await client.get(EQUIPMENT) for _ in range(BURST)]
            seconds = time.monotonic() - started
        statuses = Counter(answer.status_code for answer in answers)
        assert set(statuses) == {200, 429}
        assert 1 <= statuses[200] <= 1 + seconds
        refused = next(answer for answer in answers if answer.status_code == 429)
        problem = problem_of(refused, 429, "temporary-reduced-capacity")
        assert problem["violated-policies"][0] in refused.headers["ratelimit-policy"]
        assert int(refused.headers["retry-after"]) >= 1


async def test_control_with_it_the_limit_is_the_whole_one(service: Service) -> None:
    async with service(rate_limit_scale=0.02) as client:
        started = time.monotonic()
        answers = await asyncio.gather(*(client.get(EQUIPMENT) for _ in range(BURST)))
        seconds = time.monotonic() - started
    allowed = [answer for answer in answers if answer.status_code == 200]
    refused = next(answer for answer in answers if answer.status_code == 429)
    problem_of(refused, 429, "quota-exceeded")
    assert 2 <= len(allowed) <= 2 + 2 * seconds


@away
async def test_a_write_meanwhile_leaves_nothing_stale_behind(service: Service, redis: RedisServer, away: Any) -> None:
    async with service() as client:
        await add_item(client)
        await eventually(partial(is_cached, client))
        async with away(redis):
            await add_item(client)
        for _ in range(20):
            assert len(await listed(client)) == 2
            await asyncio.sleep(0.02)


@away
async def test_a_token_keeps_reads_behind_no_write(service: Service, redis: RedisServer, away: Any) -> None:
    async with service() as client, away(redis):
        for number in range(1, 11):
            made = await client.post(EQUIPMENT, json={"asset_tag": f"T{number}", "name": "A", "category": "c"})
            client.headers["X-Consistency-Token"] = made.headers["x-consistency-token"]
            assert len(await listed(client, fields="id")) == number


@away
async def test_it_stays_ready_and_says_what_is_missing(service: Service, redis: RedisServer, away: Any) -> None:
    async with service() as client:
        assert body_of(await client.get("/health"))["checks"]["redis"]["status"] == "healthy"
        async with away(redis):
            await asyncio.sleep(1.1)  # a report is kept for a second
            assert (await client.get("/livez")).status_code == 200
            assert (await client.get("/readyz")).status_code == 200
            health = body_of(await client.get("/health"))
            assert health["status"] == "degraded"
            assert health["checks"]["redis"]["status"] == "unhealthy"


async def test_it_starts_without_it(service: Service) -> None:
    async with service(redis_url="redis://127.0.0.1:1/0") as client:
        await add_item(client)
        assert len(await listed(client)) == 1


async def test_people_log_in_without_it(service: Service, people: People) -> None:
    async with service(redis_url="redis://127.0.0.1:1/0") as client:
        answer = await client.post(f"{API}/auth/login", json={"email": "nobody@example.com", "password": "x"})
        problem_of(answer, 401, "wrong-credentials")
