"""The second factor: a code is good once, whoever sends it and however often at once."""

import asyncio
import time
import xml.etree.ElementTree as ET
from collections import Counter
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import httpx
import pyotp
import pytest
from sqlalchemy import select

from app.features.identity.credential_repository import CredentialRepository
from app.features.identity.models import RecoveryCode
from tests.support.api import People, connected
from tests.support.calls import body_of, problem_of
from tests.support.identity import AUTH, PASSWORD, bearer, log_in, logged_in
from tests.support.racing import RACERS, looking_first

pytestmark = pytest.mark.asyncio(loop_scope="session")

Protected = tuple[dict[str, Any], dict[str, Any], str, list[str]]


async def post(client: httpx.AsyncClient, path: str, token: dict[str, Any], **body: Any) -> httpx.Response:
    return await client.post(f"{AUTH}/{path}", json=body, headers=bearer(token))


async def protected(client: httpx.AsyncClient, people: People) -> Protected:
    """A user with a second factor, their token, the factor's secret and the recovery codes. No code was used lately."""
    user, token = await logged_in(client)
    secret = body_of(await post(client, "2fa/setup", token, password=PASSWORD))["secret"]
    codes = body_of(await post(client, "2fa/enable", token, otp=pyotp.TOTP(secret).now()))["recovery_codes"]
    await forget_steps(people, user)
    return user, token, secret, codes


def one_succeeded(answers: list[httpx.Response]) -> None:
    """The others were refused, or not let in: so many at once may be more than admission allows."""
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses[200] == 1
    assert statuses[401] >= 5
    assert statuses.keys() <= {200, 401, 503}


async def forget_steps(people: People, user: dict[str, Any]) -> None:
    async with connected(people.dsn) as connection:
        await connection.execute("UPDATE second_factors SET last_step = 0 WHERE user_id = $1", UUID(user["id"]))


async def test_setting_up_gives_a_secret_and_a_code_to_scan(anonymous: httpx.AsyncClient) -> None:
    user, token = await logged_in(anonymous)
    setup = body_of(await post(anonymous, "2fa/setup", token, password=PASSWORD))
    uri = urlsplit(setup["uri"])
    assert (uri.scheme, uri.netloc) == ("otpauth", "totp")
    assert parse_qs(uri.query)["secret"] == [setup["secret"]]
    assert ET.fromstring(setup["qr_svg"]).tag == "{http://www.w3.org/2000/svg}svg"
    body_of(await log_in(anonymous, user["email"]))  # nothing is asked for before it is enabled


async def test_a_log_in_takes_password_and_code(anonymous: httpx.AsyncClient, people: People) -> None:
    user, _, secret, _ = await protected(anonymous, people)
    problem_of(await log_in(anonymous, user["email"]), 401, "second-factor-needed")
    problem_of(await log_in(anonymous, user["email"], otp="000000"), 401, "wrong-code")
    problem_of(await log_in(anonymous, user["email"], "a wrong password", otp="0"), 401, "wrong-credentials")
    body_of(await log_in(anonymous, user["email"], otp=pyotp.TOTP(secret).now()))


async def test_of_fifty_log_ins_with_one_code_at_once_one_succeeds(
    anonymous: httpx.AsyncClient, people: People
) -> None:
    user, _, secret, _ = await protected(anonymous, people)
    code = pyotp.TOTP(secret).now()
    answers = await asyncio.gather(*(log_in(anonymous, user["email"], otp=code) for _ in range(50)))
    one_succeeded(answers)
    problem_of(await log_in(anonymous, user["email"], otp=code), 401, "wrong-code")


