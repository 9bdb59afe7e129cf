import asyncio
import base64
import json
import time
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI

from app.platform.security.caller import Role
from tests.support.api import API, People, Person, in_process
from tests.support.calls import EQUIPMENT, add_item, body_of, problem_of, wrong_places
from tests.support.identity import AUTH, PASSWORD, log_in, register, registration

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_who_registers_owns_a_new_organization(anonymous: httpx.AsyncClient) -> None:
    user = await register(anonymous, full_name="Ann", organization="Acme")
    assert (user["full_name"], user["organization"], user["role"]) == ("Ann", "Acme", "owner")
    assert UUID(user["id"]).version == UUID(user["organization_id"]).version == 7
    assert not {"password", "password_hash"} & set(user)


async def test_two_organizations_may_have_one_name(anonymous: httpx.AsyncClient) -> None:
    first, second = await register(anonymous), await register(anonymous)
    assert first["organization_id"] != second["organization_id"]


async def test_an_address_registers_once_however_it_is_written(anonymous: httpx.AsyncClient) -> None:
    user = await register(anonymous, email=f"Ann.{uuid4().hex}@Example.COM")
    assert user["email"] == user["email"].lower()
    again = await anonymous.post(f"{AUTH}/register", json=registration(email=user["email"].upper()))
    problem_of(again, 409, "email-taken")


