"""Registering, logging in and staying so, as a client does it."""

from typing import Any
from uuid import uuid4

import httpx

from tests.support.api import API
from tests.support.calls import body_of

AUTH = f"{API}/auth"
PASSWORD = "correct horse battery"


def registration(**changes: Any) -> dict[str, Any]:
    person = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD, "full_name": "Ann", "organization": "Acme"}
    return person | changes


async def register(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    user: dict[str, Any] = body_of(await client.post(f"{AUTH}/register", json=registration(**changes)), 201)
    return user


async def log_in(client: httpx.AsyncClient, email: str, password: str = PASSWORD, **more: Any) -> httpx.Response:
    return await client.post(f"{AUTH}/login", json={"email": email, "password": password, **more})


async def logged_in(client: httpx.AsyncClient) -> tuple[dict[str, Any], dict[str, Any]]:
    """A new user, and what the first log-in gave."""
    user = await register(client)
    return user, body_of(await log_in(client, user["email"]))


async def refresh(client: httpx.AsyncClient, refresh_token: str) -> httpx.Response:
    return await client.post(f"{AUTH}/refresh", json={"refresh_token": refresh_token})


def bearer(token: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {token['access_token']}"}
