"""What a client sees of overload. That it helps is shown in tests/faults/test_overload.py."""

import asyncio
from collections import Counter

import httpx
import pytest

from tests.support.api import API, Person, in_process, new_app, running
from tests.support.calls import EQUIPMENT, problem_of
from tests.support.stack import DataServices

pytestmark = pytest.mark.asyncio(loop_scope="session")

ONE_AT_A_TIME = {"admission_min_in_flight": 1, "admission_max_in_flight": 1, "cache_enabled": False}
TOGETHER = 12


async def at_once(client: httpx.AsyncClient, path: str = EQUIPMENT) -> list[httpx.Response]:
    return await asyncio.gather(*(client.get(path, params={"location": number}) for number in range(TOGETHER)))


async def test_who_is_refused_is_told_when_to_come_back(
    services: DataServices, api_database: str, owner: Person
) -> None:
    app = new_app(services, api_database, **ONE_AT_A_TIME, admission_max_waiting=3)
    async with running(app), in_process(app, owner) as client:
        answers = await at_once(client)
        assert Counter(answer.status_code for answer in answers) == {200: 4, 503: TOGETHER - 4}
        refused = next(answer for answer in answers if answer.status_code == 503)
        problem_of(refused, 503, "overloaded")
        assert 1 <= int(refused.headers["retry-after"]) <= 3
        assert "overloaded" in (await client.get("/problems/overloaded")).text


async def test_control_switched_off_all_are_begun(services: DataServices, api_database: str, owner: Person) -> None:
    app = new_app(services, api_database, **ONE_AT_A_TIME, admission_max_waiting=3, admission_enabled=False)
    async with running(app), in_process(app, owner) as client:
        assert Counter(answer.status_code for answer in await at_once(client)) == {200: TOGETHER}


async def test_a_burst_waits_and_is_served(services: DataServices, api_database: str, owner: Person) -> None:
    app = new_app(services, api_database, **ONE_AT_A_TIME, admission_wait_ms=30_000)
    async with running(app), in_process(app, owner) as client:
        assert Counter(answer.status_code for answer in await at_once(client)) == {200: TOGETHER}


async def test_probes_and_people_who_log_in_come_first(
    services: DataServices, api_database: str, owner: Person
) -> None:
    app = new_app(services, api_database, **ONE_AT_A_TIME, admission_max_waiting=TOGETHER, admission_wait_ms=30_000)
    async with running(app), in_process(app, owner) as client:
        order: list[str] = []

        async def ask(path: str) -> None:
            assert (await client.get(path)).status_code == 200
            order.append(path)

        lists = [f"{EQUIPMENT}?location={number}" for number in range(5)]
        await asyncio.gather(*map(ask, [*lists, f"{API}/auth/me", "/readyz"]))
    assert order.index("/readyz") == 0
    assert order.index(f"{API}/auth/me") <= 2
