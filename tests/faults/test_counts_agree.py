"""What clients were answered and what the instances counted are the same number, whatever restarts meanwhile."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from itertools import count

import httpx
import pytest

from tests.support.exposition import Exposition
from tests.support.mixed_load import new_item
from tests.support.native import NativeStack, native_stack, signed_in
from tests.support.stack import process_tree

pytestmark = pytest.mark.timeout(300)
INSTANCES = ("api-1", "api-2")
CLIENTS = 8
PAUSE_SECONDS = 0.005
COUNTED_SECONDS = 0.5  # counts are late by 50 ms
BUSY_SECONDS = 1.5


@pytest.fixture(scope="module")
def stack() -> Iterator[NativeStack]:
    with native_stack(RATE_LIMIT_SCALE="1000", WEB_CONCURRENCY="2", POSTGRES_REPLICAS="1") as started:
        yield started


async def counted(stack: NativeStack) -> Counter[str]:
    """Requests by method and status, of all workers of all instances."""
    await asyncio.sleep(COUNTED_SECONDS)
    async with httpx.AsyncClient(base_url=stack.ops) as operators:
        texts = [(await operators.get(f"/metrics/{name}")).text for name in INSTANCES]
    totals: Counter[str] = Counter()
    for (name, labels), value in Exposition(*texts).samples.items():
        if name == "http_requests_total":
            own = dict(labels)
            totals[f"{own['method']} {own['status']}"] += int(value)
    return totals


async def ask(client: httpx.AsyncClient, answers: Counter[str], stop: asyncio.Event) -> None:
    """Whatever is under way is finished: who hangs up is not told what was counted."""
    for number in count():
        if stop.is_set():
            return
        match number % 5:
            case 0:
                answer = await client.post("/equipment", json=new_item())
            case 1:
                answer = await client.get("/equipment?fields=nothing")
            case 2:
                answer = await client.get("/nothing")
            case _:
                answer = await client.get(f"/equipment?limit={number % 7 + 1}")
        answers[f"{answer.request.method} {answer.status_code}"] += 1
        await asyncio.sleep(PAUSE_SECONDS)


def retire_a_worker(stack: NativeStack, name: str) -> None:
    """As gunicorn does after so many requests; another takes its place."""
    os.kill(process_tree(stack.pid(name))[1], signal.SIGTERM)


async def test_over_workers_instances_and_restarts(stack: NativeStack) -> None:
    async with signed_in(stack) as client:
        before = await counted(stack)
        answers: Counter[str] = Counter()
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(ask(client, answers, stop))
            await asyncio.sleep(BUSY_SECONDS)
            await asyncio.to_thread(retire_a_worker, stack, "api-1")
            await asyncio.sleep(BUSY_SECONDS)
            await asyncio.to_thread(stack.must, "restart")
            await asyncio.sleep(BUSY_SECONDS)
            stop.set()
        difference = await counted(stack)
    difference.subtract(before)
    assert set(answers) == {"POST 201", "GET 200", "GET 404", "GET 422"}
    assert sum(answers.values()) > 100
    assert +difference == answers


async def test_control_counts_that_begin_anew_do_not_agree(stack: NativeStack) -> None:
    """The same when each start empties the folder, as other code does."""
    async with signed_in(stack) as client:
        for _ in range(10):
            await client.get("/equipment?limit=1")
        before = await counted(stack)
        for name in INSTANCES:
            (stack.folder / "state" / "run" / "metrics" / name / "code").unlink()
        await asyncio.to_thread(stack.must, "restart")
        after = await counted(stack)
    assert after["GET 200"] < before["GET 200"]
