"""Sessions that write and read versioned registers while servers are late, freeze, and the primary is replaced.

Each has its guarantees all the way: it reads its own writes, and nothing older than it has read before. What was
acknowledged is there at the end. Control: positions and cache off.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count

import httpx
import pytest

from app.features.identity.roles import Role
from app.main import create_app
from tests.support.api import Person, in_process, running
from tests.support.calls import EQUIPMENT
from tests.support.database import server_setting, until
from tests.support.histories import Event, History
from tests.support.mixed_load import new_item, people_of, replica_dsns, settings_for, through_nginx
from tests.support.native import NativeStack, native_stack
from tests.support.stack import process_tree, send

pytestmark = pytest.mark.timeout(1_200)

SHORT = os.environ.get("FAULTS") == "short"
SESSIONS, REGISTERS, FAILOVERS = (6, 4, 1) if SHORT else (20, 8, 4)
PHASE_SECONDS = 3.0 if SHORT else 10.0
SHARE_OF_WRITES = 0.3
SETTINGS = {"RATE_LIMIT_SCALE": "1000", "WEB_CONCURRENCY": "1", "REDIS_TIMEOUT_MS": "2000"}


@pytest.fixture(scope="module")
def stack() -> Iterator[NativeStack]:
    with native_stack(**SETTINGS) as started:
        yield started


@dataclass
class Session:
    """One that `carries` passes on the newest token; the others ignore headers."""

    person: Person
    name: str
    carries: bool
    token: str = ""

    async def act(self, client: httpx.AsyncClient, register: str) -> Event | None:
        """None where nothing is known: refused, failed, or in doubt."""
        headers = self.person.headers | ({"X-Consistency-Token": self.token} if self.token else {})
        path = f"{EQUIPMENT}/{register}"
        if random.random() < SHARE_OF_WRITES:
            change = {"attributes": {"written": time.time()}}
            answer = await client.patch(path, json=change, headers=headers | {"If-Match": "*"})
        else:
            answer = await client.get(path, headers=headers)
        if answer.status_code != 200:
            return None
        if self.carries:
            self.token = answer.headers.get("x-consistency-token", self.token)
        kind = "write" if answer.request.method == "PATCH" else "read"
        return Event(self.name, register, kind, answer.json()["version"])


async def act_on(client: httpx.AsyncClient, session: Session, registers: list[str], history: History) -> None:
    for _ in count():
        event = await session.act(client, random.choice(registers))
        if event is not None:
            history.events.append(event)


@asynccontextmanager
async def sessions(stack: NativeStack, client: httpx.AsyncClient, history: History) -> AsyncIterator[dict[str, int]]:
    """Yields the registers; at the end it holds the version that each has then."""
    people = people_of(stack)
    first = await people.join()
    members = [await people.join(Role.OWNER, first.organization_id) for _ in range(SESSIONS)]
    registers = {}
    for _ in range(REGISTERS):
        made = await client.post(EQUIPMENT, json=new_item(), headers=first.headers)
        registers[made.raise_for_status().json()["id"]] = 1
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(act_on(client, Session(member, f"s{number}", number % 2 == 0), [*registers], history))
            for number, member in enumerate(members)
        ]
        yield registers
        for task in tasks:
            task.cancel()
    people = people_of(stack)
    for register in registers:
        registers[register] = await people.fetch("SELECT version FROM equipment WHERE id = $1", register)


async def freeze_a_replica(stack: NativeStack) -> None:
    family = process_tree(await asyncio.to_thread(pid_of, stack, "postgres-replica"))
    send(signal.SIGSTOP, family)
    await asyncio.sleep(PHASE_SECONDS)
    send(signal.SIGCONT, family)


async def lose_the_primary(stack: NativeStack, history: History) -> None:
    """It stands still, like a machine that hangs; `make failover` while sessions go on."""
    family = process_tree(await asyncio.to_thread(pid_of, stack, "postgres-primary"))
    before = roles(stack)
    send(signal.SIGSTOP, family)
    await asyncio.to_thread(stack.must, "failover")
    after = roles(stack)
    assert after["primary"] != before["primary"]
    assert sorted([*after["replica"], *after["primary"]]) == sorted([*before["replica"], *before["primary"]])
    seen = len(history.events)
    await until(lambda: any(event.kind == "write" for event in history.events[seen:]), 30)


def pid_of(stack: NativeStack, role: str) -> int:
    return next(process["pid"] for process in stack.status()["processes"] if process["role"] == role)


def roles(stack: NativeStack) -> dict[str, list[str]]:
    databases = stack.status()["databases"]
    return {role: [each["name"] for each in databases if each["role"] == role] for role in ("primary", "replica")}


async def test_sessions_keep_their_guarantees(stack: NativeStack) -> None:
    history = History()
    async with through_nginx(stack) as client, sessions(stack, client, history) as registers:
        async with server_setting(replica_dsns(stack)[0], "recovery_min_apply_delay", "300ms"):
            await asyncio.sleep(PHASE_SECONDS)
            await freeze_a_replica(stack)
        for _ in range(FAILOVERS):
            await lose_the_primary(stack, history)
    assert history.behind_own_writes() == []
    assert history.behind_own_reads() == []
    latest = history.latest_written()
    assert {name: version for name, version in registers.items() if version < latest[name]} == {}
    assert len(history.events) > 10 * SESSIONS


async def test_control_without_positions_sessions_read_the_past(stack: NativeStack) -> None:
    history, app = History(), create_app(settings_for(stack, cache_enabled=False, consistency_enabled=False))
    async with (
        server_setting(replica_dsns(stack)[0], "recovery_min_apply_delay", "2s"),
        running(app),
        in_process(app) as client,
        sessions(stack, client, history),
    ):
        await until(lambda: bool(history.behind_own_writes() and history.behind_own_reads()), 60)
