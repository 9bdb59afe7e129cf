"""One request, followed by its trace id: nginx' log, the API's log, its spans, and the statement in Postgres' log."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.support.collector import Collector, collector
from tests.support.mixed_load import new_item, primary_dsn
from tests.support.native import NativeStack, native_stack, signed_in

WAIT_SECONDS = 20
LOCKED_SECONDS = 0.8  # Postgres logs what takes over 0.5 s
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"


@pytest.fixture(scope="module")
def collecting() -> Iterator[Collector]:
    with collector() as collecting:
        yield collecting


@pytest.fixture(scope="module")
def traced(collecting: Collector) -> Iterator[NativeStack]:
    settings = {"TRACES_ENDPOINT": collecting.url, "TRACES_SHARE": "1", "RATE_LIMIT_SCALE": "1000"}
    with native_stack(WEB_CONCURRENCY="1", POSTGRES_REPLICAS="1", **settings) as stack:
        yield stack


def log(stack: NativeStack, name: str) -> str:
    return Path(stack.settings["STATE_DIR"], "logs", f"{name}.log").read_text()


def lines(stack: NativeStack, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log(stack, name).splitlines() if line.startswith("{")]


async def until(found: Callable[[], object]) -> Any:
    async with asyncio.timeout(WAIT_SECONDS):
        while not (result := found()):  # noqa: ASYNC110 - files and threads tell nobody
            await asyncio.sleep(0.1)
    return result


async def changed_while_locked(stack: NativeStack, client: httpx.AsyncClient) -> str:
    """The request id of a PATCH that had to wait for somebody else's lock."""
    item = (await client.post("/equipment", json=new_item())).json()["id"]
    connection = await asyncpg.connect(primary_dsn(stack))
    async with connection.transaction():
        await connection.execute("SELECT FROM equipment WHERE id = $1 FOR UPDATE", item)
        change = client.patch(f"/equipment/{item}", json={"location": "Van 2"}, headers={"If-Match": "*"})
        waiting = asyncio.create_task(change)
        await asyncio.sleep(LOCKED_SECONDS)
    answer = await waiting
    await connection.close()
    assert answer.status_code == httpx.codes.OK, answer.text
    return answer.headers["x-request-id"]


async def test_a_request_is_followed_from_nginx_to_its_statement(traced: NativeStack, collecting: Collector) -> None:
    async with signed_in(traced) as client:
        request_id = await changed_while_locked(traced, client)
    [at_nginx] = await until(lambda: [each for each in lines(traced, "nginx") if each["request_id"] == request_id])
    trace_id = at_nginx["trace_id"]
    [at_api] = await until(
        lambda: [
            each
            for name in ("api-1", "api-2")
            for each in lines(traced, name)
            if each.get("trace_id") == trace_id and each["event"] == "request"
        ]
    )
    assert at_api["request_id"] == request_id
    assert at_api["query_ms"] >= LOCKED_SECONDS * 900
    parts = [at_api[f"{part}_ms"] for part in ("queue", "query", "redis", "own")]
    assert sum(parts) == pytest.approx(at_api["duration_ms"], abs=1)

    spans = await until(lambda: collecting.of(trace_id))
    [slow] = [span for span in spans if span.seconds >= LOCKED_SECONDS * 0.9 and "db.query.text" in span.attributes]
    comment = re.escape("/* /api/v1/equipment/{equipment_id} */")
    assert re.match(comment, slow.attributes["db.query.text"])

    logged = await until(lambda: [each for each in log(traced, "postgres-primary").splitlines() if trace_id in each])
    assert any("duration:" in line and re.search(comment, line) for line in logged), logged


async def test_a_clients_trace_goes_on(traced: NativeStack, collecting: Collector) -> None:
    async with signed_in(traced) as client:
        await client.get("/checkouts?limit=1", headers={"traceparent": TRACEPARENT})
    spans = await until(lambda: collecting.of(TRACEPARENT.split("-")[1]))
    assert any(span.parent_id == TRACEPARENT.split("-")[2] for span in spans)


@pytest.mark.parametrize("sent", ["nonsense", "00-" + "0" * 32 + "-00f067aa0ba902b7-01"])
async def test_nonsense_begins_a_new_one(traced: NativeStack, sent: str) -> None:
    async with signed_in(traced) as client:
        answer = await client.get("/checkouts?limit=1", headers={"traceparent": sent})
    request_id = answer.headers["x-request-id"]
    [line] = await until(lambda: [each for each in lines(traced, "nginx") if each["request_id"] == request_id])
    assert line["trace_id"] == request_id
