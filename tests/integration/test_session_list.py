"""The list of sessions comes from Redis, and from memory; Postgres is the truth, and nothing older is ever shown."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from app.features.identity import session_service
from app.platform.cache import tag
from tests.support.api import in_process, new_app, recorded_sql, running
from tests.support.calls import body_of
from tests.support.identity import AUTH, bearer, log_in, logged_in, refresh
from tests.support.stack import DataServices

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIST = f"{AUTH}/sessions"
ROUNDS = 5
Json = dict[str, Any]


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def other(services: DataServices, api_database: str) -> AsyncIterator[httpx.AsyncClient]:
    """Another process, as far as what it keeps in memory goes."""
    async with running(new_app(services, api_database)) as app, in_process(app) as client:
        yield client


async def listed(client: httpx.AsyncClient, token: Json) -> list[Json]:
    items: list[Json] = body_of(await client.get(LIST, headers=bearer(token)))["items"]
    return items


async def test_it_is_asked_of_the_database_once(anonymous: httpx.AsyncClient, other: httpx.AsyncClient) -> None:
    _, token = await logged_in(anonymous)
    first = await anonymous.get(LIST, headers=bearer(token))
    with recorded_sql() as statements:
        elsewhere, again = [await client.get(LIST, headers=bearer(token)) for client in (other, anonymous)]
    assert statements == []
    assert first.json() == elsewhere.json() == again.json()
    assert elsewhere.headers["x-served-by"] == "cache:redis"
    assert again.headers["x-cache"] == "hit"


async def test_each_session_sees_itself_as_the_present_one(anonymous: httpx.AsyncClient) -> None:
    user, first = await logged_in(anonymous)
    second = body_of(await log_in(anonymous, user["email"]))
    for _ in range(2):
        lists = [await listed(anonymous, token) for token in (first, second)]
        assert [[each["current"] for each in items] for items in lists] == [[False, True], [True, False]]


async def missed(writer: httpx.AsyncClient, reader: httpx.AsyncClient) -> int:
    """How often the reader's list lacks what the writer's answer acknowledged: log-ins, refreshes, ends."""
    user, token = await logged_in(writer)
    found = 0
    for _ in range(ROUNDS):
        for _ in range(2):  # so that it is in the reader's memory
            before = {each["id"] for each in await listed(reader, token)}
        added = body_of(await log_in(writer, user["email"]))
        new = {each["id"]: each for each in await listed(reader, token) if each["id"] not in before}
        found += len(new) != 1
        body_of(await refresh(writer, added["refresh_token"]))
        renewed = {each["id"]: each for each in await listed(reader, token) if each["id"] not in before}
        found += renewed == new
        for session_id in renewed.keys() | new.keys():
            await writer.delete(f"{LIST}/{session_id}", headers=bearer(token))
        found += {each["id"] for each in await listed(reader, token)} != before
    return found


async def test_what_was_acknowledged_is_seen_everywhere_at_once(
    anonymous: httpx.AsyncClient, other: httpx.AsyncClient
) -> None:
    assert await missed(anonymous, other) == 0


async def test_control_without_word_of_a_change_the_list_is_of_before(
    anonymous: httpx.AsyncClient, other: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_service, "tag", lambda user_id, _: tag(user_id, "nothing"))
    assert await missed(anonymous, other) > 0


async def test_what_redis_has_lost_is_made_again(
    anonymous: httpx.AsyncClient, other: httpx.AsyncClient, services: DataServices
) -> None:
    user, token = await logged_in(anonymous)
    body_of(await log_in(anonymous, user["email"]))
    before = await listed(anonymous, token)
    async with Redis.from_url(services.redis_url) as redis:
        lost = [key async for key in redis.scan_iter(match=f"cache:*{user['id']}*")]
        assert lost
        await redis.delete(*lost)
    with recorded_sql() as statements:
        assert await listed(other, token) == before
    assert len(statements) == 1


async def test_without_redis_it_is_asked_of_the_database(services: DataServices, api_database: str) -> None:
    alone = new_app(services, api_database, redis_url="redis://127.0.0.1:1/0")
    async with running(alone) as app, in_process(app) as client:
        user, token = await logged_in(client)
        body_of(await log_in(client, user["email"]))
        newest, own = await listed(client, token)
        assert (await client.delete(f"{LIST}/{newest['id']}", headers=bearer(token))).status_code == 204
        assert await listed(client, token) == [own]
