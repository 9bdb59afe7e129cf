"""Exemplars: of each bucket of the requests' durations one trace that fell into it, so that a slow quantile has a name.

Prometheus' client has none with several worker processes. Here each worker keeps the last trace of each bucket and
writes them to a file beside its counts, where whichever worker is asked for the metrics finds those of all.

Only requests whose spans are told come here: without traces nothing of it runs, and each exemplar leads to a trace.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from time import time

import orjson
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from app.platform.telemetry.metrics import DURATION_BUCKETS_SECONDS, method_label
from app.platform.telemetry.multiprocess import exemplars_files
from app.platform.telemetry.traces import Finished

WRITE_SECONDS = 1.0  # between two writings at least; Prometheus asks every 15 s
MAX_EXEMPLARS = 1_000  # of a worker, some 100 bytes each; the oldest goes

UPPER_BOUNDS = (*map(floatToGoString, DURATION_BUCKETS_SECONDS), "+Inf")

Bucket = tuple[str, str, str]  # method, handler, upper bound: the labels of its sample


class Exemplars:
    """Of this worker, at most WRITE_SECONDS late in its file. Without a file, in a single process, nobody is told."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._latest: dict[Bucket, tuple[str, float, float]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def note(self, finished: Finished) -> None:
        seconds = finished.ended - finished.started
        upper_bound = UPPER_BOUNDS[bisect_left(DURATION_BUCKETS_SECONDS, seconds)]
        bucket = (method_label(finished.method), finished.route, upper_bound)
        self._latest.pop(bucket, None)  # so that the order is that of their age
        self._latest[bucket] = (finished.trace.trace_id, seconds, time())
        if len(self._latest) > MAX_EXEMPLARS:
            del self._latest[next(iter(self._latest))]
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WRITE_SECONDS, self.write)

    def write(self) -> None:
        """Blocking: 0.1 ms for a hundred of them."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._path is not None and self._latest:
            written = self._path.with_suffix(".new")
            written.write_bytes(orjson.dumps([[*bucket, *kept] for bucket, kept in self._latest.items()]))
            written.replace(self._path)


def exemplars_of(folder: Path) -> dict[Bucket, Exemplar]:
    """The latest of each bucket, whichever worker had it."""
    by_age = sorted(_written(folder), key=itemgetter(-1))
    return {
        (method, handler, upper_bound): Exemplar({"trace_id": trace_id}, seconds, at)
        for method, handler, upper_bound, trace_id, seconds, at in by_age
    }


def _written(folder: Path) -> Iterator[tuple[str, str, str, str, float, float]]:
    for path in exemplars_files(folder):
        with suppress(FileNotFoundError):  # its worker has ended meanwhile
            yield from orjson.loads(path.read_bytes())
