"""Several requests in one: each with its own caller check, limits, status and headers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from tests.support.api import API, Person, in_database, in_process, new_app, running
from tests.support.calls import (
    CHECKOUTS,
    DUE,
    EQUIPMENT,
    add_item,
    body_of,
    item_body,
    listed,
    problem_of,
    wrong_places,
)
from tests.support.redis_server import eventually
from tests.support.stack import DataServices

pytestmark = pytest.mark.asyncio(loop_scope="session")

BATCH = f"{API}/batch"


def get(id_: str, url: str, **more: Any) -> dict[str, Any]:
    return {"id": id_, "method": "GET", "url": url, **more}


async def batch(client: httpx.AsyncClient, *requests: dict[str, Any]) -> dict[str, dict[str, Any]]:
    answer = body_of(await client.post(BATCH, json={"requests": requests}))
    assert [each["id"] for each in answer["responses"]] == [each["id"] for each in requests]
    return {each["id"]: each for each in answer["responses"]}


async def test_a_page_needs_one_request(client: httpx.AsyncClient) -> None:
    """List, figures and checkouts: what the audit counted as three."""
    item = await add_item(client)
    answers = await batch(
        client,
        get("list", f"{EQUIPMENT}?fields=asset_tag,name,status"),
        get("figures", f"{API}/analytics/equipment"),
        get("checkouts", f"{CHECKOUTS}?status=open"),
    )
    assert {each["status"] for each in answers.values()} == {200}
    assert answers["list"]["body"]["items"] == [{name: item[name] for name in ("asset_tag", "name", "status")}]
    assert answers["figures"]["body"]["items"] == 1
    assert answers["checkouts"]["body"]["items"] == []


async def test_a_part_says_what_the_request_alone_says(client: httpx.AsyncClient) -> None:
    await add_item(client)
    alone = await client.get(EQUIPMENT)
    part = (await batch(client, get("a", EQUIPMENT)))["a"]
    assert part["body"] == alone.json()
    for name in ("etag", "cache-control", "content-type"):
        assert part["headers"][name] == alone.headers[name]
    assert part["headers"]["x-cache"] == "hit"


async def test_a_part_that_fails_leaves_the_others(client: httpx.AsyncClient) -> None:
    answers = await batch(
        client,
        get("unknown", f"{EQUIPMENT}?unknown=1"),
        get("nowhere", f"{API}/nowhere"),
        {"id": "broken", "method": "POST", "url": EQUIPMENT, "body": {}},
        {"id": "method", "method": "DELETE", "url": EQUIPMENT},
        {"id": "none", "method": "POST", "url": EQUIPMENT},
        {"id": "made", "method": "POST", "url": EQUIPMENT, "body": item_body()},
    )
    statuses = {id_: answer["status"] for id_, answer in answers.items()}
    expected = {"unknown": 422, "nowhere": 404, "broken": 422, "method": 405, "none": 422, "made": 201}
    assert statuses == expected
    for id_, status in expected.items():
        if status >= 400:
            assert answers[id_]["headers"]["content-type"] == "application/problem+json"
            assert answers[id_]["body"]["status"] == status
    assert len(await listed(client)) == 1


async def test_a_part_writes_and_the_next_batch_reads_it(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        BATCH, json={"requests": [{"id": "a", "method": "POST", "url": EQUIPMENT, "body": item_body()}]}
    )
    assert answer.headers["x-consistency-token"]
    made = answer.json()["responses"][0]
    assert UUID(made["body"]["id"])
    found = await batch(client, get("a", made["headers"]["location"]))
    assert found["a"]["body"] == made["body"]


async def test_parts_that_take_one_item_get_it_once(client: httpx.AsyncClient) -> None:
    item = await add_item(client)
    take = {"method": "POST", "url": f"{EQUIPMENT}/{item['id']}/checkouts", "body": {"due_at": DUE}}
    answers = await batch(client, *({"id": str(number), **take} for number in range(10)))
    assert sorted(answer["status"] for answer in answers.values()) == [201] + [409] * 9


async def test_each_part_needs_its_own_permission(viewer: httpx.AsyncClient) -> None:
    answers = await batch(
        viewer, get("read", EQUIPMENT), {"id": "write", "method": "POST", "url": EQUIPMENT, "body": item_body()}
    )
    assert (answers["read"]["status"], answers["write"]["status"]) == (200, 403)


async def test_without_a_token_each_part_is_refused(anonymous: httpx.AsyncClient) -> None:
    answers = await batch(anonymous, get("a", EQUIPMENT), get("b", f"{API}/auth/me"))
    assert [answer["status"] for answer in answers.values()] == [401, 401]


async def test_conditions_are_a_parts_own(client: httpx.AsyncClient) -> None:
    item = await add_item(client)
    path = f"{EQUIPMENT}/{item['id']}"
    etag = (await client.get(path)).headers["etag"]
    answers = await batch(
        client,
        get("read", path, headers={"If-None-Match": etag}),
        {"id": "lost", "method": "PATCH", "url": path, "headers": {"If-Match": '"0"'}, "body": {"name": "B"}},
        {"id": "blind", "method": "PATCH", "url": path, "body": {"name": "B"}},
    )
    assert [answers[id_]["status"] for id_ in ("read", "lost", "blind")] == [304, 412, 428]
    assert answers["read"]["body"] is None


async def test_each_part_is_charged(services: DataServices, api_database: str, owner: Person) -> None:
    two_a_second = new_app(services, api_database, rate_limit_scale=0.02)
    async with running(two_a_second) as app, in_process(app, owner) as client:
        answers = await batch(client, *(get(str(number), CHECKOUTS) for number in range(10)))
    refused = [answer for answer in answers.values() if answer["status"] == 429]
    assert len(refused) >= 7
    assert all(int(answer["headers"]["retry-after"]) >= 1 for answer in refused)
    assert {answer["status"] for answer in answers.values()} == {200, 429}


@pytest.mark.parametrize(
    ("request_", "where"),
    [
        (get("a", BATCH) | {"method": "POST"}, ["url"]),
        (get("a", f"{BATCH}/") | {"method": "POST"}, ["url"]),
        (get("a", "/api/v1/%62atch") | {"method": "POST"}, ["url"]),
        (get("a", "https://example.com/api/v1/equipment"), ["url"]),
        (get("a", "//example.com/api/v1/equipment"), ["url"]),
        (get("a", "/health"), ["url"]),
        (get("a", "/metrics"), ["url"]),
        (get("a", "equipment"), ["url"]),
        (get("a", f"{EQUIPMENT}#x"), ["url"]),
        (get("a", f"{EQUIPMENT}?q=a b"), ["url"]),
        (get("a", f"{EQUIPMENT}/%00"), ["url"]),
        (get("a", "/api/v1/" + "x" * 3_000), ["url"]),
        (get("a b", EQUIPMENT), ["id"]),
        (get("", EQUIPMENT), ["id"]),
        (get("a", EQUIPMENT, headers={"Authorization": "Bearer x"}), ["headers"]),
        (get("a", EQUIPMENT, headers={"If-Match": "a\r\nX: y"}), ["headers"]),
        (get("a", EQUIPMENT) | {"method": "OPTIONS"}, ["method"]),
        (get("a", EQUIPMENT) | {"method": "get"}, ["method"]),
        (get("a", EQUIPMENT, unknown=1), ["unknown"]),
    ],
)
async def test_a_part_that_may_not_be_sent_is_named(
    client: httpx.AsyncClient, request_: dict[str, Any], where: list[str]
) -> None:
    answer = await client.post(BATCH, json={"requests": [get("ok", EQUIPMENT), request_]})
    assert wrong_places(answer) == [["body", "requests", 1, *where]]


async def test_a_batch_has_at_least_one_part_and_at_most_twenty(client: httpx.AsyncClient) -> None:
    for count in (0, 21):
        answer = await client.post(BATCH, json={"requests": [get(str(n), EQUIPMENT) for n in range(count)]})
        assert wrong_places(answer) == [["body", "requests"]]
    assert len(await batch(client, *(get(str(n), EQUIPMENT) for n in range(20)))) == 20


async def test_ids_differ(client: httpx.AsyncClient) -> None:
    answer = await client.post(BATCH, json={"requests": [get("a", EQUIPMENT), get("a", EQUIPMENT)]})
    assert wrong_places(answer) == [["body"]]


async def test_a_path_that_leads_out_is_not_found(client: httpx.AsyncClient) -> None:
    answers = await batch(client, get("a", "/api/v1/../../health"), get("b", "/api/v1/%2e%2e/%2e%2e/metrics"))
    assert [answer["status"] for answer in answers.values()] == [404, 404]


# A batch is one request to the gate. What its parts may take of the pool of connections:

SMALL_POOL = {"database_pool_size": 4, "database_pool_timeout_ms": 1_000, "database_lock_timeout_ms": 30_000}
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@asynccontextmanager
async def parts_that_hold(
    client: httpx.AsyncClient, dsn: str, connections: int
) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """A batch of 20, so many of which hold a connection each and wait for the item that they all want."""
    item = await add_item(client)
    take = {"method": "POST", "url": f"{EQUIPMENT}/{item['id']}/checkouts", "body": {"due_at": DUE}}
    connection = await asyncpg.connect(dsn)
    observer = await asyncpg.connect(dsn)

    async def waiting() -> int:
        return int(await observer.fetchval(WAITING))

    async def is_so() -> bool:
        return await waiting() == connections

    try:
        async with asyncio.TaskGroup() as group, connection.transaction():
            await connection.execute("SELECT FROM equipment WHERE id = $1 FOR UPDATE", UUID(item["id"]))
            group.create_task(batch(client, *({"id": str(number), **take} for number in range(20))))
            await eventually(is_so, seconds=20)
            yield waiting
    finally:
        await connection.close()
        await observer.close()


async def test_the_parts_of_a_batch_leave_connections_to_others(
    services: DataServices, api_database: str, owner: Person
) -> None:
    dsn = in_database(services.primary_dsn, api_database)
    async with (
        running(new_app(services, api_database, **SMALL_POOL)) as app,
        in_process(app, owner) as client,
        parts_that_hold(client, dsn, connections=2) as waiting,
    ):
        for _ in range(3):
            await add_item(client)
        assert await waiting() == 2


async def test_control_parts_without_a_bound_take_all_connections(
    services: DataServices, api_database: str, owner: Person
) -> None:
    dsn = in_database(services.primary_dsn, api_database)
    unbounded = new_app(services, api_database, **SMALL_POOL, admission_sheddable_pool_share=100)
    async with (
        running(unbounded) as app,
        in_process(app, owner) as client,
        parts_that_hold(client, dsn, connections=4),
    ):
        problem_of(await client.post(EQUIPMENT, json=item_body()), 503)
