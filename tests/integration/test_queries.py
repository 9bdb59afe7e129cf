"""A budget of queries for each operation, whatever the number of rows."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.support.api import API, recorded_sql
from tests.support.calls import CHECKOUTS, DUE, EQUIPMENT, add_item, check_out, item_body

pytestmark = pytest.mark.asyncio(loop_scope="session")

Call = Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]
CHECKOUTS_OF_ONE = "{item}/checkouts"


@pytest.mark.parametrize(
    ("path", "budget"),
    [
        ("{equipment}", 1),
        ("{equipment}?total=exact", 2),
        ("{equipment}?total=estimate", 2),
        ("{equipment}?expand=checkouts,current_checkout", 3),
        ("{equipment}?page=2&limit=1", 1),
        ("{item}", 1),
        ("{item}?expand=checkouts,current_checkout", 3),
        ("{item}/checkouts", 2),
        ("{checkouts}", 1),
        ("{checkouts}?status=overdue&user_id=me&total=exact", 2),
        ("{checkout}", 1),
        ("{api}/analytics/equipment", 2),
        ("{api}/auth/me", 1),
    ],
)
async def test_reads(client: httpx.AsyncClient, path: str, budget: int) -> None:
    names = await some_rows(client)
    with recorded_sql() as statements:
        answer = await client.get(path.format(**names))
    assert answer.status_code == 200
    assert len(statements) == budget, statements


async def test_a_cached_answer_costs_none(client: httpx.AsyncClient) -> None:
    await client.get(EQUIPMENT)
    with recorded_sql() as statements:
        answer = await client.get(EQUIPMENT)
    assert answer.headers["x-cache"] == "hit"
    assert statements == []


@pytest.mark.parametrize(
    "path", ["{equipment}?unknown=1", "{equipment}?fields=nope", "{equipment}?cursor=x", "{api}/x"]
)
async def test_a_request_that_is_refused_costs_none(client: httpx.AsyncClient, path: str) -> None:
    with recorded_sql() as statements:
        answer = await client.get(path.format(equipment=EQUIPMENT, api=API))
    assert answer.status_code in (404, 422)
    assert statements == []


async def create(client: httpx.AsyncClient, names: dict[str, str]) -> httpx.Response:
    return await client.post(EQUIPMENT, json=item_body())


async def change(client: httpx.AsyncClient, names: dict[str, str]) -> httpx.Response:
    return await client.patch(names["item"], json={"name": "B"}, headers={"If-Match": "*"})


async def take(client: httpx.AsyncClient, names: dict[str, str]) -> httpx.Response:
    return await client.post(f"{names['free']}/checkouts", json={"due_at": DUE})


async def bring_back(client: httpx.AsyncClient, names: dict[str, str]) -> httpx.Response:
    return await client.post(f"{names['checkout']}/return", json={})


async def delete(client: httpx.AsyncClient, names: dict[str, str]) -> httpx.Response:
    return await client.delete(names["free"])


@pytest.mark.parametrize(("write", "budget"), [(create, 2), (change, 3), (take, 3), (bring_back, 3), (delete, 3)])
async def test_writes(client: httpx.AsyncClient, write: Any, budget: int) -> None:
    """BEGIN and COMMIT aside; one is the entry in the audit log."""
    names = await some_rows(client)
    with recorded_sql() as statements:
        answer = await write(client, names)
    assert answer.status_code in (200, 201, 204)
    assert len(statements) == budget, statements


async def some_rows(client: httpx.AsyncClient) -> dict[str, str]:
    item, free = await add_item(client), await add_item(client)
    checkout = await check_out(client, item["id"])
    return {
        "api": API,
        "equipment": EQUIPMENT,
        "item": f"{EQUIPMENT}/{item['id']}",
        "free": f"{EQUIPMENT}/{free['id']}",
        "checkouts": CHECKOUTS,
        "checkout": f"{CHECKOUTS}/{checkout['id']}",
    }
