"""Every revision under load, with a transaction held open: no request fails, and none waits long.

The code of the first revision is simulated by its SQL; the code of today is the application. Today's code is let in
after the revision that it needs, and the old one is gone before the last step removes what keeps its writes right.

The promise is 500 ms for a request, twice LOCK_TIMEOUT_MS. Here the load shares its cores with the servers, with the
migrator as it starts, and with other tests: what the slowest request takes while nothing is migrated comes on top.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from app.platform.postgres.base import uuid7
from migrations import lint
from migrations.locking import LOCK_TIMEOUT_MS
from tests.support.api import People, Person, api_settings, connected, in_process, new_app, running
from tests.support.calls import CHECKOUTS, DUE, EQUIPMENT, body_of
from tests.support.database import repeated
from tests.support.migrations import (
    A_MIGRATOR_WAITS,
    FIRST,
    alembic,
    empty_database,
    finished,
    held_open,
    insert_rows,
    until,
    walk,
)
from tests.support.stack import DataServices

DATABASE = "under_load"
NEW_CODE_FROM, OLD_CODE_UNTIL = "0005", "0006"
PROMISED_SECONDS = 2 * LOCK_TIMEOUT_MS / 1_000
# Long enough for attempts to fail, and for all that queued up behind them to be seen.
HELD_SECONDS = 1.5
AT_ONCE = 3
PAUSE_SECONDS = 0.01

# Reads and writes of other rows than those of the load.
HELD = (
    "SELECT count(*) FROM checkouts, equipment",
    "UPDATE checkouts SET note = 'held' WHERE id = (SELECT id FROM checkouts ORDER BY id LIMIT 1)",
)
LIST_EQUIPMENT = (
    "SELECT id, asset_tag, name, status FROM equipment WHERE organization_id = $1 ORDER BY name, id LIMIT 50"
)
LIST_CHECKOUTS = (
    "SELECT id, equipment_id, checked_out_at, due_at, returned_at, note FROM checkouts WHERE organization_id = $1"
    " ORDER BY checked_out_at DESC, id DESC LIMIT 50"
)
MARK = "UPDATE equipment SET status = $3, version = version + 1 WHERE organization_id = $1 AND id = $2"
TAKE = "INSERT INTO checkouts (organization_id, equipment_id, id, user_id, due_at) VALUES ($1, $2, $3, $4, now())"
RETURN = "UPDATE checkouts SET returned_at = now(), condition = 'good' WHERE organization_id = $1 AND id = $2"
WRONG = "SELECT count(*) FROM checkouts WHERE updated_at IS DISTINCT FROM coalesce(returned_at, checked_out_at)"

Request = Callable[[], Awaitable[Any]]


@dataclass
class Load:
    """What the requests took, the failed ones included."""

    seconds: list[float] = field(default_factory=lambda: [0.0])
    errors: list[str] = field(default_factory=list)

    async def timed(self, request: Request) -> None:
        started = time.perf_counter()
        try:
            await request()
        except Exception as error:
            self.errors.append(repr(error))
        finally:
            self.seconds.append(time.perf_counter() - started)

    def take_worst(self) -> float:
        """Of the requests since the last call."""
        worst, self.seconds = max(self.seconds), [0.0]
        return worst


@pytest.fixture
async def dsn(services: DataServices) -> str:
    dsn = await empty_database(services, DATABASE)
    await walk(dsn, "upgrade", FIRST)
    await insert_rows(dsn, items=2_000, checkouts=4)
    return dsn


@pytest.fixture
async def people(services: DataServices, dsn: str) -> People:
    return People(services, dsn, api_settings(services, DATABASE))


@asynccontextmanager
async def requested(
    people: People, requests: Callable[[Person, UUID], Iterable[Request]], load: Load
) -> AsyncIterator[None]:
    """Requests without an end, `AT_ONCE` side by side, each on an item of its own."""
    person = await people.join()
    free = await people.own_items(person, AT_ONCE, checkouts=5)

    async def on_one_item() -> None:
        item = free.pop()
        for request in requests(person, item):
            await load.timed(request)
            await asyncio.sleep(PAUSE_SECONDS)
        free.append(item)

    async with repeated(on_one_item, AT_ONCE):
        yield


@asynccontextmanager
async def old_code(people: People, load: Load) -> AsyncIterator[None]:
    async with asyncpg.create_pool(people.dsn, min_size=AT_ONCE, max_size=AT_ONCE) as pool:

        async def write(*statements: tuple[Any, ...]) -> None:
            async with pool.acquire() as connection, connection.transaction():
                for statement in statements:
                    await connection.execute(*statement)

        def requests(person: Person, item: UUID) -> Iterator[Request]:
            organization, checkout = person.organization_id, uuid7()
            yield partial(pool.fetch, LIST_EQUIPMENT, organization)
            yield partial(pool.fetch, LIST_CHECKOUTS, organization)
            taken = (MARK, organization, item, "checked_out"), (TAKE, organization, item, checkout, person.user_id)
            yield partial(write, *taken)
            yield partial(write, (RETURN, organization, checkout), (MARK, organization, item, "available"))

        async with requested(people, requests, load):
            yield


@asynccontextmanager
async def new_code(people: People, load: Load) -> AsyncIterator[None]:
    # Tables of a later revision are left out of it.
    later = {"revocation_enabled": False, "audit_enabled": False}
    app = new_app(people.services, DATABASE, cache_enabled=False, log_level="error", **later)
    async with running(app), in_process(app) as client:

        def requests(person: Person, item: UUID) -> Iterator[Request]:
            checkout: dict[str, Any] = {}

            async def read(path: str) -> None:
                body_of(await client.get(path, headers=person.headers))

            async def take() -> None:
                path = f"{EQUIPMENT}/{item}/checkouts"
                checkout.update(body_of(await client.post(path, json={"due_at": DUE}, headers=person.headers), 201))

            async def give_back() -> None:
                path = f"{CHECKOUTS}/{checkout['id']}/return"
                body_of(await client.post(path, json={}, headers=person.headers))

            yield partial(read, f"{CHECKOUTS}?sort=-updated_at")
            yield partial(read, f"{EQUIPMENT}/{item}?expand=checkouts")
            yield from (take, give_back)

        async with requested(people, requests, load):
            yield


async def apply(dsn: str, revision: str, *options: str) -> str:
    """What the migrator printed; whatever it waits for is held for HELD_SECONDS."""
    async with connected(dsn) as observer:
        async with held_open(dsn, *HELD):
            process = await alembic(dsn, *options, "upgrade", revision)
            ended = asyncio.create_task(finished(process))
            waits = asyncio.create_task(until(observer, A_MIGRATOR_WAITS))
            await asyncio.wait((ended, waits), return_when=asyncio.FIRST_COMPLETED)
            if waits.done():
                await asyncio.sleep(HELD_SECONDS)
        waits.cancel()
        return await ended


async def allowed(dsn: str, load: Load) -> float:
    """What is promised, and the slowest request beside a migrator that finds nothing to do."""
    load.take_worst()
    await apply(dsn, FIRST)
    return PROMISED_SECONDS + load.take_worst()


@pytest.mark.timeout(300)
async def test_every_revision_with_old_and_new_code_running(dsn: str, people: People) -> None:
    load, outputs, too_slow = Load(), {}, {}
    async with AsyncExitStack() as old, AsyncExitStack() as new:
        await old.enter_async_context(old_code(people, load))
        most = await allowed(dsn, load)
        for revision in (script.revision for script in lint.revisions()[1:]):
            outputs[revision] = await apply(dsn, revision)
            if (worst := load.take_worst()) > most:
                too_slow[revision] = (worst, most)
            if revision == NEW_CODE_FROM:
                await new.enter_async_context(new_code(people, load))
                most = await allowed(dsn, load)
            if revision == OLD_CODE_UNTIL:
                await old.aclose()
    assert load.errors == []
    assert too_slow == {}
    assert {revision for revision, output in outputs.items() if "trying again" in output} >= {"0003", "0004", "0007"}
    async with connected(dsn) as connection:
        assert await connection.fetchval(WRONG) == 0


async def test_control_without_a_lock_timeout_everyone_waits_behind_the_migrator(dsn: str, people: People) -> None:
    load = Load()
    await walk(dsn, "upgrade", "0002")
    async with old_code(people, load):
        most = await allowed(dsn, load)
        await apply(dsn, "0003", "-x", "lock_timeout=0")
        assert load.take_worst() > max(most, HELD_SECONDS * 0.9)
    assert load.errors == []


async def test_control_a_default_given_with_the_column_is_wrong_for_the_rows_there_are(dsn: str) -> None:
    async with connected(dsn) as connection:
        await connection.execute("ALTER TABLE checkouts ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now()")
        assert await connection.fetchval(WRONG) == await connection.fetchval("SELECT count(*) FROM checkouts")
