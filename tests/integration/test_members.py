"""Who belongs to an organization, as what, and who may change that."""

import asyncio
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI

from app.features.organizations.repository import MemberRepository
from app.platform.security.caller import Role
from tests.support.api import API, People, Person, in_process
from tests.support.calls import EQUIPMENT, body_of, listed, problem_of
from tests.support.identity import logged_in, refresh

pytestmark = pytest.mark.asyncio(loop_scope="session")

MEMBERS = f"{API}/members"


async def change(client: httpx.AsyncClient, person: Person, **body: object) -> httpx.Response:
    return await client.patch(f"{MEMBERS}/{person.user_id}", json=body)


async def test_everybody_sees_who_is_there(
    client: httpx.AsyncClient, viewer: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    assert [member["role"] for member in await listed(client, MEMBERS)] == ["owner", "viewer"]
    assert await listed(viewer, MEMBERS) == await listed(client, MEMBERS)
    assert [member["role"] for member in await listed(stranger, MEMBERS)] == ["owner"]


async def test_a_new_role_ends_the_tokens_of_the_old_one(
    app: FastAPI, people: People, owner: Person, client: httpx.AsyncClient
) -> None:
    admin = await people.join(Role.ADMIN, owner.organization_id)
    async with in_process(app, admin) as theirs:
        body_of(await theirs.get(f"{API}/audit"))
        assert body_of(await change(client, admin, role="viewer"))["role"] == "viewer"
        problem_of(await theirs.get(f"{API}/audit"), 401)
    [entry] = await listed(client, f"{API}/audit", action="member.changed")
    assert (entry["target_id"], entry["details"]) == (str(admin.user_id), {"role": "viewer"})


async def test_who_is_disabled_is_refused_and_may_come_back(
    app: FastAPI, people: People, owner: Person, client: httpx.AsyncClient
) -> None:
    member = await people.join(Role.MEMBER, owner.organization_id)
    async with in_process(app, member) as theirs:
        body_of(await theirs.get(EQUIPMENT))
        assert body_of(await change(client, member, disabled=True))["disabled_at"] is not None
        problem_of(await theirs.get(EQUIPMENT), 401)
    assert body_of(await change(client, member, disabled=False))["disabled_at"] is None


async def test_the_sessions_of_who_is_disabled_are_over_also_when_they_come_back(
    app: FastAPI, people: People, owner: Person, client: httpx.AsyncClient, anonymous: httpx.AsyncClient
) -> None:
    user, token = await logged_in(anonymous)
    await people.fetch("UPDATE users SET organization_id = $1 WHERE id = $2", owner.organization_id, UUID(user["id"]))
    await people.fetch("UPDATE sessions SET organization_id = $1 WHERE user_id = $2", owner.organization_id, user["id"])
    for disabled in (True, False):
        body_of(await client.patch(f"{MEMBERS}/{user['id']}", json={"disabled": disabled}))
        problem_of(await refresh(anonymous, token["refresh_token"]), 401, "session-over")
    [entry] = await listed(client, f"{API}/audit", action="session.ended")
    assert (entry["actor_id"], entry["details"]) == (str(owner.user_id), {"because": "disabled"})


async def test_what_is_as_it_was_changes_nothing(
    app: FastAPI, people: People, owner: Person, client: httpx.AsyncClient
) -> None:
    member = await people.join(Role.MEMBER, owner.organization_id)
    async with in_process(app, member) as theirs:
        for body in ({}, {"role": "member"}, {"disabled": False}):
            body_of(await change(client, member, **body))
        body_of(await theirs.get(EQUIPMENT))
    assert await listed(client, f"{API}/audit") == []


async def test_an_administrator_makes_and_changes_no_owner(
    app: FastAPI, people: People, owner: Person, client: httpx.AsyncClient
) -> None:
    admin, member = [await people.join(role, owner.organization_id) for role in (Role.ADMIN, Role.MEMBER)]
    async with in_process(app, admin) as theirs:
        for person, body in ((owner, {"role": "viewer"}), (owner, {"disabled": True}), (member, {"role": "owner"})):
            problem_of(await change(theirs, person, **body), 403, "forbidden")
        problem_of(await change(theirs, admin, role="owner"), 403)
        body_of(await change(theirs, member, role="viewer"))


@pytest.mark.parametrize("body", [{"role": "admin"}, {"disabled": True}])
async def test_the_last_owner_stays(client: httpx.AsyncClient, owner: Person, body: dict[str, object]) -> None:
    problem_of(await change(client, owner, **body), 409, "last-owner")


async def test_of_two_owners_who_demote_each_other_at_once_one_stays(
    app: FastAPI, people: People, owner: Person, client: httpx.AsyncClient
) -> None:
    assert await owners_left(app, people, owner, client) == 1


async def test_control_without_the_lock_none_stays(
    app: FastAPI, people: People, owner: Person, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, look = asyncio.Barrier(2), MemberRepository.other_owners

    async def no_lock(_: MemberRepository) -> None: ...

    async def looking_together(repository: MemberRepository, user_id: UUID) -> object:
        found = await look(repository, user_id)
        async with asyncio.timeout(20):
            await together.wait()
        return found

    monkeypatch.setattr(MemberRepository, "lock_organization", no_lock)
    monkeypatch.setattr(MemberRepository, "other_owners", looking_together)
    assert await owners_left(app, people, owner, client) == 0


async def owners_left(app: FastAPI, people: People, owner: Person, client: httpx.AsyncClient) -> int:
    """Of two who demote each other at once."""
    other = await people.join(Role.OWNER, owner.organization_id)
    async with in_process(app, other) as theirs:
        answers = await asyncio.gather(change(client, other, role="viewer"), change(theirs, owner, role="viewer"))
    assert sorted(answer.status_code for answer in answers)[0] == 200
    count = "SELECT count(*) FROM users WHERE organization_id = $1 AND role = 'owner'"
    return int(await people.fetch(count, owner.organization_id))


async def test_another_organizations_member_is_not_found(
    stranger: httpx.AsyncClient, owner: Person, people: People
) -> None:
    problem_of(await change(stranger, owner, role="viewer"), 404)
