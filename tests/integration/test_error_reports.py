"""What an error tracker gets, over Sentry's own protocol: what nobody expected, and nothing private."""

import logging
from collections.abc import Callable, Iterator
from secrets import token_hex
from typing import Any
from uuid import uuid4

import httpx
import pytest
import sentry_sdk

from app.features.equipment.repository import EquipmentRepository
from app.platform.postgres.errors import DatabaseUnavailable
from tests.support.api import API, People, Person, in_process, new_app, running
from tests.support.sentry import Sentry, sentry
from tests.support.stack import DataServices

pytestmark = pytest.mark.asyncio(loop_scope="session")
PRIVATE = "private-value"
Call = Callable[[httpx.AsyncClient], Any]


@pytest.fixture
def tracker() -> Iterator[Sentry]:
    with sentry() as tracker:
        yield tracker


async def reported(
    services: DataServices, database: str, person: Person, tracker: Sentry, call: Call
) -> list[dict[str, Any]]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    app = new_app(services, database, sentry_dsn=tracker.dsn, release="1.2.3", instance_name="api-9")
    try:
        async with running(app), in_process(app, person) as client:
            await call(client)
    finally:
        sentry_sdk.flush(timeout=5)
        sentry_sdk.init(auto_enabling_integrations=False)  # without a DSN: off again
        root.handlers, root.level = handlers, level
    assert tracker.refused == []
    return tracker.events


async def test_a_bug_is_reported_scrubbed(
    services: DataServices, api_database: str, people: People, tracker: Sentry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError(f"no row of {PRIVATE}@example.com")

    monkeypatch.setattr(EquipmentRepository, "page", broken)
    trace_id = token_hex(16)
    person = await people.join()

    async def call(client: httpx.AsyncClient) -> None:
        headers = {"traceparent": f"00-{trace_id}-{token_hex(8)}-00", "X-Request-ID": "one"}
        answer = await client.get(f"{API}/equipment?location={PRIVATE}", headers=headers)
        assert answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR

    [event] = await reported(services, api_database, person, tracker, call)
    assert event["exception"]["values"][-1]["type"] == "RuntimeError"
    assert (event["environment"], event["release"], event["server_name"]) == ("test", "1.2.3", "api-9")
    assert event["contexts"]["trace"]["trace_id"] == trace_id
    assert event["tags"]["request_id"] == "one"
    assert event["tags"]["route"] == f"{API}/equipment"
    for secret in (PRIVATE, person.token):
        assert all(secret.encode() not in raw.replace(b"{PRIVATE}", b"") for raw in tracker.raw)


async def test_what_is_expected_is_not(
    services: DataServices, api_database: str, people: People, tracker: Sentry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise DatabaseUnavailable("gone")

    async def call(client: httpx.AsyncClient) -> None:
        statuses = [
            (await client.get(f"{API}/equipment/{uuid4()}")).status_code,
            (await client.get(f"{API}/equipment?fields=nothing")).status_code,
            (await client.get(f"{API}/nothing")).status_code,
            (await client.get(f"{API}/equipment", headers={"Authorization": "Bearer nonsense"})).status_code,
        ]
        monkeypatch.setattr(EquipmentRepository, "page", away)
        statuses.append((await client.get(f"{API}/equipment")).status_code)
        assert statuses == [404, 422, 404, 401, 503]

    assert await reported(services, api_database, await people.join(), tracker, call) == []
