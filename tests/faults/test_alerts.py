"""Each alert driven for real: a fault makes it fire, and it clears when the fault is over. Times are a fiftieth."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import asyncpg
import httpx
import pytest

from tests.support.api import Person
from tests.support.database import server_setting
from tests.support.mixed_load import mixed_load, new_item, people_of, primary_dsn, replica_dsns, through_nginx
from tests.support.native import NativeStack, native_stack
from tests.support.pagers import Letterbox, Pager, mail, pager
from tests.support.stack import process_tree, send, temporary_folder

pytestmark = pytest.mark.timeout(900)

SHORT = os.environ.get("FAULTS") == "short"
FIRES_SECONDS = 120
CONNECTIONS = 168  # with those of the instances over 80% of 200, and not all
WRITERS = 60  # more than the pools of both instances have connections
CALLERS = 12
PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Watched:
    stack: NativeStack
    pager: Pager
    letters: Letterbox
    prometheus: str

    async def firing(self) -> set[str]:
        async with httpx.AsyncClient(base_url=self.prometheus, timeout=10) as client:
            alerts = (await client.get("/api/v1/alerts")).json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    async def until(self, reached: Callable[[set[str]], bool], what: str) -> None:
        now: set[str] = set()
        try:
            async with asyncio.timeout(FIRES_SECONDS):
                while not reached(now := await self.firing()):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.5)
        except TimeoutError:
            pytest.fail(f"{what}: firing are {sorted(now)}")


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    port = free_port()
    with temporary_folder() as folder, pager() as pages, mail(port) as letters:
        key = folder / "key"
        key.write_text("0123456789abcdef0123456789abcdef")
        tells = {"PAGERDUTY_URL": pages.url, "PAGERDUTY_KEY_FILE": str(key), "SMTP_REQUIRE_TLS": "false"}
        tells |= {"ALERT_EMAIL": "operators@example.com", "SMTP_SMARTHOST": f"127.0.0.1:{port}"}
        limits = {"RATE_LIMIT_SCALE": "1000", "RATE_LIMIT_DEFAULT": "1/hour", "DATABASE_POOL_TIMEOUT_MS": "500"}
        with native_stack(OBSERVE="1", OBSERVE_TIME_SCALE="0.02", WEB_CONCURRENCY="1", **tells, **limits) as stack:
            yield Watched(stack, pages, letters, stack.status()["urls"]["prometheus"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


FAULTS = {
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
}
SHORT_FAULTS = [("InstanceDown",), ("RedisDown", "BreakerOpen")]


@asynccontextmanager
async def both(*faults: object) -> AsyncIterator[None]:
    async with AsyncExitStack() as together:
        for fault in faults:
            await together.enter_async_context(fault)  # type: ignore[arg-type]
        yield


@pytest.mark.parametrize("alerts", SHORT_FAULTS if SHORT else list(FAULTS), ids=lambda alerts: alerts[0])
async def test_they_fire_and_clear(watched: Watched, alerts: tuple[str, ...]) -> None:
    wanted = set(alerts)
    await watched.until(lambda firing: not wanted & firing, f"{alerts} silent before")
    async with FAULTS[alerts](watched.stack):
        await watched.until(lambda firing: wanted <= firing, f"{alerts} firing")
    await watched.until(lambda firing: not wanted & firing, f"{alerts} silent afterwards")


async def test_whom_it_concerns_is_told(watched: Watched) -> None:
    """The page wakes somebody and is taken back, and mail goes out; the ticket is in the mail alone."""
    async with frozen(watched.stack, "api-2"):
        await told(lambda: "trigger" in watched.pager.actions("InstanceDown"))
    await told(lambda: watched.pager.actions("InstanceDown")[-1] == "resolve")
    await told(lambda: any("FIRING" in subject and "InstanceDown" in subject for subject in watched.letters.subjects))
    assert {event["routing_key"] for event in watched.pager.events} == {"0123456789abcdef0123456789abcdef"}
    assert "runbooks/restart-and-release.md" in str(watched.pager.events)
    async with frozen(watched.stack, "node-exporter"):
        await told(lambda: any("TargetDown" in subject for subject in watched.letters.subjects))
    assert not watched.pager.actions("TargetDown")
    assert not watched.pager.actions("Watchdog")


async def told(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(FIRES_SECONDS):
        while not reached():  # noqa: ASYNC110 - the servers run in threads
            await asyncio.sleep(0.2)
