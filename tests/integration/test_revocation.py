"""A revocation reaches every process within a second: through the primary, whatever replicas and Redis do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from uuid import UUID

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from app.main import create_app
from app.platform.http import hotpath
from app.platform.security import revocation_log
from app.platform.security.caller import Role
from app.platform.security.revocation import Revocations
from app.platform.security.revocation_log import RevocationLog
from app.platform.security.tokens import TokenVerifier
from app.resources import Resources, open_resources
from app.settings import Settings
from tests.support.api import API, People, Person, api_settings, caught_up, in_process, new_app, running
from tests.support.calls import EQUIPMENT, body_of, problem_of
from tests.support.database import server_setting
from tests.support.redis_server import eventually
from tests.support.stack import DataServices

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def elsewhere(services: DataServices, api_database: str) -> AsyncIterator[FastAPI]:
    """Another process, as far as what it keeps in memory goes."""
    async with running(new_app(services, api_database)) as app:
        yield app


def session_of(app: FastAPI, person: Person) -> UUID:
    verifier: TokenVerifier = app.state.resources.token_verifier
    return verifier.verify(person.token).session_id


async def revoke(app: FastAPI, subject: UUID, least_epoch: int = revocation_log.ENDED) -> None:
    async with app.state.resources.database.write() as session:
        await revocation_log.revoke(session, subject, least_epoch)


async def test_where_it_was_revoked_the_token_is_refused_at_once(
    app: FastAPI, client: httpx.AsyncClient, owner: Person
) -> None:
    body_of(await client.get(EQUIPMENT))
    await revoke(app, session_of(app, owner))
    problem_of(await client.get(EQUIPMENT), 401, "unauthorized")


async def test_elsewhere_it_is_refused_within_a_second(
    app: FastAPI, elsewhere: FastAPI, client: httpx.AsyncClient, owner: Person
) -> None:
    async with in_process(elsewhere, owner) as other:
        for _ in range(2):
            answer = await other.get(EQUIPMENT)
        assert answer.headers["x-cache"] == "hit"
        await revoke(app, owner.user_id, least_epoch=1)
        await asyncio.sleep(1)
        problem_of(await other.get(EQUIPMENT), 401, "unauthorized")


async def test_of_others_nothing_is_revoked(app: FastAPI, people: People, client: httpx.AsyncClient) -> None:
    await revoke(app, (await people.join()).user_id, least_epoch=1)
    body_of(await client.get(EQUIPMENT))


async def test_one_that_commits_late_is_heard_of_too(
    app: FastAPI, people: People, client: httpx.AsyncClient, owner: Person
) -> None:
    """Its transaction began before another one that everybody has read by then."""
    async with app.state.resources.database.write() as late:
        await revocation_log.revoke(late, owner.user_id, least_epoch=1)
        await revoke(app, (await people.join()).user_id)
        await app.state.resources.revocations.refresh()
        body_of(await client.get(EQUIPMENT))
    problem_of(await client.get(EQUIPMENT), 401, "unauthorized")


async def test_a_new_process_knows_what_was_revoked_before(
    app: FastAPI, services: DataServices, api_database: str, owner: Person
) -> None:
    await revoke(app, session_of(app, owner))
    async with running(new_app(services, api_database)) as late, in_process(late, owner) as client:
        problem_of(await client.get(EQUIPMENT), 401, "unauthorized")


async def test_a_revocation_that_is_rolled_back_is_none(app: FastAPI, client: httpx.AsyncClient, owner: Person) -> None:
    async with app.state.resources.database.write() as session:
        await revocation_log.revoke(session, owner.user_id, least_epoch=1)
        await session.rollback()
    await app.state.resources.revocations.refresh()
    body_of(await client.get(EQUIPMENT))


async def test_without_redis_it_is_refused_within_a_second_too(
    app: FastAPI, services: DataServices, api_database: str, owner: Person
) -> None:
    alone = new_app(services, api_database, redis_url="redis://127.0.0.1:1/0")
    async with running(alone) as late, in_process(late, owner) as client:
        body_of(await client.get(EQUIPMENT))
        await revoke(app, owner.user_id, least_epoch=1)
        await asyncio.sleep(1)
        problem_of(await client.get(EQUIPMENT), 401, "unauthorized")


async def test_a_replica_five_seconds_behind_changes_nothing(
    app: FastAPI, elsewhere: FastAPI, services: DataServices, owner: Person
) -> None:
    async with in_process(elsewhere, owner) as other:
        for _ in range(2):
            answer = await other.get(EQUIPMENT)
        assert answer.headers["x-cache"] == "hit"
        async with server_setting(services.replica_dsns[0], "recovery_min_apply_delay", "5s"):
            await revoke(app, owner.user_id, least_epoch=1)
            await asyncio.sleep(1)
            problem_of(await other.get(EQUIPMENT), 401, "unauthorized")


async def answered_on_the_hot_path(client: httpx.AsyncClient) -> bool:
    """Which is counted now and then."""
    before = hotpath.ANSWERS._value.get()
    for _ in range(4):
        body_of(await client.get(EQUIPMENT))
    await asyncio.sleep(0.2)
    return bool(hotpath.ANSWERS._value.get() > before)


async def ends_session(people: People, owner: httpx.AsyncClient, member: Person) -> None:
    """By themselves."""
    headers = member.headers
    assert (await owner.delete(f"{API}/auth/sessions", headers=headers)).status_code == 204


async def is_disabled(people: People, owner: httpx.AsyncClient, member: Person) -> None:
    body_of(await owner.patch(f"{API}/members/{member.user_id}", json={"disabled": True}))


async def loses_role(people: People, owner: httpx.AsyncClient, member: Person) -> None:
    body_of(await owner.patch(f"{API}/members/{member.user_id}", json={"role": "viewer"}))


@pytest.mark.parametrize("happens", [ends_session, is_disabled, loses_role])
async def test_on_the_hot_path_too_with_both_replicas_five_seconds_behind(
    app: FastAPI,
    elsewhere: FastAPI,
    services: DataServices,
    people: People,
    owner: Person,
    client: httpx.AsyncClient,
    happens: Callable[[People, httpx.AsyncClient, Person], Awaitable[None]],
) -> None:
    member = await people.join(Role.MEMBER, owner.organization_id)
    async with in_process(app, member) as here, in_process(elsewhere, member) as there:
        for each in (here, there):
            await eventually(partial(answered_on_the_hot_path, each))
        first, second = (server_setting(dsn, "recovery_min_apply_delay", "5s") for dsn in services.replica_dsns)
        async with first, second:
            await happens(people, client, member)
            await asyncio.sleep(1)
            for each in (here, there):
                problem_of(await each.get(EQUIPMENT), 401, "unauthorized")
    await caught_up(services)


async def test_control_who_asks_the_replica_that_is_behind_lets_the_token_in(
    app: FastAPI, services: DataServices, api_database: str, owner: Person
) -> None:
    @asynccontextmanager
    async def asking_a_replica(settings: Settings) -> AsyncIterator[Resources]:
        async with open_resources(settings) as parts:
            revocations = Revocations(RevocationLog(parts.database.replicas[0], 900), (), keep_seconds=900)
            await revocations.start()
            yield replace(parts, revocations=revocations)
            await revocations.aclose()

    misled = create_app(api_settings(services, api_database), asking_a_replica)
    async with running(misled) as other, in_process(other, owner) as client:
        body_of(await client.get(EQUIPMENT))
        async with server_setting(services.replica_dsns[0], "recovery_min_apply_delay", "5s"):
            await revoke(app, owner.user_id, least_epoch=1)
            await asyncio.sleep(1)
            body_of(await client.get(EQUIPMENT))
    await caught_up(services)


async def test_control_switched_off_a_revoked_token_goes_on(
    app: FastAPI, services: DataServices, api_database: str, owner: Person
) -> None:
    await revoke(app, session_of(app, owner))
    trusting = new_app(services, api_database, revocation_enabled=False)
    async with running(trusting) as late, in_process(late, owner) as client:
        body_of(await client.get(EQUIPMENT))
