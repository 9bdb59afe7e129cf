import asyncio
from collections import Counter
from typing import Any

import asyncpg
import httpx
import pytest

from tests.support.api import API, People, Person, in_process
from tests.support.calls import (
    CHECKOUTS,
    DUE,
    EQUIPMENT,
    OVERDUE,
    add_item,
    body_of,
    check_out,
    get_item,
    give_back,
    listed,
    problem_of,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

AT_ONCE = 100
TAKE = {"due_at": DUE}


async def test_an_item_goes_out_and_comes_back(client: httpx.AsyncClient, owner: Person) -> None:
    item = await add_item(client)
    answer = await client.post(f"{EQUIPMENT}/{item['id']}/checkouts", json={"due_at": DUE, "note": "For a film"})
    checkout = body_of(answer, 201)
    assert answer.headers["location"] == f"{CHECKOUTS}/{checkout['id']}"
    assert checkout["equipment_id"] == item["id"]
    assert checkout["user_id"] == str(owner.user_id)
    assert (checkout["status"], checkout["note"], checkout["returned_at"]) == ("open", "For a film", None)
    out = await get_item(client, item["id"])
    assert (out["status"], out["version"]) == ("checked_out", 2)

    returned = await give_back(client, checkout["id"], condition="scratched", note="The lens cap is lost")
    assert returned["status"] == "returned"
    assert (returned["condition"], returned["return_note"]) == ("scratched", "The lens cap is lost")
    assert returned["returned_at"] >= returned["checked_out_at"]
    assert body_of(await client.get(f"{CHECKOUTS}/{checkout['id']}")) == returned
    assert (await get_item(client, item["id"]))["status"] == "available"


async def test_an_item_that_is_out_can_not_be_taken(client: httpx.AsyncClient) -> None:
    item = await add_item(client)
    await check_out(client, item["id"])
    problem_of(await client.post(f"{EQUIPMENT}/{item['id']}/checkouts", json=TAKE), 409, "already-checked-out")


async def test_an_item_that_came_back_can_be_taken_again(client: httpx.AsyncClient) -> None:
    item = await add_item(client)
    for _ in range(3):
        await give_back(client, (await check_out(client, item["id"]))["id"])
    assert len(await listed(client, f"{EQUIPMENT}/{item['id']}/checkouts")) == 3


@pytest.mark.parametrize("status", ["maintenance", "retired"])
async def test_an_item_that_is_not_available_can_not_be_taken(client: httpx.AsyncClient, status: str) -> None:
    item = await add_item(client, status=status)
    problem_of(await client.post(f"{EQUIPMENT}/{item['id']}/checkouts", json=TAKE), 409, "not-available")
    assert await listed(client, CHECKOUTS) == []


async def test_what_came_back_can_not_come_back_again(client: httpx.AsyncClient) -> None:
    checkout = await check_out(client, (await add_item(client))["id"])
    returned = await give_back(client, checkout["id"], condition="good")
    again = await client.post(f"{CHECKOUTS}/{checkout['id']}/return", json={"condition": "lost"})
    problem_of(again, 409, "already-returned")
    assert body_of(await client.get(f"{CHECKOUTS}/{checkout['id']}")) == returned


async def test_what_is_not_there_is_not_found(client: httpx.AsyncClient) -> None:
    nothing = "01890000-0000-7000-8000-000000000000"
    problem_of(await client.post(f"{EQUIPMENT}/{nothing}/checkouts", json=TAKE), 404, "not-found")
    problem_of(await client.get(f"{EQUIPMENT}/{nothing}/checkouts"), 404, "not-found")
    problem_of(await client.get(f"{CHECKOUTS}/{nothing}"), 404, "not-found")
    problem_of(await client.post(f"{CHECKOUTS}/{nothing}/return", json={}), 404, "not-found")


@pytest.fixture
def some() -> list[str]:
    return ["open", "overdue", "returned"]


async def make(client: httpx.AsyncClient, status: str) -> dict[str, Any]:
    item = await add_item(client)
    checkout = await check_out(client, item["id"], OVERDUE if status == "overdue" else DUE)
    return await give_back(client, checkout["id"]) if status == "returned" else checkout


async def test_the_status_of_each(client: httpx.AsyncClient, some: list[str]) -> None:
    assert [(await make(client, status))["status"] for status in some] == some


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("open", {"open", "overdue"}),
        ("overdue", {"overdue"}),
        ("returned", {"returned"}),
        (None, {"open", "overdue", "returned"}),
    ],
)
async def test_filter_by_status(
    client: httpx.AsyncClient, some: list[str], status: str | None, expected: set[str]
) -> None:
    for each in some:
        await make(client, each)
    params = {} if status is None else {"status": status}
    assert {checkout["status"] for checkout in await listed(client, CHECKOUTS, **params)} == expected


