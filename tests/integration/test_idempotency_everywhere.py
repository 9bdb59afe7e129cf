"""Every operation of the OpenAPI document that writes, sent twice with one key: the second answer says that it was.

REQUESTS makes a sound request of each; an operation that has none, or heeds no key, fails the test.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
import pyotp
import pytest
from fastapi import APIRouter, FastAPI

from app.dependencies import WriteSession
from app.features.identity.password_service import RESET, VERIFY, issue_token
from app.features.organizations.invitation_repository import InvitationRepository
from app.features.organizations.invitation_service import KIND
from app.main import create_app
from app.platform.http.idempotency import HEADER
from app.platform.security.caller import Role
from app.platform.security.single_use import digest, new_token
from app.settings import Settings
from tests.support.api import API, People, Person
from tests.support.calls import DUE, add_item, body_of, check_out, item_body
from tests.support.identity import AUTH, PASSWORD, bearer, logged_in, register, registration

pytestmark = pytest.mark.asyncio(loop_scope="session")

Operation = tuple[str, str]
# They have no effect but a session's, whose tokens nobody keeps; a lost answer's tokens are given again by themselves;
# a changed password is no longer the current one; a batch has keys for its parts.
WITHOUT_KEY = {("post", path) for path in ("/auth/login", "/auth/token", "/auth/refresh", "/auth/password", "/batch")}
# What comes again is refused, since the first one has ended the session that it belongs to.
ENDING_THEMSELVES = {("post", "/auth/logout"), ("delete", "/auth/sessions")}
NEW_PASSWORD = "another horse, another battery"


def writing(document: dict[str, Any], *, with_key: bool) -> set[Operation]:
    return set(_writing(document, with_key))


def _writing(document: dict[str, Any], with_key: bool) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method in methods.keys() & {"post", "put", "patch", "delete"}:
            named = [each["name"] for each in methods[method].get("parameters", ())]
            if (HEADER in named) == with_key:
                yield method, path.removeprefix(API)


DOCUMENT = create_app(Settings(_env_file=None)).openapi()
HEEDING = sorted(writing(DOCUMENT, with_key=True))


async def test_every_operation_that_writes_is_covered() -> None:
    assert writing(DOCUMENT, with_key=False) == WITHOUT_KEY
    assert REQUESTS.keys() == set(HEEDING)


async def test_control_a_new_route_that_heeds_no_key_is_noticed() -> None:
    router = APIRouter()

    @router.post(f"{API}/rooms")
    async def create_room(session: WriteSession) -> None: ...

    app = create_app(Settings(_env_file=None))
    app.include_router(router)
    app.openapi_schema = None
    assert writing(app.openapi(), with_key=False) == WITHOUT_KEY | {("post", "/rooms")}


@dataclass(frozen=True, slots=True)
class World:
    app: FastAPI
    people: People
    owner: Person
    client: httpx.AsyncClient  # the owner's
    anonymous: httpx.AsyncClient

    async def item(self) -> str:
        return str((await add_item(self.client))["id"])

    async def checkout(self) -> str:
        return str((await check_out(self.client, await self.item()))["id"])

    async def api_key(self) -> str:
        body = {"name": uuid4().hex, "scopes": ["equipment:read"]}
        return str(body_of(await self.client.post(f"{API}/api-keys", json=body), 201)["id"])

    async def invitation(self) -> str:
        body = {"email": f"{uuid4().hex}@example.com", "role": "member"}
        return str(body_of(await self.client.post(f"{API}/invitations", json=body), 201)["id"])

    async def invited(self) -> str:
        """The token of an invitation."""
        token, invitation = new_token(), UUID(await self.invitation())
        async with self.app.state.resources.database.write() as session:
            assert await InvitationRepository(session, self.owner.organization_id).set_digest(
                invitation, digest(token, KIND)
            )
        return token

    async def mailed(self, purpose: str) -> str:
        """The token of a new user's mail."""
        user = await register(self.anonymous)
        async with self.app.state.resources.database.write() as session:
            token = await issue_token(session, user["email"], purpose)
        assert token is not None
        return token

    async def factor(self, *, enabled: bool = True) -> tuple[dict[str, str], str]:
        """A new user's headers and a code that is good now."""
        headers = bearer((await logged_in(self.anonymous))[1])
        setup = await self.anonymous.post(f"{AUTH}/2fa/setup", json={"password": PASSWORD}, headers=headers)
        code = pyotp.TOTP(body_of(setup)["secret"]).now()
        if not enabled:
            return headers, code
        answer = await self.anonymous.post(f"{AUTH}/2fa/enable", json={"otp": code}, headers=headers)
        return headers, str(body_of(answer)["recovery_codes"][0])


@dataclass(frozen=True, slots=True)
class Sent:
    path: str
    body: dict[str, Any] | None = None
    headers: dict[str, str] | None = None  # of who sends it; None: the owner


ANYBODY: dict[str, str] = {}
ANY_VERSION = {"If-Match": "*"}


async def _logged_in(world: World) -> dict[str, str]:
    return bearer((await logged_in(world.anonymous))[1])


async def _confirmed(world: World, path: str) -> Sent:
    headers, code = await world.factor()
    return Sent(path, {"password": PASSWORD, "otp": code}, headers)


async def _enabling(world: World) -> Sent:
    headers, code = await world.factor(enabled=False)
    return Sent("/auth/2fa/enable", {"otp": code}, headers)


async def _member(world: World) -> Sent:
    member = await world.people.join(Role.VIEWER, world.owner.organization_id)
    return Sent(f"/members/{member.user_id}", {"role": "member"})


async def _new_key(_: World) -> Sent:
    return Sent("/api-keys", {"name": uuid4().hex, "scopes": ["equipment:read"]})


