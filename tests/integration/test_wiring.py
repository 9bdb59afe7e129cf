"""How the parts meet: nothing is opened before its time, parts can be swapped, and weak settings are refused."""

import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fastapi import FastAPI
from pydantic import ValidationError

from app.main import create_app
from app.platform.http.pagination import CursorSigner
from app.resources import Resources, open_resources
from app.settings import Settings, WeakSettings
from tests.support.api import (
    API,
    PROJECT,
    People,
    Person,
    api_settings,
    environment_of,
    in_process,
    new_app,
    over_socket,
    running,
)
from tests.support.calls import EQUIPMENT, add_item, body_of, problem_of, wrong_places
from tests.support.redis_server import eventually
from tests.support.stack import DataServices, free_ports

pytestmark = pytest.mark.asyncio(loop_scope="session")

NOWHERE = "127.0.0.1:1"
AWAY = {
    "database_url": f"postgresql+asyncpg://u:p@{NOWHERE}/d",
    "database_replica_urls": (f"postgresql+asyncpg://u:p@{NOWHERE}/d",),
    "redis_url": f"redis://{NOWHERE}/0",
}
PRIVATE_KEY = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
STRONG = {
    "environment": "production",
    "secret_key": "correct horse battery staple, and then some more",
    "encryption_key": "another one, as long and as hard to guess",
    "mail_url": "smtps://headroom:kept-elsewhere@mail.example.com",
    "jwt_private_key": PRIVATE_KEY,
    "database_url": "postgresql+asyncpg://headroom:kept-elsewhere@db/headroom",
    "allowed_hosts": ("api.example.com",),
}


async def test_making_the_application_opens_nothing() -> None:
    app = create_app(Settings(_env_file=None, **AWAY))
    assert not hasattr(app.state, "resources")
    assert "/api/v1/equipment" in app.openapi()["paths"]


async def test_a_part_can_be_swapped(
    services: DataServices, api_database: str, owner: Person, client: httpx.AsyncClient
) -> None:
    @asynccontextmanager
    async def with_another_signer(settings: Settings) -> AsyncIterator[Resources]:
        async with open_resources(settings) as parts:
            yield replace(parts, cursors=CursorSigner("another secret"))

    for _ in range(2):
        await add_item(client)
    cursor = body_of(await client.get(EQUIPMENT, params={"limit": 1}))["next_cursor"]
    swapped = create_app(api_settings(services, api_database), with_another_signer)
    async with running(swapped) as app, in_process(app, owner) as other:
        assert wrong_places(await other.get(EQUIPMENT, params={"cursor": cursor})) == [["query", "cursor"]]


async def test_it_starts_and_says_so_while_every_server_is_away(people: People, owner: Person) -> None:
    app = create_app(
        Settings(_env_file=None, environment="test", log_level="error", database_connect_timeout_ms=200, **AWAY)
    )
    async with running(app), in_process(app, owner) as client:
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200
        for answer in (
            await client.get(EQUIPMENT),
            await client.post(EQUIPMENT, json={"asset_tag": "a", "name": "b", "category": "c"}),
        ):
            problem_of(answer, 503, "service-unavailable")
            assert int(answer.headers["retry-after"]) >= 1
        body_of(await client.get("/.well-known/jwks.json"))


# Settings


async def test_strong_settings_are_accepted_in_production() -> None:
    assert Settings(_env_file=None, **STRONG).production


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"secret_key": "development-only-secret-refused-in-production"}, "SECRET_KEY"),
        ({"secret_key": "short"}, "SECRET_KEY"),
        ({"encryption_key": "development-only-secret-refused-in-production"}, "ENCRYPTION_KEY"),
        ({"encryption_key": "short"}, "ENCRYPTION_KEY"),
        ({"mail_url": "file:mail"}, "MAIL_URL"),
        ({"jwt_private_key": None}, "JWT_PRIVATE_KEY"),
        ({"database_url": "postgresql+asyncpg://headroom:headroom-development@db/headroom"}, "DATABASE_URL"),
        ({"allowed_hosts": ("*",)}, "ALLOWED_HOSTS"),
        ({"cors_origins": ("*",)}, "CORS_ORIGINS"),
        ({"rate_limit_scale": 1_000}, "RATE_LIMIT_SCALE"),
        ({"rate_limit_enabled": False}, "RATE_LIMIT_ENABLED"),
        ({"revocation_enabled": False}, "REVOCATION_ENABLED"),
        ({"expose_internals": True}, "EXPOSE_INTERNALS"),
        ({"log_level": "debug"}, "LOG_LEVEL"),
    ],
)
async def test_a_weak_setting_is_refused_in_production_and_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises((ValidationError, WeakSettings), match=named) as refusal:
        Settings(_env_file=None, **STRONG | change)
    assert STRONG["secret_key"] not in str(refusal.value)


