"""What one instance has acknowledged, every other one shows to everybody, though it answers from its own memory."""

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from app.platform.security.caller import Role
from tests.support.api import People, Person, in_process, new_app, running
from tests.support.calls import EQUIPMENT, add_item, body_of
from tests.support.database import server_setting
from tests.support.stack import DataServices

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROUNDS = 10


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def elsewhere(services: DataServices, api_database: str) -> AsyncIterator[FastAPI]:
    """Another process, as far as what it keeps in memory goes."""
    async with running(new_app(services, api_database)) as app:
        yield app


@pytest_asyncio.fixture(loop_scope="session")
async def reader(elsewhere: FastAPI, people: People, owner: Person) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody else of the same organization, with another instance."""
    async with in_process(elsewhere, await people.join(Role.VIEWER, owner.organization_id)) as client:
        yield client


async def behind(services: DataServices, writer: httpx.AsyncClient, reader: httpx.AsyncClient) -> int:
    """Reads that lack what was acknowledged before; one replica is late."""
    found = 0
    async with server_setting(services.replica_dsns[0], "recovery_min_apply_delay", "300ms"):
        for _ in range(ROUNDS):
            for _ in range(3):  # so that it is in the reader's memory
                await reader.get(EQUIPMENT)
            item = await add_item(writer)
            listed = body_of(await reader.get(EQUIPMENT, params={"limit": 20}))
            first = body_of(await reader.get(EQUIPMENT))
            found += any(item["id"] not in [each["id"] for each in page["items"]] for page in (listed, first))
    return found


async def test_everybody_sees_everywhere_what_was_acknowledged(
    services: DataServices, client: httpx.AsyncClient, reader: httpx.AsyncClient
) -> None:
    assert await behind(services, client, reader) == 0


async def test_control_a_memory_that_hears_nothing_shows_what_was(
    services: DataServices,
    client: httpx.AsyncClient,
    reader: httpx.AsyncClient,
    elsewhere: FastAPI,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(elsewhere.state.resources.cache.memory, "invalidate", lambda _: None)
    assert await behind(services, client, reader) > 0
