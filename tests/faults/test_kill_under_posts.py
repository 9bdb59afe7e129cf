"""kill -9 of API processes while clients post through nginx: with keys nobody notices, and each item is there once.

Every COMMIT lingers, so that many are under way at each kill: the process is gone, its transaction may yet last.
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count, cycle, islice
from uuid import uuid4

import httpx
import pytest

from tests.support.api import connected
from tests.support.native import NativeStack, native_stack, signed_in
from tests.support.stack import process_tree, send, superuser

pytestmark = pytest.mark.timeout(3_600)

KILLS = 10 if os.environ.get("FAULTS") == "short" else 100
CONTROL_KILLS = 3
CLIENTS = 16
WORKERS = 2  # per instance
BACK_SECONDS = 180.0
REPEAT_SECONDS = 0.1
POLL_SECONDS = 0.2

LINGER_IN_COMMIT = """
CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_sleep(0.15 * random()); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON equipment DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION linger();
"""
# Nothing but the keys stands against an item that is there twice.
ALLOW_DUPLICATES = "DROP INDEX uq_equipment_asset_tag"


@dataclass
class Posts:
    """What the clients sent, by asset tag, and what they were answered."""

    statuses: dict[str, list[int | str]] = field(default_factory=dict)

    @property
    def under_way(self) -> set[str]:
        return {tag for tag, statuses in self.statuses.items() if not statuses}

    @property
    def failed(self) -> dict[str, list[int | str]]:
        return {tag: statuses for tag, statuses in self.statuses.items() if statuses != [201]}


@pytest.fixture(scope="module")
def stack() -> Iterator[NativeStack]:
    """Two instances of two workers each. Its own: its tables have lost a constraint."""
    with native_stack(RATE_LIMIT_SCALE="1000", API_INSTANCES="2", WEB_CONCURRENCY=str(WORKERS)) as started:
        asyncio.run(provoke(started))
        yield started


async def provoke(stack: NativeStack) -> None:
    async with connected(superuser(dsn(stack))) as connection:
        await connection.execute(LINGER_IN_COMMIT)
        await connection.execute(ALLOW_DUPLICATES)


def dsn(stack: NativeStack) -> str:
    [primary] = [each["dsn"] for each in stack.status()["databases"] if each["role"] == "primary"]
    return str(primary)


async def test_with_keys_no_client_notices(stack: NativeStack) -> None:
    posts = await posts_while_killing(stack, KILLS, keyed=True)
    assert posts.failed == {}
    assert await items(stack, posts) == dict.fromkeys(posts.statuses, 1)


async def test_control_without_keys_clients_notice(stack: NativeStack) -> None:
    posts = await posts_while_killing(stack, CONTROL_KILLS, keyed=False)
    assert posts.failed


async def test_control_clients_that_repeat_without_keys_make_duplicates(stack: NativeStack) -> None:
    posts = await posts_while_killing(stack, CONTROL_KILLS, keyed=False, repeat=True)
    assert [statuses[-1] for statuses in posts.failed.values()] == [201] * len(posts.failed)
    assert max((await items(stack, posts)).values()) > 1


async def test_control_keys_that_nobody_heeds_make_duplicates(stack: NativeStack) -> None:
    """nginx repeats what carries a key; the service has to know of it."""
    unguarded = replace(stack, settings={**stack.settings, "IDEMPOTENCY_ENABLED": "false"})
    unguarded.must("up")
    posts = await posts_while_killing(unguarded, CONTROL_KILLS, keyed=True)
    assert max((await items(stack, posts)).values()) > 1


async def posts_while_killing(stack: NativeStack, kills: int, *, keyed: bool, repeat: bool = False) -> Posts:
    posts, enough = Posts(), asyncio.Event()
    async with signed_in(stack) as client, asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(post_items(client, posts, enough, f"{uuid4()}-{number}", keyed=keyed, repeat=repeat))
        for number, instance in enumerate(islice(cycle(("api-1", "api-2")), kills)):
            await kill_and_await(stack, instance, whole=number % 3 == 2)
            await until_answered(posts, posts.under_way)
        enough.set()
    return posts


async def post_items(
    client: httpx.AsyncClient, posts: Posts, enough: asyncio.Event, name: str, *, keyed: bool, repeat: bool
) -> None:
    """One after the other; with `repeat`, each until it is answered well."""
    for number in count():
        if enough.is_set():
            return
        tag = f"{name}-{number}"
        statuses = posts.statuses[tag] = []
        statuses.append(await post_item(client, tag, keyed))
        while repeat and statuses[-1] != 201:
            await asyncio.sleep(REPEAT_SECONDS)
            statuses.append(await post_item(client, tag, keyed))


async def post_item(client: httpx.AsyncClient, tag: str, keyed: bool) -> int | str:
    """The status, or what broke the answer off."""
    headers = {"Idempotency-Key": tag} if keyed else {}
    body = {"asset_tag": tag, "name": "A camera", "category": "camera"}
    try:
        return (await client.post("/equipment", json=body, headers=headers)).status_code
    except httpx.TransportError as error:
        return repr(error)


async def kill_and_await(stack: NativeStack, instance: str, *, whole: bool) -> None:
    """SIGKILL to a worker, or to all of an instance, while requests are in flight; returns when others have started."""
    before = starts(stack, instance)
    master, *workers = process_tree(int((stack.folder / f"state/run/{instance}.pid").read_text()))
    killed = [master, *workers] if whole else workers[:1]
    assert killed
    send(signal.SIGKILL, killed)
    async with asyncio.timeout(BACK_SECONDS):
        while starts(stack, instance) < before + (WORKERS if whole else 1):  # noqa: ASYNC110 - the log tells no one
            await asyncio.sleep(POLL_SECONDS)


async def until_answered(posts: Posts, tags: set[str]) -> None:
    """nginx has two instances to try: whom the one that was away refused can't survive the loss of the other."""
    async with asyncio.timeout(BACK_SECONDS):
        while posts.under_way & tags:  # noqa: ASYNC110 - many tasks take part
            await asyncio.sleep(POLL_SECONDS)


def starts(stack: NativeStack, instance: str) -> int:
    """How many workers have started so far."""
    return (stack.folder / f"state/logs/{instance}.log").read_text().count("Application startup complete")


async def items(stack: NativeStack, posts: Posts) -> Counter[str]:
    """How often each of the posted items is there."""
    async with connected(dsn(stack)) as connection:
        rows = await connection.fetch("SELECT asset_tag FROM equipment WHERE asset_tag = ANY($1)", list(posts.statuses))
    return Counter(row["asset_tag"] for row in rows)
