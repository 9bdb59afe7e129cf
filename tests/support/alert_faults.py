"""The fault that each alert is for: what makes it fire on the native stack, and clears it when it is over."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from deploy.local.observe import write_rules
from tests.support import spare_machine
from tests.support.api import Person
from tests.support.database import server_setting
from tests.support.mixed_load import mixed_load, new_item, people_of, primary_dsn, replica_dsns, through_nginx
from tests.support.native import NativeStack
from tests.support.stack import process_tree, send

CONNECTIONS = 168  # with those of the instances over 80% of 200, and not all
WRITERS = 60  # more than the pools of both instances have connections
CALLERS = 12
PAUSE_SECONDS = 0.2
SLOW_BURN = ("ErrorBudgetBurnsSlowly",)
SLOW_BURN_SCALE = 0.001  # of its windows: 2 h are 7 s, 6 h are 22 s, and 3 d are 4 min


@asynccontextmanager
async def frozen(stack: NativeStack, *names: str) -> AsyncIterator[None]:
    pids = [pid for name in names for pid in process_tree(stack.pid(name))]
    send(signal.SIGSTOP, pids)
    try:
        yield
    finally:
        send(signal.SIGCONT, pids)


@asynccontextmanager
async def under_load(stack: NativeStack) -> AsyncIterator[None]:
    async with mixed_load(stack):
        yield


@asynccontextmanager
async def stuttering(stack: NativeStack, name: str) -> AsyncIterator[None]:
    """A process that gets its processor now and then."""
    pids = process_tree(stack.pid(name))

    async def stutter() -> None:
        while True:
            send(signal.SIGSTOP, pids)
            await asyncio.sleep(0.6)
            send(signal.SIGCONT, pids)
            await asyncio.sleep(0.25)

    task = asyncio.create_task(stutter())
    try:
        yield
    finally:
        task.cancel()
        send(signal.SIGCONT, pids)


@asynccontextmanager
async def locked_table(stack: NativeStack) -> AsyncIterator[None]:
    """Every write waits for a lock that nobody gives back."""
    connection = await asyncpg.connect(primary_dsn(stack))
    people = [await people_of(stack).join() for _ in range(WRITERS)]  # of whom none comes to a limit

    async def write(client: httpx.AsyncClient, person: Person) -> None:
        while True:
            with suppress(httpx.HTTPError):
                await client.post("/api/v1/equipment", json=new_item(), headers=person.headers)
            await asyncio.sleep(PAUSE_SECONDS)

    async with through_nginx(stack) as client, asyncio.TaskGroup() as group:
        tasks = [group.create_task(write(client, person)) for person in people]
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE equipment IN SHARE ROW EXCLUSIVE MODE")
                yield
        finally:
            await connection.close()
            for task in tasks:
                task.cancel()


@asynccontextmanager
async def many_connections(stack: NativeStack) -> AsyncIterator[None]:
    async with AsyncExitStack() as held:
        for _ in range(CONNECTIONS):
            connection = await asyncpg.connect(primary_dsn(stack))
            held.push_async_callback(connection.close)
        yield


@asynccontextmanager
async def held_back(stack: NativeStack) -> AsyncIterator[None]:
    """Replica 1 replays a minute late, and there is something to replay."""
    async with server_setting(replica_dsns(stack)[0], "recovery_min_apply_delay", "60s"), mixed_load(stack):
        yield


@asynccontextmanager
async def over_the_limit(stack: NativeStack) -> AsyncIterator[None]:
    person = await people_of(stack).join()
    async with asking(stack, "/api/v1/auth/me", person.headers):
        yield


@asynccontextmanager
async def bad_credentials(stack: NativeStack) -> AsyncIterator[None]:
    async with asking(stack, "/api/v1/checkouts", {"Authorization": "Bearer nonsense"}):
        yield


@asynccontextmanager
async def asking(stack: NativeStack, path: str, headers: dict[str, str]) -> AsyncIterator[None]:
    async def ask(client: httpx.AsyncClient) -> None:
        while True:
            await client.get(path, headers=headers)

    async with through_nginx(stack) as client, asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(client)) for _ in range(CALLERS)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


@asynccontextmanager
async def both(*faults: AbstractAsyncContextManager[None]) -> AsyncIterator[None]:
    async with AsyncExitStack() as together:
        for fault in faults:
            await together.enter_async_context(fault)
        yield


@asynccontextmanager
async def shorter_windows(stack: NativeStack) -> AsyncIterator[NativeStack]:
    """The rules at SLOW_BURN_SCALE, and good requests all the time: errors are a share of something."""
    home = Path(stack.settings["STATE_DIR"], "observe", "rules")
    await rules_at(SLOW_BURN_SCALE, stack, home)
    try:
        async with mixed_load(stack):
            yield stack
    finally:
        await rules_at(float(stack.settings["OBSERVE_TIME_SCALE"]), stack, home)


async def rules_at(scale: float, stack: NativeStack, home: Path) -> None:
    write_rules(home, scale)
    async with httpx.AsyncClient(base_url=stack.status()["urls"]["prometheus"]) as prometheus:
        (await prometheus.post("/-/reload")).raise_for_status()


@asynccontextmanager
async def as_it_is(stack: NativeStack) -> AsyncIterator[NativeStack]:
    yield stack


Fault = AbstractAsyncContextManager[None]
# What a fault is of, other than the stack as it is: it is there before, during and after the fault.
GROUNDS: dict[tuple[str, ...], Callable[[NativeStack], AbstractAsyncContextManager[Any]]] = {
    SLOW_BURN: shorter_windows,
    spare_machine.ALERTS: spare_machine.spare_machine,
}
FAULTS: dict[tuple[str, ...], Callable[[Any], Fault]] = {
    ("InstanceDown",): lambda stack: frozen(stack, "api-2"),
    ("RedisDown", "BreakerOpen"): lambda stack: both(frozen(stack, "redis"), under_load(stack)),
    ("CacheHitRatioLow",): under_load,
    ("NginxDown",): lambda stack: frozen(stack, "nginx"),
    ("TargetDown",): lambda stack: frozen(stack, "node-exporter"),
    ("EventLoopLate",): lambda stack: stuttering(stack, "api-1"),
    ("PostgresDown", "ReplicaOut"): lambda stack: frozen(stack, "postgres-replica-2"),
    ("ReplicaLagHigh",): held_back,
    ("PostgresConnectionsHigh",): many_connections,
    (
        "ErrorRateHigh",
        "LatencyHigh",
        "ErrorBudgetBurnsFast",
        "ErrorBudgetBurns",
        "PoolSaturated",
        "PoolTimeouts",
        "Overloaded",
    ): locked_table,
    ("RequestsLimited",): over_the_limit,
    ("CredentialsRefused",): bad_credentials,
    SLOW_BURN: locked_table,
    spare_machine.ALERTS: spare_machine.SpareMachine.in_need,
}
