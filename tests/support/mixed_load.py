"""People who read and write through nginx, and how they fared."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from uuid import uuid4

import httpx

from app.settings import Settings
from tests.support.api import People
from tests.support.native import NativeStack
from tests.support.stack import as_asyncpg

READERS, WRITERS = 6, 2
WARM_UP = 20


def primary_dsn(stack: NativeStack) -> str:
    [dsn] = [database["dsn"] for database in stack.status()["databases"] if database["role"] == "primary"]
    return str(dsn)


def replica_dsns(stack: NativeStack) -> list[str]:
    return [database["dsn"] for database in stack.status()["databases"] if database["role"] == "replica"]


def people_of(stack: NativeStack) -> People:
    return People(None, primary_dsn(stack), Settings(_env_file=None))


def settings_for(stack: NativeStack, **changes: object) -> Settings:
    """For a part of the service in this process, on the servers of the stack."""
    values = {
        "environment": "test",
        "rate_limit_scale": 1_000,
        "log_level": "error",
        "database_url": as_asyncpg(primary_dsn(stack)),
        "database_replica_urls": ",".join(map(as_asyncpg, replica_dsns(stack))),
        "redis_url": stack.status()["redis"]["url"],
    }
    return Settings(_env_file=None, **values | changes)


@asynccontextmanager
async def through_nginx(stack: NativeStack) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=stack.http, limits=limits, timeout=40) as client:
        yield client


def new_item() -> dict[str, str]:
    return {"asset_tag": f"L-{uuid4()}", "name": "A tripod", "category": "grip"}


@dataclass
class Load:
    """What the reads were answered, by whom, and after how many seconds."""

    statuses: Counter[int] = field(default_factory=Counter)
    served_by: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    @property
    def failed(self) -> Counter[int]:
        return Counter({status: number for status, number in self.statuses.items() if status != 200})

    def p99(self) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)]