async def test_filter_by_user_and_item(client: httpx.AsyncClient, app: Any, people: People, owner: Person) -> None:
    colleague = await people.join(organization_id=owner.organization_id)
    mine = await make(client, "open")
    async with in_process(app, colleague) as other:
        theirs = await make(other, "open")
        assert [each["id"] for each in await listed(other, CHECKOUTS, user_id="me")] == [theirs["id"]]
    for params, expected in (
        ({"user_id": "me"}, mine),
        ({"user_id": str(colleague.user_id)}, theirs),
        ({"equipment_id": mine["equipment_id"]}, mine),
        ({"equipment_id": theirs["equipment_id"], "user_id": str(colleague.user_id)}, theirs),
    ):
        assert [each["id"] for each in await listed(client, CHECKOUTS, **params)] == [expected["id"]]
    assert await listed(client, CHECKOUTS, user_id="me", equipment_id=theirs["equipment_id"]) == []


async def test_the_history_of_an_item_is_its_own(client: httpx.AsyncClient) -> None:
    first, second = await make(client, "returned"), await make(client, "open")
    history = f"{EQUIPMENT}/{first['equipment_id']}/checkouts"
    assert [each["id"] for each in await listed(client, history)] == [first["id"]]
    assert await listed(client, history, status="open") == []
    answer = await client.get(history, params={"equipment_id": second["equipment_id"]})
    assert answer.status_code == 422


async def test_figures_add_up(client: httpx.AsyncClient, some: list[str]) -> None:
    for status in some:
        await make(client, status)
    await add_item(client, category="lens", purchase_price="0.10")
    await add_item(client, category="lens", purchase_price="0.20", status="retired")
    figures = body_of(await client.get(f"{API}/analytics/equipment"))
    assert figures["items"] == 5
    assert figures["by_status"] == {"available": 2, "checked_out": 2, "retired": 1}
    assert figures["by_category"] == {"camera": 3, "lens": 2}
    assert figures["value"] == "0.30"
    assert (figures["open_checkouts"], figures["overdue_checkouts"]) == (2, 1)


# At the same time


def statuses(answers: list[httpx.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


async def test_of_a_hundred_who_take_one_item_at_once_one_has_it(remote: httpx.AsyncClient, people: People) -> None:
    item = await add_item(remote)
    path = f"{EQUIPMENT}/{item['id']}/checkouts"
    answers = await asyncio.gather(*(remote.post(path, json=TAKE) for _ in range(AT_ONCE)))
    assert statuses(answers) == {201: 1, 409: AT_ONCE - 1}
    for answer in answers:
        if answer.status_code == 409:
            problem_of(answer, 409, "already-checked-out")
    rows = await people.fetch("SELECT count(*) FROM checkouts WHERE equipment_id = $1", item["id"])
    assert rows == 1


async def test_of_many_who_bring_it_back_at_once_one_does(remote: httpx.AsyncClient) -> None:
    checkout = await check_out(remote, (await add_item(remote))["id"])
    path = f"{CHECKOUTS}/{checkout['id']}/return"
    answers = await asyncio.gather(*(remote.post(path, json={}) for _ in range(20)))
    assert statuses(answers) == {200: 1, 409: 19}
    assert (await get_item(remote, checkout["equipment_id"]))["version"] == 3


async def test_taken_and_deleted_at_once_one_of_both_happens(remote: httpx.AsyncClient) -> None:
    for _ in range(10):
        item = await add_item(remote)
        taken, deleted = await asyncio.gather(
            remote.post(f"{EQUIPMENT}/{item['id']}/checkouts", json=TAKE), remote.delete(f"{EQUIPMENT}/{item['id']}")
        )
        assert (taken.status_code, deleted.status_code) in ((201, 409), (404, 204))


async def test_the_constraint_alone_refuses_a_second_open_checkout(client: httpx.AsyncClient, people: People) -> None:
    checkout = await make(client, "open")
    with pytest.raises(asyncpg.UniqueViolationError, match="uq_checkouts_open"):
        await people.fetch(
            "INSERT INTO checkouts (organization_id, id, equipment_id, user_id, due_at)"
            " SELECT organization_id, gen_random_uuid(), equipment_id, user_id, due_at FROM checkouts WHERE id = $1",
            checkout["id"],
        )


async def test_the_constraint_has_the_last_word_over_the_status(client: httpx.AsyncClient, people: People) -> None:
    checkout = await make(client, "open")
    item_id = checkout["equipment_id"]
    await people.fetch("UPDATE equipment SET status = 'available' WHERE id = $1", item_id)
    problem_of(await client.post(f"{EQUIPMENT}/{item_id}/checkouts", json=TAKE), 409, "already-checked-out")
    assert await people.fetch("SELECT status FROM equipment WHERE id = $1", item_id) == "available"


async def test_control_a_look_before_the_insert_lets_several_have_it(people: People) -> None:
    """The same race on a table that lacks the constraint, and without the conditional update."""
    table = "CREATE TABLE IF NOT EXISTS lent (item int, by int); TRUNCATE lent"
    pool = await asyncpg.create_pool(people.dsn, min_size=20, max_size=20)
    await pool.execute(table)

    async def take(person: int) -> None:
        async with pool.acquire() as connection, connection.transaction():
            if not await connection.fetchval("SELECT count(*) FROM lent WHERE item = 1"):
                await connection.execute("INSERT INTO lent VALUES (1, $1)", person)

    try:
        await asyncio.gather(*map(take, range(AT_ONCE)))
        assert await pool.fetchval("SELECT count(*) FROM lent") > 1
    finally:
        await pool.execute("DROP TABLE lent")
        await pool.close()