async def test_control_without_the_step_one_code_logs_in_often(
    anonymous: httpx.AsyncClient, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def always(*_: object) -> bool:
        return True

    user, _, secret, _ = await protected(anonymous, people)
    monkeypatch.setattr(CredentialRepository, "use_step", always)
    code = pyotp.TOTP(secret).now()
    answers = await asyncio.gather(*(log_in(anonymous, user["email"], otp=code) for _ in range(3)))
    assert [answer.status_code for answer in answers] == [200, 200, 200]


async def test_a_code_before_one_that_was_used_is_refused(anonymous: httpx.AsyncClient, people: People) -> None:
    user, _, secret, _ = await protected(anonymous, people)
    now = time.time()
    newer, older = (pyotp.TOTP(secret).at(int(now) + seconds) for seconds in (30, 0))
    body_of(await log_in(anonymous, user["email"], otp=newer))
    problem_of(await log_in(anonymous, user["email"], otp=older), 401, "wrong-code")


async def test_of_fifty_uses_of_a_recovery_code_at_once_one_succeeds(
    anonymous: httpx.AsyncClient, people: People
) -> None:
    user, _, _, codes = await protected(anonymous, people)
    answers = await asyncio.gather(*(log_in(anonymous, user["email"], otp=codes[0]) for _ in range(50)))
    one_succeeded(answers)
    body_of(await log_in(anonymous, user["email"], otp=codes[1].upper().replace("-", " ")))


async def test_control_who_looks_before_using_takes_a_recovery_code_often(
    anonymous: httpx.AsyncClient, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, _, _, codes = await protected(anonymous, people)
    monkeypatch.setattr(CredentialRepository, "use_code", looking_first(has_code, CredentialRepository.use_code))
    answers = await asyncio.gather(*(log_in(anonymous, user["email"], otp=codes[0]) for _ in range(RACERS)))
    assert [answer.status_code for answer in answers] == [200] * RACERS


async def has_code(self: CredentialRepository, user_id: UUID, code_hash: bytes) -> bool:
    own = (RecoveryCode.user_id == user_id, RecoveryCode.code_hash == code_hash)
    return await self.session.scalar(select(RecoveryCode.user_id).where(*own)) is not None


async def test_new_recovery_codes_take_password_and_code_and_void_the_old_ones(
    anonymous: httpx.AsyncClient, people: People
) -> None:
    user, token, secret, old = await protected(anonymous, people)
    problem_of(await post(anonymous, "2fa/recovery-codes", token, password=PASSWORD), 401, "second-factor-needed")
    code = pyotp.TOTP(secret).now()
    new = body_of(await post(anonymous, "2fa/recovery-codes", token, password=PASSWORD, otp=code))["recovery_codes"]
    assert len(set(new)) == 10
    problem_of(await log_in(anonymous, user["email"], otp=old[0]), 401, "wrong-code")
    body_of(await log_in(anonymous, user["email"], otp=new[0]))


async def test_what_weakens_the_account_takes_password_and_code_again(
    anonymous: httpx.AsyncClient, people: People
) -> None:
    user, token, secret, codes = await protected(anonymous, people)
    change = {"password": PASSWORD, "new_password": "another horse, another battery"}
    problem_of(await post(anonymous, "password", token, **change), 401, "second-factor-needed")
    problem_of(await post(anonymous, "2fa/disable", token, password=PASSWORD), 401, "second-factor-needed")
    problem_of(await post(anonymous, "2fa/disable", token, password="a wrong one", otp=codes[0]), 401)
    problem_of(await post(anonymous, "2fa/setup", token, password=PASSWORD), 409, "second-factor-in-use")
    code = pyotp.TOTP(secret).now()
    assert (await post(anonymous, "2fa/disable", token, password=PASSWORD, otp=code)).status_code == 204
    body_of(await log_in(anonymous, user["email"]))


async def test_without_a_factor_there_is_nothing_to_enable_or_renew(anonymous: httpx.AsyncClient) -> None:
    _, token = await logged_in(anonymous)
    problem_of(await post(anonymous, "2fa/enable", token, otp="123456"), 409, "no-second-factor")
    problem_of(await post(anonymous, "2fa/recovery-codes", token, password=PASSWORD), 409, "no-second-factor")


async def test_the_secret_is_sealed_and_codes_are_hashed(anonymous: httpx.AsyncClient, people: People) -> None:
    user, _, secret, codes = await protected(anonymous, people)
    async with connected(people.dsn) as connection:
        sealed = await connection.fetchval(
            "SELECT sealed_secret FROM second_factors WHERE user_id = $1", UUID(user["id"])
        )
        hashes = await connection.fetch("SELECT code_hash FROM recovery_codes WHERE user_id = $1", UUID(user["id"]))
    assert secret.encode() not in sealed
    assert not {code.encode() for code in codes} & {row["code_hash"] for row in hashes}
