"""Every operation of the OpenAPI document with the ids of another organization: as if there were no such thing."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from sqlalchemy import true

from app.features.organizations.repository import MemberRepository
from app.main import create_app
from app.platform.security.caller import Role
from app.settings import Settings
from tests.integration.test_access import RULES
from tests.support.api import API, People, Person, in_process, recorded_sql
from tests.support.calls import CHECKOUTS, DUE, EQUIPMENT, add_item, body_of, check_out, item_body, listed, problem_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

Operation = tuple[str, str]
BODIES: dict[Operation, dict[str, Any]] = {
    ("patch", f"{EQUIPMENT}/{{equipment_id}}"): {"name": "Mine now"},
    ("post", f"{EQUIPMENT}/{{equipment_id}}/checkouts"): {"due_at": DUE},
    ("post", f"{CHECKOUTS}/{{checkout_id}}/return"): {},
    ("post", f"{API}/api-keys/{{api_key_id}}/rotate"): {},
    ("patch", f"{API}/members/{{user_id}}"): {"role": "viewer"},
}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    document = create_app(Settings(_env_file=None)).openapi()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if "operationId" in operation:
                yield method, path, operation


WITH_IDS = [(method, path) for method, path, _ in operations() if "{" in path]
LISTS = [path for method, path, _ in operations() if method == "get" and "{" not in path]


async def test_there_are_operations_to_try() -> None:
    assert len(WITH_IDS) >= 7
    assert {EQUIPMENT, CHECKOUTS} <= set(LISTS)


@pytest.mark.parametrize(("method", "path"), WITH_IDS)
async def test_what_is_anothers_is_not_found(
    people: People,
    owner: Person,
    client: httpx.AsyncClient,
    stranger: httpx.AsyncClient,
    method: str,
    path: str,
) -> None:
    own, free = await own_ids(people, owner, client), await add_item(client)
    before = await state(client)
    for equipment_id in (own["equipment_id"], free["id"]):
        url = path.format_map(own | {"equipment_id": equipment_id})
        answer = await stranger.request(method, url, json=BODIES.get((method, path)), headers={"If-Match": "*"})
        problem_of(answer, 404, "not-found")
    assert await state(client) == before
    # Nothing was wrong but the organization: its own member is not told that there is no such thing.
    answer = await client.request(method, url, json=BODIES.get((method, path)), headers={"If-Match": "*"})
    assert answer.status_code < 400


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("method", "path"), WITH_IDS)
async def test_no_role_elsewhere_finds_it(
    app: FastAPI, people: People, owner: Person, client: httpx.AsyncClient, method: str, path: str, role: Role
) -> None:
    """403 for what the role may not do at all; else 404."""
    url = path.format_map(await own_ids(people, owner, client))
    async with in_process(app, await people.join(role)) as there:
        answer = await there.request(method, url, json=BODIES.get((method, path)), headers={"If-Match": "*"})
    least = RULES[method, path.removeprefix(API)]
    assert least is not None
    status, slug = (404, "not-found") if role.at_least(least) else (403, "forbidden")
    problem_of(answer, status, slug)


async def test_control_a_query_that_forgets_the_organization_is_noticed(
    people: People, owner: Person, stranger: httpx.AsyncClient, colleague: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemberRepository, "_own", true())
    answer = await stranger.patch(f"{API}/members/{colleague.user_id}", json={"role": "viewer"})
    assert body_of(answer)["role"] == "viewer"


async def own_ids(people: People, owner: Person, client: httpx.AsyncClient) -> dict[str, Any]:
    """Of things of the owner's organization, by the names of the parameters; a new name is missed."""
    taken = await check_out(client, (await add_item(client))["id"])
    return {
        "equipment_id": taken["equipment_id"],
        "checkout_id": taken["id"],
        "user_id": (await people.join(Role.MEMBER, owner.organization_id)).user_id,
        "api_key_id": await add_key(client),
        "session_id": await people.open_session(owner),
        "invitation_id": await add_invitation(client),
    }


@pytest_asyncio.fixture(loop_scope="session")
async def colleague(people: People, owner: Person) -> Person:
    return await people.join(Role.MEMBER, owner.organization_id)


async def add_key(client: httpx.AsyncClient) -> str:
    answer = await client.post(f"{API}/api-keys", json={"name": "tenants", "scopes": ["equipment:read"]})
    return str(body_of(answer, 201)["id"])


async def add_invitation(client: httpx.AsyncClient) -> str:
    answer = await client.post(f"{API}/invitations", json={"email": f"{uuid4().hex}@example.com"})
    return str(body_of(answer, 201)["id"])


async def state(client: httpx.AsyncClient) -> list[Any]:
    return [
        await listed(client, path) for path in LISTS if path != f"{API}/analytics/equipment" and "/auth/" not in path
    ]


@pytest.mark.parametrize("path", LISTS)
async def test_lists_show_nothing_of_another(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, owner: Person, path: str
) -> None:
    item = await add_item(client, name="Secret name")
    checkout = await check_out(client, item["id"])
    answer = await stranger.get(path)
    assert answer.status_code == 200
    for secret in (item["id"], checkout["id"], str(owner.organization_id), str(owner.user_id), "Secret name"):
        assert secret not in answer.text


async def test_filters_by_anothers_ids_find_nothing(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, owner: Person
) -> None:
    item = await add_item(client)
    await check_out(client, item["id"])
    for params in ({"user_id": str(owner.user_id)}, {"equipment_id": item["id"]}, {"status": "open"}):
        page = body_of(await stranger.get(CHECKOUTS, params={**params, "total": "exact"}))
        assert (page["items"], page["total"]) == ([], 0)
    figures = body_of(await stranger.get(f"{API}/analytics/equipment"))
    assert figures["items"] == figures["open_checkouts"] == 0


async def test_an_organization_named_in_the_request_changes_nothing(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, owner: Person
) -> None:
    organization = str(owner.organization_id)
    answer = await stranger.post(EQUIPMENT, json=item_body(organization_id=organization))
    assert answer.status_code == 422
    assert (await stranger.get(EQUIPMENT, params={"organization_id": organization})).status_code == 422


async def test_a_batch_reaches_no_further(client: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    item = await add_item(client)
    request = {"id": "a", "method": "GET", "url": f"{EQUIPMENT}/{item['id']}"}
    answer = body_of(await stranger.post(f"{API}/batch", json={"requests": [request]}))
    assert answer["responses"][0]["status"] == 404


async def test_every_statement_names_the_organization(people: People, owner: Person, client: httpx.AsyncClient) -> None:
    own = await own_ids(people, owner, client)
    with recorded_sql() as statements:
        for method, path in WITH_IDS:
            url = path.format_map(own)
            await client.request(method, url, json=BODIES.get((method, path)), headers={"If-Match": "*"})
        for path in LISTS:
            await client.get(path)
    assert len(statements) > 10
    # What is revoked is known by its own id, and was found by the organization before.
    tenants = [
        each
        for each in statements
        if "organizations.id =" not in each and "INTO revocations" not in each and "append_audit" not in each
    ]
    assert [each for each in tenants if "organization_id" not in each] == []
