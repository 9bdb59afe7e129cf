"""People who read and write through nginx, and how they fared."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from uuid import uuid4

import httpx

from app.settings import Settings
from tests.support.api import People, Person
from tests.support.calls import EQUIPMENT
from tests.support.native import NativeStack
from tests.support.stack import as_asyncpg

READERS, WRITERS = 6, 2


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
    """How the reads fared: status, who served them, and seconds taken, in the order of their ends."""

    answers: list[tuple[int, str, float]] = field(default_factory=list)

    def failed(self) -> list[tuple[int, str, float]]:
        return [answer for answer in self.answers if answer[0] != 200]

    def served_by(self, since: int = 0) -> Counter[str]:
        return Counter(server for _, server, _ in self.answers[since:])

    def p99(self, since: int = 0) -> float:
        seconds = sorted(seconds for _, _, seconds in self.answers[since:])
        return seconds[int(len(seconds) * 0.99)]


@asynccontextmanager
async def mixed_load(stack: NativeStack) -> AsyncIterator[Load]:
    """Reads that no cache can answer, and writes, until the block ends. Writes may fail, and wait for a replica."""
    load, people = Load(), people_of(stack)
    reader, writer = await people.join(), await people.join()
    async with through_nginx(stack) as client, asyncio.TaskGroup() as group:
        tasks = [group.create_task(read(client, reader, load)) for _ in range(READERS)]
        tasks += [group.create_task(write(client, writer)) for _ in range(WRITERS)]
        try:
            yield load
        finally:
            for task in tasks:
                task.cancel()


async def read(client: httpx.AsyncClient, person: Person, load: Load) -> None:
    for _ in count():
        started = time.perf_counter()
        params: dict[str, str | int] = {"limit": 5, "location": str(uuid4())}
        answer = await client.get(EQUIPMENT, params=params, headers=person.headers)
        served_by = answer.headers.get("x-served-by", "nobody")
        load.answers.append((answer.status_code, served_by, time.perf_counter() - started))


async def write(client: httpx.AsyncClient, person: Person) -> None:
    for _ in count():
        await client.post(EQUIPMENT, json=new_item(), headers=person.headers)
        await asyncio.sleep(0.02)
