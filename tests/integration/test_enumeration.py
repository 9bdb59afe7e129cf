"""Nobody learns who has an account: not by registering either, where logging in needs a verified address."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from app.platform.security.passwords import PasswordHasher
from tests.support.api import API, People, in_process, new_app, recorded_sql, running
from tests.support.calls import body_of, problem_of
from tests.support.identity import AUTH, log_in, register, registration
from tests.support.mailbox import Mailbox, mailbox, mails, token_for
from tests.support.stack import DataServices
from tests.support.timing import timing_ratio

pytestmark = pytest.mark.asyncio(loop_scope="session")

OTHER = "another horse, another battery"
OF_THE_MOMENT = {"x-request-id", "x-consistency-token", "ratelimit", "content-length"}
Json = dict[str, Any]


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def strict(services: DataServices, api_database: str) -> AsyncIterator[FastAPI]:
    """Logging in needs a verified address."""
    async with running(new_app(services, api_database, login_needs_verified_email=True)) as app:
        yield app


@pytest_asyncio.fixture(loop_scope="session")
async def nobody(strict: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with in_process(strict) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def box() -> AsyncIterator[Mailbox]:
    async with mailbox() as opened:
        yield opened


async def sign_up(client: httpx.AsyncClient, **changes: Any) -> httpx.Response:
    return await client.post(f"{AUTH}/register", json=registration(**changes))


async def verified(client: httpx.AsyncClient, app: FastAPI, box: Mailbox) -> Json:
    """Somebody with an account."""
    user = await register(client)
    token = await token_for(app, box, user["email"], "verify-email")
    assert (await client.post(f"{AUTH}/verify-email", json={"token": token})).status_code == 204
    return user


async def people_with(people: People, email: str) -> int:
    return int(await people.fetch("SELECT count(*) FROM users WHERE email = $1", email))


async def test_a_taken_address_is_answered_as_a_free_one_is(
    strict: FastAPI, nobody: httpx.AsyncClient, box: Mailbox, people: People
) -> None:
    user = await verified(nobody, strict, box)
    taken, free = await sign_up(nobody, email=user["email"], password=OTHER), await sign_up(nobody, password=OTHER)
    assert taken.status_code == free.status_code == 201
    assert taken.headers.keys() == free.headers.keys()
    same = [{k: v for k, v in answer.headers.items() if k not in OF_THE_MOMENT} for answer in (taken, free)]
    assert same[0] == same[1]
    made_up, real = body_of(taken, 201), body_of(free, 201)
    assert made_up.keys() == real.keys()
    for each in (made_up, real):
        assert UUID(each["id"]).version == UUID(each["organization_id"]).version == 7
    assert made_up["id"] != user["id"]
    assert made_up["organization_id"] != user["organization_id"]
    different = {"id", "organization_id", "email", "created_at"}
    assert {k: v for k, v in made_up.items() if k not in different} == {
        k: v for k, v in real.items() if k not in different
    }
    assert await people_with(people, user["email"]) == 1
    assert await people.fetch("SELECT count(*) FROM organizations WHERE id = $1", made_up["organization_id"]) == 0


async def test_the_owner_is_told_by_mail_and_goes_on_as_before(
    strict: FastAPI, nobody: httpx.AsyncClient, box: Mailbox, people: People
) -> None:
    user = await verified(nobody, strict, box)
    body_of(await sign_up(nobody, email=user["email"], password=OTHER), 201)
    assert "has an account already" in (await mails(strict, box, user["email"]))[-1]
    problem_of(await log_in(nobody, user["email"], OTHER), 401, "wrong-credentials")
    body_of(await log_in(nobody, user["email"]))
    told = "SELECT count(*) FROM audit_entries WHERE action = 'user.registered_again' AND target_id = $1"
    assert await people.fetch(told, UUID(user["id"])) == 1


async def test_the_same_statements_are_sent_whether_or_not_the_address_is_taken(
    strict: FastAPI, nobody: httpx.AsyncClient, box: Mailbox
) -> None:
    user = await verified(nobody, strict, box)
    await sign_up(nobody)  # whatever is done once is done
    sent: list[list[str]] = []
    for email in (user["email"], f"{uuid4().hex}@example.com"):
        with recorded_sql() as statements:
            body_of(await sign_up(nobody, email=email), 201)
        sent.append(list(statements))
    assert sent[0] == sent[1]
    assert len(sent[0]) >= 3


@pytest.mark.parametrize("path", ["password-reset", "verify-email/request"])
async def test_the_same_statement_is_sent_for_a_mail_whoever_asks(
    strict: FastAPI, nobody: httpx.AsyncClient, box: Mailbox, path: str
) -> None:
    user = await verified(nobody, strict, box)
    sent: list[list[str]] = []
    for email in (user["email"], f"{uuid4().hex}@example.com"):
        with recorded_sql() as statements:
            assert (await nobody.post(f"{AUTH}/{path}", json={"email": email})).status_code == 202
        sent.append(list(statements))
    assert sent[0] == sent[1]
    assert len(sent[0]) == 1


async def test_the_same_statements_are_sent_for_an_invitation_whoever_is_invited(
    strict: FastAPI, nobody: httpx.AsyncClient, people: People
) -> None:
    user = await register(nobody)
    sent: list[list[str]] = []
    async with in_process(strict, await people.join()) as owner:
        for email in (user["email"], f"{uuid4().hex}@example.com"):
            with recorded_sql() as statements:
                body_of(await owner.post(f"{API}/invitations", json={"email": email}), 201)
            sent.append(list(statements))
    assert sent[0] == sent[1]


async def registering_ratio(client: httpx.AsyncClient, email: str) -> float:
    """How long a taken address takes, against a free one."""
    return await timing_ratio(lambda: sign_up(client, email=email), lambda: sign_up(client))


async def test_registering_takes_as_long_whether_or_not_the_address_is_taken(nobody: httpx.AsyncClient) -> None:
    user = await register(nobody)
    assert 0.67 < await registering_ratio(nobody, user["email"]) < 1.5


async def test_control_without_the_hash_for_a_taken_address_it_takes_much_less(
    nobody: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await register(nobody)

    async def taken() -> None:
        with monkeypatch.context() as without_work:
            without_work.setattr(PasswordHasher, "hash", at_once)
            await sign_up(nobody, email=user["email"])

    async def at_once(*_: object) -> str:
        return "-"

    assert await timing_ratio(taken, lambda: sign_up(nobody)) < 0.67


async def test_a_repetition_by_its_key_tells_nothing_either(
    strict: FastAPI, nobody: httpx.AsyncClient, box: Mailbox
) -> None:
    user = await verified(nobody, strict, box)
    for email in (user["email"], f"{uuid4().hex}@example.com"):
        body, key = registration(email=email), {"Idempotency-Key": uuid4().hex}
        first, again = [await nobody.post(f"{AUTH}/register", json=body, headers=key) for _ in range(2)]
        assert first.status_code == again.status_code == 201
        assert first.json() == again.json()
        assert again.headers["idempotency-replayed"] == "true"


async def test_control_where_a_log_in_works_at_once_a_taken_address_is_told(anonymous: httpx.AsyncClient) -> None:
    """Nothing would be gained: whoever can log in afterwards has found out."""
    user = await register(anonymous)
    body_of(await log_in(anonymous, user["email"]))
    problem_of(await sign_up(anonymous, email=user["email"]), 409, "email-taken")


# Logging in before the address is verified


async def test_an_unverified_account_is_refused_as_by_a_wrong_password(nobody: httpx.AsyncClient) -> None:
    user = await register(nobody)
    right = problem_of(await log_in(nobody, user["email"]), 401, "wrong-credentials")
    wrong = problem_of(await log_in(nobody, user["email"], "a wrong password"), 401, "wrong-credentials")
    assert right | {"request_id": ""} == wrong | {"request_id": ""}


async def test_the_same_statements_are_sent_as_by_a_wrong_password(nobody: httpx.AsyncClient) -> None:
    user, sent = await register(nobody), []
    for password in ({}, {"password": "a wrong password"}):
        with recorded_sql() as statements:
            await log_in(nobody, user["email"], **password)
        sent.append(list(statements))
    assert sent[0] == sent[1]


async def test_an_unverified_account_takes_as_long_as_a_wrong_password(nobody: httpx.AsyncClient) -> None:
    user = await register(nobody)
    ratio = await timing_ratio(
        lambda: log_in(nobody, user["email"]), lambda: log_in(nobody, user["email"], "a wrong password")
    )
    assert 0.67 < ratio < 1.5


async def test_the_mail_is_sent_again_to_who_logs_in_but_seldom(
    strict: FastAPI, nobody: httpx.AsyncClient, box: Mailbox, people: People
) -> None:
    user = await register(nobody)
    assert len(await mails(strict, box, user["email"])) == 1
    for hours in (0, 1, 0):  # the second log-in comes when the first mail is old
        age = f"UPDATE single_use_tokens SET created_at = created_at - interval '{hours} hours' WHERE user_id = $1"
        await people.fetch(age, UUID(user["id"]))
        problem_of(await log_in(nobody, user["email"]), 401)
        await strict.state.resources.reminders.write_noted()
        texts = await mails(strict, box, user["email"])
    assert ["To show that it is yours" in text for text in texts] == [True, True]
    token = await token_for(strict, box, user["email"], "verify-email")
    assert (await nobody.post(f"{AUTH}/verify-email", json={"token": token})).status_code == 204
    body_of(await log_in(nobody, user["email"]))


async def test_who_signed_up_first_with_anothers_address_gains_nothing(
    strict: FastAPI, nobody: httpx.AsyncClient, box: Mailbox
) -> None:
    """The owner comes later: whatever they follow, it doesn't make the stranger's password good."""
    stranger = await register(nobody)
    email = stranger["email"]
    verification = await token_for(strict, box, email, "verify-email")
    body_of(await sign_up(nobody, email=email, password=OTHER), 201)
    token = await token_for(strict, box, email, "password-reset")
    problem_of(await nobody.post(f"{AUTH}/verify-email", json={"token": verification}), 400, "token-not-good")
    confirmed = {"token": token, "password": OTHER}
    assert (await nobody.post(f"{AUTH}/password-reset/confirm", json=confirmed)).status_code == 204
    problem_of(await log_in(nobody, email), 401, "wrong-credentials")
    body_of(await log_in(nobody, email, OTHER))
