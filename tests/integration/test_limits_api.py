"""What callers are told of limits, beside the rate of all their requests."""

from contextlib import AsyncExitStack

import httpx
import pytest
from fastapi import FastAPI

from tests.support.api import Person
from tests.support.calls import body_of, problem_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

FIGURES = "/api/v1/analytics/equipment"


async def test_one_too_many_at_once_is_told_and_the_next_is_served(
    app: FastAPI, client: httpx.AsyncClient, owner: Person, stranger: httpx.AsyncClient
) -> None:
    places = app.state.resources.rate_limiter.places
    async with AsyncExitStack() as under_way:
        for _ in range(4):
            assert await under_way.enter_async_context(places.place(f"user:{owner.user_id}", "equipment_figures", 4))
        refused = await client.get(FIGURES)
        assert "at once" in problem_of(refused, 429, "rate-limited")["detail"]
        assert refused.headers["retry-after"] == "1"
        body_of(await stranger.get(FIGURES))
    body_of(await client.get(FIGURES))


async def test_what_is_cached_needs_no_place(app: FastAPI, client: httpx.AsyncClient, owner: Person) -> None:
    body_of(await client.get(FIGURES))
    places = app.state.resources.rate_limiter.places
    async with AsyncExitStack() as under_way:
        for _ in range(4):
            await under_way.enter_async_context(places.place(f"user:{owner.user_id}", "equipment_figures", 4))
        assert (await client.get(FIGURES)).headers["x-cache"] == "hit"
