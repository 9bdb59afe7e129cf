"""Nobody reads behind their own writes, though a replica lags; and reads go on without replicas."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from tests.support.api import People, Person, in_process, new_app, running
from tests.support.calls import CHECKOUTS, EQUIPMENT, add_item, body_of, check_out, give_back, item_body, listed
from tests.support.database import server_setting, until
from tests.support.stack import DataServices, free_ports

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROUNDS = 15


@pytest_asyncio.fixture(loop_scope="session")
async def delayed(services: DataServices, app: FastAPI) -> AsyncIterator[None]:
    """One replica replays a second late, the other as it comes; both are in use."""
    await until_in_use(app)
    async with server_setting(services.replica_dsns[0], "recovery_min_apply_delay", "1s"):
        yield


async def until_in_use(app: FastAPI) -> None:
    await until(lambda: all(replica.eligible for replica in app.state.resources.database.replicas))


async def stale_reads(client: httpx.AsyncClient, **headers: str) -> tuple[int, Counter[str]]:
    """How many of the reads right after a write don't show it, and who served them."""
    stale, served_by = 0, Counter[str]()
    for _ in range(ROUNDS):
        made = await client.post(EQUIPMENT, json=item_body())
        item = body_of(made, 201)
        if "pass_on" in headers:
            client.headers["X-Consistency-Token"] = made.headers["x-consistency-token"]
        one, many = await asyncio.gather(
            client.get(f"{EQUIPMENT}/{item['id']}"),
            client.get(EQUIPMENT, params={"sort": "-created_at", "limit": 1, "fields": "id"}),
        )
        stale += one.status_code == 404
        stale += [each["id"] for each in many.json()["items"]] != [item["id"]]
        served_by += Counter([one.headers["x-served-by"], many.headers["x-served-by"]])
    return stale, served_by


@pytest.mark.usefixtures("delayed")
async def test_a_caller_reads_its_own_writes(client: httpx.AsyncClient) -> None:
    stale, served_by = await stale_reads(client)
    assert stale == 0
    assert served_by["primary"] < served_by.total() / 2


@pytest.mark.usefixtures("delayed")
async def test_a_token_is_enough_where_redis_remembers_nothing(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_positions(app, monkeypatch)
    stale, _ = await stale_reads(client, pass_on="yes")
    assert stale == 0


@pytest.mark.usefixtures("delayed")
async def test_control_without_token_and_memory_reads_are_stale(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_positions(app, monkeypatch)
    monkeypatch.setattr(app.state.resources.cache, "enabled", False)
    stale, _ = await stale_reads(client)
    assert stale > 0


def forget_positions(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(app.state.resources.consistency), "ask", lambda *_: None)


@pytest.mark.usefixtures("delayed")
async def test_a_colleague_with_the_token_reads_what_was_written(
    app: FastAPI, client: httpx.AsyncClient, viewer: httpx.AsyncClient
) -> None:
    for _ in range(ROUNDS):
        made = await client.post(EQUIPMENT, json=item_body())
        headers = {"X-Consistency-Token": made.headers["x-consistency-token"]}
        body_of(await viewer.get(f"{EQUIPMENT}/{made.json()['id']}", headers=headers))


@pytest.mark.usefixtures("delayed")
async def test_no_stale_answer_is_cached_and_served_later(client: httpx.AsyncClient, viewer: httpx.AsyncClient) -> None:
    """A colleague without a token may read from the late replica; what it says must not stay in the cache."""
    for _ in range(5):
        item = await add_item(client)
        await viewer.get(EQUIPMENT, params={"fields": "id"})
        assert item["id"] in [each["id"] for each in await listed(client, fields="id")]
    await asyncio.sleep(1.5)
    assert len(await listed(viewer, fields="id")) == 5


@pytest.mark.usefixtures("delayed")
async def test_out_and_back_again_and_again_is_always_seen(client: httpx.AsyncClient) -> None:
    item = await add_item(client)
    path = f"{EQUIPMENT}/{item['id']}"
    for _ in range(5):
        checkout = await check_out(client, item["id"])
        shown = body_of(await client.get(path, params={"expand": "current_checkout"}))
        assert shown["current_checkout"]["id"] == checkout["id"]
        assert [each["id"] for each in await listed(client, CHECKOUTS, status="open")] == [checkout["id"]]
        await give_back(client, checkout["id"])
        assert await listed(client, CHECKOUTS, status="open") == []


async def test_an_update_is_not_lost_to_a_late_replica(client: httpx.AsyncClient, delayed: None) -> None:
    """The ETag that is read right after a write is that of the write, so the next write goes through."""
    path = f"{EQUIPMENT}/{(await add_item(client))['id']}"
    for number in range(10):
        etag = (await client.get(path)).headers["etag"]
        answer = await client.patch(path, json={"name": f"Name {number}"}, headers={"If-Match": etag})
        assert body_of(answer)["version"] == number + 2


@pytest.mark.usefixtures("delayed")
async def test_nobody_reads_back_in_time(
    app: FastAPI, client: httpx.AsyncClient, viewer: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a token, and without having written."""
    monkeypatch.setattr(app.state.resources.cache, "enabled", False)
    assert await reads_back_in_time(client, viewer) == 0


@pytest.mark.usefixtures("delayed")
async def test_control_whose_reads_are_forgotten_reads_back_in_time(
    app: FastAPI, client: httpx.AsyncClient, viewer: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.state.resources.cache, "enabled", False)
    forget_positions(app, monkeypatch)
    assert await reads_back_in_time(client, viewer) > 0


async def reads_back_in_time(writer: httpx.AsyncClient, reader: httpx.AsyncClient) -> int:
    """How often the newest item was an older one than before, while a colleague adds items."""
    back, newest = 0, ""

    async def write() -> None:
        while True:
            await add_item(writer)

    writing = asyncio.create_task(write())
    for number in range(80):
        answer = await reader.get(EQUIPMENT, params={"sort": "-created_at", "limit": 1 + number % 3, "fields": "id"})
        found = max((item["id"] for item in body_of(answer)["items"]), default="")
        back += found < newest
        newest = max(newest, found)
    writing.cancel()
    return back


async def test_a_forged_token_is_as_none(client: httpx.AsyncClient) -> None:
    for token in ("x", "A" * 43, "-" * 43):
        body_of(await client.get(EQUIPMENT, headers={"X-Consistency-Token": token}))


async def test_reads_come_from_replicas(app: FastAPI, client: httpx.AsyncClient) -> None:
    await until_in_use(app)
    for number in range(1, 21):
        answer = await client.get(EQUIPMENT, params={"limit": number})
        assert answer.headers["x-served-by"] in ("replica:replica-1", "replica:replica-2")


async def test_without_replicas_the_primary_answers(
    services: DataServices, api_database: str, people: People, owner: Person
) -> None:
    first, second = free_ports(2)
    nowhere = [f"postgresql+asyncpg://u:p@127.0.0.1:{port}/api" for port in (first, second)]
    for replicas in ((), tuple(nowhere)):
        lonely = new_app(services, api_database, database_replica_urls=replicas)
        async with running(lonely) as app, in_process(app, owner) as client:
            answer = await client.get(EQUIPMENT, params={"limit": 1 + len(replicas)})
            assert body_of(answer)["items"] == []
            assert answer.headers["x-served-by"] == "primary"
