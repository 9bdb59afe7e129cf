"""A request's spans, at a collector: from the way in to each statement and command."""

from collections.abc import Iterator
from secrets import token_hex

import httpx
import pytest

from tests.support.api import API, People, Person, in_process, new_app, running
from tests.support.collector import Collector, collector
from tests.support.stack import DataServices

pytestmark = pytest.mark.asyncio(loop_scope="session")
ITEM = {"asset_tag": "TRACED", "name": "A secret name", "category": "camera"}
SERVER, CLIENT = 2, 3


@pytest.fixture(scope="module")
def collecting() -> Iterator[Collector]:
    with collector() as collecting:
        yield collecting


async def call(services: DataServices, database: str, person: Person, url: str, share: float, **changes: object) -> str:
    """The id of the trace of a POST and a GET; when it returns, all spans are told."""
    trace_id = token_hex(16)
    app = new_app(services, database, traces_endpoint=url, traces_share=share, **changes)
    async with running(app), in_process(app, person) as client:
        headers = {"traceparent": f"00-{trace_id}-{token_hex(8)}-00"}
        assert (await client.post(f"{API}/equipment", json=ITEM, headers=headers)).status_code == httpx.codes.CREATED
    return trace_id


async def test_one_request_is_followed(
    services: DataServices, api_database: str, people: People, collecting: Collector
) -> None:
    trace_id = await call(services, api_database, await people.join(), collecting.url, 1.0)
    spans = collecting.of(trace_id)
    [server] = [span for span in spans if span.kind == SERVER]
    assert server.name == f"POST {API}/equipment"
    assert server.attributes["http.response.status_code"] == httpx.codes.CREATED
    assert server.parent_id
    assert server.resource["service.name"] == "headroom"
    calls = [span for span in spans if span.kind == CLIENT]
    assert all(span.parent_id == server.span_id and span.seconds <= server.seconds for span in calls)
    [insert] = [span for span in calls if span.name == "equipment.add"]
    assert insert.attributes["db.query.text"].startswith(f"/* {API}/equipment */ INSERT INTO equipment")
    assert any(span.attributes["db.system.name"] == "redis" for span in calls)
    assert "A secret name" not in str(spans)


async def test_without_a_share_nothing_is_told(
    services: DataServices, api_database: str, people: People, collecting: Collector
) -> None:
    trace_id = await call(services, api_database, await people.join(), collecting.url, 0.0)
    assert collecting.of(trace_id) == []


async def test_the_slow_ones_are(
    services: DataServices, api_database: str, people: People, collecting: Collector
) -> None:
    trace_id = await call(services, api_database, await people.join(), collecting.url, 0.0, traces_slow_ms=1)
    assert collecting.of(trace_id)


async def test_answers_from_memory_are_told_too(
    services: DataServices, api_database: str, people: People, collecting: Collector
) -> None:
    app = new_app(services, api_database, traces_endpoint=collecting.url, traces_share=1.0)
    traces = [token_hex(16) for _ in range(4)]
    async with running(app), in_process(app, await people.join()) as client:
        for trace_id in traces:
            answer = await client.get(f"{API}/equipment", headers={"traceparent": f"00-{trace_id}-{token_hex(8)}-00"})
            assert answer.status_code == httpx.codes.OK
    served = [collecting.of(trace_id)[0].attributes.get("headroom.cache") for trace_id in traces]
    assert served[0] == "miss"
    assert served[-1] == "hit"


async def test_a_collector_that_is_away_disturbs_nobody(
    services: DataServices, api_database: str, people: People
) -> None:
    await call(services, api_database, await people.join(), "http://127.0.0.1:9", 1.0)