async def test_all_that_is_weak_is_named_at_once() -> None:
    with pytest.raises((ValidationError, WeakSettings), match=r"SECRET_KEY.*JWT_PRIVATE_KEY.*ALLOWED_HOSTS"):
        Settings(_env_file=None, environment="production")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_POOL_SIZE", "0"),
        ("REQUEST_TIMEOUT_SECONDS", "-1"),
        ("REDIS_TIMEOUT_MS", "fast"),
        ("BATCH_MAX_REQUESTS", "21"),
        ("ENVIRONMENT", "staging"),
    ],
)
async def test_a_setting_out_of_bounds_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings(_env_file=None)


async def test_settings_come_from_the_environment_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ORIGINS", "https://a.example, https://b.example")
    monkeypatch.setenv("DATABASE_POOL_SIZE", "7")
    settings = Settings(_env_file=None)
    assert settings.cors_origins == ("https://a.example", "https://b.example")
    assert settings.database_pool_size == 7


async def test_a_secret_is_not_shown() -> None:
    settings = Settings(_env_file=None, **STRONG)
    assert STRONG["secret_key"] not in repr(settings)
    assert "kept-elsewhere" not in repr(settings)


# What every answer carries


async def test_every_answer_has_the_request_id(client: httpx.AsyncClient) -> None:
    for path in (EQUIPMENT, "/nowhere", f"{EQUIPMENT}?limit=0", "/docs", "/.well-known/jwks.json"):
        answer = await client.get(path, headers={"X-Request-ID": "abc-123"})
        assert answer.headers.get_list("x-request-id") == ["abc-123"]
        assert (await client.get(path)).headers["x-request-id"] != "abc-123"


async def test_every_route_is_limited_by_default(client: httpx.AsyncClient) -> None:
    """Those of included routers too."""
    for path in (EQUIPMENT, f"{API}/auth/me", f"{API}/checkouts", f"{API}/analytics/equipment", "/nowhere"):
        answer = await client.get(path)
        assert answer.headers["ratelimit-policy"], path
        assert answer.headers["ratelimit"], path


async def test_liveness_and_readiness_are_not_limited(client: httpx.AsyncClient) -> None:
    for path in ("/livez", "/readyz"):
        answer = await client.get(path)
        assert answer.status_code == 200
        assert "ratelimit" not in answer.headers


async def test_a_login_is_limited_by_address(services: DataServices, api_database: str) -> None:
    """Twenty a minute."""
    strict = new_app(services, api_database, rate_limit_scale=1)

    def credentials(number: int) -> dict[str, str]:
        return {"email": f"nobody-{number}@example.com", "password": "x"}

    async with running(strict) as app, in_process(app, address="10.1.1.1") as client:
        started = time.monotonic()
        answers = await asyncio.gather(*(client.post(f"{API}/auth/login", json=credentials(n)) for n in range(40)))
        seconds = time.monotonic() - started
        async with in_process(app, address="10.1.1.2") as elsewhere:
            assert (await elsewhere.post(f"{API}/auth/login", json=credentials(0))).status_code == 401
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {401, 429}
    assert 20 <= statuses[401] <= 20 + seconds / 3
    problem_of(next(answer for answer in answers if answer.status_code == 429), 429, "quota-exceeded")


async def test_production_does_not_tell_how_it_is_built(
    services: DataServices, api_database: str, owner: Person
) -> None:
    closed = new_app(services, api_database, expose_internals=False)
    async with running(closed) as app, in_process(app, owner) as client:
        headers = (await client.get(EQUIPMENT)).headers
    assert not {"x-instance", "x-served-by", "server", "x-powered-by"} & set(headers)


