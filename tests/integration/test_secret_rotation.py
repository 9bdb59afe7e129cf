"""Secrets are rotated while requests come in, and none fails; and nothing tells them."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fastapi import FastAPI
from sqlalchemy import make_url

from app.main import create_app
from app.platform.security.api_keys import new_key
from app.platform.security.caller import Role
from app.platform.security.secrets import Keyring, SecretFiles
from app.resources import Resources
from app.settings import Settings
from tests.support.api import People, Person, api_settings, connected, in_process, new_app, running
from tests.support.calls import EQUIPMENT, add_item, item_body
from tests.support.stack import POOLED, DataServices, Service, free_ports, superuser

pytestmark = pytest.mark.asyncio(loop_scope="session")

OLD, NEW = "the-old-secret-of-these-tests", "the-new-secret-of-these-tests"
LOOK_SECONDS = 0.05


@dataclass
class Mounted:
    """The folder that a secret manager fills."""

    folder: Path

    def write(self, **secrets: str) -> None:
        for name, secret in secrets.items():
            (self.folder / name).write_text(secret)


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mounted:
    mounted = Mounted(tmp_path)
    mounted.write(secret_key=OLD, secret_keys_accepted="")
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
        while any(secrets_of(app)[0] != current for app in apps):  # noqa: ASYNC110 - a file tells no one
            await asyncio.sleep(LOOK_SECONDS)


async def until_accepted(apps: list[FastAPI], secret: str) -> None:
    async with asyncio.timeout(10):
        while any(secret not in secrets_of(app) for app in apps):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)


def secrets_of(app: FastAPI) -> tuple[str, ...]:
    parts: Resources = app.state.resources
    return parts.cursors._keys._ring.secrets


class Clients:
    """Each makes a cursor, a consistency token and a keyed write at one instance, and uses them at the other."""

    def __init__(self, apps: list[FastAPI], person: Person) -> None:
        self.apps, self.person = apps, person
        self.failed: list[str] = []
        self.rounds = 0
        self.enough = asyncio.Event()

    async def work(self) -> None:
        async with in_process(self.apps[0], self.person) as one, in_process(self.apps[1], self.person) as other:
            for client in (one, other):
                client.headers["Authorization"] = f"Bearer {self.token()}"
            while not self.enough.is_set():
                await self.round(one, other)
                one, other = other, one

    async def more_rounds(self, count: int = 8) -> None:
        enough = self.rounds + count
        while self.rounds < enough:  # noqa: ASYNC110 - several tasks take part
            await asyncio.sleep(LOOK_SECONDS)

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
        page = await one.get(EQUIPMENT, params={"limit": 1, "sort": "-created_at"})
        await asyncio.sleep(0.02)
        again = await other.post(EQUIPMENT, json=body, headers=key)
        cursor = page.json().get("next_cursor")
        rest = await other.get(EQUIPMENT, params={"limit": 1, "sort": "-created_at", "cursor": cursor})
        expected = {"written": (written, 201), "repeated": (again, 201), "page": (page, 200), "next page": (rest, 200)}
        for name, (answer, status) in expected.items():
            if answer.status_code != status:
                self.failed.append(f"{name}: {answer.text}")
        token = written.headers["x-consistency-token"]
        if self.apps[0].state.resources.consistency._tokens.verify(token) is None:
            self.failed.append("consistency token")
        self.rounds += 1


@asynccontextmanager
async def under_load(apps: list[FastAPI], people: People) -> AsyncIterator[Clients]:
    person = await people.join()
    clients = Clients(apps, person)
    async with asyncio.TaskGroup() as group:
        async with in_process(apps[0], person) as first:
            first.headers["Authorization"] = f"Bearer {clients.token()}"
            for _ in range(3):
                await add_item(first)
        tasks = [group.create_task(clients.work()) for _ in range(4)]
        await clients.more_rounds()
        yield clients
        await clients.more_rounds()
        clients.enough.set()
        await asyncio.wait(tasks)


async def test_a_rotation_in_two_steps_fails_no_request(
    services: DataServices, api_database: str, people: People, mounted: Mounted
) -> None:
    async with instances(services, api_database, 2) as apps, under_load(apps, people) as clients:
        mounted.write(secret_keys_accepted=NEW)
        await until_accepted(apps, NEW)
        mounted.write(secret_keys_accepted=OLD)
        mounted.write(secret_key=NEW)
        await until_read(apps, NEW)
    assert clients.failed == []


async def test_control_a_rotation_in_one_step_fails_some(
    services: DataServices, api_database: str, people: People, mounted: Mounted
) -> None:
    async with instances(services, api_database, 2) as apps, under_load(apps, people) as clients:
        mounted.write(secret_key=NEW)
        await until_read(apps, NEW)
    assert clients.failed


async def test_what_cant_be_used_changes_nothing(
    services: DataServices, api_database: str, people: People, mounted: Mounted
) -> None:
    mounted.write(database_pool_size="5")
    async with instances(services, api_database, 1) as apps:
        mounted.write(secret_key=NEW, database_pool_size="many")
        await asyncio.sleep(6 * LOOK_SECONDS)
        assert secrets_of(apps[0])[0] == OLD
        mounted.write(database_pool_size="5")
        await until_read(apps, NEW)


@pytest.mark.skipif(POOLED, reason="the pooler has a list of users of its own")
async def test_a_new_role_of_the_database_is_taken_for_new_connections(
    services: DataServices, api_database: str, people: People, mounted: Mounted
) -> None:
    settings = api_settings(services, api_database)
    urls = (settings.database_url, *settings.database_replica_urls)
    async with connected(superuser(people.dsn)) as connection:
        for role in ("first_role", "second_role"):
            await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{role}-password' IN ROLE headroom")
            await connection.execute(f"GRANT pg_monitor TO {role}")

    def as_role(role: str) -> dict[str, str]:
        primary, *replicas = (
            make_url(url.get_secret_value()).set(username=role, password=f"{role}-password") for url in urls
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
