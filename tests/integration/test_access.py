"""Every route of the OpenAPI document, without credentials, with each role, and as another organization.

RULES says of each route who may: a route that it doesn't know fails the test.
"""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from app.main import create_app
from app.platform.security.caller import Role
from app.settings import Settings
from tests.support.api import API, People, Person, in_process
from tests.support.calls import problem_of

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
GUARDED = [operation for operation in OPERATIONS if RULES.get(operation) is not EVERYBODY]
guarded = pytest.mark.parametrize("operation", GUARDED, ids=" ".join)


async def ask(client: httpx.AsyncClient, operation: Operation) -> httpx.Response:
    """With ids that nothing has."""
    method, path = operation
    ids = {
        name: str(uuid4())
        for name in ("equipment_id", "checkout_id", "api_key_id", "user_id", "session_id", "invitation_id")
    }
    url = API + path.format_map(ids)
    return await client.request(method, url, json=BODIES.get(operation), headers={"If-Match": "*"})


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


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if RULES.get(each) is EVERYBODY], ids=" ".join)
async def test_what_is_open_asks_for_no_token(anonymous: httpx.AsyncClient, operation: Operation) -> None:
    """What it misses is a body, or a refresh token."""
    status = (await ask(anonymous, operation)).status_code
    assert status in ((401,) if operation == ("post", "/auth/refresh") else (415, 422))


async def test_the_document_says_which_scopes_a_route_needs() -> None:
    """Those about the caller alone need none, and refuse API keys."""
    for method, path in GUARDED:
        [scopes] = [scopes for each in DOCUMENT["paths"][API + path][method]["security"] for scopes in each.values()]
        assert scopes or path.startswith("/auth/"), f"{method} {path}"
