"""What each worker takes of the machine, and what its container may take.

Prometheus' client has metrics of that kind, `process_…`, but only without worker processes. `pid` is the worker's slot
among those of its instance, and so stays bounded however often workers are recycled.
"""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import anyio.to_thread
import psutil
from prometheus_client import Counter, Gauge

INTERVAL_SECONDS = 2.0
CGROUP = Path("/sys/fs/cgroup")  # version 2; where there is none, the container's metrics are missing

MEMORY = Gauge("worker_resident_memory_bytes", "Memory that the worker holds", multiprocess_mode="liveall")
DESCRIPTORS = Gauge("worker_open_descriptors", "Files and sockets it has open", multiprocess_mode="liveall")
THREADS = Gauge("worker_threads", "Threads of the worker", multiprocess_mode="liveall")
PROCESSOR = Counter("worker_processor_seconds_total", "Time of a processor that the workers have used", ("mode",))
CONTAINER_MEMORY = Gauge("container_memory_bytes", "Memory of the instance's container", multiprocess_mode="livemax")
CONTAINER_LIMIT = Gauge(
    "container_memory_limit_bytes",
    "What it may have; the machine's, without a limit",
    multiprocess_mode="livemax",
)
CONTAINER_THROTTLED = Gauge(
    "container_throttled_seconds", "How long its processor limit has held it back, in all", multiprocess_mode="livemax"
)


class ProcessMetrics:
    """Reads /proc and the control group. Blocking, for some 0.2 ms."""

    def __init__(self, cgroup: Path = CGROUP) -> None:
        self._process = psutil.Process()
        self._cgroup = cgroup
        self._counted = {"user": 0.0, "system": 0.0}

    def update(self) -> None:
        with self._process.oneshot():
            MEMORY.set(self._process.memory_info().rss)
            DESCRIPTORS.set(self._process.num_fds())
            THREADS.set(self._process.num_threads())
            self._count_processor(self._process.cpu_times())
        self._update_container()

    def _count_processor(self, times: psutil._ntuples.pcputimes) -> None:
        for mode, seconds in (("user", times.user), ("system", times.system)):
            PROCESSOR.labels(mode).inc(max(0.0, seconds - self._counted[mode]))
            self._counted[mode] = seconds

    def _update_container(self) -> None:
        with suppress(OSError, ValueError):
            CONTAINER_MEMORY.set(int(self._read("memory.current")))
            limit = self._read("memory.max")
            CONTAINER_LIMIT.set(psutil.virtual_memory().total if limit == "max" else int(limit))
        with suppress(OSError, ValueError):
            CONTAINER_THROTTLED.set(dict(self._statistics("cpu.stat")).get("throttled_usec", 0) / 1_000_000)

    def _read(self, name: str) -> str:
        return (self._cgroup / name).read_text().strip()

    def _statistics(self, name: str) -> Iterator[tuple[str, int]]:
        for line in self._read(name).splitlines():
            key, value = line.split()
            yield key, int(value)


async def watch_process() -> None:
    """Runs until it is cancelled."""
    metrics = ProcessMetrics()
    while True:
        await anyio.to_thread.run_sync(metrics.update)
        await asyncio.sleep(INTERVAL_SECONDS)
