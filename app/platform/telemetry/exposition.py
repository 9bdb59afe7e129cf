"""`/metrics`, where Prometheus reads what this instance has counted, in the format that is asked for.

The plain format is prometheus-fastapi-instrumentator's own. OpenMetrics has the same numbers, and exemplars
(https://prometheus.io/docs/specs/om/open_metrics_spec/#exemplars).
"""

from collections.abc import Iterator, Mapping

import anyio.to_thread
from fastapi import FastAPI
from prometheus_client import REGISTRY, Metric, generate_latest
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar, Sample
from prometheus_fastapi_instrumentator import Instrumentator
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from app.platform.telemetry import multiprocess
from app.platform.telemetry.exemplars import Bucket, exemplars_of
from app.platform.telemetry.metrics import DURATION_NAME

OPEN_METRICS = "application/openmetrics-text"


def expose_metrics(app: FastAPI) -> None:
    """`GET /metrics`: every worker of this instance. For operators: keep it off the public port."""
    app.router.routes.append(OpenMetricsRoute("/metrics", _open_metrics, include_in_schema=False))
    Instrumentator().expose(app, include_in_schema=False)


def plain_text() -> bytes:
    """All metrics of this instance, in the plain format. Blocking: reads all workers' files."""
    folder = multiprocess.configured_folder()
    return generate_latest(REGISTRY if folder is None else multiprocess.all_workers(folder))


class WithExemplars(Collector):
    """What another collects, with the exemplars of the requests' durations."""

    def __init__(self, collector: Collector, exemplars: Mapping[Bucket, Exemplar]) -> None:
        self._collector = collector
        self._exemplars = exemplars

    def collect(self) -> Iterator[Metric]:
        for metric in self._collector.collect():
            if metric.name == DURATION_NAME and self._exemplars:
                metric.samples = [self._told(sample) for sample in metric.samples]
            yield metric

    def _told(self, sample: Sample) -> Sample:
        labels = sample.labels
        if "le" not in labels:  # not a bucket, but a sum or a count
            return sample
        return sample._replace(exemplar=self._exemplars.get((labels["method"], labels["handler"], labels["le"])))


class OpenMetricsRoute(Route):
    """For those who ask for OpenMetrics; others come to the next route of the path."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http" or OPEN_METRICS not in Headers(scope=scope).get("accept", ""):
            return Match.NONE, {}
        return super().matches(scope)


async def _open_metrics(request: Request) -> Response:
    body, media_type = await anyio.to_thread.run_sync(_in_open_metrics, request.headers["accept"])
    return Response(body, headers={"content-type": media_type})


def _in_open_metrics(accept: str) -> tuple[bytes, str]:
    encode, media_type = choose_encoder(accept)
    folder = multiprocess.configured_folder()
    if folder is None:
        return encode(REGISTRY), media_type
    return encode(WithExemplars(multiprocess.all_workers(folder), exemplars_of(folder))), media_type
