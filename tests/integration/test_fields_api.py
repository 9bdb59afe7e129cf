"""`fields` and `expand`: what isn't asked for is not read, and relations cost one query for a whole page."""

import re
from typing import Any

import httpx
import pytest

from app.features.equipment.schemas import CHECKOUT_FIELDS, OWN_FIELDS
from tests.support.api import People, Person, recorded_sql
from tests.support.calls import CHECKOUTS, EQUIPMENT, add_item, body_of, check_out, give_back, listed

pytestmark = pytest.mark.asyncio(loop_scope="session")

AUDITED_ITEMS = 274
AUDITED_CHECKOUTS = 5


def selected(statement: str) -> set[str]:
    """The columns between SELECT and FROM, those that only the cursor needs aside."""
    [columns] = re.findall(r"SELECT (.*?)\s+FROM", statement, re.DOTALL)
    names = [column.strip().split(".")[-1] for column in columns.split(",")]
    return {name for name in names if " AS _page" not in name}


@pytest.mark.parametrize("fields", [("asset_tag", "name", "status"), ("tags",), ("attributes", "updated_at")])
async def test_only_the_columns_asked_for_are_read(client: httpx.AsyncClient, fields: tuple[str, ...]) -> None:
    await add_item(client)
    with recorded_sql() as statements:
        [item] = await listed(client, fields=",".join(fields))
    assert set(item) == set(fields)
    [statement] = statements
    assert selected(statement) == set(fields)


async def test_without_fields_all_but_the_search_document_are_read(client: httpx.AsyncClient) -> None:
    await add_item(client)
    with recorded_sql() as statements:
        [item] = await listed(client)
    assert set(item) == set(OWN_FIELDS) == selected(statements[0])


async def test_one_item_with_some_fields(client: httpx.AsyncClient) -> None:
    item = await add_item(client)
    with recorded_sql() as statements:
        answer = await client.get(f"{EQUIPMENT}/{item['id']}", params={"fields": "name"})
    assert body_of(answer) == {"name": item["name"]}
    assert selected(statements[0]) == {"name", "version", "updated_at"}  # for ETag and Last-Modified


@pytest.mark.parametrize("field", OWN_FIELDS)
async def test_each_field_alone(client: httpx.AsyncClient, field: str) -> None:
    item = await add_item(client, purchase_price="1.50", attributes={"a": [1]})
    assert await listed(client, fields=field) == [{field: item[field]}]


async def test_the_order_and_the_repetition_of_fields_don_t_matter(client: httpx.AsyncClient) -> None:
    await add_item(client)
    first = await client.get(EQUIPMENT, params={"fields": "name,status"})
    second = await client.get(EQUIPMENT, params={"fields": "status, name,name"})
    assert first.content == second.content


async def test_fields_of_checkouts(client: httpx.AsyncClient) -> None:
    checkout = await check_out(client, (await add_item(client))["id"])
    fields = {"id", "status", "due_at"}
    with recorded_sql() as statements:
        [found] = await listed(client, CHECKOUTS, fields=",".join(fields))
    assert found == {name: checkout[name] for name in fields}
    assert "note" not in statements[0]


# Relations


async def test_expand_shows_the_history_newest_first(client: httpx.AsyncClient) -> None:
    item = await add_item(client)
    made = []
    for _ in range(3):
        made.append(await check_out(client, item["id"]))
        await give_back(client, made[-1]["id"])
    current = await check_out(client, item["id"])
    [found] = await listed(client, expand="checkouts,current_checkout")
    assert [each["id"] for each in found["checkouts"]] == [each["id"] for each in [current, *made[::-1]]]
    assert found["current_checkout"] == {name: current[name] for name in CHECKOUT_FIELDS}
    assert found == body_of(
        await client.get(f"{EQUIPMENT}/{item['id']}", params={"expand": "current_checkout,checkouts"})
    )


async def test_what_has_no_history_has_an_empty_one(client: httpx.AsyncClient) -> None:
    await add_item(client)
    [found] = await listed(client, expand="checkouts,current_checkout", fields="name")
    assert found == {"name": "A camera", "checkouts": [], "current_checkout": None}


async def test_fields_go_into_a_relation(client: httpx.AsyncClient) -> None:
    checkout = await check_out(client, (await add_item(client))["id"])
    with recorded_sql() as statements:
        [found] = await listed(client, fields="name,checkouts.due_at")
    assert found == {"name": "A camera", "checkouts": [{"due_at": checkout["due_at"]}]}
    assert "note" not in "".join(statements)


async def test_naming_a_relation_alone_shows_it_whole(client: httpx.AsyncClient) -> None:
    await check_out(client, (await add_item(client))["id"])
    [found] = await listed(client, fields="name,checkouts")
    assert set(found["checkouts"][0]) == set(CHECKOUT_FIELDS)


async def test_a_page_of_items_has_its_own_checkouts_each(
    client: httpx.AsyncClient, people: People, owner: Person
) -> None:
    await people.own_items(owner, 5, checkouts=2)
    for item in await listed(client, expand="checkouts", fields="id"):
        history = await listed(client, f"{EQUIPMENT}/{item['id']}/checkouts", fields="id")
        assert [each["id"] for each in item["checkouts"]] == [each["id"] for each in history]


# The audit's size: 274 items with five checkouts each


async def queries_for(client: httpx.AsyncClient, **params: Any) -> int:
    with recorded_sql() as statements:
        answer = await client.get(EQUIPMENT, params=params)
    assert answer.headers["x-cache"] == "miss"
    body_of(answer)
    return len(statements)


async def test_the_number_of_queries_does_not_grow_with_the_rows(
    client: httpx.AsyncClient, people: People, owner: Person
) -> None:
    await people.own_items(owner, AUDITED_ITEMS, checkouts=AUDITED_CHECKOUTS)
    for expand, expected in ((None, 1), ("checkouts", 2), ("checkouts,current_checkout", 3)):
        params = {"expand": expand} if expand else {}
        assert await queries_for(client, limit=5, **params) == expected
        assert await queries_for(client, limit=200, **params) == expected


async def test_control_asking_item_by_item_grows_with_the_rows(
    client: httpx.AsyncClient, people: People, owner: Person
) -> None:
    await people.own_items(owner, 20, checkouts=1)

    async def naive(limit: int) -> int:
        with recorded_sql() as statements:
            for item in await listed(client, limit=limit, fields="id"):
                await listed(client, CHECKOUTS, equipment_id=item["id"], limit=limit)
        return len(statements)

    assert (await naive(5), await naive(20)) == (6, 21)


async def test_few_fields_are_few_bytes(client: httpx.AsyncClient, people: People, owner: Person) -> None:
    await people.own_items(owner, AUDITED_ITEMS, checkouts=AUDITED_CHECKOUTS)
    sizes = [
        len(
            (
                await client.get(EQUIPMENT, params={"fields": "asset_tag,name,status", "limit": 200, "page": page})
            ).content
        )
        for page in (1, 2)
    ]
    assert sum(sizes) < 32 * 1_024
