"""What the service counts about its requests, and `/metrics`, where Prometheus reads it.

The names and labels are those of prometheus-fastapi-instrumentator, so that boards made for it work, and `/metrics` is
its own. Its middleware is not used, since that matches every route a second time (60 to 140 µs). Two differences:
`status` is the exact code (`200`, not `2xx`: its `should_group_status_codes=False`), and
`http_request_duration_seconds` has buckets fine enough to do without `http_request_duration_highr_seconds`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fastapi import FastAPI
from prometheus_client import REGISTRY, Counter, Histogram, Summary, generate_latest
from prometheus_fastapi_instrumentator import Instrumentator

from app.platform.telemetry import multiprocess

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
OTHER_METHOD = "OTHER"
OVERFLOW = "overflow"
MAX_SERIES = 5_000  # label combinations per process; past that, requests are counted under handler="overflow"

DURATION_BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

REQUESTS = Counter("http_requests_total", "Requests by method, status and handler.", ("method", "status", "handler"))
DURATION = Histogram(
    "http_request_duration_seconds",
    "Time from the request's arrival to the end of its response, by method and handler.",
    ("method", "handler"),
    buckets=DURATION_BUCKETS_SECONDS,
)
REQUEST_SIZE = Summary("http_request_size_bytes", "Content-Length of requests by handler.", ("handler",))
RESPONSE_SIZE = Summary("http_response_size_bytes", "Content bytes of responses by handler.", ("handler",))


class _Series(NamedTuple):
    """The metrics of one label combination, looked up once."""

    requests: Callable[[], None]
    duration: Callable[[float], None]
    request_size: Callable[[float], None]
    response_size: Callable[[float], None]


class RequestMetrics:
    """Counts requests, for a dict lookup and the counting itself; never makes more than MAX_SERIES series."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, int, str], _Series] = {}

    def observe(
        self, method: str, status: int, handler: str, seconds: float, request_bytes: int, response_bytes: int
    ) -> None:
        """`handler` is the route's template, never the path."""
        series = self._series.get((method, status, handler)) or self._new_series(method, status, handler)
        series.requests()
        series.duration(seconds)
        series.request_size(request_bytes)
        series.response_size(response_bytes)

    def _new_series(self, method: str, status: int, handler: str) -> _Series:
        label = method if method in METHODS else OTHER_METHOD
        full = len(self._series) >= MAX_SERIES
        handler_label = OVERFLOW if full else handler
        series = _Series(
            REQUESTS.labels(label, str(status), handler_label).inc,
            DURATION.labels(label, handler_label).observe,
            REQUEST_SIZE.labels(handler_label).observe,
            RESPONSE_SIZE.labels(handler_label).observe,
        )
        if label == method and not full:
            self._series[method, status, handler] = series
        return series


def exposition() -> bytes:
    """All metrics of this instance, in Prometheus' text format. Blocking: reads all workers' files."""
    folder = multiprocess.configured_folder()
    return generate_latest(REGISTRY if folder is None else multiprocess.all_workers(folder))


def expose_metrics(app: FastAPI) -> None:
    """`GET /metrics`: every worker of this instance. For operators: keep it off the public port."""
    Instrumentator().expose(app, include_in_schema=False)
