import asyncio

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from app.platform.telemetry import metrics
from app.platform.telemetry.exposition import expose_metrics
from app.platform.telemetry.metrics import DURATION_BUCKETS_SECONDS, FLUSH_SECONDS, RequestMetrics


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0


async def test_names_and_labels_of_the_instrumentator() -> None:
    request_metrics = RequestMetrics()
    request_metrics.observe("GET", 201, "/named", 0.02, 7, 11)
    request_metrics.flush()
    assert value("http_requests_total", method="GET", status="201", handler="/named") == 1
    assert value("http_request_duration_seconds_count", method="GET", handler="/named") == 1
    assert value("http_request_duration_seconds_bucket", method="GET", handler="/named", le="0.01") == 0
    assert value("http_request_duration_seconds_bucket", method="GET", handler="/named", le="0.025") == 1
    assert value("http_request_size_bytes_sum", handler="/named") == 7
    assert value("http_response_size_bytes_sum", handler="/named") == 11


def test_buckets_show_5_ms_to_10_s() -> None:
    assert DURATION_BUCKETS_SECONDS[0] == 0.005
    assert DURATION_BUCKETS_SECONDS[-1] == 10


async def test_a_client_can_not_make_labels() -> None:
    request_metrics = RequestMetrics()
    for number in range(100):
        request_metrics.observe(f"METHOD{number}", 405, "/invented", 0, 0, 0)
    request_metrics.flush()
    assert value("http_requests_total", method="OTHER", status="405", handler="/invented") == 100
    assert not request_metrics._series


async def test_series_have_a_limit_and_nothing_is_lost_beyond_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_SERIES", 3)
    request_metrics = RequestMetrics()
    for number in range(10):
        request_metrics.observe("GET", 200, f"/grows/{number}", 0, 0, 0)
    request_metrics.flush()
    assert len(request_metrics._series) == 3
    assert value("http_requests_total", method="GET", status="200", handler="overflow") == 7


async def test_the_endpoint_speaks_prometheus() -> None:
    request_metrics = RequestMetrics()
    request_metrics.observe("GET", 200, "/exposed", 0, 0, 0)
    await asyncio.sleep(2 * FLUSH_SECONDS)
    app = FastAPI()
    expose_metrics(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    names = {family.name for family in text_string_to_metric_families(response.text)}
    assert {"http_requests", "http_request_duration_seconds"} <= names
