"""Exemplars: which trace a bucket names, in which format, and that they go with their worker."""

import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain

from app.platform.telemetry import exemplars
from app.platform.telemetry.exemplars import Exemplars, exemplars_of
from app.platform.telemetry.multiprocess import all_workers
from app.platform.telemetry.traces import Finished, Trace, Tracer

BUCKET = "http_request_duration_seconds_bucket"
# A worker that has answered two requests, of which one was traced, and is asked for its metrics in both formats.
WORKER = """
import asyncio, sys
from pathlib import Path
import app.platform.telemetry
import httpx
from fastapi import FastAPI
from app.platform.telemetry.exemplars import Exemplars
from app.platform.telemetry.exposition import expose_metrics
from app.platform.telemetry.metrics import RequestMetrics
from app.platform.telemetry.multiprocess import exemplars_file
from app.platform.telemetry.traces import Finished, Trace

async def main():
    metrics, exemplars, app = RequestMetrics(), Exemplars(exemplars_file()), FastAPI()
    for seconds in (0.02, 0.2):
        metrics.observe("GET", 200, "/", seconds, 0, 0)
    metrics.flush()
    exemplars.note(Finished(Trace("ab" * 16, 0, True), "GET", "/", 200, 5.0, 5.2, {}))
    exemplars.write()
    expose_metrics(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for name, accept in (("open", "application/openmetrics-text;version=1.0.0,*/*;q=0.1"), ("plain", "*/*")):
            answer = await client.get("/metrics", headers={"Accept": accept})
            Path(sys.argv[1], name).write_text(answer.headers["content-type"] + "\\n" + answer.text)

asyncio.run(main())
"""


def finished(seconds: float, trace_id: str = "a" * 32, route: str = "/") -> Finished:
    return Finished(Trace(trace_id, 0, True), "GET", route, 200, 0.0, seconds, {})


async def test_each_bucket_names_the_last_trace_of_all_workers(tmp_path: Path) -> None:
    first, second = (Exemplars(tmp_path / f"exemplars_{slot}.json") for slot in range(2))
    first.note(finished(0.3, "1" * 32))
    second.note(finished(0.4, "2" * 32))
    first.note(finished(0.5, "3" * 32))
    second.note(finished(60, "4" * 32))
    for worker in (second, first):
        worker.write()
    found = exemplars_of(tmp_path)
    assert {bucket: (told.labels["trace_id"], told.value) for bucket, told in found.items()} == {
        ("GET", "/", "0.5"): ("3" * 32, 0.5),
        ("GET", "/", "+Inf"): ("4" * 32, 60),
    }


async def test_there_are_only_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exemplars, "MAX_EXEMPLARS", 3)
    ticks = count()
    monkeypatch.setattr(exemplars, "time", lambda: float(next(ticks)))
    worker = Exemplars(tmp_path / "exemplars_0.json")
    for route in ("/1", "/2", "/3", "/1", "/4"):
        worker.note(finished(0.1, route=route))
    worker.write()
    assert {handler for _, handler, _ in exemplars_of(tmp_path)} == {"/3", "/1", "/4"}


async def test_methods_are_those_of_the_metrics(tmp_path: Path) -> None:
    worker = Exemplars(tmp_path / "exemplars_0.json")
    worker.note(Finished(Trace("a" * 32, 0, True), "INVENTED", "/", 405, 0.0, 0.1, {}))
    worker.write()
    assert {method for method, _, _ in exemplars_of(tmp_path)} == {"OTHER"}


@pytest.mark.parametrize(("share", "named"), [(1.0, 1), (0.0, 0)])
async def test_only_what_is_told_is_named(tmp_path: Path, share: float, named: int) -> None:
    worker, tracer = Exemplars(tmp_path / "exemplars_0.json"), Tracer(share=share, slow_seconds=1)
    tracer.export = worker.note
    tracer.hit(None, "/", 200, 0.001)
    worker.write()
    assert len(exemplars_of(tmp_path)) == named


def test_open_metrics_has_them_the_plain_format_has_the_same_numbers_and_both_outlive_no_worker(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    subprocess.run([sys.executable, "-c", WORKER, str(tmp_path)], env=environment, check=True)
    media_type, _, text = (tmp_path / "open").read_text().partition("\n")
    assert media_type.startswith("application/openmetrics-text; version=1.0.0")
    samples = [sample for family in open_metrics(text) for sample in family.samples]
    told = [sample for sample in samples if sample.exemplar]
    assert [(sample.name, sample.labels["le"]) for sample in told] == [(BUCKET, "0.25")]
    assert told[0].exemplar is not None
    assert told[0].exemplar.labels == {"trace_id": "ab" * 16}
    assert told[0].exemplar.value == pytest.approx(0.2)

    media_type, _, text = (tmp_path / "plain").read_text().partition("\n")
    assert media_type.startswith("text/plain")
    assert "# {" not in text
    numbers = {(sample.name, *sample.labels.items()): sample.value for sample in samples}
    assert numbers == {
        (sample.name, *sample.labels.items()): sample.value for family in plain(text) for sample in family.samples
    }
    assert exemplars_of(folder)
    all_workers(folder)
    assert not exemplars_of(folder)
