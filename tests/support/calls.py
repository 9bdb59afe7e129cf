"""What tests say to the API again and again."""

import itertools
from collections.abc import AsyncIterator
from typing import Any

import httpx

from app.platform.http.problems import problem_type
from tests.support.api import API

EQUIPMENT = f"{API}/equipment"
CHECKOUTS = f"{API}/checkouts"
DUE = "2099-01-31T12:00:00Z"
OVERDUE = "2020-01-31T12:00:00Z"

numbers = itertools.count(1)


def item_body(**changes: Any) -> dict[str, Any]:
    return {"asset_tag": f"CAM-{next(numbers):04d}", "name": "A camera", "category": "camera", **changes}


async def add_item(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    return body_of(await client.post(EQUIPMENT, json=item_body(**changes)), 201)


async def get_item(client: httpx.AsyncClient, item_id: str) -> dict[str, Any]:
    return body_of(await client.get(f"{EQUIPMENT}/{item_id}"))


async def check_out(client: httpx.AsyncClient, item_id: str, due_at: str = DUE) -> dict[str, Any]:
    return body_of(await client.post(f"{EQUIPMENT}/{item_id}/checkouts", json={"due_at": due_at}), 201)


async def give_back(client: httpx.AsyncClient, checkout_id: str, **body: Any) -> dict[str, Any]:
    return body_of(await client.post(f"{CHECKOUTS}/{checkout_id}/return", json=body))


async def listed(client: httpx.AsyncClient, path: str = EQUIPMENT, **params: Any) -> list[dict[str, Any]]:
    """The items of one page."""
    items: list[dict[str, Any]] = body_of(await client.get(path, params=params))["items"]
    return items


async def pages(
    client: httpx.AsyncClient, path: str = EQUIPMENT, *, follow: str = "next_cursor", **params: Any
) -> AsyncIterator[dict[str, Any]]:
    """One page after the other, each fetched when it is asked for."""
    while True:
        page = body_of(await client.get(path, params=params))
        yield page
        if page[follow] is None:
            return
        params["cursor"] = page[follow]


def body_of(answer: httpx.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()


def problem_of(answer: httpx.Response, status: int, slug: str | None = None) -> dict[str, Any]:
    """The problem that the answer is, after a look at whether it is a sound one (RFC 9457)."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    if slug is not None:
        assert problem["type"] == problem_type(slug)
    return problem


def wrong_places(answer: httpx.Response) -> list[list[str | int]]:
    """Where a 422 says that something is wrong."""
    return [error["loc"] for error in problem_of(answer, 422, "validation-failed")["errors"]]