async def test_every_answer_has_the_security_headers(client: httpx.AsyncClient) -> None:
    for path in (EQUIPMENT, "/nowhere", "/docs"):
        headers = (await client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"Sec-Fetch-Site": "same-origin"}, 201),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://headroom"}, 201),
    ],
)
async def test_writes_from_other_sites_are_refused(
    client: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    body = {"asset_tag": "A", "name": "B", "category": "C"}
    assert (await client.post(EQUIPMENT, json=body, headers=headers)).status_code == status


ORIGINS = {
    "https://app.example": True,
    "https://app.example.evil": False,
    "https://evil.example": False,
    "http://app.example": False,
    "https://app.example:444": False,
    "https://APP.example": False,
    "https://app.example/": False,
    "null": False,
}
METHODS = {"GET": True, "POST": True, "PATCH": True, "DELETE": True, "PUT": False, "TRACE": False, "get": False}


async def test_origins_are_exact_and_methods_those_that_there_are(
    services: DataServices, api_database: str, owner: Person
) -> None:
    trusting = new_app(services, api_database, cors_origins=("https://app.example",))
    async with running(trusting) as app, in_process(app, owner) as client:
        for origin, known in ORIGINS.items():
            read = await client.get(EQUIPMENT, headers={"Origin": origin})
            assert (read.headers.get("access-control-allow-origin") == origin) == known, origin
            written = await client.post(EQUIPMENT, json={}, headers={"Origin": origin})
            assert written.status_code == (422 if known else 403), origin
            for method, allowed in METHODS.items():
                answer = await preflight(client, origin, method)
                assert answer.is_success == (known and allowed), (origin, method)
                assert (answer.headers.get("access-control-allow-origin") == origin) == known, (origin, method)
        headers = {"Access-Control-Request-Headers": "x-of-their-own"}
        assert not (await preflight(client, "https://app.example", "POST", headers)).is_success


async def preflight(
    client: httpx.AsyncClient, origin: str, method: str, headers: dict[str, str] | None = None
) -> httpx.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": method, **(headers or {})}
    return await client.options(EQUIPMENT, headers=asked)


async def test_control_without_cors_no_origin_is_known(client: httpx.AsyncClient) -> None:
    answer = await preflight(client, "https://app.example", "POST")
    assert "access-control-allow-origin" not in answer.headers
    assert (await client.post(EQUIPMENT, json={}, headers={"Origin": "https://app.example"})).status_code == 403


async def test_a_deadline_that_is_too_short_is_told_as_such(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        f"{API}/auth/login",
        json={"email": "nobody@example.com", "password": "x"},
        headers={"X-Request-Timeout-Ms": "1"},
    )
    problem_of(answer, 504, "deadline-exceeded")


async def test_requests_are_counted_by_template(client: httpx.AsyncClient) -> None:
    item = await add_item(client)
    for _ in range(3):
        await client.get(f"{EQUIPMENT}/{item['id']}")
    metrics = (await client.get("/metrics")).text
    handler = 'handler="/api/v1/equipment/{equipment_id}"'
    assert any(line.startswith("http_requests_total{") and handler in line for line in metrics.splitlines())
    assert item["id"] not in metrics


async def test_a_request_is_logged_as_one_line_of_json(people: People, owner: Person) -> None:
    [port] = free_ports(1)
    async with served_by_command(people, port) as (process, client):
        await client.get(f"{EQUIPMENT}?q=secret", headers={**owner.headers, "X-Request-ID": "logged-1"})
        await client.get("/livez", headers={"X-Request-ID": "quiet-1"})
        process.terminate()
        output, _ = await process.communicate()
    lines = [json.loads(line) for line in output.splitlines()]
    [line] = [line for line in lines if line.get("request_id") == "logged-1"]
    assert (line["method"], line["route"], line["status"], line["queries"]) == ("GET", EQUIPMENT, 200, 1)
    assert line["caller"] == str(owner.user_id)
    assert b"secret" not in output
    assert b"quiet-1" not in output


@asynccontextmanager
async def served_by_command(people: People, port: int) -> AsyncIterator[tuple[Process, httpx.AsyncClient]]:
    """`uvicorn app.main:app`, as people type it."""
    command = (sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port))
    environment = environment_of(people.settings)
    process = await asyncio.create_subprocess_exec(*command, cwd=PROJECT, env=os.environ | environment, stdout=PIPE)
    try:
        async with over_socket(f"http://127.0.0.1:{port}") as client:
            await eventually(partial(is_alive, client))
            yield process, client
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def is_alive(client: httpx.AsyncClient) -> bool:
    with suppress(httpx.TransportError):
        return (await client.get("/livez")).status_code == 200
    return False


async def test_health_tells_of_every_part(client: httpx.AsyncClient, app: FastAPI) -> None:
    health = body_of(await client.get("/health"))
    assert health["instance"] == "test"
    assert set(health) >= {"status", "checks", "pools", "cache", "instance"}
    assert {"database", "replica-1", "replica-2", "redis"} <= set(health["checks"])
