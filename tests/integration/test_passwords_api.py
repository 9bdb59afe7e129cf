"""Addresses verified, passwords changed and reset, by tokens that are good once; nobody learns who has an account.

Mail is real: sent by the worker's sender to an SMTP server, and read there.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from uuid import UUID, uuid4

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from app.features.identity import attempts
from app.features.identity.credential_repository import CredentialRepository
from app.platform.http.problems import TooManyRequests
from app.platform.limits import RateLimiter
from app.platform.security.passwords import PasswordHasher
from tests.support.api import People, connected, in_process, new_app, running
from tests.support.calls import EQUIPMENT, body_of, problem_of, wrong_places
from tests.support.identity import AUTH, PASSWORD, bearer, log_in, logged_in, refresh, register
from tests.support.mailbox import Mailbox, mailbox, mails, token_for
from tests.support.racing import RACERS, looking_first
from tests.support.stack import DataServices
from tests.support.timing import timing_ratio

pytestmark = pytest.mark.asyncio(loop_scope="session")

NEW = "another horse, another battery"
PAGES = {"verify-email": "verify-email", "password-reset": "password-reset/confirm"}
Post = Callable[[], Awaitable[httpx.Response]]


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def box() -> AsyncIterator[Mailbox]:
    async with mailbox() as opened:
        yield opened


async def reset_token(client: httpx.AsyncClient, app: FastAPI, box: Mailbox, email: str) -> str:
    assert (await client.post(f"{AUTH}/password-reset", json={"email": email})).status_code == 202
    return await token_for(app, box, email, "password-reset")


async def confirm(client: httpx.AsyncClient, token: str, password: str = NEW) -> httpx.Response:
    return await client.post(f"{AUTH}/password-reset/confirm", json={"token": token, "password": password})


async def one_of_fifty_succeeds(post: Post) -> None:
    """The others are refused, or not let in: so many at once may be more than admission allows."""
    statuses = Counter(answer.status_code for answer in await asyncio.gather(*(post() for _ in range(50))))
    assert statuses[204] == 1
    assert statuses[400] >= 5
    assert statuses.keys() <= {204, 400, 503}


async def test_an_address_is_verified_by_the_token_in_the_mail(
    app: FastAPI, anonymous: httpx.AsyncClient, box: Mailbox
) -> None:
    user, session = await logged_in(anonymous)
    assert user["email_verified"] is False
    token = await token_for(app, box, user["email"], "verify-email")
    assert (await anonymous.post(f"{AUTH}/verify-email", json={"token": token})).status_code == 204
    assert body_of(await anonymous.get(f"{AUTH}/me", headers=bearer(session)))["email_verified"] is True


async def test_of_fifty_verifications_at_once_one_succeeds(
    app: FastAPI, anonymous: httpx.AsyncClient, box: Mailbox
) -> None:
    user = await register(anonymous)
    token = await token_for(app, box, user["email"], "verify-email")
    verify = {"json": {"token": token}}
    await one_of_fifty_succeeds(lambda: anonymous.post(f"{AUTH}/verify-email", **verify))


async def test_who_has_forgotten_the_password_sets_a_new_one(
    app: FastAPI, anonymous: httpx.AsyncClient, box: Mailbox
) -> None:
    user, session = await logged_in(anonymous)
    token = await reset_token(anonymous, app, box, user["email"])
    assert (await confirm(anonymous, token)).status_code == 204
    problem_of(await log_in(anonymous, user["email"]), 401, "wrong-credentials")
    body_of(await log_in(anonymous, user["email"], NEW))
    problem_of(await anonymous.get(EQUIPMENT, headers=bearer(session)), 401)
    problem_of(await refresh(anonymous, session["refresh_token"]), 401, "session-over")
    assert "was changed just now" in (await mails(app, box, user["email"]))[-1]


async def test_of_fifty_resets_at_once_one_succeeds(app: FastAPI, anonymous: httpx.AsyncClient, box: Mailbox) -> None:
    user = await register(anonymous)
    token = await reset_token(anonymous, app, box, user["email"])
    await one_of_fifty_succeeds(lambda: confirm(anonymous, token))


@pytest.mark.parametrize("purpose", ["verify-email", "password-reset"])
async def test_control_who_looks_before_using_takes_a_token_often(
    app: FastAPI, anonymous: httpx.AsyncClient, box: Mailbox, monkeypatch: pytest.MonkeyPatch, purpose: str
) -> None:
    user = await register(anonymous)
    token = await reset_token(anonymous, app, box, user["email"])
    if purpose == "verify-email":
        token = await token_for(app, box, user["email"], purpose)
    path, body = PAGES[purpose], {"token": token} | ({"password": NEW} if purpose == "password-reset" else {})
    owner_then_use = looking_first(CredentialRepository.token_owner, CredentialRepository.use_token)
    monkeypatch.setattr(CredentialRepository, "use_token", owner_then_use)
    answers = await asyncio.gather(*(anonymous.post(f"{AUTH}/{path}", json=body) for _ in range(RACERS)))
    assert [answer.status_code for answer in answers] == [204] * RACERS


async def test_a_token_that_is_over_or_of_another_kind_is_refused(
    app: FastAPI, anonymous: httpx.AsyncClient, box: Mailbox, people: People
) -> None:
    user = await register(anonymous)
    verification = await token_for(app, box, user["email"], "verify-email")
    problem_of(await confirm(anonymous, verification), 400, "token-not-good")
    token = await reset_token(anonymous, app, box, user["email"])
    async with connected(people.dsn) as connection:
        await connection.execute("UPDATE single_use_tokens SET expires_at = now() WHERE user_id = $1", UUID(user["id"]))
    problem_of(await confirm(anonymous, token), 400, "token-not-good")


async def test_a_weak_password_does_not_use_the_token_up(
    app: FastAPI, anonymous: httpx.AsyncClient, box: Mailbox
) -> None:
    user = await register(anonymous)
    token = await reset_token(anonymous, app, box, user["email"])
    assert wrong_places(await confirm(anonymous, token, "password1234")) == [["body", "password"]]
    assert (await confirm(anonymous, token)).status_code == 204


async def test_a_changed_password_ends_every_session_and_begins_one(anonymous: httpx.AsyncClient) -> None:
    user, session = await logged_in(anonymous)
    other = body_of(await log_in(anonymous, user["email"]))
    change = {"password": PASSWORD, "new_password": NEW}
    fresh = body_of(await anonymous.post(f"{AUTH}/password", json=change, headers=bearer(session)))
    for ended in (session, other):
        problem_of(await anonymous.get(EQUIPMENT, headers=bearer(ended)), 401)
        problem_of(await refresh(anonymous, ended["refresh_token"]), 401)
    body_of(await anonymous.get(EQUIPMENT, headers=bearer(fresh)))
    body_of(await refresh(anonymous, fresh["refresh_token"]))


async def test_to_change_a_password_takes_the_present_one(anonymous: httpx.AsyncClient) -> None:
    _, session = await logged_in(anonymous)
    change = {"password": "a guess at it", "new_password": NEW}
    problem_of(await anonymous.post(f"{AUTH}/password", json=change, headers=bearer(session)), 401)
    body_of(await anonymous.get(EQUIPMENT, headers=bearer(session)))


@pytest.mark.parametrize("password", ["password1234", "PASSWORD1234", "aaaaaaaaaaaa", "qwertyuiop"])
async def test_a_password_that_is_known_or_too_simple_is_refused(anonymous: httpx.AsyncClient, password: str) -> None:
    body = {"email": "a@example.com", "password": password, "full_name": "Ann", "organization": "Acme"}
    assert wrong_places(await anonymous.post(f"{AUTH}/register", json=body)) == [["body", "password"]]


async def test_a_password_made_of_the_address_is_refused(anonymous: httpx.AsyncClient) -> None:
    body = {"email": "annabelle@example.com", "password": "Annabelle2026", "full_name": "A", "organization": "Acme"}
    assert wrong_places(await anonymous.post(f"{AUTH}/register", json=body)) == [["body", "password"]]


async def test_a_log_in_hashes_anew_where_the_parameters_have_changed(
    anonymous: httpx.AsyncClient, people: People
) -> None:
    user = await register(anonymous)
    weak = await PasswordHasher(1, memory_kib=8_192, passes=1).hash(PASSWORD)
    async with connected(people.dsn) as connection:
        await connection.execute("UPDATE users SET password_hash = $1 WHERE id = $2", weak, UUID(user["id"]))
    body_of(await log_in(anonymous, user["email"]))
    stored = await people.fetch("SELECT password_hash FROM users WHERE id = $1", UUID(user["id"]))
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    body_of(await log_in(anonymous, user["email"]))
    assert await people.fetch("SELECT password_hash FROM users WHERE id = $1", UUID(user["id"])) == stored


# Nobody learns who has an account


@pytest.mark.parametrize("path", ["password-reset", "verify-email/request"])
async def test_to_ask_for_a_mail_tells_nothing(
    app: FastAPI, anonymous: httpx.AsyncClient, box: Mailbox, path: str
) -> None:
    user, nobody = await register(anonymous), f"{uuid4().hex}@example.com"
    known, unknown = [
        await anonymous.post(f"{AUTH}/{path}", json={"email": email}) for email in (user["email"], nobody)
    ]
    assert (known.status_code, known.text) == (unknown.status_code, unknown.text) == (202, "null")
    assert await mails(app, box, nobody) == []


async def test_no_one_is_flooded_with_mail(app: FastAPI, anonymous: httpx.AsyncClient, box: Mailbox) -> None:
    user = await register(anonymous)
    for _ in range(8):
        await anonymous.post(f"{AUTH}/password-reset", json={"email": user["email"]})
    assert sum("new password" in text for text in await mails(app, box, user["email"])) == 5


async def log_in_ratio(client: httpx.AsyncClient, email: str) -> float:
    """How long a wrong password takes for the account, against one that is not there."""
    return await timing_ratio(
        lambda: log_in(client, email, "a wrong password"),
        lambda: log_in(client, f"{uuid4().hex}@example.com", "a wrong password"),
    )


async def test_a_log_in_takes_as_long_whether_or_not_there_is_an_account(anonymous: httpx.AsyncClient) -> None:
    user = await register(anonymous)
    assert 0.67 < await log_in_ratio(anonymous, user["email"]) < 1.5


async def test_control_without_the_work_for_nobody_it_takes_much_longer(
    anonymous: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(*_: object) -> bool:
        return False

    user = await register(anonymous)
    monkeypatch.setattr(PasswordHasher, "verify_absent", at_once)
    assert await log_in_ratio(anonymous, user["email"]) > 1.5


# Guessing is slowed


async def test_a_stranger_who_guesses_does_not_lock_the_owner_out(services: DataServices, api_database: str) -> None:
    async with running(new_app(services, api_database, rate_limit_scale=1)) as app:
        home, elsewhere = (httpx.ASGITransport(app, client=(address, 1)) for address in ("192.0.2.1", "192.0.2.2"))
        async with (
            httpx.AsyncClient(transport=home, base_url="http://headroom") as owner,
            httpx.AsyncClient(transport=elsewhere, base_url="http://headroom") as stranger,
        ):
            user = await register(owner)
            body_of(await log_in(owner, user["email"]))
            answers = [await log_in(stranger, user["email"], "a wrong password") for _ in range(12)]
            assert Counter(answer.status_code for answer in answers) == {401: 10, 429: 2}
            problem_of(answers[-1], 429, "abnormal-usage-detected")
            assert int(answers[-1].headers["retry-after"]) >= 1
            body_of(await log_in(owner, user["email"]))


@pytest.mark.parametrize("known", [True, False])
async def test_strangers_at_many_addresses_hold_up_those_alone_who_were_never_logged_in_there(
    services: DataServices, api_database: str, people: People, known: bool
) -> None:
    """Not known is the control: the owner too, were their address not told from a stranger's."""
    async with (
        running(new_app(services, api_database, rate_limit_scale=1)) as app,
        in_process(app, address="192.0.2.1") as owner,
        in_process(app, address="192.0.2.3") as stranger,
    ):
        user = await register(owner)
        body_of(await log_in(owner, user["email"]))
        if not known:
            await people.fetch("UPDATE sessions SET address = '192.0.2.9' WHERE user_id = $1", UUID(user["id"]))
        await guess_from_everywhere(app.state.resources.rate_limiter, user["email"])
        problem_of(await log_in(stranger, user["email"], "a wrong password"), 429)
        assert (await log_in(owner, user["email"])).status_code == (200 if known else 429)


async def guess_from_everywhere(limiter: RateLimiter, email: str) -> None:
    """Until strangers have had all that they may, without the passwords' hashing."""
    with suppress(TooManyRequests):
        for _ in range(attempts.FROM_STRANGERS.limits[0].amount):
            await attempts.admit_stranger(limiter, email, None)
