"""kill -9 of API processes while clients refresh their sessions: nobody is logged out.

COMMIT lingers, so that many refreshes are under way at each kill: the process is gone, the token may yet be used up.
A client that has no answer sends the same token again, as soon as somebody answers.
"""

import asyncio
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle, islice

import httpx
import pytest

from tests.support.api import connected
from tests.support.native import LOGIN, NativeStack, native_stack
from tests.support.stack import process_tree, send, superuser

pytestmark = pytest.mark.timeout(900)

KILLS = 6 if os.environ.get("FAULTS") == "short" else 40
CLIENTS = 8
WORKERS = 2  # per instance
BACK_SECONDS = 180.0
PAUSE_SECONDS = 0.2

LINGER_IN_COMMIT = """
CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_sleep(0.15 * random()); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER linger AFTER UPDATE ON sessions DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION linger();
"""


@dataclass
class Refreshes:
    good: int = 0
    lost: int = 0  # without an answer: sent again
    logged_out: int = 0


@pytest.fixture(scope="module")
def stack() -> Iterator[NativeStack]:
    """Its own: its tables linger. The grace is longer than an instance needs to come back on a busy machine."""
    settings = {"RATE_LIMIT_SCALE": "10000", "SESSIONS_PER_USER": "1000", "REFRESH_GRACE_SECONDS": "120"}
    with native_stack(API_INSTANCES="2", WEB_CONCURRENCY=str(WORKERS), **settings) as started:
        asyncio.run(provoke(started))
        yield started


async def provoke(stack: NativeStack) -> None:
    [primary] = [each["dsn"] for each in stack.status()["databases"] if each["role"] == "primary"]
    async with connected(superuser(str(primary))) as connection:
        await connection.execute(LINGER_IN_COMMIT)


async def test_nobody_is_logged_out(stack: NativeStack) -> None:
    refreshes = await refresh_while_killing(stack)
    assert refreshes.lost > 0
    assert refreshes.good > KILLS
    assert refreshes.logged_out == 0


async def test_control_without_the_grace_some_are(stack: NativeStack) -> None:
    strict = replace(stack, settings={**stack.settings, "REFRESH_GRACE_SECONDS": "0.000001"})
    strict.must("up")
    assert (await refresh_while_killing(strict)).logged_out > 0


async def refresh_while_killing(stack: NativeStack) -> Refreshes:
    refreshes, enough = Refreshes(), asyncio.Event()
    async with (
        httpx.AsyncClient(base_url=f"{stack.http}/api/v1/auth", timeout=40) as client,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(CLIENTS):
            group.create_task(keep_logged_in(client, refreshes, enough))
        await asyncio.sleep(1)
        for instance in islice(cycle(("api-1", "api-2")), KILLS):
            await kill_and_await(stack, instance)
        enough.set()
    return refreshes


async def keep_logged_in(client: httpx.AsyncClient, refreshes: Refreshes, enough: asyncio.Event) -> None:
    token = await log_in(client)
    while not enough.is_set():
        answer = await send_refresh(client, token)
        if answer is None:
            refreshes.lost += 1
            await asyncio.sleep(PAUSE_SECONDS)
        elif answer.status_code == httpx.codes.UNAUTHORIZED:
            refreshes.logged_out += 1
            token = await log_in(client)
        else:
            refreshes.good += 1
            token = answer.json()["refresh_token"]


async def log_in(client: httpx.AsyncClient) -> str:
    async with asyncio.timeout(BACK_SECONDS):
        while True:
            try:
                answer = await client.post("/login", json=LOGIN)
            except httpx.TransportError:
                continue
            if answer.status_code == httpx.codes.OK:
                return str(answer.json()["refresh_token"])
            await asyncio.sleep(PAUSE_SECONDS)


async def send_refresh(client: httpx.AsyncClient, token: str) -> httpx.Response | None:
    """None where nobody says what became of it."""
    try:
        answer = await client.post("/refresh", json={"refresh_token": token})
    except httpx.TransportError:
        return None
    return None if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR else answer


async def kill_and_await(stack: NativeStack, instance: str) -> None:
    """SIGKILL to a worker while refreshes are in flight; returns when another one has started."""
    before = starts(stack, instance)
    _, *workers = process_tree(int((stack.folder / f"state/run/{instance}.pid").read_text()))
    send(signal.SIGKILL, workers[:1])
    async with asyncio.timeout(BACK_SECONDS):
        while starts(stack, instance) <= before:  # noqa: ASYNC110 - the log tells no one
            await asyncio.sleep(PAUSE_SECONDS)


def starts(stack: NativeStack, instance: str) -> int:
    return (stack.folder / f"state/logs/{instance}.log").read_text().count("Application startup complete")
