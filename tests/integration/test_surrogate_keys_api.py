"""A CDN in front learns by which names it may purge an answer: those that writers touch."""

import pytest

from tests.support.api import Person, in_process, new_app, running
from tests.support.calls import EQUIPMENT
from tests.support.stack import DataServices

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_each_tier_names_the_tags_of_the_route(services: DataServices, api_database: str, owner: Person) -> None:
    app = new_app(services, api_database, surrogate_key_header="Surrogate-Key")
    async with running(app), in_process(app, owner) as client:
        answers = [await client.get(EQUIPMENT) for _ in range(4)]
        org = owner.organization_id
        assert {answer.headers["surrogate-key"] for answer in answers} == {f"{org}:equipment {org}:checkouts"}
        assert {answer.headers["x-cache"] for answer in answers} == {"miss", "hit"}
        assert (await client.get("/.well-known/jwks.json")).headers["surrogate-key"] == "documents keys"
        assert "surrogate-key" not in (await client.get("/api/v1/auth/me")).headers


async def test_control_nothing_is_told_unless_it_is_asked_for(
    services: DataServices, api_database: str, owner: Person
) -> None:
    app = new_app(services, api_database)
    async with running(app), in_process(app, owner) as client:
        for path in (EQUIPMENT, "/.well-known/jwks.json"):
            headers = (await client.get(path)).headers
            assert "surrogate-key" not in headers
            assert "cache-tag" not in headers
