"""Whose bucket a request is charged to, and what the tier of the organization makes of its limits."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from app import tiers
from app.platform.http import admission
from tests.support.api import API, PROJECT, People, Person, environment_of, in_process, new_app, running
from tests.support.calls import EQUIPMENT, body_of
from tests.support.identity import AUTH, bearer, logged_in, refresh
from tests.support.stack import DataServices

pytestmark = pytest.mark.asyncio(loop_scope="session")

ENTRIES = "SELECT count(*) FROM audit_entries WHERE organization_id = $1 AND action = 'organization.tier_changed'"


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def limited(services: DataServices, api_database: str) -> AsyncIterator[FastAPI]:
    """A hundredth of the limits: a list may be asked for 30 times a minute, in premium 150 times."""
    app = new_app(services, api_database, rate_limit_scale=0.01, rate_limit_organization="9000/minute")
    async with running(app) as app:
        yield app


async def key_of(client: httpx.AsyncClient, owner: Person, name: str = "program") -> tuple[str, dict[str, str]]:
    """Made through an application that limits less: its id, and the headers that carry it."""
    body = {"name": name, "scopes": ["equipment:read"]}
    key = body_of(await client.post(f"{API}/api-keys", json=body, headers=owner.headers), 201)
    return key["id"], {"Authorization": f"Bearer {key['key']}"}


async def policy_of(client: httpx.AsyncClient, headers: dict[str, str], path: str = EQUIPMENT) -> str:
    return (await client.get(path, headers=headers)).headers["ratelimit-policy"]


def amounts(policy: str) -> list[int]:
    return [int(part.partition(";q=")[2].partition(";")[0]) for part in policy.split(", ")]


# Tiers


async def test_a_tier_holds_from_the_next_token_on(people: People, app: FastAPI, services: DataServices) -> None:
    async with running(new_app(services, "api", rate_limit_scale=1)) as limited, in_process(limited) as client:
        user, token = await logged_in(client)
        organization = await people.fetch("SELECT organization_id FROM users WHERE email = $1", user["email"])
        assert amounts(await policy_of(client, bearer(token))) == [100, 3_000]
        await tiers.set_tier(people.settings, organization, "premium")
        assert amounts(await policy_of(client, bearer(token))) == [100, 3_000]
        token = body_of(await refresh(client, token["refresh_token"]))
        assert amounts(await policy_of(client, bearer(token))) == [500, 15_000]
        assert amounts(await policy_of(client, bearer(token), f"{API}/members")) == [3_000]  # the default, of all
        await tiers.set_tier(people.settings, organization, "free")
        token = body_of(await refresh(client, token["refresh_token"]))
        assert amounts(await policy_of(client, bearer(token))) == [20, 600]
    assert await people.fetch(ENTRIES, organization) == 2


async def test_strict_limits_are_the_same_in_every_tier(people: People, owner: Person, services: DataServices) -> None:
    async with running(new_app(services, "api", rate_limit_scale=1)) as limited, in_process(limited) as client:
        premium = {"Authorization": f"Bearer {people.token_of_tier(owner, 'premium')}"}
        assert amounts(await policy_of(client, premium)) == [500, 15_000]
        for path in ("password", "2fa/enable", "login"):
            answer = await client.post(f"{AUTH}/{path}", json={}, headers=premium)
            strict = amounts(answer.headers["ratelimit-policy"])
            answer = await client.post(f"{AUTH}/{path}", json={}, headers=owner.headers)
            assert strict == amounts(answer.headers["ratelimit-policy"]), path
        assert strict == [20, 200]


async def test_for_a_key_it_holds_when_it_is_looked_up_again(
    people: People, limited: FastAPI, app: FastAPI, owner: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limited.state.resources.api_keys, "_remember_seconds", 0.0)
    async with in_process(app) as maker, in_process(limited) as client:
        _, key = await key_of(maker, owner)
        assert amounts(await policy_of(client, key)) == [1, 30]
        await tiers.set_tier(people.settings, owner.organization_id, "premium")
        assert amounts(await policy_of(client, key)) == [5, 150]


async def test_a_tier_that_is_not_declared_any_more_counts_as_the_standard_one(
    people: People, limited: FastAPI, owner: Person
) -> None:
    async with in_process(limited) as client:
        headers = {"Authorization": f"Bearer {people.token_of_tier(owner, 'of-old')}"}
        assert amounts(await policy_of(client, headers)) == [1, 30]


async def test_the_command(people: People, owner: Person) -> None:
    assert await command(people, owner.organization_id, "premium") == (0, "premium")
    assert await command(people, owner.organization_id, "platinum") == (2, "premium")
    assert (await command(people, uuid4(), "premium"))[0] == 2


async def command(people: People, organization: Any, tier: str) -> tuple[int | None, Any]:
    """What it ends with, and the tier that there is then."""
    environment = {**os.environ, **environment_of(people.settings)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.tiers", str(organization), tier), cwd=PROJECT, env=environment
    )
    code = await process.wait()
    return code, await people.fetch("SELECT tier FROM organizations WHERE id = $1", organization)


# API keys


async def statuses(client: httpx.AsyncClient, headers: dict[str, str], count: int) -> Counter[int]:
    answers = [await client.get(f"{EQUIPMENT}?limit={n + 1}", headers=headers) for n in range(count)]
    return Counter(answer.status_code for answer in answers)


async def test_a_key_that_runs_hot_leaves_its_owner_alone(limited: FastAPI, app: FastAPI, owner: Person) -> None:
    async with in_process(app) as maker, in_process(limited) as client:
        _, key = await key_of(maker, owner)
        assert (await statuses(client, key, 40))[429] > 0
        assert await statuses(client, owner.headers, 1) == {200: 1}
        _, another = await key_of(maker, owner, "another")
        assert await statuses(client, another, 1) == {200: 1}


async def test_control_with_the_owner_s_bucket_it_does_not(
    limited: FastAPI, app: FastAPI, owner: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "caller_identity", lambda caller, rule: f"user:{caller.user_id}")
    async with in_process(app) as maker, in_process(limited) as client:
        _, key = await key_of(maker, owner)
        assert (await statuses(client, key, 40))[429] > 0
        assert await statuses(client, owner.headers, 1) == {429: 1}


async def test_more_keys_are_not_more_than_the_organization_has(
    services: DataServices, app: FastAPI, owner: Person
) -> None:
    few = new_app(services, "api", rate_limit_scale=1, rate_limit_organization="25/hour")
    async with in_process(app) as maker, running(few), in_process(few) as client:
        keys = [(await key_of(maker, owner, f"number {n}"))[1] for n in range(4)]
        found = sum([await statuses(client, key, 10) for key in keys], Counter[int]())
        assert found == {200: 25, 429: 15}
