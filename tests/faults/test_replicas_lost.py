"""Replicas frozen, killed, restarted and late, under mixed load through nginx: no read fails, and few of them wait."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from app.main import create_app
from app.platform.postgres.replica import Replica
from app.platform.postgres.routing import ReadRoute
from tests.support.api import in_process, running
from tests.support.calls import EQUIPMENT
from tests.support.database import server_setting, until
from tests.support.mixed_load import mixed_load, people_of, replica_dsns, settings_for
from tests.support.native import NativeStack, native_stack
from tests.support.stack import process_tree, send

pytestmark = pytest.mark.timeout(600)

SHORT = os.environ.get("FAULTS") == "short"
CALM_SECONDS, FAULT_SECONDS = (2.0, 3.0) if SHORT else (5.0, 10.0)
BACK_SECONDS = 60.0
SLOWER_AT_MOST = 20  # times; a read that was under way to a replica that freezes waits for two probes to time out
REPLICAS = ("replica-1", "replica-2")


@pytest.fixture(scope="module")
def stack() -> Iterator[NativeStack]:
    with native_stack(RATE_LIMIT_SCALE="1000", WEB_CONCURRENCY="1") as started:
        yield started


async def frozen(stack: NativeStack, names: tuple[str, ...]) -> None:
    async with standstill(stack, names):
        await asyncio.sleep(FAULT_SECONDS)


@asynccontextmanager
async def standstill(stack: NativeStack, names: tuple[str, ...]) -> AsyncIterator[None]:
    pids = [pid for name in names for pid in processes(stack, name)]
    send(signal.SIGSTOP, pids)
    try:
        yield
    finally:
        send(signal.SIGCONT, pids)


async def killed(stack: NativeStack, names: tuple[str, ...]) -> None:
    """The supervisor starts them again."""
    for name in names:
        send(signal.SIGKILL, await asyncio.to_thread(processes, stack, name))
    await asyncio.sleep(FAULT_SECONDS)


async def restarted(stack: NativeStack, names: tuple[str, ...]) -> None:
    for name in names:
        await asyncio.to_thread(stack.must, "restart", f"postgres-{name}")


async def late(stack: NativeStack, names: tuple[str, ...]) -> None:
    dsns = (await asyncio.to_thread(replica_dsns, stack))[: len(names)]
    async with AsyncExitStack() as settings:
        for dsn in dsns:
            await settings.enter_async_context(server_setting(dsn, "recovery_min_apply_delay", "5s"))
        await asyncio.sleep(FAULT_SECONDS)


def processes(stack: NativeStack, name: str) -> list[int]:
    return process_tree(stack.pid(f"postgres-{name}"))


FAULTS = [(frozen, 1), (frozen, 2), (killed, 1), (killed, 2), (restarted, 1), (restarted, 2), (late, 1), (late, 2)]
SHORT_FAULTS = [(frozen, 1), (frozen, 2), (killed, 2), (restarted, 1), (late, 2)]


@pytest.mark.parametrize(
    ("fault", "replicas"),
    [pytest.param(*each, id=f"{each[0].__name__}-{each[1]}") for each in (SHORT_FAULTS if SHORT else FAULTS)],
)
async def test_no_read_fails(stack: NativeStack, fault, replicas: int) -> None:
    async with mixed_load(stack) as load:
        await asyncio.sleep(CALM_SECONDS)
        calm, before = load.p99(), len(load.answers)
        await fault(stack, REPLICAS[:replicas])
        meanwhile, after = load.p99(since=before), len(load.answers)
        used = {f"replica:{name}" for name in REPLICAS}
        await until(lambda: used <= load.served_by(since=after).keys(), BACK_SECONDS)
    assert load.failed() == []
    assert meanwhile < SLOWER_AT_MOST * calm


async def test_control_without_ejection_and_diversion_reads_fail(
    stack: NativeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for patched, name in ((Replica, "eject"), (Replica, "cut_off")):
        monkeypatch.setattr(patched, name, lambda *_: None)
    monkeypatch.setattr(ReadRoute, "divert", lambda *_: False)
    # Who is remembered is led away from replicas that don't move on.
    settings = settings_for(stack, cache_enabled=False, consistency_enabled=False, request_timeout_seconds=5.0)
    app = create_app(settings)
    person = await people_of(stack).join()
    async with running(app), in_process(app, person) as client:
        database = app.state.resources.database
        await until(lambda: all(replica.eligible for replica in database.replicas))
        calm = await asyncio.gather(*(client.get(EQUIPMENT) for _ in range(10)))
        async with standstill(stack, REPLICAS):
            meanwhile = await asyncio.gather(*(client.get(EQUIPMENT) for _ in range(10)))
    assert {answer.status_code for answer in calm} == {200}
    assert {answer.status_code for answer in meanwhile} != {200}
