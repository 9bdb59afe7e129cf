import asyncio
import time
from pathlib import Path

import psutil
import pytest
from prometheus_client import REGISTRY

from app.platform.telemetry.event_loop import INTERVAL_SECONDS, watch_event_loop
from app.platform.telemetry.process import ProcessMetrics
from app.platform.telemetry.watching import watching


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def late(blocking_seconds: float) -> float:
    """How many of the observations meanwhile are over 100 ms late."""

    def over() -> float:
        return value("event_loop_lag_seconds_count") - value("event_loop_lag_seconds_bucket", le="0.1")

    before = over()
    watch = asyncio.create_task(watch_event_loop())
    await asyncio.sleep(INTERVAL_SECONDS / 2)
    time.sleep(blocking_seconds)  # noqa: ASYNC251 - that is the fault
    await asyncio.sleep(2 * INTERVAL_SECONDS)
    watch.cancel()
    return over() - before


async def test_a_blocked_event_loop_is_seen() -> None:
    assert await late(blocking_seconds=0.4) >= 1


def test_it_tells_what_the_process_takes() -> None:
    metrics = ProcessMetrics()
    metrics.update()
    resident = psutil.Process().memory_info().rss
    assert value("worker_resident_memory_bytes") == pytest.approx(resident, rel=0.2)
    assert value("worker_open_descriptors") > 0
    before = value("worker_processor_seconds_total", mode="user")
    assert sum(n * n for n in range(500_000))  # takes the processor for a while
    metrics.update()
    assert value("worker_processor_seconds_total", mode="user") >= before


def test_it_tells_what_the_container_may_take(tmp_path: Path) -> None:
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("4000\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 5\nthrottled_usec 2500000\n")
    ProcessMetrics(tmp_path).update()
    assert value("container_memory_bytes") == 1000
    assert value("container_memory_limit_bytes") == 4000
    assert value("container_throttled_seconds") == 2.5


def test_without_a_limit_it_is_the_machines(tmp_path: Path) -> None:
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    ProcessMetrics(tmp_path).update()
    assert value("container_memory_limit_bytes") == psutil.virtual_memory().total


async def test_watching_ends_with_the_process() -> None:
    before = len(asyncio.all_tasks())
    async with watching(enabled=True):
        assert len(asyncio.all_tasks()) == before + 2
    assert len(asyncio.all_tasks()) == before
    async with watching(enabled=False):
        assert len(asyncio.all_tasks()) == before
