"""A list as one writes it by hand, over an asyncpg pool: the service's SQL, the service's items, no pattern at all."""

import json
import os
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
from fastapi import FastAPI
from typing_extensions import TypedDict

from app.platform.resilience.drain import Drain

LIST = """
SELECT id, asset_tag, name, category, status, location, tags, description, attributes, purchase_price, version,
       created_at, updated_at
FROM equipment WHERE organization_id = $1 ORDER BY name, id LIMIT $2 OFFSET $3
"""


class Item(TypedDict):
    id: UUID
    asset_tag: str
    name: str
    category: str
    status: str
    location: str
    tags: list[str]
    description: str
    attributes: dict[str, Any]
    purchase_price: Decimal | None
    version: int
    created_at: datetime
    updated_at: datetime


class Page(TypedDict):
    items: list[Item]
    next_cursor: str | None
    prev_cursor: str | None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    dsn = os.environ["DATABASE_URL"].replace("+asyncpg", "")
    async with asyncpg.create_pool(dsn, init=read_json, min_size=10, max_size=15) as app.state.pool:
        yield


async def read_json(connection: Any) -> None:
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


app = FastAPI(lifespan=lifespan)
app.state.drain = Drain()  # asked for by the worker that the service runs in


@app.get("/organizations/{organization_id}/equipment")
async def list_equipment(organization_id: UUID, limit: int = 20, offset: int = 0) -> Page:
    rows = await app.state.pool.fetch(LIST, organization_id, limit + 1, offset)
    items: list[Any] = [dict(row) for row in rows[:limit]]
    return {
        "items": items,
        "next_cursor": cursor(items[-1]) if len(rows) > limit else None,
        "prev_cursor": cursor(items[0]) if offset else None,
    }


def cursor(item: Item) -> str:
    return urlsafe_b64encode(f"{item['name']}\n{item['id']}".encode()).decode()
