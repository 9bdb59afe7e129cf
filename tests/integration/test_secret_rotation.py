"""Secrets are rotated while requests come in, and none fails; what an old key sealed moves on; nothing tells them."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pyotp
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fastapi import FastAPI
from sqlalchemy import make_url

from app.features.identity.resealing import seal_anew
from app.main import create_app
from app.platform.security.api_keys import new_key
from app.platform.security.caller import Role
from app.platform.security.secrets import Keyring, SecretFiles
from app.resources import Resources
from app.settings import Settings
from tests.support.api import People, Person, api_settings, connected, in_database, in_process, new_app, running
from tests.support.calls import EQUIPMENT, add_item, body_of, item_body
from tests.support.identity import AUTH, PASSWORD, bearer, log_in, logged_in, refresh
from tests.support.stack import DataServices, Service, as_asyncpg, free_ports, superuser

pytestmark = pytest.mark.asyncio(loop_scope="session")

OLD, NEW = "the-old-secret-of-these-tests", "the-new-secret-of-these-tests"
LOOK_SECONDS = 0.05


@dataclass
class Mounted:
    """The folder that a secret manager fills."""

    folder: Path

    def write(self, **secrets: str) -> None:
        """One after the other, each whole."""
        for name, secret in secrets.items():
            beside = self.folder.with_suffix(".new")
            beside.write_text(secret)
            beside.replace(self.folder / name)


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mounted:
    mounted = Mounted(tmp_path)
    mounted.write(secret_key=OLD, secret_keys_accepted="", encryption_key=OLD, encryption_keys_previous="")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    monkeypatch.setattr(SecretFiles.__init__, "__kwdefaults__", {"look_seconds": LOOK_SECONDS})
    return mounted


@asynccontextmanager
async def instances(services: DataServices, database: str, count: int) -> AsyncIterator[list[FastAPI]]:
    async with AsyncExitStack() as opened:
        # One signing key of tokens for all: it is rotated in a way of its own.
        pem = signing_key()
        made = [new_app(services, database, jwt_private_key=pem) for _ in range(count)]
        yield [await opened.enter_async_context(running(app)) for app in made]


def signing_key() -> str:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


async def until_read(apps: list[FastAPI], current: str) -> None:
    async with asyncio.timeout(10):
        while any(held[0] != current for app in apps for held in secrets_of(app)):  # noqa: ASYNC110 - a file tells no one
            await asyncio.sleep(LOOK_SECONDS)


async def until_accepted(apps: list[FastAPI], secret: str) -> None:
    async with asyncio.timeout(10):
        while any(secret not in held for app in apps for held in secrets_of(app)):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)


def secrets_of(app: FastAPI) -> list[tuple[str, ...]]:
    """Those that sign, and those that seal."""
    parts: Resources = app.state.resources
    return [parts.cursors._keys._ring.secrets, parts.sealer._keys._ring.secrets]


class Load:
    """Several at once who do something at one instance and go on with it at the other."""

    def __init__(self, apps: list[FastAPI]) -> None:
        self.apps = apps
        self.failed: list[str] = []
        self.rounds = 0
        self.enough = asyncio.Event()

    async def work(self) -> None:
        async with in_process(self.apps[0]) as one, in_process(self.apps[1]) as other:
            await self.enter(one, other)
            while not self.enough.is_set():
                await self.round(one, other)
                self.rounds += 1
                one, other = other, one

    async def enter(self, one: httpx.AsyncClient, other: httpx.AsyncClient) -> None:
        raise NotImplementedError

    async def round(self, one: httpx.AsyncClient, other: httpx.AsyncClient) -> None:
        raise NotImplementedError

    async def more_rounds(self, count: int = 8) -> None:
        enough = self.rounds + count
        async with asyncio.timeout(60):
            while self.rounds < enough and not self.failed:  # noqa: ASYNC110 - several tasks take part
                await asyncio.sleep(LOOK_SECONDS)

    def expect(self, what: str, answer: httpx.Response, status: int) -> Any:
        if answer.status_code != status:
            self.failed.append(f"{what}: {answer.text}")
        return answer.json() if answer.content else None


class Clients(Load):
    """A cursor, a consistency token and a keyed write."""

    def __init__(self, apps: list[FastAPI], person: Person) -> None:
        super().__init__(apps)
        self.person = person

    async def enter(self, one: httpx.AsyncClient, other: httpx.AsyncClient) -> None:
        for client in (one, other):
            client.headers["Authorization"] = f"Bearer {self.token()}"
        for _ in range(2):
            await add_item(one)

    def token(self) -> str:
        parts: Resources = self.apps[0].state.resources
        return parts.token_issuer.issue(
            user_id=self.person.user_id,
            organization_id=self.person.organization_id,
            role=Role.OWNER,
            scopes=("equipment:read", "equipment:write"),
            session_id=uuid4(),
            epoch=0,
        ).token

    async def round(self, one: httpx.AsyncClient, other: httpx.AsyncClient) -> None:
        key, body = {"Idempotency-Key": str(uuid4())}, item_body(asset_tag=str(uuid4()))
        written = await one.post(EQUIPMENT, json=body, headers=key)
        self.expect("written", written, 201)
        page = self.expect("page", await one.get(EQUIPMENT, params={"limit": 1, "sort": "-created_at"}), 200)
        await asyncio.sleep(0.02)
        self.expect("repeated", await other.post(EQUIPMENT, json=body, headers=key), 201)
        rest = {"limit": 1, "sort": "-created_at", "cursor": page.get("next_cursor")}
        self.expect("next page", await other.get(EQUIPMENT, params=rest), 200)
        token = written.headers["x-consistency-token"]
        if self.apps[0].state.resources.consistency._tokens.verify(token) is None:
            self.failed.append("consistency token")


class Users(Load):
    """A refresh whose answer is lost, and a second factor that is set up, enabled and disabled."""

    def __init__(self, apps: list[FastAPI]) -> None:
        super().__init__(apps)
        self.refresh_tokens: dict[int, str] = {}

    async def enter(self, one: httpx.AsyncClient, other: httpx.AsyncClient) -> None:
        _, token = await logged_in(one)
        self.refresh_tokens[id(asyncio.current_task())] = token["refresh_token"]

    async def round(self, one: httpx.AsyncClient, other: httpx.AsyncClient) -> None:
        mine = id(asyncio.current_task())
        lost = self.expect("refreshed", await refresh(one, self.refresh_tokens[mine]), 200)
        await asyncio.sleep(0.02)
        token = self.expect("refreshed again", await refresh(other, self.refresh_tokens[mine]), 200)
        if token.get("refresh_token") != lost.get("refresh_token"):
            self.failed.append("the lost answer's token is another")
            self.enough.set()
            return
        self.refresh_tokens[mine] = token["refresh_token"]
        await self.second_factor(one, other, bearer(token))

    async def second_factor(self, one: httpx.AsyncClient, other: httpx.AsyncClient, headers: dict[str, str]) -> None:
        password = {"password": PASSWORD}
        setup = self.expect("set up", await one.post(f"{AUTH}/2fa/setup", json=password, headers=headers), 200)
        await asyncio.sleep(0.02)
        first = {"otp": pyotp.TOTP(setup["secret"]).now()}
        enabled = self.expect("enabled", await other.post(f"{AUTH}/2fa/enable", json=first, headers=headers), 200)
        if codes := enabled.get("recovery_codes"):
            code = password | {"otp": codes[0]}
            self.expect("disabled", await one.post(f"{AUTH}/2fa/disable", json=code, headers=headers), 204)


@asynccontextmanager
async def under_load(load: Load) -> AsyncIterator[Load]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(load.work()) for _ in range(4)]
        await load.more_rounds()
        yield load
        await load.more_rounds()
        load.enough.set()
        await asyncio.wait(tasks)


@pytest_asyncio.fixture(loop_scope="session", params=["clients", "users"])
async def load(
    request: pytest.FixtureRequest, services: DataServices, api_database: str, people: People, mounted: Mounted
) -> AsyncIterator[Load]:
    async with instances(services, api_database, 2) as apps:
        yield Users(apps) if request.param == "users" else Clients(apps, await people.join())


async def test_a_rotation_in_two_steps_fails_no_request(load: Load, mounted: Mounted) -> None:
    async with under_load(load):
        mounted.write(secret_keys_accepted=NEW, encryption_keys_previous=NEW)
        await until_accepted(load.apps, NEW)
        both = f"{NEW},{OLD}"  # whichever file is read first, an instance knows both
        mounted.write(secret_keys_accepted=both, encryption_keys_previous=both, secret_key=NEW, encryption_key=NEW)
        await until_read(load.apps, NEW)
    assert load.failed == []


async def test_control_a_rotation_in_one_step_fails_some(load: Load, mounted: Mounted) -> None:
    """The time in which instances disagree is short: there and back, until somebody meets it."""
    async with under_load(load):
        for secret in islice(cycle((NEW, OLD)), 60):
            mounted.write(secret_key=secret, encryption_key=secret)
            await until_read(load.apps, secret)
            if load.failed:
                break
    assert load.failed


async def test_what_cant_be_used_changes_nothing(
    services: DataServices, api_database: str, people: People, mounted: Mounted
) -> None:
    mounted.write(database_pool_size="5")
    async with instances(services, api_database, 1) as apps:
        mounted.write(secret_key=NEW, encryption_key=NEW, database_pool_size="many")
        await asyncio.sleep(6 * LOOK_SECONDS)
        assert [held[0] for held in secrets_of(apps[0])] == [OLD, OLD]
        mounted.write(database_pool_size="5")
        await until_read(apps, NEW)


async def test_a_new_role_of_the_database_is_taken_for_new_connections(
    services: DataServices, api_database: str, people: People, mounted: Mounted
) -> None:
    settings = api_settings(services, api_database)
    dsns = (services.primary_dsn, *services.replica_dsns)  # around a pooler, which has a list of users of its own
    async with connected(superuser(people.dsn)) as connection:
        for role in ("first_role", "second_role"):
            await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{role}-password' IN ROLE headroom")
            await connection.execute(f"GRANT pg_monitor TO {role}")

    def as_role(role: str) -> dict[str, str]:
        primary, *replicas = (
            make_url(as_asyncpg(in_database(dsn, api_database))).set(username=role, password=f"{role}-password")
            for dsn in dsns
        )
        texts = [url.render_as_string(hide_password=False) for url in (primary, *replicas)]
        return {"database_url": texts[0], "database_replica_urls": ",".join(texts[1:])}

    mounted.write(**as_role("first_role"))
    app = create_app(Settings(_env_file=None, environment="test", redis_url=settings.redis_url, log_level="error"))
    async with running(app):
        assert await role_of_new_connection(app) == "first_role"
        mounted.write(**as_role("second_role"))
        async with asyncio.timeout(10):
            while await role_of_new_connection(app) != "second_role":  # noqa: ASYNC110 - a file tells no one
                await asyncio.sleep(LOOK_SECONDS)


async def role_of_new_connection(app: FastAPI) -> str:
    parts: Resources = app.state.resources
    connection = await parts.database.primary.writer.connect()
    try:
        return str(await connection.fetchval("SELECT current_user"))
    finally:
        await connection.close()


# An old key is retired


@asynccontextmanager
async def with_a_factor(app: FastAPI) -> AsyncIterator[tuple[dict[str, Any], list[str]]]:
    """A user, and the recovery codes: each needs what is sealed to be opened first."""
    async with in_process(app) as client:
        user, token = await logged_in(client)
        headers = bearer(token)
        setup = await client.post(f"{AUTH}/2fa/setup", json={"password": PASSWORD}, headers=headers)
        first = {"otp": pyotp.TOTP(body_of(setup)["secret"]).now()}
        yield user, body_of(await client.post(f"{AUTH}/2fa/enable", json=first, headers=headers))["recovery_codes"]


async def log_in_status(app: FastAPI, user: dict[str, Any], code: str) -> int:
    async with in_process(app) as client:
        return (await log_in(client, user["email"], otp=code)).status_code


async def test_what_an_old_key_sealed_is_sealed_anew_and_then_the_old_key_can_go(
    services: DataServices, api_database: str, people: People, mounted: Mounted
) -> None:
    async with instances(services, api_database, 1) as apps, with_a_factor(apps[0]) as (user, codes):
        [app], parts = apps, apps[0].state.resources
        mounted.write(encryption_key=NEW, encryption_keys_previous=OLD, secret_key=NEW, secret_keys_accepted=OLD)
        await until_read(apps, NEW)
        assert await log_in_status(app, user, codes[0]) == 200, "with both keys"
        assert await seal_anew(parts.database, parts.sealer) >= 1
        assert await seal_anew(parts.database, parts.sealer) == 0, "nothing is left to do"
        mounted.write(encryption_keys_previous="")
        await until_gone(app, OLD)
        assert await log_in_status(app, user, codes[1]) == 200, "with the new one alone"


async def test_control_an_old_key_that_goes_too_early_opens_nothing(
    services: DataServices, api_database: str, people: People, mounted: Mounted
) -> None:
    async with instances(services, api_database, 1) as apps, with_a_factor(apps[0]) as (user, codes):
        mounted.write(encryption_key=NEW, secret_key=NEW)
        await until_read(apps, NEW)
        assert await log_in_status(apps[0], user, codes[0]) == 500
        async with connected(superuser(people.dsn)) as connection:
            await connection.execute("DELETE FROM second_factors WHERE user_id = $1", UUID(user["id"]))


async def until_gone(app: FastAPI, secret: str) -> None:
    async with asyncio.timeout(10):
        while secret in app.state.resources.sealer._keys._ring.secrets:  # noqa: ASYNC110 - a file tells no one
            await asyncio.sleep(LOOK_SECONDS)


# Nothing tells them


HIDDEN = {
    "SECRET_KEY": "hidden-secret-key-that-is-long-enough",
    "DATABASE_URL": "postgresql+asyncpg://headroom:hidden-database@127.0.0.1:9/headroom",
    "DATABASE_REPLICA_URLS": "postgresql+asyncpg://headroom:hidden-replica@127.0.0.1:9/headroom",
    "REDIS_URL": "redis://:hidden-redis@127.0.0.1:9/0",
    "DATABASE_POOL_TIMEOUT_MS": "200",
    "DATABASE_CONNECT_TIMEOUT_MS": "200",
    "LOG_LEVEL": "debug",
}
LOGIN = {"email": "hidden@example.com", "password": "hidden-password"}


async def test_neither_logs_nor_answers_tell_a_secret(tmp_path: Path) -> None:
    key = new_key()
    told = await asyncio.to_thread(what_a_process_tells, tmp_path, key)
    assert "/api/v1/auth/login" in told
    assert "hidden" not in told
    assert key not in told


def what_a_process_tells(folder: Path, key: str) -> str:
    """Its answers and its log. Everything is away, so that everything complains."""
    [port] = free_ports(1)
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port)]
    log = folder / "log"
    url = f"http://127.0.0.1:{port}"
    service = Service("api", command, lambda: answers(f"{url}/livez"), log, HIDDEN, as_service=False)
    service.start()
    try:
        told = []
        for credentials in ("Bearer hidden-token", "Basic hidden-basic", f"Bearer {key}"):
            answer = httpx.get(f"{url}{EQUIPMENT}", headers={"Authorization": credentials})
            assert answer.status_code in (401, 503)
            told.append(answer.text)
        told.append(httpx.post(f"{url}/api/v1/auth/login", json=LOGIN, params={"x": "hidden-query"}).text)
        told += [httpx.get(f"{url}{path}").text for path in ("/health", "/metrics", "/readyz")]
    finally:
        service.stop()
    return "".join([*told, log.read_text()])


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


async def test_the_parts_tell_none_either(app: FastAPI, people: People) -> None:
    parts: Resources = app.state.resources
    told = repr(parts) + "".join(repr(vars(part)) for part in (parts.database, parts.redis, parts.cursors))
    for secret in (people.settings.secret_key, people.settings.database_url, people.settings.redis_url):
        assert secret.get_secret_value() not in told


async def test_control_a_part_that_tells_one_would_be_seen(people: People) -> None:
    secret = people.settings.secret_key.get_secret_value()
    assert secret in repr(vars(Keyring(secret)))
