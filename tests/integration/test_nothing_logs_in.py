"""Who has all of the database and all of Redis still can't log in: none of the secrets that do is in there."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pyotp
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from app.features.identity.mails import IdentityMails
from app.platform.mail.ports import postman_of
from app.platform.mail.sender import MailSender
from tests.support.api import People, connected
from tests.support.calls import EQUIPMENT, body_of
from tests.support.identity import AUTH, PASSWORD, bearer, log_in, logged_in, refresh
from tests.support.mailbox import mailbox
from tests.support.stack import DataServices

pytestmark = pytest.mark.asyncio(loop_scope="session")

TABLES = "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'"


async def whole_database(people: People) -> str:
    """Each row of each table as text; what is binary, in hexadecimal digits."""
    async with connected(people.dsn) as connection:
        tables = [row[0] for row in await connection.fetch(TABLES)]
        rows = [row[0] for table in tables for row in await connection.fetch(f"SELECT t::text FROM {table} AS t")]
    return "\n".join(rows)


async def whole_redis(services: DataServices) -> bytes:
    async with Redis.from_url(services.redis_url) as redis:
        found = [key async for key in redis.scan_iter(count=1_000)]
        return b"\n".join([*found, *[(await redis.dump(key)) or b"" for key in found]])


def spellings(secret: str) -> Iterator[bytes]:
    """As it is, and as a binary column shows it."""
    yield secret.encode()
    yield secret.encode().hex().encode()


async def secrets_of(app: FastAPI, client: httpx.AsyncClient) -> dict[str, str]:
    """All that a user can come in by, each of it used where that keeps something."""
    user, first = await logged_in(client)
    second = body_of(await refresh(client, first["refresh_token"]))
    headers = bearer(second)
    setup = body_of(await client.post(f"{AUTH}/2fa/setup", json={"password": PASSWORD}, headers=headers))
    code = {"otp": pyotp.TOTP(setup["secret"]).now()}
    codes = body_of(await client.post(f"{AUTH}/2fa/enable", json=code, headers=headers))["recovery_codes"]
    body_of(await log_in(client, user["email"], otp=codes[0]))
    body_of(await client.get(EQUIPMENT, headers=headers))
    await client.post(f"{AUTH}/password-reset", json={"email": user["email"]})
    found = {
        "password": PASSWORD,
        "access token": second["access_token"],
        "refresh token": second["refresh_token"],
        "refresh token of before": first["refresh_token"],
        "second factor": setup["secret"],
        "recovery code": codes[1],
        "recovery code, bare": codes[1].replace("-", ""),
    }
    return found | await mailed(app, user["email"])


async def mailed(app: FastAPI, email: str) -> dict[str, str]:
    """The tokens from the mails to the user."""
    database: Any = app.state.resources.database
    async with mailbox() as box:
        writers = IdentityMails(database, "https://pages.example.com").writers()
        sender = MailSender(database, postman_of(box.url), "Headroom <headroom@example.com>", writers)
        while await sender.send_next():
            pass
        texts = [mail.get_content() for mail in box.to(email)]
    tokens = dict(re.search(r"/([\w-]+)#token=(\S+)", text).groups() for text in texts)  # type: ignore[union-attr]
    assert tokens.keys() == {"verify-email", "password-reset"}
    return tokens


async def found_in(dump: bytes, secrets: dict[str, str]) -> set[str]:
    return {name for name, secret in secrets.items() if any(spelling in dump for spelling in spellings(secret))}


async def test_no_secret_of_a_user_is_kept(
    app: FastAPI, anonymous: httpx.AsyncClient, people: People, services: DataServices
) -> None:
    secrets = await secrets_of(app, anonymous)
    dump = (await whole_database(people)).encode() + await whole_redis(services)
    assert await found_in(dump, secrets) == set()


async def test_control_what_is_kept_in_clear_is_found(
    app: FastAPI, anonymous: httpx.AsyncClient, people: People, services: DataServices
) -> None:
    secrets = await secrets_of(app, anonymous)
    async with connected(people.dsn) as connection:
        for name in ("refresh token", "verify-email"):
            await connection.execute(
                "INSERT INTO mail_orders (id, kind, details, failed_because)"
                " VALUES (gen_random_uuid(), 'a test', jsonb_build_object('text', $1::text), 'a test')",
                secrets[name],
            )
        await connection.execute(
            "INSERT INTO sessions (id, organization_id, user_id, salt, token_hash, expires_at, device, address)"
            " SELECT gen_random_uuid(), organization_id, id, '', $1, now(), '', '' FROM users LIMIT 1",
            secrets["recovery code"].encode(),
        )
    dump = (await whole_database(people)).encode()
    assert await found_in(dump, secrets) == {"refresh token", "verify-email", "recovery code"}
    async with connected(people.dsn) as connection:
        await connection.execute("DELETE FROM mail_orders WHERE kind = 'a test'")
