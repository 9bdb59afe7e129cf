"""Sessions: refresh tokens that are good once, how they end, and that nothing kept of them logs in."""

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.sql.selectable import GenerativeSelect

from app.features.identity.session_repository import SessionRepository
from app.platform.security.headers import CrossSiteWriteMiddleware
from app.platform.security.refresh_tokens import RefreshTokens
from tests.support.api import API, People, connected, in_process
from tests.support.calls import EQUIPMENT, body_of, problem_of
from tests.support.identity import AUTH, PASSWORD, bearer, log_in, logged_in, refresh, register
from tests.support.racing import RACERS, looking_first

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def rotated_long_ago(people: People, user_id: str) -> None:
    async with connected(people.dsn) as connection:
        await connection.execute(
            "UPDATE sessions SET rotated_at = rotated_at - interval '1 minute' WHERE user_id = $1", UUID(user_id)
        )


async def why_ended(people: People, user_id: str) -> Any:
    return await people.fetch("SELECT ended_because FROM sessions WHERE user_id = $1", UUID(user_id))


async def test_a_refresh_gives_the_next_tokens(anonymous: httpx.AsyncClient) -> None:
    _, token = await logged_in(anonymous)
    answer = await refresh(anonymous, token["refresh_token"])
    assert answer.headers["cache-control"] == "no-store"
    renewed = body_of(answer)
    assert renewed["refresh_token"] != token["refresh_token"]
    body_of(await anonymous.get(EQUIPMENT, headers=bearer(renewed)))
    body_of(await refresh(anonymous, renewed["refresh_token"]))


async def test_of_twenty_refreshes_at_once_there_is_one_successor(anonymous: httpx.AsyncClient) -> None:
    _, token = await logged_in(anonymous)
    answers = await asyncio.gather(*(refresh(anonymous, token["refresh_token"]) for _ in range(20)))
    assert Counter(answer.status_code for answer in answers) == {200: 2, 401: 18}
    [successor] = {body_of(answer)["refresh_token"] for answer in answers if answer.status_code == 200}
    body_of(await refresh(anonymous, successor))


