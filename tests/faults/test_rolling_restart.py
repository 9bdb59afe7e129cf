"""Instances restarted one after the other under load: no request fails, POSTs without an idempotency key included.

Controls, which have to lose requests: nginx's default `max_fails`, and instances that are killed instead of drained.
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from uuid import uuid4

import httpx
import pytest

from tests.support.native import NativeStack, native_stack, signed_in

FULL = os.environ.get("FAULTS", "full") == "full"
RESTARTS = 50 if FULL else 6
CLIENTS = 16
PAUSE_SECONDS = 0.01  # of each client, between two requests: this is about restarts, not about overload
INSTANCES = ("api-1", "api-2")
pytestmark = pytest.mark.timeout(1_200)


@pytest.fixture(scope="module")
def stack() -> Iterator[NativeStack]:
    with native_stack(RATE_LIMIT_SCALE="1000", WEB_CONCURRENCY="2") as started:
        yield started


@asynccontextmanager
async def mixed_load(stack: NativeStack) -> AsyncIterator[Counter[str]]:
    """Reads and creates until the block ends; counts each outcome."""
    outcomes: Counter[str] = Counter()
    async with signed_in(stack, timeout=30) as client, asyncio.TaskGroup() as clients:
        tasks = [clients.create_task(read_and_create(client, outcomes)) for _ in range(CLIENTS)]
        try:
            yield outcomes
        finally:
            for task in tasks:
                task.cancel()


async def read_and_create(client: httpx.AsyncClient, outcomes: Counter[str]) -> None:
    for number in count():
        try:
            if number % 2:
                answer = await client.get("/equipment", params={"limit": 20})
            else:
                item = {"asset_tag": f"RR-{uuid4()}", "name": "Tripod", "category": "grip"}
                answer = await client.post("/equipment", json=item)
            outcomes[f"{answer.request.method} {answer.status_code}"] += 1
        except httpx.TransportError as error:
            outcomes[repr(error)] += 1
        await asyncio.sleep(PAUSE_SECONDS)


def failures(outcomes: Counter[str]) -> Counter[str]:
    return Counter({name: number for name, number in outcomes.items() if name not in ("GET 200", "POST 201")})


async def restart_in_turn(stack: NativeStack, times: int) -> None:
    for turn in range(times):
        await asyncio.to_thread(stack.must, "restart", INSTANCES[turn % 2])


async def test_rolling_restarts_lose_nothing(stack: NativeStack) -> None:
    async with mixed_load(stack) as outcomes:
        await restart_in_turn(stack, RESTARTS)
    assert not failures(outcomes)
    assert outcomes["POST 201"] > RESTARTS, "there was load"


async def test_an_idle_instance_leaves_soon(stack: NativeStack) -> None:
    async with asyncio.timeout(30):
        await restart_in_turn(stack, 1)


async def test_control_the_default_max_fails_loses_requests(stack: NativeStack) -> None:
    """One refused connection takes an instance out for 10 s, and two restarts take out both."""
    configuration = stack.folder / "state" / "nginx" / "conf.d" / "headroom.conf"
    ours = configuration.read_text()
    try:
        configuration.write_text(ours.replace(" max_fails=0", ""))
        os.kill(stack.pid("nginx"), signal.SIGHUP)
        async with mixed_load(stack) as outcomes:
            await restart_in_turn(stack, 4)
        assert failures(outcomes)["GET 502"] + failures(outcomes)["POST 502"] > 0
    finally:
        configuration.write_text(ours)
        os.kill(stack.pid("nginx"), signal.SIGHUP)


async def test_control_instances_that_are_killed_lose_requests(stack: NativeStack) -> None:
    async with mixed_load(stack) as outcomes:
        for turn in range(4):
            os.killpg(stack.pid(INSTANCES[turn % 2]), signal.SIGKILL)
            await asyncio.sleep(8)
    assert failures(outcomes)["POST 502"] > 0