async def test_of_five_who_register_one_address_one_has_it(anonymous: httpx.AsyncClient) -> None:
    body = registration()
    answers = await asyncio.gather(*(anonymous.post(f"{AUTH}/register", json=body) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]


@pytest.mark.parametrize(
    ("field", "value"),
    [("email", "no address"), ("email", "a@b@c"), ("password", "short"), ("password", "x" * 129), ("full_name", " ")],
)
async def test_what_a_registration_lacks_is_named(anonymous: httpx.AsyncClient, field: str, value: str) -> None:
    answer = await anonymous.post(f"{AUTH}/register", json=registration(**{field: value}))
    assert wrong_places(answer) == [["body", field]]


async def test_a_login_gives_a_token_that_opens_the_api(anonymous: httpx.AsyncClient) -> None:
    user = await register(anonymous)
    token = body_of(await log_in(anonymous, user["email"]))
    assert token["token_type"] == "bearer"
    assert token["expires_in"] == 900
    headers = {"Authorization": f"Bearer {token['access_token']}"}
    assert body_of(await anonymous.get(f"{AUTH}/me", headers=headers)) == user
    assert body_of(await anonymous.get(EQUIPMENT, headers=headers))["items"] == []


async def test_the_oauth2_form_is_the_same(anonymous: httpx.AsyncClient) -> None:
    user = await register(anonymous)
    form = {"grant_type": "password", "username": user["email"], "password": PASSWORD, "client_id": "x", "scope": ""}
    token = body_of(await anonymous.post(f"{AUTH}/token", data=form))
    headers = {"Authorization": f"{token['token_type']} {token['access_token']}"}
    assert body_of(await anonymous.get(f"{AUTH}/me", headers=headers))["id"] == user["id"]


async def test_a_wrong_password_and_an_unknown_address_look_the_same(anonymous: httpx.AsyncClient) -> None:
    user = await register(anonymous)
    wrong = problem_of(await log_in(anonymous, user["email"], "wrong"), 401, "wrong-credentials")
    unknown = problem_of(await log_in(anonymous, "nobody@example.com"), 401, "wrong-credentials")
    different = {"request_id"}
    assert {k: v for k, v in wrong.items() if k not in different} == {
        k: v for k, v in unknown.items() if k not in different
    }


async def test_a_password_is_kept_as_argon2id(anonymous: httpx.AsyncClient, people: People) -> None:
    user = await register(anonymous)
    stored = await people.fetch("SELECT password_hash FROM users WHERE id = $1", UUID(user["id"]))
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


async def test_hashing_leaves_the_event_loop_alone(anonymous: httpx.AsyncClient) -> None:
    """A hash takes 20 ms. On the loop, eight would leave it some eight turns."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticking = asyncio.create_task(tick())
    answers = await asyncio.gather(*(log_in(anonymous, "nobody@example.com") for _ in range(8)))
    ticking.cancel()
    assert {answer.status_code for answer in answers} == {401}
    assert ticks > 24


# Tokens


async def test_the_public_keys_verify_a_token(people: People, owner: Person, anonymous: httpx.AsyncClient) -> None:
    jwks = body_of(await anonymous.get("/.well-known/jwks.json"))
    assert all("d" not in key for key in jwks["keys"])
    key = jwt.PyJWKSet.from_dict(jwks)[jwt.get_unverified_header(owner.token)["kid"]]
    settings = people.settings
    claims = jwt.decode(
        owner.token, key, algorithms=["EdDSA"], audience=settings.jwt_audience, issuer=settings.jwt_issuer
    )
    assert claims["sub"] == str(owner.user_id)
    assert claims["org"] == str(owner.organization_id)


def encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def forgeries(token: str, other: str) -> dict[str, str]:
    header, claims, signature = token.split(".")
    read = jwt.decode(token, options={"verify_signature": False})
    head = jwt.get_unverified_header(token)
    later, past = read | {"exp": read["exp"] + 3_600}, read | {"exp": int(time.time()) - 120}
    foreign = Ed25519PrivateKey.generate()
    return {
        "unsigned": f"{encoded(head | {'alg': 'none'})}.{claims}.",
        "none, signed": f"{encoded(head | {'alg': 'none'})}.{claims}.{signature}",
        "another's signature": f"{header}.{claims}.{other.split('.')[2]}",
        "another's claims": f"{header}.{other.split('.')[1]}.{signature}",
        "a later end": f"{header}.{encoded(later)}.{signature}",
        "a foreign key": jwt.encode(read, foreign, algorithm="EdDSA", headers=head),
        "a foreign key, expired": jwt.encode(past, foreign, algorithm="EdDSA", headers=head),
        "a shared secret": jwt.encode(read, "x" * 32, algorithm="HS256", headers=head | {"alg": "HS256"}),
        "cut": token[:-2],
    }


async def test_no_forged_token_is_accepted(
    app: FastAPI, people: People, owner: Person, anonymous: httpx.AsyncClient
) -> None:
    other = (await people.join()).token
    for name, token in forgeries(owner.token, other).items():
        answer = await anonymous.get(f"{AUTH}/me", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 401, name
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_without_a_token_every_part_of_the_api_is_closed(anonymous: httpx.AsyncClient) -> None:
    for path in ("equipment", "checkouts", "analytics/equipment", "auth/me"):
        problem_of(await anonymous.get(f"{API}/{path}"), 401, "unauthorized")


async def test_a_token_of_someone_who_is_gone_is_no_use(
    app: FastAPI, people: People, owner: Person, anonymous: httpx.AsyncClient
) -> None:
    gone = Person(uuid4(), owner.organization_id, people.token(uuid4(), owner.organization_id, Role.OWNER))
    problem_of(await anonymous.get(f"{AUTH}/me", headers=gone.headers), 401)


async def test_a_checkout_by_someone_who_is_gone_is_no_conflict(
    app: FastAPI, people: People, owner: Person, client: httpx.AsyncClient
) -> None:
    item = await add_item(client)
    gone = Person(uuid4(), owner.organization_id, people.token(uuid4(), owner.organization_id, Role.OWNER))
    async with in_process(app, gone) as ghost:
        answer = await ghost.post(f"{EQUIPMENT}/{item['id']}/checkouts", json={"due_at": "2099-01-01T00:00:00Z"})
    problem_of(answer, 401)


async def test_a_token_is_worth_its_scopes(app: FastAPI, people: People, owner: Person) -> None:
    token = people.token_with(owner, scopes=("checkouts:read",))
    async with in_process(app, Person(owner.user_id, owner.organization_id, token)) as narrow:
        body_of(await narrow.get(f"{API}/checkouts"))
        problem_of(await narrow.get(EQUIPMENT), 403, "forbidden")
        problem_of(await narrow.get(f"{API}/analytics/equipment"), 403, "forbidden")
