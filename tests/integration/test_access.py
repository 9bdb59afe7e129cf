"""Every route of the OpenAPI document, without credentials, with each role, and by API keys of every scope but its own.

RULES says of each route who may: a route that it doesn't know fails the test. What another organization's roles get is
in `test_tenants`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, cast
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from app.features.api_keys import service as keys_service
from app.features.api_keys.service import NOT_FOR_KEYS
from app.features.identity.roles import SCOPES
from app.main import create_app
from app.platform.security.api_keys import FoundKey
from app.platform.security.caller import Role
from app.settings import Settings
from tests.support.api import API, People, Person, in_process
from tests.support.calls import body_of, problem_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

Operation = tuple[str, str]
EVERYBODY = None  # without credentials too
# The least role that may.
RULES: dict[Operation, Role | None] = {
    ("post", "/auth/register"): EVERYBODY,
    ("post", "/auth/login"): EVERYBODY,
    ("post", "/auth/token"): EVERYBODY,
    ("post", "/auth/refresh"): EVERYBODY,  # who has a refresh token
    ("post", "/auth/verify-email"): EVERYBODY,  # who has a token from a mail
    ("post", "/auth/verify-email/request"): EVERYBODY,
    ("post", "/auth/password-reset"): EVERYBODY,
    ("post", "/auth/password-reset/confirm"): EVERYBODY,
    ("post", "/auth/password"): Role.VIEWER,
    ("post", "/auth/2fa/setup"): Role.VIEWER,
    ("post", "/auth/2fa/enable"): Role.VIEWER,
    ("post", "/auth/2fa/disable"): Role.VIEWER,
    ("post", "/auth/2fa/recovery-codes"): Role.VIEWER,
    ("get", "/auth/me"): Role.VIEWER,
    ("post", "/auth/logout"): Role.VIEWER,
    ("get", "/auth/sessions"): Role.VIEWER,
    ("delete", "/auth/sessions"): Role.VIEWER,
    ("delete", "/auth/sessions/{session_id}"): Role.VIEWER,
    ("get", "/equipment"): Role.VIEWER,
    ("post", "/equipment"): Role.MEMBER,
    ("get", "/equipment/{equipment_id}"): Role.VIEWER,
    ("patch", "/equipment/{equipment_id}"): Role.MEMBER,
    ("delete", "/equipment/{equipment_id}"): Role.MEMBER,
    ("get", "/equipment/{equipment_id}/checkouts"): Role.VIEWER,
    ("post", "/equipment/{equipment_id}/checkouts"): Role.MEMBER,
    ("get", "/checkouts"): Role.VIEWER,
    ("get", "/checkouts/{checkout_id}"): Role.VIEWER,
    ("post", "/checkouts/{checkout_id}/return"): Role.MEMBER,
    ("get", "/analytics/equipment"): Role.VIEWER,
    ("get", "/audit"): Role.ADMIN,
    ("get", "/api-keys"): Role.MEMBER,
    ("post", "/api-keys"): Role.MEMBER,
    ("post", "/api-keys/{api_key_id}/rotate"): Role.MEMBER,
    ("delete", "/api-keys/{api_key_id}"): Role.MEMBER,
    ("get", "/invitations"): Role.ADMIN,
    ("post", "/invitations"): Role.ADMIN,
    ("post", "/invitations/accept"): EVERYBODY,  # who has a token from a mail
    ("delete", "/invitations/{invitation_id}"): Role.ADMIN,
    ("get", "/members"): Role.VIEWER,
    ("patch", "/members/{user_id}"): Role.ADMIN,
    ("post", "/batch"): EVERYBODY,  # its parts are asked one by one
}
# A sound body, where the route wants one: else nobody knows whether it was the body that was refused.
BODIES: dict[Operation, dict[str, Any]] = {
    ("patch", "/equipment/{equipment_id}"): {"name": "Mine now"},
    ("post", "/equipment/{equipment_id}/checkouts"): {"due_at": "2099-01-31T12:00:00Z"},
    ("post", "/checkouts/{checkout_id}/return"): {},
    ("post", "/api-keys/{api_key_id}/rotate"): {},
    ("patch", "/members/{user_id}"): {"role": "member"},
}


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if "operationId" in operation:
                yield method, path.removeprefix(API)


def without_rule(document: dict[str, Any]) -> set[Operation]:
    return set(operations(document)) - RULES.keys()


DOCUMENT = create_app(Settings(_env_file=None)).openapi()
OPERATIONS = list(operations(DOCUMENT))
FOR_KEYS = SCOPES[Role.OWNER] - NOT_FOR_KEYS
GUARDED = [operation for operation in OPERATIONS if RULES.get(operation) is not EVERYBODY]
guarded = pytest.mark.parametrize("operation", GUARDED, ids=" ".join)


async def ask(
    client: httpx.AsyncClient, operation: Operation, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    """With ids that nothing has."""
    method, path = operation
    ids = {
        name: str(uuid4())
        for name in ("equipment_id", "checkout_id", "api_key_id", "user_id", "session_id", "invitation_id")
    }
    url = API + path.format_map(ids)
    return await client.request(method, url, json=BODIES.get(operation), headers={"If-Match": "*", **(headers or {})})


async def test_every_route_has_a_rule_and_every_rule_a_route() -> None:
    assert without_rule(DOCUMENT) == set()
    assert RULES.keys() == set(OPERATIONS)


async def test_control_a_new_route_without_a_rule_is_noticed() -> None:
    app = create_app(Settings(_env_file=None))

    @app.get(f"{API}/backdoor")
    async def backdoor() -> None: ...

    assert without_rule(app.openapi()) == {("get", "/backdoor")}


@guarded
async def test_without_credentials_it_is_401(anonymous: httpx.AsyncClient, operation: Operation) -> None:
    answer = await ask(anonymous, operation)
    problem_of(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@guarded
async def test_with_credentials_of_nobody_it_is_401(anonymous: httpx.AsyncClient, operation: Operation) -> None:
    for nonsense in ("x", "headroom_x", "a.b.c"):
        anonymous.headers["Authorization"] = f"Bearer {nonsense}"
        problem_of(await ask(anonymous, operation), 401, "unauthorized")


@guarded
@pytest.mark.parametrize("role", Role)
async def test_a_role_that_is_not_enough_is_403_and_one_that_is_finds_nothing(
    app: FastAPI, people: People, owner: Person, operation: Operation, role: Role
) -> None:
    """404 for ids that nothing has; else it is done, or the body that is missing is missed."""
    least = RULES[operation]
    assert least is not None
    async with in_process(app, await people.join(role, owner.organization_id)) as client:
        answer = await ask(client, operation)
    if not role.at_least(least):
        problem_of(answer, 403, "forbidden")
    elif "{" in operation[1]:
        problem_of(answer, 404, "not-found")
    else:
        assert answer.status_code in (200, 204, 422)


async def test_control_a_role_that_may_too_much_is_noticed(
    app: FastAPI, people: People, owner: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cast(dict[Role, frozenset[str]], SCOPES), Role.VIEWER, SCOPES[Role.OWNER])
    async with in_process(app, await people.join(Role.VIEWER, owner.organization_id)) as viewer:
        let_in = [operation for operation in GUARDED if (await ask(viewer, operation)).status_code != 403]
    assert {RULES[operation] for operation in let_in} == {Role.VIEWER, Role.MEMBER, Role.ADMIN}


# API keys


def scopes_of(operation: Operation) -> list[str]:
    """Those that the document names for it."""
    [security] = DOCUMENT["paths"][API + operation[1]][operation[0]]["security"]
    [scopes] = security.values()
    return list(scopes)


async def key_with(client: httpx.AsyncClient, scopes: Iterable[str]) -> dict[str, str]:
    """The headers of a new key of the owner."""
    body = {"name": uuid4().hex, "scopes": sorted(scopes)}
    return {"Authorization": f"Bearer {body_of(await client.post(f'{API}/api-keys', json=body), 201)['key']}"}


@guarded
async def test_a_key_needs_the_scope_of_the_route_whoever_owns_it(
    client: httpx.AsyncClient, anonymous: httpx.AsyncClient, operation: Operation
) -> None:
    needed = set(scopes_of(operation))
    for scopes in (FOR_KEYS - needed, FOR_KEYS):
        answer = await ask(anonymous, operation, await key_with(client, scopes))
        if not needed or needed - scopes:
            problem_of(answer, 403, "forbidden")
        elif "{" in operation[1]:
            problem_of(answer, 404, "not-found")
        else:
            assert answer.status_code in (200, 422)


async def test_no_key_is_made_for_what_makes_keys_or_lets_people_in(client: httpx.AsyncClient) -> None:
    for scope in SCOPES[Role.OWNER] - FOR_KEYS:
        problem_of(await client.post(f"{API}/api-keys", json={"name": "a key", "scopes": [scope]}), 403)


async def test_control_a_key_that_is_worth_its_owner_is_noticed(
    client: httpx.AsyncClient, anonymous: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def worth_all(*arguments: Any) -> FoundKey | None:
        found = await find(*arguments)
        return found and replace(found, caller=replace(found.caller, scopes=SCOPES[Role.OWNER]))

    find = keys_service.find
    monkeypatch.setattr(keys_service, "find", worth_all)
    key = await key_with(client, {"equipment:read"})
    assert (await ask(anonymous, ("get", "/audit"), key)).status_code == 200


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if RULES.get(each) is EVERYBODY], ids=" ".join)
async def test_what_is_open_asks_for_no_token(anonymous: httpx.AsyncClient, operation: Operation) -> None:
    """What it misses is a body, or a refresh token."""
    status = (await ask(anonymous, operation)).status_code
    assert status in ((401,) if operation == ("post", "/auth/refresh") else (415, 422))


async def test_the_document_says_which_scopes_a_route_needs() -> None:
    """Those about the caller alone need none, and refuse API keys."""
    for method, path in GUARDED:
        assert scopes_of((method, path)) or path.startswith("/auth/"), f"{method} {path}"
