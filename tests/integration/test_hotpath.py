"""The hot path answers what the ordinary way would have, byte for byte, and nothing that it shouldn't."""

import asyncio
import io
import random
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

import httpx
import orjson
import pytest
import pytest_asyncio
from fastapi import FastAPI

from app.platform.http import hotpath
from app.platform.security import revocation_log
from app.platform.security.caller import Role
from app.platform.security.revocation import RevocationsUnknown
from app.platform.telemetry.metrics import REQUESTS
from tests.support.api import People, Person, in_process, new_app, running, serving
from tests.support.calls import EQUIPMENT, add_item, body_of, problem_of
from tests.support.redis_server import eventually
from tests.support.stack import DataServices

pytestmark = pytest.mark.asyncio(loop_scope="session")

ORIGIN = "https://app.example"
ITEMS = 3
LIST = f"{EQUIPMENT}?limit=20"
CALLERS = ("owner", "in lower case", "viewer", "stranger", "without scopes", "forged", "of another scheme", "none")
# What differs from one request to the next.
OF_THE_MOMENT_IN = re.compile(rb"r=\d+;t=\d+|^(replica:.*|primary)$")
OF_THE_MOMENT = {b"age", b"x-request-id"}


class World(NamedTuple):
    app: FastAPI
    client: httpx.AsyncClient
    tokens: Mapping[str, str | None]
    paths: list[str]
    etag: str


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def hot_app(services: DataServices, api_database: str) -> AsyncIterator[FastAPI]:
    app = new_app(services, api_database, cors_origins=[ORIGIN], allowed_hosts=["headroom", "other.example"])
    async with running(app):
        await has_lease(app)
        yield app


async def has_lease(app: FastAPI) -> None:
    memory = app.state.resources.cache.memory

    async def held() -> bool:
        return bool(memory.lease_until)

    await eventually(held)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(hot_app: FastAPI, people: People) -> AsyncIterator[World]:
    owner = await people.join()
    viewer = await people.join(Role.VIEWER, owner.organization_id)
    stranger = await people.join()
    ids = await people.own_items(owner, ITEMS, checkouts=1)
    tokens = {
        "owner": f"Bearer {owner.token}",
        "in lower case": f"bearer {owner.token}",
        "viewer": f"Bearer {viewer.token}",
        "stranger": f"Bearer {stranger.token}",
        "without scopes": f"Bearer {people.token_with(owner, [])}",
        "forged": f"Bearer {owner.token[:-4]}AAAA",
        "of another scheme": f"Basic {owner.token}",
        "none": None,
    }
    async with in_process(hot_app) as client:
        listed = await client.get(LIST, headers={"Authorization": f"Bearer {owner.token}"})
        paths = [
            EQUIPMENT,
            f"{EQUIPMENT}/{ids[0]}",
            f"{EQUIPMENT}/{owner.user_id}",
            "/api/v1/checkouts",
            "/api/v1/nothing",
        ]
        assert tuple(tokens) == CALLERS
        yield World(hot_app, client, tokens, paths, listed.headers["etag"])


@pytest_asyncio.fixture(loop_scope="session")
async def asker(hot_app: FastAPI, owner: Person) -> AsyncIterator[httpx.AsyncClient]:
    async with in_process(hot_app, owner) as client:
        yield client


def hot_answers() -> int:
    return int(hotpath.ANSWERS._value.get())


async def is_hot(app: FastAPI, client: httpx.AsyncClient, path: str, **options: Any) -> httpx.Response:
    """The answer, of which it is sure that the hot path gave it: on a busy machine a lease may have to come back."""
    for attempt in range(1_000):
        await asyncio.sleep(0 if attempt < 20 else 0.02)
        app.hot_path._answers.flush()
        before = hot_answers()
        answer = await client.get(path, **options)
        app.hot_path._answers.flush()
        if hot_answers() > before:
            return answer
    raise AssertionError("never hot")


# Byte for byte


def told(answer: httpx.Response) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    headers = [(name.lower(), OF_THE_MOMENT_IN.sub(b"-", value)) for name, value in answer.headers.raw]
    of_this_moment = [(name, b"" if name in OF_THE_MOMENT else value) for name, value in headers]
    body = re.sub(rb'"request_id":"[^"]*"', b"", answer.content)
    return answer.status_code, of_this_moment, body


class Asked(NamedTuple):
    method: str
    path: int
    caller: str
    params: dict[str, str]
    headers: list[tuple[str, str]]

    async def ordinarily(self, world: World) -> httpx.Response:
        parts, world.app.hot_path.parts = world.app.hot_path.parts, None
        try:
            return await self.once(world)
        finally:
            world.app.hot_path.parts = parts

    async def once(self, world: World) -> httpx.Response:
        token = world.tokens[self.caller]
        headers = [(name, world.etag if value == "ETAG" else value) for name, value in self.headers]
        if token is not None:
            headers.append(("authorization", token))
        return await world.client.request(self.method, world.paths[self.path], params=self.params, headers=headers)


