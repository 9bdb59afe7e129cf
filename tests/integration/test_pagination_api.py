"""Walking lists: by cursor in both directions while rows come and go, by number, and with cursors that aren't ours."""

import base64
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from app.platform.http.pagination import CursorSigner
from tests.support.api import People, Person, in_process
from tests.support.calls import (
    CHECKOUTS,
    EQUIPMENT,
    add_item,
    body_of,
    check_out,
    item_body,
    listed,
    pages,
    wrong_places,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

Page = dict[str, Any]


def names(page: Page) -> list[str]:
    return [item["name"] for item in page["items"]]


async def walked(client: httpx.AsyncClient, path: str = EQUIPMENT, **params: Any) -> list[str]:
    """Ids in the order in which the pages gave them."""
    return [item["id"] async for page in pages(client, path, **params) for item in page["items"]]


async def test_every_row_once_and_in_order(client: httpx.AsyncClient, people: People, owner: Person) -> None:
    ids = [str(id_) for id_ in await people.own_items(owner, 23)]
    for limit in (1, 5, 22, 23, 24, 200):
        assert await walked(client, limit=limit) == ids, limit
    assert await walked(client, limit=5, sort="-name") == ids[::-1]


async def test_back_to_the_start_by_the_pages_that_led_to_the_end(
    client: httpx.AsyncClient, people: People, owner: Person
) -> None:
    await people.own_items(owner, 11)
    forth = [page async for page in pages(client, limit=4)]
    back = [page async for page in pages(client, follow="prev_cursor", limit=4, cursor=forth[-1]["prev_cursor"])]
    assert [names(page) for page in forth] == [
        ["Item 00000", "Item 00001", "Item 00002", "Item 00003"],
        ["Item 00004", "Item 00005", "Item 00006", "Item 00007"],
        ["Item 00008", "Item 00009", "Item 00010"],
    ]
    assert [names(page) for page in back] == [names(page) for page in forth[-2::-1]]


async def test_the_ends_are_known(client: httpx.AsyncClient, people: People, owner: Person) -> None:
    await people.own_items(owner, 4)
    first, last = [page async for page in pages(client, limit=2)]
    assert first["prev_cursor"] is None
    assert first["next_cursor"] is not None
    assert last["next_cursor"] is None
    assert last["prev_cursor"] is not None


async def test_an_empty_list_leads_nowhere(client: httpx.AsyncClient) -> None:
    answer = await client.get(EQUIPMENT)
    assert body_of(answer) == {"items": [], "next_cursor": None, "prev_cursor": None}
    assert "link" not in answer.headers


@pytest.mark.parametrize("sort", ["name", "asset_tag", "created_at", "updated_at"])
@pytest.mark.parametrize("sign", ["", "-"])
async def test_equal_sort_keys_lose_no_row(
    client: httpx.AsyncClient, people: People, owner: Person, sort: str, sign: str
) -> None:
    """The rows are made in one transaction: their times are all the same."""
    ids = [str(id_) for id_ in await people.own_items(owner, 7)]
    assert await walked(client, limit=2, sort=f"{sign}{sort}") == (ids[::-1] if sign else ids)


@pytest.mark.parametrize("sort", ["checked_out_at", "-checked_out_at", "due_at", "-due_at"])
async def test_checkouts_by_every_sort_key(client: httpx.AsyncClient, people: People, owner: Person, sort: str) -> None:
    await people.own_items(owner, 3, checkouts=3)
    ids = await walked(client, CHECKOUTS, limit=2, sort=sort)
    assert len(set(ids)) == len(ids) == 9
    assert ids == sorted(ids, reverse=sort.startswith("-"))


async def test_links_lead_where_the_cursors_lead(client: httpx.AsyncClient, people: People, owner: Person) -> None:
    await people.own_items(owner, 6)
    params = {"limit": 2, "fields": "name", "category": "camera", "sort": "-name"}
    answer = await client.get(EQUIPMENT, params=params)
    seen = [names(answer.json())]
    while "next" in answer.links:
        answer = await client.get(answer.links["next"]["url"])
        seen.append(names(body_of(answer)))
    assert seen == [[f"Item {n:05d}", f"Item {n - 1:05d}"] for n in (5, 3, 1)]
    answer = await client.get(answer.links["prev"]["url"])
    assert names(body_of(answer)) == seen[1]
    assert set(answer.links) == {"next", "prev"}


# Rows that come and go


async def insert_and_walk(client: httpx.AsyncClient, walk: Any) -> list[str]:
    """What a walk sees while, after each page, a row is added at the front and one at the end."""
    seen: list[str] = []
    number = 0
    async for page in walk:
        seen += names(page)
        number += 1
        if number <= 5:
            await add_item(client, name=f"A new one {number}")
            await add_item(client, name=f"Z new one {number}")
    return seen


async def numbered_pages(client: httpx.AsyncClient, limit: int) -> Any:
    for number in range(1, 100):
        page = body_of(await client.get(EQUIPMENT, params={"page": number, "limit": limit}))
        if not page["items"]:
            return
        yield page


async def test_rows_that_come_meanwhile_make_none_skipped_and_none_twice(
    client: httpx.AsyncClient, people: People, owner: Person
) -> None:
    await people.own_items(owner, 12)
    seen = await insert_and_walk(client, pages(client, limit=3))
    assert [name for name in seen if name.startswith("Item")] == [f"Item {n:05d}" for n in range(12)]
    assert len(set(seen)) == len(seen)
    assert not [name for name in seen if name.startswith("A")]  # behind the walker


async def test_control_by_number_rows_come_twice(client: httpx.AsyncClient, people: People, owner: Person) -> None:
    await people.own_items(owner, 12)
    seen = await insert_and_walk(client, numbered_pages(client, limit=3))
    assert len(set(seen)) < len(seen)


async def test_rows_that_go_meanwhile_make_none_skipped(
    client: httpx.AsyncClient, people: People, owner: Person
) -> None:
    await people.own_items(owner, 12)
    seen: list[str] = []
    async for page in pages(client, limit=3):
        seen += names(page)
        for item in page["items"]:  # the one at the edge too, which the cursor was made of
            assert (await client.delete(f"{EQUIPMENT}/{item['id']}")).status_code == 204
    assert seen == [f"Item {n:05d}" for n in range(12)]


async def test_control_by_number_rows_are_skipped(client: httpx.AsyncClient, people: People, owner: Person) -> None:
    await people.own_items(owner, 12)
    seen: list[str] = []
    async for page in numbered_pages(client, limit=3):
        seen += names(page)
        for item in page["items"]:
            await client.delete(f"{EQUIPMENT}/{item['id']}")
    assert len(seen) < 12


# By number


async def test_pages_by_number(client: httpx.AsyncClient, people: People, owner: Person) -> None:
    ids = [str(id_) for id_ in await people.own_items(owner, 7)]
    third = body_of(await client.get(EQUIPMENT, params={"page": 3, "limit": 2}))
    assert [item["id"] for item in third["items"]] == ids[4:6]
    assert await listed(client, page=200, limit=200) == []


async def test_from_a_numbered_page_cursors_go_on(client: httpx.AsyncClient, people: People, owner: Person) -> None:
    ids = [str(id_) for id_ in await people.own_items(owner, 7)]
    answer = await client.get(EQUIPMENT, params={"page": 2, "limit": 2})
    for rel, expected in (("next", ids[4:6]), ("prev", ids[:2])):
        page = body_of(await client.get(answer.links[rel]["url"]))
        assert [item["id"] for item in page["items"]] == expected


async def test_page_and_cursor_together_are_refused(client: httpx.AsyncClient, people: People, owner: Person) -> None:
    await people.own_items(owner, 3)
    cursor = body_of(await client.get(EQUIPMENT, params={"limit": 1}))["next_cursor"]
    assert wrong_places(await client.get(EQUIPMENT, params={"cursor": cursor, "page": 1})) == [["query", "page"]]


# Totals


async def test_totals(client: httpx.AsyncClient, people: People, owner: Person) -> None:
    await people.own_items(owner, 9)
    await add_item(client, category="lens")
    assert "total" not in body_of(await client.get(EQUIPMENT))
    for params, expected in (({}, 10), ({"category": "camera"}, 9), ({"q": "item"}, 9), ({"limit": 2, "page": 4}, 10)):
        page = body_of(await client.get(EQUIPMENT, params={**params, "total": "exact"}))
        assert page["total"] == expected, params
    estimate = body_of(await client.get(EQUIPMENT, params={"total": "estimate"}))["total"]
    assert isinstance(estimate, int)


# Cursors that aren't ours


@pytest_asyncio.fixture(loop_scope="session")
async def cursor(client: httpx.AsyncClient, people: People, owner: Person) -> str:
    await people.own_items(owner, 5)
    return str(body_of(await client.get(EQUIPMENT, params={"limit": 2}))["next_cursor"])


async def refused(client: httpx.AsyncClient, cursor: str, path: str = EQUIPMENT, **params: Any) -> bool:
    return wrong_places(await client.get(path, params={**params, "cursor": cursor})) == [["query", "cursor"]]


async def test_a_cursor_with_any_bit_flipped_is_refused(client: httpx.AsyncClient, cursor: str) -> None:
    sealed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    for position in range(len(sealed)):
        forged = bytearray(sealed)
        forged[position] ^= 1 << position % 8
        assert await refused(client, base64.urlsafe_b64encode(forged).rstrip(b"=").decode())


async def test_a_cursor_cut_or_lengthened_is_refused(client: httpx.AsyncClient, cursor: str) -> None:
    for forged in (cursor[:-4], cursor[4:], cursor + "AAAA", cursor * 2, "A" * len(cursor), cursor.swapcase()):
        assert await refused(client, forged)


async def test_a_cursor_of_another_secret_is_refused(
    client: httpx.AsyncClient, app: FastAPI, cursor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = app.state.resources.cursors
    monkeypatch.setattr(genuine, "_keys", CursorSigner("another secret")._keys)
    assert await refused(client, cursor)


async def test_a_cursor_of_another_organization_is_refused(
    stranger: httpx.AsyncClient, client: httpx.AsyncClient, cursor: str
) -> None:
    assert await refused(stranger, cursor)
    body_of(await client.get(EQUIPMENT, params={"cursor": cursor}))


@pytest.mark.parametrize(
    "params",
    [
        {"sort": "-name"},
        {"sort": "asset_tag"},
        {"category": "camera"},
        {"tag": "a"},
        {"q": "item"},
        {"status": "available"},
        {"updated_since": "2020-01-01T00:00:00Z"},
    ],
)
async def test_a_cursor_of_another_sort_or_filter_is_refused(
    client: httpx.AsyncClient, cursor: str, params: dict[str, str]
) -> None:
    assert await refused(client, cursor, **params)


async def test_a_cursor_of_another_list_is_refused(client: httpx.AsyncClient, cursor: str) -> None:
    assert await refused(client, cursor, CHECKOUTS)


async def test_a_cursor_of_one_item_is_refused_for_another(
    client: httpx.AsyncClient, people: People, owner: Person
) -> None:
    first, second = await people.own_items(owner, 2, checkouts=3)
    answer = await client.get(f"{EQUIPMENT}/{first}/checkouts", params={"limit": 1})
    cursor = body_of(answer)["next_cursor"]
    assert await refused(client, cursor, f"{EQUIPMENT}/{second}/checkouts")


async def test_a_cursor_for_me_is_refused_for_a_colleague(
    app: FastAPI, client: httpx.AsyncClient, people: People, owner: Person
) -> None:
    await people.own_items(owner, 1, checkouts=3)
    cursor = body_of(await client.get(CHECKOUTS, params={"limit": 1, "user_id": "me"}))["next_cursor"]
    async with in_process(app, await people.join(organization_id=owner.organization_id)) as colleague:
        assert await refused(colleague, cursor, CHECKOUTS, user_id="me")


async def test_what_does_not_decide_on_the_rows_may_change_with_the_cursor(
    client: httpx.AsyncClient, cursor: str
) -> None:
    page = body_of(
        await client.get(EQUIPMENT, params={"cursor": cursor, "limit": 1, "fields": "name", "total": "exact"})
    )
    assert page["items"] == [{"name": "Item 00002"}]
    assert page["total"] == 5


async def test_the_longest_sort_keys_still_make_a_cursor(client: httpx.AsyncClient) -> None:
    for _ in range(2):
        body_of(await client.post(EQUIPMENT, json=item_body(name="📷" * 200)), 201)
    assert len(await walked(client, limit=1)) == 2


async def test_overdue_checkouts_walk_too(client: httpx.AsyncClient) -> None:
    for _ in range(3):
        await check_out(client, (await add_item(client))["id"], "2020-01-01T00:00:00Z")
    assert len(await walked(client, CHECKOUTS, limit=1, status="overdue", sort="due_at")) == 3