async def test_control_who_looks_before_changing_refreshes_often(
    anonymous: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the lock all who come at once find the token unused."""

    async def nothing(*_: object) -> None: ...

    _, token = await logged_in(anonymous)
    monkeypatch.setattr(GenerativeSelect, "with_for_update", lambda statement, **_: statement)
    monkeypatch.setattr(SessionRepository, "locked", looking_first(SessionRepository.locked, nothing))
    answers = await asyncio.gather(*(refresh(anonymous, token["refresh_token"]) for _ in range(RACERS)))
    assert [answer.status_code for answer in answers] == [200] * RACERS


async def test_a_lost_answer_is_given_again_once(anonymous: httpx.AsyncClient) -> None:
    _, token = await logged_in(anonymous)
    lost = body_of(await refresh(anonymous, token["refresh_token"]))
    assert body_of(await refresh(anonymous, token["refresh_token"]))["refresh_token"] == lost["refresh_token"]
    problem_of(await refresh(anonymous, token["refresh_token"]), 401, "session-over")
    body_of(await refresh(anonymous, lost["refresh_token"]))


async def test_a_token_two_generations_old_ends_the_family_and_it_stays_ended(
    anonymous: httpx.AsyncClient, people: People
) -> None:
    user, first = await logged_in(anonymous)
    second = body_of(await refresh(anonymous, first["refresh_token"]))
    third = body_of(await refresh(anonymous, second["refresh_token"]))
    problem_of(await refresh(anonymous, first["refresh_token"]), 401, "session-over")
    assert await why_ended(people, user["id"]) == "token reused"
    for token in (first, second, third):
        problem_of(await refresh(anonymous, token["refresh_token"]), 401, "session-over")
        problem_of(await anonymous.get(EQUIPMENT, headers=bearer(token)), 401)


async def test_after_the_grace_the_previous_token_ends_the_family(anonymous: httpx.AsyncClient, people: People) -> None:
    user, first = await logged_in(anonymous)
    second = body_of(await refresh(anonymous, first["refresh_token"]))
    await rotated_long_ago(people, user["id"])
    problem_of(await refresh(anonymous, first["refresh_token"]), 401)
    problem_of(await refresh(anonymous, second["refresh_token"]), 401)


async def test_control_within_the_grace_it_does_not(anonymous: httpx.AsyncClient) -> None:
    _, first = await logged_in(anonymous)
    second = body_of(await refresh(anonymous, first["refresh_token"]))
    body_of(await refresh(anonymous, first["refresh_token"]))
    body_of(await refresh(anonymous, second["refresh_token"]))


async def test_who_knows_a_session_but_none_of_its_tokens_can_not_end_it(
    anonymous: httpx.AsyncClient, app: FastAPI
) -> None:
    _, token = await logged_in(anonymous)
    tokens: RefreshTokens = app.state.resources.refresh_tokens
    known = tokens.parse(token["refresh_token"])
    assert known is not None
    stranger = RefreshTokens.keyed_by("a guess")
    problem_of(await refresh(anonymous, stranger.first(known.session_id).text), 401)
    body_of(await refresh(anonymous, token["refresh_token"]))


@pytest.mark.parametrize("sent", [None, "", "nonsense", "hrr_" + "A" * 86])
async def test_what_is_no_refresh_token_is_refused(anonymous: httpx.AsyncClient, sent: str | None) -> None:
    problem_of(await anonymous.post(f"{AUTH}/refresh", json={"refresh_token": sent}), 401, "session-over")


@pytest.mark.parametrize("column", ["last_used_at", "expires_at"])
async def test_a_session_ends_when_it_is_idle_and_when_its_time_is_over(
    anonymous: httpx.AsyncClient, people: People, column: str
) -> None:
    user, token = await logged_in(anonymous)
    async with connected(people.dsn) as connection:
        await connection.execute(
            f"UPDATE sessions SET {column} = {column} - interval '91 days' WHERE user_id = $1", UUID(user["id"])
        )
    problem_of(await refresh(anonymous, token["refresh_token"]), 401, "session-over")
    assert body_of(await anonymous.get(f"{AUTH}/sessions", headers=bearer(token)))["items"] == []


async def test_sessions_are_listed_with_device_and_address(app: FastAPI, anonymous: httpx.AsyncClient) -> None:
    user, token = await logged_in(anonymous)
    async with in_process(app, address="192.0.2.7") as elsewhere:
        elsewhere.headers["user-agent"] = "A phone"
        await log_in(elsewhere, user["email"])
    newest, first = body_of(await anonymous.get(f"{AUTH}/sessions", headers=bearer(token)))["items"]
    assert (newest["device"], newest["address"], newest["current"]) == ("A phone", "192.0.2.7", False)
    assert first["current"]


async def test_one_session_is_ended_and_the_other_goes_on(anonymous: httpx.AsyncClient) -> None:
    user, token = await logged_in(anonymous)
    other = body_of(await log_in(anonymous, user["email"]))
    listed = body_of(await anonymous.get(f"{AUTH}/sessions", headers=bearer(token)))["items"]
    [other_id] = [each["id"] for each in listed if not each["current"]]
    answer = await anonymous.delete(f"{AUTH}/sessions/{other_id}", headers=bearer(token))
    assert answer.status_code == 204
    problem_of(await anonymous.get(EQUIPMENT, headers=bearer(other)), 401)
    problem_of(await refresh(anonymous, other["refresh_token"]), 401)
    body_of(await anonymous.get(EQUIPMENT, headers=bearer(token)))
    problem_of(await anonymous.delete(f"{AUTH}/sessions/{other_id}", headers=bearer(token)), 404)


async def test_all_sessions_are_ended_at_once_and_a_new_log_in_works(anonymous: httpx.AsyncClient) -> None:
    user, token = await logged_in(anonymous)
    other = body_of(await log_in(anonymous, user["email"]))
    assert (await anonymous.delete(f"{AUTH}/sessions", headers=bearer(token))).status_code == 204
    for ended in (token, other):
        problem_of(await anonymous.get(EQUIPMENT, headers=bearer(ended)), 401)
        problem_of(await refresh(anonymous, ended["refresh_token"]), 401)
    again = body_of(await log_in(anonymous, user["email"]))
    body_of(await anonymous.get(EQUIPMENT, headers=bearer(again)))


async def test_who_logs_out_is_out(anonymous: httpx.AsyncClient) -> None:
    _, token = await logged_in(anonymous)
    assert (await anonymous.post(f"{AUTH}/logout", headers=bearer(token))).status_code == 204
    problem_of(await anonymous.get(EQUIPMENT, headers=bearer(token)), 401)
    problem_of(await refresh(anonymous, token["refresh_token"]), 401)


async def test_beyond_the_most_the_oldest_session_ends(app: FastAPI, anonymous: httpx.AsyncClient) -> None:
    user, first = await logged_in(anonymous)
    most = app.state.resources.session_limits.per_user
    for _ in range(most):
        last = body_of(await log_in(anonymous, user["email"]))
    problem_of(await refresh(anonymous, first["refresh_token"]), 401)
    assert len(body_of(await anonymous.get(f"{AUTH}/sessions", headers=bearer(last)))["items"]) == most


async def test_a_disabled_user_is_out_and_stays_out(anonymous: httpx.AsyncClient, people: People) -> None:
    user, token = await logged_in(anonymous)
    async with connected(people.dsn) as connection:
        await connection.execute("UPDATE users SET disabled_at = now() WHERE id = $1", UUID(user["id"]))
    problem_of(await refresh(anonymous, token["refresh_token"]), 401)
    problem_of(await log_in(anonymous, user["email"]), 401, "wrong-credentials")


# Browsers


async def test_a_browser_gets_the_refresh_token_where_no_script_reads_it(anonymous: httpx.AsyncClient) -> None:
    user = await register(anonymous)
    credentials = {"email": user["email"], "password": PASSWORD, "cookie": True}
    answer = await anonymous.post(f"{AUTH}/login", json=credentials)
    assert body_of(answer)["refresh_token"] is None
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "Secure", "SameSite=strict", f"Path={API}/auth"} <= set(attributes)
    renewed = await anonymous.post(f"{AUTH}/refresh", headers={"Cookie": cookie})
    assert body_of(renewed)["refresh_token"] is None
    assert renewed.headers["set-cookie"].split("; ")[0] != cookie


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"}]
)
async def test_another_site_can_not_use_the_cookie(anonymous: httpx.AsyncClient, headers: dict[str, str]) -> None:
    user = await register(anonymous)
    credentials = {"email": user["email"], "password": PASSWORD, "cookie": True}
    answer = await anonymous.post(f"{AUTH}/login", json=credentials)
    cookie = {"Cookie": answer.headers["set-cookie"].split("; ")[0]}
    problem_of(await anonymous.post(f"{AUTH}/refresh", headers={**cookie, **headers}), 403)
    body_of(await anonymous.post(f"{AUTH}/refresh", headers={**cookie, "Sec-Fetch-Site": "same-origin"}))


async def test_control_unguarded_another_site_uses_it(
    anonymous: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CrossSiteWriteMiddleware, "_allows", lambda *_: True)
    user = await register(anonymous)
    answer = await anonymous.post(f"{AUTH}/login", json={"email": user["email"], "password": PASSWORD, "cookie": True})
    stolen = {"Cookie": answer.headers["set-cookie"].split("; ")[0], "Sec-Fetch-Site": "cross-site"}
    body_of(await anonymous.post(f"{AUTH}/refresh", headers=stolen))


# Of another


async def test_the_session_of_another_is_not_found(anonymous: httpx.AsyncClient) -> None:
    _, mine = await logged_in(anonymous)
    _, theirs = await logged_in(anonymous)
    [session] = body_of(await anonymous.get(f"{AUTH}/sessions", headers=bearer(theirs)))["items"]
    for session_id in (session["id"], uuid4()):
        problem_of(await anonymous.delete(f"{AUTH}/sessions/{session_id}", headers=bearer(mine)), 404, "not-found")
    body_of(await refresh(anonymous, theirs["refresh_token"]))