async def _ended(world: World) -> Sent:
    return Sent(f"/auth/sessions/{await world.people.open_session(world.owner)}")


async def _accepted(world: World) -> Sent:
    body = {"token": await world.invited(), "full_name": "A Guest", "password": NEW_PASSWORD}
    return Sent("/invitations/accept", body, ANYBODY)


async def _reset(world: World) -> Sent:
    return Sent("/auth/password-reset/confirm", {"token": await world.mailed(RESET), "password": NEW_PASSWORD}, ANYBODY)


async def _address(world: World) -> dict[str, str]:
    return {"email": (await register(world.anonymous))["email"]}


async def _registered(_: World) -> Sent:
    return Sent("/auth/register", registration(), ANYBODY)


async def _verified(world: World) -> Sent:
    return Sent("/auth/verify-email", {"token": await world.mailed(VERIFY)}, ANYBODY)


async def _verification(world: World) -> Sent:
    return Sent("/auth/verify-email/request", await _address(world), ANYBODY)


async def _forgotten(world: World) -> Sent:
    return Sent("/auth/password-reset", await _address(world), ANYBODY)


async def _set_up(world: World) -> Sent:
    return Sent("/auth/2fa/setup", {"password": PASSWORD}, await _logged_in(world))


async def _added(_: World) -> Sent:
    return Sent("/equipment", item_body())


async def _renamed(world: World) -> Sent:
    return Sent(f"/equipment/{await world.item()}", {"name": "Another"})


async def _removed(world: World) -> Sent:
    return Sent(f"/equipment/{await world.item()}")


async def _taken(world: World) -> Sent:
    return Sent(f"/equipment/{await world.item()}/checkouts", {"due_at": DUE})


async def _returned(world: World) -> Sent:
    return Sent(f"/checkouts/{await world.checkout()}/return", {})


async def _rotated(world: World) -> Sent:
    return Sent(f"/api-keys/{await world.api_key()}/rotate", {})


async def _revoked(world: World) -> Sent:
    return Sent(f"/api-keys/{await world.api_key()}")


async def _invited(_: World) -> Sent:
    return Sent("/invitations", {"email": f"{uuid4().hex}@example.com", "role": "member"})


async def _uninvited(world: World) -> Sent:
    return Sent(f"/invitations/{await world.invitation()}")


async def _out(world: World) -> Sent:
    return Sent("/auth/logout", None, await _logged_in(world))


async def _out_everywhere(world: World) -> Sent:
    return Sent("/auth/sessions", None, await _logged_in(world))


REQUESTS: dict[Operation, Callable[[World], Awaitable[Sent]]] = {
    ("post", "/auth/register"): _registered,
    ("post", "/auth/verify-email"): _verified,
    ("post", "/auth/verify-email/request"): _verification,
    ("post", "/auth/password-reset"): _forgotten,
    ("post", "/auth/password-reset/confirm"): _reset,
    ("post", "/auth/2fa/setup"): _set_up,
    ("post", "/auth/2fa/enable"): _enabling,
    ("post", "/auth/2fa/disable"): lambda world: _confirmed(world, "/auth/2fa/disable"),
    ("post", "/auth/2fa/recovery-codes"): lambda world: _confirmed(world, "/auth/2fa/recovery-codes"),
    ("post", "/auth/logout"): _out,
    ("delete", "/auth/sessions"): _out_everywhere,
    ("delete", "/auth/sessions/{session_id}"): _ended,
    ("post", "/equipment"): _added,
    ("patch", "/equipment/{equipment_id}"): _renamed,
    ("delete", "/equipment/{equipment_id}"): _removed,
    ("post", "/equipment/{equipment_id}/checkouts"): _taken,
    ("post", "/checkouts/{checkout_id}/return"): _returned,
    ("post", "/api-keys"): _new_key,
    ("post", "/api-keys/{api_key_id}/rotate"): _rotated,
    ("delete", "/api-keys/{api_key_id}"): _revoked,
    ("post", "/invitations"): _invited,
    ("post", "/invitations/accept"): _accepted,
    ("delete", "/invitations/{invitation_id}"): _uninvited,
    ("patch", "/members/{user_id}"): _member,
}


async def sent_twice(world: World, operation: Operation, key: dict[str, str]) -> tuple[httpx.Response, httpx.Response]:
    sent = await REQUESTS[operation](world)
    client = world.client if sent.headers is None else world.anonymous
    headers = {**(sent.headers or {}), **ANY_VERSION, **key}
    first, second = [
        await client.request(operation[0], API + sent.path, json=sent.body, headers=headers) for _ in range(2)
    ]
    assert first.is_success, first.text
    return first, second


@pytest.fixture
def world(
    app: FastAPI, people: People, owner: Person, client: httpx.AsyncClient, anonymous: httpx.AsyncClient
) -> World:
    return World(app, people, owner, client, anonymous)


@pytest.mark.parametrize("operation", HEEDING, ids=" ".join)
async def test_what_is_sent_twice_has_one_effect(world: World, operation: Operation) -> None:
    first, second = await sent_twice(world, operation, {HEADER: uuid4().hex})
    if operation in ENDING_THEMSELVES:
        assert second.status_code == 401
        return
    assert second.headers["idempotency-replayed"] == "true"
    if "no-store" in first.headers.get("cache-control", ""):
        assert second.json()["type"] == "/problems/answer-not-kept"
    else:
        assert (second.status_code, second.content) == (first.status_code, first.content)


async def test_control_without_a_key_nothing_says_so(world: World) -> None:
    for operation in (("post", "/equipment"), ("post", "/auth/password-reset"), ("post", "/auth/2fa/setup")):
        _, second = await sent_twice(world, operation, {})
        assert "idempotency-replayed" not in second.headers
