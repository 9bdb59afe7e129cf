"""API keys: shown once, never more than their owner, two of a name at most, refused within a second when revoked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from app.platform.security.caller import Role
from tests.support.api import API, People, Person, connected, in_process, new_app, running
from tests.support.calls import EQUIPMENT, add_item, body_of, item_body, listed, problem_of, wrong_places
from tests.support.stack import DataServices

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEYS = f"{API}/api-keys"
READ_ONLY = ["equipment:read"]


async def make_key(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    body = {"name": "ci", "scopes": ["equipment:read", "equipment:write"], **changes}
    return body_of(await client.post(KEYS, json=body), 201)


async def rotate(client: httpx.AsyncClient, key: dict[str, Any], **body: Any) -> dict[str, Any]:
    return body_of(await client.post(f"{KEYS}/{key['id']}/rotate", json=body), 201)


@asynccontextmanager
async def with_key(app: FastAPI, key: dict[str, Any]) -> AsyncIterator[httpx.AsyncClient]:
    async with in_process(app) as client:
        client.headers["Authorization"] = f"Bearer {key['key']}"
        yield client


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def elsewhere(services: DataServices, api_database: str) -> AsyncIterator[FastAPI]:
    """Another process, as far as what it keeps in memory goes."""
    async with running(new_app(services, api_database)) as app:
        yield app


# What a key is good for


async def test_a_key_reads_and_writes_for_its_owner(app: FastAPI, client: httpx.AsyncClient, owner: Person) -> None:
    key = await make_key(client)
    async with with_key(app, key) as program:
        item = await add_item(program)
        assert [each["id"] for each in await listed(program)] == [item["id"]]
    [entry] = await listed(client, f"{API}/audit", action="equipment.created")
    assert (entry["actor_id"], entry["api_key_id"]) == (str(owner.user_id), key["id"])


async def test_a_key_is_worth_its_scopes(app: FastAPI, client: httpx.AsyncClient) -> None:
    async with with_key(app, await make_key(client, scopes=READ_ONLY)) as program:
        body_of(await program.get(EQUIPMENT))
        problem_of(await program.post(EQUIPMENT, json=item_body()), 403, "forbidden")
        problem_of(await program.get(f"{API}/audit"), 403)


async def test_what_is_cached_for_a_key_is_not_given_to_one_with_less(app: FastAPI, client: httpx.AsyncClient) -> None:
    more = await make_key(client, scopes=["equipment:read"])
    less = await make_key(client, name="other", scopes=["checkouts:read"])
    async with with_key(app, more) as first, with_key(app, less) as second:
        for _ in range(3):
            body_of(await first.get(EQUIPMENT))
        problem_of(await second.get(EQUIPMENT), 403)


async def test_what_is_about_a_person_is_not_for_keys(app: FastAPI, client: httpx.AsyncClient) -> None:
    async with with_key(app, await make_key(client)) as program:
        for path in ("me", "sessions"):
            problem_of(await program.get(f"{API}/auth/{path}"), 403, "forbidden")


@pytest.mark.parametrize("scope", ["api_keys:manage", "members:manage", "nothing:such"])
async def test_what_no_key_may_have(client: httpx.AsyncClient, scope: str) -> None:
    problem_of(await client.post(KEYS, json={"name": "x", "scopes": [scope]}), 403, "forbidden")


async def test_nobody_gives_a_key_what_they_have_not(app: FastAPI, people: People, owner: Person) -> None:
    async with in_process(app, await people.join(Role.MEMBER, owner.organization_id)) as member:
        problem_of(await member.post(KEYS, json={"name": "x", "scopes": ["audit:read"]}), 403, "forbidden")
        await make_key(member, name="mine")


async def test_a_key_is_worth_what_its_owner_may_do_now(
    app: FastAPI, people: People, owner: Person, client: httpx.AsyncClient
) -> None:
    admin = await people.join(Role.ADMIN, owner.organization_id)
    async with in_process(app, admin) as theirs:
        key = await make_key(theirs, scopes=["equipment:read", "audit:read"])
    async with with_key(app, key) as program:
        body_of(await program.get(f"{API}/audit"))
        body_of(await client.patch(f"{API}/members/{admin.user_id}", json={"role": "member"}))
        problem_of(await program.get(f"{API}/audit"), 403)
        body_of(await program.get(EQUIPMENT))
        body_of(await client.patch(f"{API}/members/{admin.user_id}", json={"disabled": True}))
        problem_of(await program.get(EQUIPMENT), 401)


# What is kept of it


async def test_it_is_shown_once(client: httpx.AsyncClient, people: People) -> None:
    answer = await client.post(KEYS, json={"name": "once", "scopes": READ_ONLY}, headers={"Idempotency-Key": "k"})
    key = body_of(answer, 201)
    assert answer.headers["cache-control"] == "no-store"
    [told] = await listed(client, KEYS)
    assert "key" not in told
    assert key["key"].startswith(told["prefix"])
    again = await client.post(KEYS, json={"name": "once", "scopes": READ_ONLY}, headers={"Idempotency-Key": "k"})
    problem_of(again, 409, "answer-not-kept")


async def test_the_database_has_nothing_that_lets_anybody_in(client: httpx.AsyncClient, people: People) -> None:
    key = (await make_key(client))["key"]
    async with connected(people.dsn) as connection:
        for table in ("api_keys", "audit_entries", "idempotency_keys"):
            found = await connection.fetchval(f"SELECT count(*) FROM {table} AS t WHERE t::text LIKE $1", f"%{key}%")
            assert found == 0, table
        digest = await connection.fetchval(
            "SELECT encode(digest, 'hex') FROM api_keys WHERE $1 LIKE prefix || '%'", key
        )
    answer = await client.get(EQUIPMENT, headers={"Authorization": f"Bearer {digest}"})
    problem_of(answer, 401)


async def test_its_last_use_is_noted(app: FastAPI, client: httpx.AsyncClient) -> None:
    key = await make_key(client)
    async with with_key(app, key) as program:
        for _ in range(3):
            await program.get(EQUIPMENT)
    assert (await listed(client, KEYS))[0]["last_used_at"] is None
    await app.state.resources.api_keys.uses.write_noted()
    assert (await listed(client, KEYS))[0]["last_used_at"] is not None


# Its end


async def test_a_revoked_key_is_refused_here_at_once_and_elsewhere_within_a_second(
    app: FastAPI, elsewhere: FastAPI, client: httpx.AsyncClient
) -> None:
    key = await make_key(client)
    async with with_key(app, key) as here, with_key(elsewhere, key) as there:
        for _ in range(3):
            answers = [await here.get(EQUIPMENT), await there.get(EQUIPMENT)]
        assert [answer.headers["x-cache"] for answer in answers] == ["hit", "hit"]
        assert (await client.delete(f"{KEYS}/{key['id']}")).status_code == 204
        problem_of(await here.get(EQUIPMENT), 401)
        await asyncio.sleep(1)
        problem_of(await there.get(EQUIPMENT), 401)


async def test_control_without_revocations_what_is_remembered_goes_on(
    services: DataServices, api_database: str, client: httpx.AsyncClient
) -> None:
    key = await make_key(client)
    deaf = new_app(services, api_database, revocation_enabled=False)
    async with running(deaf), with_key(deaf, key) as there:
        deaf.state.resources.api_keys._remember_seconds = 60
        await there.get(EQUIPMENT)
        await client.delete(f"{KEYS}/{key['id']}")
        await asyncio.sleep(1)
        assert (await there.get(EQUIPMENT)).status_code == 200


async def test_a_key_ends_when_it_was_said_to(app: FastAPI, client: httpx.AsyncClient) -> None:
    key = await make_key(client, expires_at=(datetime.now(UTC) + timedelta(seconds=0.4)).isoformat())
    async with with_key(app, key) as program:
        body_of(await program.get(EQUIPMENT))
        await asyncio.sleep(0.5)
        problem_of(await program.get(EQUIPMENT), 401)
    await make_key(client)  # its name is free again


@pytest.mark.parametrize("days", [-1, 0, 367])
async def test_no_key_lives_for_ever(client: httpx.AsyncClient, days: int) -> None:
    body = {"name": "x", "scopes": READ_ONLY, "expires_at": (datetime.now(UTC) + timedelta(days=days)).isoformat()}
    problem_of(await client.post(KEYS, json=body), 409, "api-key-life")


# Rotation


async def test_both_keys_are_good_until_the_overlap_is_over(app: FastAPI, client: httpx.AsyncClient) -> None:
    old = await make_key(client)
    new = await rotate(client, old, overlap_seconds=1)
    assert (new["name"], new["scopes"]) == (old["name"], old["scopes"])
    async with with_key(app, old) as before, with_key(app, new) as after:
        body_of(await before.get(EQUIPMENT))
        body_of(await after.get(EQUIPMENT))
        await asyncio.sleep(1.1)
        problem_of(await before.get(EQUIPMENT), 401)
        body_of(await after.get(EQUIPMENT))


async def test_without_an_overlap_the_old_one_ends_at_once(app: FastAPI, client: httpx.AsyncClient) -> None:
    old = await make_key(client)
    async with with_key(app, old) as before:
        body_of(await before.get(EQUIPMENT))
        await rotate(client, old, overlap_seconds=0)
        problem_of(await before.get(EQUIPMENT), 401)


async def test_two_of_one_name_are_live_at_most(client: httpx.AsyncClient) -> None:
    old = await make_key(client)
    new = await rotate(client, old)
    for key in (old, new):
        problem_of(await client.post(f"{KEYS}/{key['id']}/rotate", json={}), 409, "api-key-already-rotating")
    problem_of(await client.post(KEYS, json={"name": "ci", "scopes": READ_ONLY}), 409, "api-key-name-taken")
    await client.delete(f"{KEYS}/{old['id']}")
    await rotate(client, new)


async def test_of_many_who_rotate_or_create_at_once_one_does(client: httpx.AsyncClient) -> None:
    created = await asyncio.gather(*(client.post(KEYS, json={"name": "n", "scopes": READ_ONLY}) for _ in range(8)))
    assert sorted(answer.status_code for answer in created) == [201, *[409] * 7]
    [key] = await listed(client, KEYS)
    rotated = await asyncio.gather(*(client.post(f"{KEYS}/{key['id']}/rotate", json={}) for _ in range(8)))
    assert sorted(answer.status_code for answer in rotated) == [201, *[409] * 7]


async def test_rotation_under_load_fails_no_request(app: FastAPI, client: httpx.AsyncClient) -> None:
    key, statuses, done = await make_key(client), [], asyncio.Event()
    current = [key]

    async def work() -> None:
        while not done.is_set():
            async with with_key(app, current[0]) as program:
                for _ in range(5):
                    statuses.append(
                        (await program.get(EQUIPMENT, params={"limit": len(statuses) % 200 + 1})).status_code
                    )

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(work())
        for _ in range(4):
            old = current[0]
            current[0] = await rotate(client, old, overlap_seconds=60)
            await asyncio.sleep(0.3)  # those who hold the old one go over to the new one meanwhile
            await client.delete(f"{KEYS}/{old['id']}")
        done.set()
    assert len(statuses) > 50
    assert set(statuses) == {200}


async def test_control_without_an_overlap_rotation_fails_some(app: FastAPI, client: httpx.AsyncClient) -> None:
    old = await make_key(client)
    async with with_key(app, old) as program:
        await rotate(client, old, overlap_seconds=0)
        assert (await program.get(EQUIPMENT)).status_code == 401


# Whose they are


async def test_a_member_sees_and_ends_their_own_alone(app: FastAPI, people: People, owner: Person) -> None:
    member, other = [await people.join(Role.MEMBER, owner.organization_id) for _ in range(2)]
    async with in_process(app, member) as mine, in_process(app, other) as theirs, in_process(app, owner) as admin:
        key = await make_key(mine)
        assert await listed(theirs, KEYS) == []
        assert await listed(theirs, KEYS, user_id=str(member.user_id)) == []
        problem_of(await theirs.delete(f"{KEYS}/{key['id']}"), 404)
        problem_of(await theirs.post(f"{KEYS}/{key['id']}/rotate", json={}), 404)
        assert [each["id"] for each in await listed(admin, KEYS, user_id=str(member.user_id))] == [key["id"]]
        assert (await admin.delete(f"{KEYS}/{key['id']}")).status_code == 204
        problem_of(await mine.delete(f"{KEYS}/{key['id']}"), 404)


@pytest.mark.parametrize(
    ("change", "place"),
    [({"name": ""}, "name"), ({"scopes": []}, "scopes"), ({"scopes": ["x"] * 21}, "scopes"), ({"life": 1}, "life")],
)
async def test_wrong_input_is_named(client: httpx.AsyncClient, change: dict[str, Any], place: str) -> None:
    answer = await client.post(KEYS, json={"name": "x", "scopes": READ_ONLY, **change})
    assert wrong_places(answer)[0][1] == place


@pytest.mark.parametrize("token", ["headroom_", "headroom_" + "0" * 49, "headroom_" + "a" * 60_000])
async def test_what_is_no_key_is_refused(anonymous: httpx.AsyncClient, token: str) -> None:
    answer = await anonymous.get(EQUIPMENT, headers={"Authorization": f"Bearer {token}"})
    problem_of(answer, 401)


async def test_a_key_reaches_another_organization_no_more_than_a_token(
    app: FastAPI, client: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    item = await add_item(client)
    async with with_key(app, await make_key(stranger)) as program:
        problem_of(await program.get(f"{EQUIPMENT}/{item['id']}"), 404)
