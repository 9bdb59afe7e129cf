import asyncio
from collections.abc import Callable

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from app.platform.telemetry import fleet
from app.platform.telemetry.fleet import FleetMetrics

TEXT = """\
# HELP http_requests_total Requests by method, status and handler.
# TYPE http_requests_total counter
http_requests_total{{handler="/a \\"quoted\\" \\\\ one",method="GET",status="200"}} {count}
# HELP seconds Of the test
# TYPE seconds histogram
seconds_bucket{{le="0.1"}} 1.0
seconds_bucket{{le="+Inf"}} {count}
seconds_count {count}
seconds_sum 0.5
"""
PEERS = ("http://10.0.0.1:8000", "http://user:password@10.0.0.2:8000/")


async def scrape(answer: Callable[[httpx.Request], httpx.Response], **options: float) -> dict[str, Metric]:
    metrics = FleetMetrics(PEERS, transport=httpx.MockTransport(answer), **options)
    text = (await metrics.exposition()).decode()
    assert "password" not in text
    return {family.name: family for family in text_string_to_metric_families(text)}


def by_instance(family: Metric, name: str) -> dict[str, float]:
    return {sample.labels["instance"]: sample.value for sample in family.samples if sample.name == name}


def count_of(request: httpx.Request) -> float:
    return {"10.0.0.1": 3.0, "10.0.0.2": 4.0}[request.url.host]


def healthy(request: httpx.Request) -> httpx.Response:
    assert request.url.path == "/metrics"
    return httpx.Response(200, text=TEXT.format(count=count_of(request)))


def second_answers(response: httpx.Response) -> Callable[[httpx.Request], httpx.Response]:
    return lambda request: healthy(request) if request.url.host == "10.0.0.1" else response


async def test_each_instance_keeps_its_numbers_in_families_that_are_one() -> None:
    families = await scrape(healthy)
    expected = {"10.0.0.1:8000": 3.0, "10.0.0.2:8000": 4.0}
    assert by_instance(families["http_requests"], "http_requests_total") == expected
    assert by_instance(families["seconds"], "seconds_count") == expected
    assert by_instance(families["up"], "up") == {"10.0.0.1:8000": 1.0, "10.0.0.2:8000": 1.0}
    assert families["seconds"].type == "histogram"
    assert families["http_requests"].samples[0].labels["handler"] == '/a "quoted" \\ one'


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(503, text="draining"),
        httpx.Response(302, headers={"Location": "http://elsewhere/"}),
        httpx.Response(200, text="<html>not metrics {"),
        httpx.Response(200, content=b"\xff\xfe"),
    ],
    ids=["error", "redirect", "not metrics", "not text"],
)
async def test_a_peer_that_tells_nothing_is_down_and_the_others_are_shown(response: httpx.Response) -> None:
    families = await scrape(second_answers(response))
    assert by_instance(families["up"], "up") == {"10.0.0.1:8000": 1.0, "10.0.0.2:8000": 0.0}
    assert by_instance(families["http_requests"], "http_requests_total") == {"10.0.0.1:8000": 3.0}


async def test_a_peer_that_refuses() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    assert by_instance((await scrape(refuse))["up"], "up") == {"10.0.0.1:8000": 0.0, "10.0.0.2:8000": 0.0}


async def test_a_peer_that_hangs_is_waited_for_no_longer_than_said() -> None:
    class Hanging(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await asyncio.sleep(60)
            raise AssertionError

    async with asyncio.timeout(2):
        text = await FleetMetrics(PEERS, timeout_seconds=0.05, transport=Hanging()).exposition()
    assert b'up{instance="10.0.0.1:8000"} 0.0' in text


async def test_an_instance_without_peers_is_the_fleet() -> None:
    assert b"# TYPE http_requests_total counter" in await FleetMetrics(()).exposition()


async def test_a_peer_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "MAX_PEER_BYTES", 1_000)
    families = await scrape(second_answers(httpx.Response(200, text="a 1\n" * 1_000)))
    assert by_instance(families["up"], "up")["10.0.0.2:8000"] == 0
