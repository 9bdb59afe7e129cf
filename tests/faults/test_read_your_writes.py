"""Through nginx, on any worker: nobody reads from before their own write, though replicas replay 300 ms late.

The cache is off: it would hide a read that is stale.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest

from app.features.identity.roles import Role
from app.main import create_app
from app.platform.postgres.transaction import Transaction, written_position
from tests.support.api import Person, in_process, running
from tests.support.calls import EQUIPMENT
from tests.support.database import Seen, server_setting
from tests.support.mixed_load import new_item, people_of, replica_dsns, settings_for, through_nginx
from tests.support.native import NativeStack, native_stack

pytestmark = pytest.mark.timeout(1_200)

CALLERS, ROUNDS = (10, 20) if os.environ.get("FAULTS") == "short" else (50, 200)
DELAY = "300ms"
SETTINGS = {
    "RATE_LIMIT_SCALE": "1000",
    "API_INSTANCES": "2",
    "WEB_CONCURRENCY": "2",
    "CACHE_ENABLED": "false",
    "REDIS_TIMEOUT_MS": "2000",  # a machine that is busy with the load is not a dead Redis, which remembers nobody
}


@dataclass(frozen=True, slots=True)
class Pair:
    """Of one organization. The reader reads what the writer wrote; they may be the same person."""

    writer: Person
    reader: Person

    async def write_then_read(self, client: httpx.AsyncClient, rounds: int, seen: Seen) -> None:
        for _ in range(rounds):
            made = await client.post(EQUIPMENT, json=new_item(), headers=self.writer.headers)
            assert made.status_code == 201, made.text
            read = await client.get(f"{EQUIPMENT}/{made.json()['id']}", headers=self.headers_of_read(made))
            assert read.status_code in (200, 404), read.text
            seen.stale += read.status_code == 404
            seen.served_by[read.headers["x-served-by"]] += 1

    def headers_of_read(self, made: httpx.Response) -> dict[str, str]:
        """Nobody remembers for the reader what another one wrote: the token alone can tell."""
        if self.reader is self.writer:
            return self.reader.headers
        return self.reader.headers | {"X-Consistency-Token": made.headers["x-consistency-token"]}


@pytest.fixture(scope="module")
def stack() -> Iterator[NativeStack]:
    with native_stack(**SETTINGS) as started:
        yield started


@asynccontextmanager
async def delayed(stack: NativeStack, replicas: int, delay: str = DELAY) -> AsyncIterator[None]:
    async with AsyncExitStack() as settings:
        for dsn in replica_dsns(stack)[:replicas]:
            await settings.enter_async_context(server_setting(dsn, "recovery_min_apply_delay", delay))
        yield


async def pairs(stack: NativeStack, *, with_token: bool, count: int = CALLERS) -> list[Pair]:
    people = people_of(stack)
    writers = [await people.join() for _ in range(count)]
    if not with_token:
        return [Pair(writer, writer) for writer in writers]
    return [Pair(writer, await people.join(Role.VIEWER, writer.organization_id)) for writer in writers]


async def write_then_read(client: httpx.AsyncClient, callers: list[Pair], rounds: int = ROUNDS) -> Seen:
    seen = Seen()
    async with asyncio.TaskGroup() as group:
        for pair in callers:
            group.create_task(pair.write_then_read(client, rounds, seen))
    return seen


@pytest.mark.parametrize("with_token", [False, True], ids=["remembered", "token"])
async def test_none_stale_while_one_replica_is_late(stack: NativeStack, with_token: bool) -> None:
    async with delayed(stack, replicas=1), through_nginx(stack) as client:
        seen = await write_then_read(client, await pairs(stack, with_token=with_token))
    assert seen.stale == 0
    assert seen.share_of_replicas >= 0.8


@pytest.mark.parametrize("with_token", [False, True], ids=["remembered", "token"])
async def test_none_stale_while_all_replicas_are_late(stack: NativeStack, with_token: bool) -> None:
    async with delayed(stack, replicas=2), through_nginx(stack) as client:
        seen = await write_then_read(client, await pairs(stack, with_token=with_token))
    assert seen.stale == 0


async def test_control_the_position_before_commit_is_too_early(
    stack: NativeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late replicas have replayed all but the commit record. One caller: the commits of others would hold them back."""
    commit = Transaction.commit

    async def too_early(transaction: Transaction) -> None:
        connection = transaction._connection
        position = 0 if connection.limits.read_only else await written_position(connection)
        await commit(transaction)
        connection.written = position

    monkeypatch.setattr(Transaction, "commit", too_early)
    app = create_app(settings_for(stack, cache_enabled=False))
    seen, person = Seen(), await people_of(stack).join()
    async with delayed(stack, replicas=2, delay="1s"), running(app), in_process(app) as client:
        for _ in range(8):
            await Pair(person, person).write_then_read(client, 1, seen)
            await asyncio.sleep(1.2)
    assert seen.stale > 0


async def test_control_without_positions_reads_are_stale(stack: NativeStack) -> None:
    """One process, which clients share: few of them are enough."""
    app = create_app(settings_for(stack, cache_enabled=False, consistency_enabled=False))
    async with delayed(stack, replicas=1), running(app), in_process(app) as client:
        seen = await write_then_read(client, await pairs(stack, with_token=True, count=10), rounds=20)
    assert seen.stale > 0