SPECIAL = [
    ("if-none-match", "ETAG"),
    ("if-none-match", "W/ETAG"),
    ("if-none-match", "*"),
    ("if-none-match", '"another"'),
    ("origin", ORIGIN),
    ("origin", "https://foreign.example"),
    ("host", "other.example"),
    ("host", "forged.example"),
    ("x-request-id", "of-the-client"),
    ("x-request-id", "with a space"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("x-consistency-token", "garbage"),
    ("x-request-timeout-ms", "50000"),
    ("accept", "text/html"),
    ("range", "bytes=0-10"),
    ("cookie", "a=b"),
    ("sec-fetch-site", "cross-site"),
]


def generated(count: int, seed: int) -> list[Asked]:
    choose = random.Random(seed)
    return [
        Asked(
            choose.choice(["GET"] * 8 + ["HEAD", "DELETE"]),
            choose.choice([0, 0, 0, 1, 1, 2, 3, 4]),
            choose.choice([*["owner"] * 8, *CALLERS]),
            dict(
                choose.sample(
                    [("limit", "2"), ("limit", "0"), ("fields", "id,name"), ("x", "1")], choose.choice([0, 0, 1])
                )
            ),
            choose.sample(SPECIAL, choose.choice([0, 0, 1, 2])),
        )
        for _ in range(count)
    ]


async def differences(world: World, asked: list[Asked]) -> list[tuple[Asked, object, object]]:
    """Where an answer differs from what the ordinary way gives, each time that both are asked."""
    found = []
    for each in asked:
        for _ in range(3):  # an entry's time may be over in between
            different = await difference(world, each)
            if different is None:
                break
        else:
            found.append((each, *different))
    return found


async def difference(world: World, asked: Asked) -> tuple[object, object] | None:
    for _ in range(2):  # so that it is kept, and in memory
        await asked.ordinarily(world)
    ordinary = told(await asked.ordinarily(world))
    answers = [told(await asked.once(world)) for _ in range(2)]
    return next(((answer, ordinary) for answer in answers if answer != ordinary), None)


async def test_hot_and_ordinary_answers_are_equal(world: World) -> None:
    before = hot_answers()
    assert await differences(world, generated(250, seed=4)) == []
    world.app.hot_path._answers.flush()
    assert hot_answers() - before > 60


async def test_control_unless_what_is_unusual_goes_the_ordinary_way(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hotpath, "UNUSUAL", frozenset())
    assert await differences(world, generated(250, seed=5))


async def test_the_second_answer_of_a_fresh_question_equals_the_first(world: World) -> None:
    """The first is made by the endpoint, the last by the hot path."""
    asked = Asked("GET", 0, "owner", {"limit": "3"}, [])
    first = await asked.once(world)
    hot = await is_hot(
        world.app, world.client, LIST.replace("20", "3"), headers={"authorization": world.tokens["owner"]}
    )
    assert (first.headers["x-cache"], hot.headers["x-cache"]) == ("miss", "hit")
    assert hot.headers["x-served-by"] == "cache:memory"
    own = {"x-cache", "x-served-by", "age", "x-request-id", "ratelimit"}
    assert first.content == hot.content
    assert {k: v for k, v in first.headers.items() if k not in own} == {
        k: v for k, v in hot.headers.items() if k not in own
    }


# Over a socket: the server takes the answer in one piece


async def raw(url: str, *requests: bytes) -> bytes:
    """All that comes back on one connection, for requests that are sent at once."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"".join(requests))
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


def get(token: str, *lines: str) -> bytes:
    head = (f"GET {LIST} HTTP/1.1", "Host: headroom", f"Authorization: Bearer {token}", *lines)
    return "\r\n".join((*head, "", "")).encode()


VARYING_LINES = re.compile(rb"(?<=\r\n)(age|x-request-id|date|ratelimit): [^\r]*")


@pytest.mark.parametrize(
    "lines", [(), ("If-None-Match: *",), ("X-Request-Id: own",)], ids=["full", "not modified", "id"]
)
async def test_what_goes_over_the_wire_is_equal(
    services: DataServices, api_database: str, owner: Person, lines: tuple[str, ...]
) -> None:
    app = new_app(services, api_database)
    ordinary, last = get(owner.token, *lines), get(owner.token, *lines, "Connection: close")
    with serving(app) as url:
        for _ in range(20):  # to be in memory, and to have left a pass
            await raw(url, last)
        parts, app.hot_path.parts = app.hot_path.parts, None
        expected = await raw(url, ordinary, ordinary, last)
        app.hot_path.parts = parts
        app.hot_path._answers.flush()
        before = hot_answers()
        found = await raw(url, ordinary, ordinary, last)
        app.hot_path._answers.flush()
        assert hot_answers() - before == 3
    assert expected.count(b"HTTP/1.1 ") == 3
    assert expected.count(b"connection: close") == 1
    assert VARYING_LINES.sub(rb"\1", found) == VARYING_LINES.sub(rb"\1", expected)


# Nothing that it shouldn't


async def test_a_write_is_seen_at_once(hot_app: FastAPI, asker: httpx.AsyncClient) -> None:
    for count in range(4):
        assert len((await is_hot(hot_app, asker, LIST)).json()["items"]) == count
        await add_item(asker)
        assert len(body_of(await asker.get(LIST))["items"]) == count + 1


async def test_a_revoked_caller_is_out(hot_app: FastAPI, asker: httpx.AsyncClient) -> None:
    await is_hot(hot_app, asker, LIST)
    caller = asker.headers["authorization"].removeprefix("Bearer ")
    subject = hot_app.state.resources.token_verifier.verify(caller).user_id
    async with hot_app.state.resources.database.write() as session:
        await revocation_log.revoke(session, subject, least_epoch=1)
    problem_of(await asker.get(LIST), 401)


async def test_an_expired_token_is_out(
    hot_app: FastAPI, asker: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await is_hot(hot_app, asker, LIST)
    now = time.time()
    monkeypatch.setattr("app.platform.security.tokens.time", lambda: now + 901)
    problem_of(await asker.get(LIST), 401)


async def test_a_verifier_that_forgot_the_token_costs_the_hot_path_once(
    hot_app: FastAPI, asker: httpx.AsyncClient
) -> None:
    await is_hot(hot_app, asker, LIST)
    hot_app.state.resources.token_verifier._verified.clear()
    await asker.get(LIST)
    await is_hot(hot_app, asker, LIST)


async def test_nobody_knows_who_is_revoked(
    hot_app: FastAPI, asker: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await is_hot(hot_app, asker, LIST)
    revocations = hot_app.state.resources.revocations

    async def unknown() -> None:
        raise RevocationsUnknown

    monkeypatch.setattr(type(revocations), "is_fresh", False)
    monkeypatch.setattr(revocations, "ready", unknown)
    problem_of(await asker.get(LIST), 503)


async def test_the_limit_holds_and_its_problem_is_the_ordinary_one(
    services: DataServices, api_database: str, people: People
) -> None:
    async with running(new_app(services, api_database, rate_limit_scale=0.2)) as app:
        await has_lease(app)
        async with in_process(app, await people.join()) as client:  # 20/second, of 100
            started = time.monotonic()
            answers = [await client.get(LIST) for _ in range(60)]
            passed = sum(answer.status_code == 200 for answer in answers)
            assert 19 <= passed <= 20 + 20 * (time.monotonic() - started)
            refused = [answer for answer in answers if answer.status_code != 200]
            problem_of(refused[-1], 429, "quota-exceeded")
            assert {"ratelimit", "ratelimit-policy", "retry-after"} <= refused[-1].headers.keys()


async def test_while_draining_the_client_is_asked_to_connect_anew(
    hot_app: FastAPI, asker: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "connection" not in (await is_hot(hot_app, asker, LIST)).headers
    monkeypatch.setattr(hot_app.hot_path._drain, "is_draining", True)
    assert (await asker.get(LIST)).headers["connection"] == "close"
    monkeypatch.undo()
    assert "connection" not in (await is_hot(hot_app, asker, LIST)).headers


async def test_it_is_logged_and_counted_like_any_other(
    hot_app: FastAPI, asker: httpx.AsyncClient, owner: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    await is_hot(hot_app, asker, LIST)
    log = hot_app.hot_path._access_log
    log.flush()
    monkeypatch.setattr(log, "_stream", stream := io.BytesIO())
    counted = REQUESTS.labels("GET", "200", EQUIPMENT)._value
    hot_app.hot_path._metrics.flush()
    before = counted.get()
    answer = await is_hot(hot_app, asker, LIST)
    log.flush()
    hot_app.hot_path._metrics.flush()
    line = orjson.loads(stream.getvalue().splitlines()[-1])
    assert counted.get() - before >= 1
    assert line["request_id"] == answer.headers["x-request-id"]
    assert (line["route"], line["status"], line["cache"]) == (EQUIPMENT, 200, "hit")
    assert line["caller"] == str(owner.user_id)
