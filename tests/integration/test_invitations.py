"""Invitations: the token is in the mail alone, good once, for who was invited."""

import asyncio
import re
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.features.organizations import invitation_repository
from app.features.organizations.invitation_service import InvitationMails
from app.features.organizations.models import Invitation
from app.platform.security.caller import Role
from tests.support.api import API, People, Person, connected, in_process
from tests.support.calls import body_of, listed, problem_of, wrong_places
from tests.support.racing import RACERS, looking_first

pytestmark = pytest.mark.asyncio(loop_scope="session")

INVITATIONS = f"{API}/invitations"
PASSWORD = "correct horse battery staple nine"


def address() -> str:
    return f"{uuid4().hex}@example.com"


async def invite(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    return body_of(await client.post(INVITATIONS, json={"email": address(), "role": "member", **changes}), 201)


async def token_of(app: FastAPI, people: People, invitation: dict[str, Any]) -> str | None:
    """As the worker writes the mail; None where it writes none."""
    details = "SELECT details::text FROM mail_orders WHERE details ->> 'invitation_id' = $1"
    assert await people.fetch(details, invitation["id"])
    organization = await people.fetch("SELECT organization_id::text FROM invitations WHERE id = $1", invitation["id"])
    ids = {"organization_id": organization, "invitation_id": invitation["id"]}
    writer = InvitationMails(app.state.resources.database, "https://example.com").writers()["invitation"]
    mail = await writer({"email": invitation["email"], **ids})
    if mail is None:
        return None
    assert mail.recipient == invitation["email"]
    [token] = re.findall(r"https://example.com/invitation#token=(\S+)", mail.text)
    return str(token)


async def accept(client: httpx.AsyncClient, token: str | None, **changes: Any) -> httpx.Response:
    return await client.post(
        f"{INVITATIONS}/accept", json={"token": token, "full_name": "A Guest", "password": PASSWORD, **changes}
    )


async def test_who_accepts_is_a_member_and_can_log_in(
    app: FastAPI, people: People, client: httpx.AsyncClient, anonymous: httpx.AsyncClient
) -> None:
    invitation = await invite(client, role="viewer")
    member = body_of(await accept(anonymous, await token_of(app, people, invitation)), 201)
    assert (member["email"], member["role"]) == (invitation["email"], "viewer")
    assert member["id"] in [each["id"] for each in await listed(client, f"{API}/members")]
    login = {"email": invitation["email"], "password": PASSWORD}
    body_of(await anonymous.post(f"{API}/auth/login", json=login))
    assert (await listed(client, INVITATIONS))[0]["accepted_at"] is not None
    told = [entry["action"] for entry in await listed(client, f"{API}/audit")]
    assert {"invitation.created", "invitation.accepted"} <= set(told)


async def test_a_token_is_good_once_though_many_send_it_at_once(
    app: FastAPI, people: People, client: httpx.AsyncClient, anonymous: httpx.AsyncClient
) -> None:
    token = await token_of(app, people, await invite(client))
    answers = await asyncio.gather(*(accept(anonymous, token) for _ in range(RACERS)))
    refused = [answer.json()["type"] for answer in answers if answer.status_code != 201]
    assert refused == ["/problems/token-not-good"] * (RACERS - 1)


async def test_control_who_looks_before_using_accepts_a_token_often(
    app: FastAPI,
    people: People,
    client: httpx.AsyncClient,
    anonymous: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the address, of which there is one account, holds the others off then."""
    token = await token_of(app, people, await invite(client))
    monkeypatch.setattr(invitation_repository, "accept", looking_first(open_invitation, invitation_repository.accept))
    answers = await asyncio.gather(*(accept(anonymous, token) for _ in range(RACERS)))
    refused = [answer.json()["type"] for answer in answers if answer.status_code != 201]
    assert refused == ["/problems/email-taken"] * (RACERS - 1)


async def open_invitation(session: AsyncSession, digest: bytes) -> dict[str, Any]:
    columns = (Invitation.organization_id, Invitation.id, Invitation.email, Invitation.role)
    found = await session.execute(select(*columns).where(Invitation.digest == digest, invitation_repository.IS_OPEN))
    return dict(found.mappings().one())


async def test_neither_the_answer_nor_the_database_has_the_token(
    app: FastAPI, people: People, client: httpx.AsyncClient
) -> None:
    invitation = await invite(client)
    token = await token_of(app, people, invitation)
    assert "digest" not in invitation
    assert "token" not in invitation
    async with connected(people.dsn) as connection:
        for table in ("invitations", "mail_orders", "audit_entries"):
            assert not await connection.fetchval(
                f"SELECT count(*) FROM {table} AS t WHERE t::text LIKE $1", f"%{token}%"
            )


async def test_a_revoked_one_is_no_good_and_is_not_sent(
    app: FastAPI, people: People, client: httpx.AsyncClient, anonymous: httpx.AsyncClient
) -> None:
    invitation = await invite(client)
    token = await token_of(app, people, invitation)
    assert (await client.delete(f"{INVITATIONS}/{invitation['id']}")).status_code == 204
    refused = await accept(anonymous, token)
    assert refused.json()["type"] == "/problems/token-not-good"
    assert await token_of(app, people, invitation) is None
    problem_of(await client.delete(f"{INVITATIONS}/{invitation['id']}"), 404)


async def test_an_old_one_is_no_good_and_makes_room(
    app: FastAPI, people: People, client: httpx.AsyncClient, anonymous: httpx.AsyncClient
) -> None:
    invitation = await invite(client)
    token = await token_of(app, people, invitation)
    problem_of(await client.post(INVITATIONS, json={"email": invitation["email"]}), 409, "already-invited")
    await people.fetch("UPDATE invitations SET expires_at = now() WHERE id = $1", invitation["id"])
    assert (await accept(anonymous, token)).json()["type"] == "/problems/token-not-good"
    await invite(client, email=invitation["email"])


async def test_an_address_with_an_account_is_invited_like_any_other_and_can_not_join_twice(
    app: FastAPI, people: People, client: httpx.AsyncClient, anonymous: httpx.AsyncClient
) -> None:
    other = await people.join()
    email = await people.fetch("SELECT email FROM users WHERE id = $1", other.user_id)
    token = await token_of(app, people, await invite(client, email=email))
    problem_of(await accept(anonymous, token), 409, "email-taken")


async def test_an_administrator_invites_no_owner(app: FastAPI, people: People, owner: Person) -> None:
    async with in_process(app, await people.join(Role.ADMIN, owner.organization_id)) as admin:
        problem_of(await admin.post(INVITATIONS, json={"email": address(), "role": "owner"}), 403)
        await invite(admin, role="admin")


async def test_a_weak_password_is_refused_and_the_token_stays_good(
    app: FastAPI, people: People, client: httpx.AsyncClient, anonymous: httpx.AsyncClient
) -> None:
    token = await token_of(app, people, await invite(client))
    assert wrong_places(await accept(anonymous, token, password="password")) == [["body", "password"]]
    body_of(await accept(anonymous, token), 201)


async def test_another_organizations_invitation_is_not_found(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    invitation = await invite(client)
    assert await listed(stranger, INVITATIONS) == []
    problem_of(await stranger.delete(f"{INVITATIONS}/{invitation['id']}"), 404)
