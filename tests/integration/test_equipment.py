import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI

from tests.support.api import People, Person, in_process
from tests.support.calls import (
    EQUIPMENT,
    add_item,
    body_of,
    check_out,
    get_item,
    give_back,
    item_body,
    listed,
    problem_of,
    wrong_places,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

ANY_VERSION = {"If-Match": "*"}


async def names(client: httpx.AsyncClient, **params: Any) -> list[str]:
    return [item["name"] for item in await listed(client, **params)]


async def test_a_new_item_is_told_whole(client: httpx.AsyncClient) -> None:
    sent = {
        "asset_tag": "CAM-001",
        "name": "FX3",
        "category": "camera",
        "status": "maintenance",
        "location": "Studio A",
        "tags": ["4k", "insured"],
        "description": "Line 1\nLine 2",
        "attributes": {"serial": "S1", "lenses": [1, {"mm": 35.5}]},
        "purchase_price": "3899.90",
    }
    answer = await client.post(EQUIPMENT, json=sent)
    item = body_of(answer, 201)
    assert {name: item[name] for name in sent} == sent
    assert UUID(item["id"]).version == 7
    assert item["version"] == 1
    assert item["created_at"] == item["updated_at"]
    assert item["created_at"].endswith("Z")
    assert answer.headers["location"] == f"{EQUIPMENT}/{item['id']}"
    assert await get_item(client, item["id"]) == item


async def test_what_is_left_out_has_its_default(client: httpx.AsyncClient) -> None:
    item = await add_item(client)
    defaults = {"status": "available", "location": "", "tags": [], "description": "", "attributes": {}}
    assert {name: item[name] for name in defaults} == defaults
    assert item["purchase_price"] is None


async def test_text_is_trimmed_and_tags_are_kept_once(client: httpx.AsyncClient) -> None:
    item = await add_item(client, name="  A camera ", tags=["b", "a", "b"])
    assert item["name"] == "A camera"
    assert item["tags"] == ["b", "a"]


async def test_any_script_survives(client: httpx.AsyncClient) -> None:
    item = await add_item(client, name="Kamera Größe 📷 摄像机", tags=["ünïcödé"])
    assert await names(client, q="größe") == [item["name"]]
    assert await names(client, tag="ünïcödé") == [item["name"]]


async def test_an_asset_tag_is_given_once_in_an_organization(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    body = item_body()
    body_of(await client.post(EQUIPMENT, json=body), 201)
    problem_of(await client.post(EQUIPMENT, json=body), 409, "asset-tag-taken")
    body_of(await stranger.post(EQUIPMENT, json=body), 201)


async def test_of_twenty_who_take_one_asset_tag_one_has_it(client: httpx.AsyncClient) -> None:
    body = item_body()
    answers = await asyncio.gather(*(client.post(EQUIPMENT, json=body) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19


async def test_a_change_changes_what_it_names(client: httpx.AsyncClient) -> None:
    item = await add_item(client, location="Studio A", purchase_price="1.00")
    answer = await client.patch(f"{EQUIPMENT}/{item['id']}", json={"name": "New"}, headers=ANY_VERSION)
    changed = body_of(answer)
    assert changed == item | {"name": "New", "version": 2, "updated_at": changed["updated_at"]}
    assert changed["updated_at"] > item["updated_at"]
    assert await get_item(client, item["id"]) == changed


async def test_a_price_can_be_cleared(client: httpx.AsyncClient) -> None:
    item = await add_item(client, purchase_price="1.00")
    answer = await client.patch(f"{EQUIPMENT}/{item['id']}", json={"purchase_price": None}, headers=ANY_VERSION)
    assert body_of(answer)["purchase_price"] is None


async def test_a_change_can_not_take_anothers_asset_tag(client: httpx.AsyncClient) -> None:
    first, second = await add_item(client), await add_item(client)
    body = {"asset_tag": first["asset_tag"]}
    answer = await client.patch(f"{EQUIPMENT}/{second['id']}", json=body, headers=ANY_VERSION)
    problem_of(answer, 409, "asset-tag-taken")
    assert await get_item(client, second["id"]) == second


async def test_a_deleted_item_is_gone_with_its_history(client: httpx.AsyncClient) -> None:
    item = await add_item(client)
    checkout = await check_out(client, item["id"])
    await give_back(client, checkout["id"])
    assert (await client.delete(f"{EQUIPMENT}/{item['id']}")).status_code == 204
    problem_of(await client.get(f"{EQUIPMENT}/{item['id']}"), 404, "not-found")
    problem_of(await client.get(f"/api/v1/checkouts/{checkout['id']}"), 404, "not-found")
    problem_of(await client.delete(f"{EQUIPMENT}/{item['id']}"), 404, "not-found")
    assert await listed(client) == []


async def test_an_item_that_is_out_stays(client: httpx.AsyncClient) -> None:
    item = await add_item(client)
    await check_out(client, item["id"])
    problem_of(await client.delete(f"{EQUIPMENT}/{item['id']}"), 409, "checked-out")
    patch = await client.patch(f"{EQUIPMENT}/{item['id']}", json={"status": "retired"}, headers=ANY_VERSION)
    problem_of(patch, 409, "checked-out")
    rename = await client.patch(f"{EQUIPMENT}/{item['id']}", json={"name": "New"}, headers=ANY_VERSION)
    assert body_of(rename)["status"] == "checked_out"


# Filters


@pytest.fixture
def three() -> list[dict[str, Any]]:
    return [
        {"name": "Arri", "category": "camera", "location": "Studio A", "tags": ["4k", "rental"]},
        {"name": "Boom", "category": "audio", "location": "Studio B", "tags": ["rental"], "status": "retired"},
        {"name": "Canon", "category": "camera", "location": "Studio B", "tags": [], "description": "Works with Arri"},
    ]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, ["Arri", "Boom", "Canon"]),
        ({"category": "camera"}, ["Arri", "Canon"]),
        ({"category": "Camera"}, []),
        ({"status": "retired"}, ["Boom"]),
        ({"location": "Studio B"}, ["Boom", "Canon"]),
        ({"tag": "rental"}, ["Arri", "Boom"]),
        ({"tag": ["rental", "4k"]}, ["Arri"]),
        ({"tag": ["rental", "nope"]}, []),
        ({"category": "camera", "location": "Studio B"}, ["Canon"]),
        ({"q": "arri"}, ["Arri", "Canon"]),
        ({"q": "STUDIO b"}, ["Boom", "Canon"]),
        ({"q": "can"}, ["Canon"]),
        ({"q": "anon"}, []),
        ({"q": "arri canon"}, ["Canon"]),
        ({"q": "audio", "category": "camera"}, []),
        ({"sort": "-name"}, ["Canon", "Boom", "Arri"]),
        ({"sort": "created_at"}, ["Arri", "Boom", "Canon"]),
        ({"sort": "-updated_at", "limit": 1}, ["Canon"]),
        ({"updated_since": "2020-01-01T00:00:00Z"}, ["Arri", "Boom", "Canon"]),
        ({"updated_since": "2099-01-01T00:00:00+02:00"}, []),
    ],
)
async def test_filters(
    client: httpx.AsyncClient, three: list[dict[str, Any]], params: dict[str, Any], expected: list[str]
) -> None:
    for item in three:
        await add_item(client, **item)
    assert await names(client, **params) == expected


async def test_updated_since_is_inclusive_and_exact(client: httpx.AsyncClient) -> None:
    await add_item(client, name="before")
    item = await add_item(client, name="then")
    assert await names(client, updated_since=item["updated_at"]) == ["then"]


async def test_an_asset_tag_is_found_by_its_parts(client: httpx.AsyncClient) -> None:
    await add_item(client, asset_tag="CAM-0042/b")
    for words in ("CAM-0042", "cam 0042", "0042", "cam-00", "CAM-0042/b"):
        assert len(await listed(client, q=words)) == 1, words


async def test_a_search_for_nothing_but_punctuation_finds_nothing(client: httpx.AsyncClient) -> None:
    await add_item(client)
    assert await listed(client, q="-- ?!") == []


async def test_several_filters_that_contradict_are_no_error(client: httpx.AsyncClient) -> None:
    await add_item(client)
    assert await listed(client, status="retired", category="camera", q="camera") == []


# Who may


async def test_a_viewer_reads_and_does_not_write(client: httpx.AsyncClient, viewer: httpx.AsyncClient) -> None:
    item = await add_item(client)
    path = f"{EQUIPMENT}/{item['id']}"
    assert await listed(viewer) == [item]
    problem_of(await viewer.post(EQUIPMENT, json=item_body()), 403, "forbidden")
    problem_of(await viewer.patch(path, json={"name": "B"}, headers=ANY_VERSION), 403, "forbidden")
    problem_of(await viewer.delete(path), 403, "forbidden")
    problem_of(await viewer.post(f"{path}/checkouts", json={"due_at": "2099-01-01T00:00:00Z"}), 403, "forbidden")
    assert await get_item(client, item["id"]) == item


async def test_who_may_not_write_does_not_learn_what_would_be_valid(viewer: httpx.AsyncClient) -> None:
    assert (await viewer.post(EQUIPMENT, json=item_body())).status_code == 403
    assert (await viewer.post(EQUIPMENT, json={})).status_code in (403, 422)


async def test_a_status_that_only_lending_gives_can_not_be_chosen(client: httpx.AsyncClient) -> None:
    item = await add_item(client)
    body = {"status": "checked_out"}
    answer = await client.patch(f"{EQUIPMENT}/{item['id']}", json=body, headers=ANY_VERSION)
    assert wrong_places(answer) == [["body", "status"]]


# The response cache


async def test_a_cached_answer_is_the_same_byte_for_byte(client: httpx.AsyncClient) -> None:
    await add_item(client)
    first, second = await client.get(EQUIPMENT), await client.get(EQUIPMENT)
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("miss", "hit")
    assert first.content == second.content
    assert first.headers["etag"] == second.headers["etag"]
    assert second.headers["x-served-by"].startswith("cache:")
    assert int(second.headers["age"]) >= 0
    assert "public" not in second.headers["cache-control"]


async def test_a_write_voids_what_was_cached(client: httpx.AsyncClient) -> None:
    item = await add_item(client)
    path = f"{EQUIPMENT}/{item['id']}"
    for _ in range(2):
        await client.get(path)
        await client.get(EQUIPMENT)
    checkout = await check_out(client, item["id"])
    assert (await get_item(client, item["id"]))["status"] == "checked_out"
    assert (await listed(client))[0]["status"] == "checked_out"
    await give_back(client, checkout["id"])
    assert (await listed(client))[0]["status"] == "available"


async def test_a_write_that_fails_voids_nothing(client: httpx.AsyncClient) -> None:
    item = await add_item(client)
    for _ in range(2):
        await client.get(EQUIPMENT)
    problem_of(await client.post(EQUIPMENT, json=item_body(asset_tag=item["asset_tag"])), 409)
    assert (await client.get(EQUIPMENT)).headers["x-cache"] == "hit"


async def test_nobody_is_given_what_was_cached_for_another(
    client: httpx.AsyncClient, viewer: httpx.AsyncClient, stranger: httpx.AsyncClient, anonymous: httpx.AsyncClient
) -> None:
    await add_item(client)
    for _ in range(2):
        await client.get(EQUIPMENT)
    assert (await viewer.get(EQUIPMENT)).headers["x-cache"] == "miss"
    assert await listed(stranger) == []
    problem_of(await anonymous.get(EQUIPMENT), 401)


async def test_a_token_without_the_scope_is_not_given_what_a_token_with_it_has_cached(
    app: FastAPI, people: People, owner: Person, client: httpx.AsyncClient
) -> None:
    for _ in range(2):
        await client.get(EQUIPMENT)
    token = people.token_with(owner, scopes=())
    async with in_process(app, Person(owner.user_id, owner.organization_id, token)) as narrow:
        problem_of(await narrow.get(EQUIPMENT), 403, "forbidden")


async def test_that_nothing_is_there_is_kept_and_told_to_each_request(client: httpx.AsyncClient) -> None:
    path = f"{EQUIPMENT}/{uuid4()}"
    answers = [await client.get(path, headers={"x-request-id": f"request-{number}"}) for number in range(12)]
    assert [answer.headers["x-cache"] for answer in answers] == ["miss"] + ["hit"] * 11
    assert [problem_of(answer, 404)["request_id"] for answer in answers] == [f"request-{n}" for n in range(12)]
    assert len({answer.headers["cache-control"] for answer in answers}) == 1


async def test_a_refusal_is_not_cached(client: httpx.AsyncClient) -> None:
    for _ in range(2):
        answer = await client.get(EQUIPMENT, params={"limit": 0})
        problem_of(answer, 422)
        assert answer.headers["x-cache"] == "miss"
