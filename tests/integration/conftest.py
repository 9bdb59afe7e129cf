"""The application on real servers: one per session, and a fresh organization per test, so that tests don't meet."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from app.platform.security.caller import Role
from tests.support.api import (
    People,
    Person,
    api_settings,
    create_database,
    in_database,
    in_process,
    new_app,
    over_socket,
    running,
    serving,
)
from tests.support.stack import DataServices

DATABASE = "api"


@pytest.fixture(scope="session")
def api_database(services: DataServices) -> str:
    asyncio.run(create_database(services, DATABASE))
    return DATABASE


@pytest.fixture(scope="session")
def people(services: DataServices, api_database: str) -> People:
    dsn = in_database(services.primary_dsn, api_database)
    return People(services, dsn, api_settings(services, api_database))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def app(services: DataServices, api_database: str) -> AsyncIterator[FastAPI]:
    async with running(new_app(services, api_database)) as app:
        yield app


@pytest_asyncio.fixture(loop_scope="session")
async def owner(people: People) -> Person:
    """Owns the organization of this test."""
    return await people.join()


@pytest_asyncio.fixture(loop_scope="session")
async def client(app: FastAPI, owner: Person) -> AsyncIterator[httpx.AsyncClient]:
    async with in_process(app, owner) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def viewer(app: FastAPI, people: People, owner: Person) -> AsyncIterator[httpx.AsyncClient]:
    """Of the same organization, and may only read."""
    async with in_process(app, await people.join(Role.VIEWER, owner.organization_id)) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def stranger(app: FastAPI, people: People) -> AsyncIterator[httpx.AsyncClient]:
    """Owns another organization."""
    async with in_process(app, await people.join()) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def anonymous(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with in_process(app) as client:
        yield client


@pytest.fixture(scope="session")
def server_url(services: DataServices, api_database: str) -> Iterator[str]:
    """The same behind a real socket."""
    with serving(new_app(services, api_database)) as url:
        yield url


@pytest_asyncio.fixture(loop_scope="session")
async def remote(server_url: str, owner: Person) -> AsyncIterator[httpx.AsyncClient]:
    async with over_socket(server_url, owner) as client:
        yield client
