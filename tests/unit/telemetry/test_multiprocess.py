"""Real processes that count in one folder, as the workers of an instance do."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.platform.telemetry.multiprocess import all_workers

WORKER = """
import app.platform.telemetry, os, sys, time
from prometheus_client import Counter, Gauge, Histogram
served = Counter("served", "Of the test", ["route"]).labels("/")
seconds = Histogram("seconds", "Of the test", buckets=(0.1, 1))
live = Gauge("busy", "Of the test", multiprocess_mode="livesum")
live.set(1)
for _ in range(int(sys.argv[1])):
    served.inc()
    seconds.observe(0.5)
print("counted", flush=True)
sys.stdin.read()
"""

FORKING = """
import os, sys
import app.platform.telemetry
from prometheus_client import Counter
served = Counter("served", "Of the test", ["route"]).labels("/")
served.inc()
children = []
for _ in range(2):
    if not (child := os.fork()):
        for _ in range(100):
            served.inc()
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
served.inc()
"""

Start = Callable[[int], subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a worker and returns once it has counted; it lives on until its stdin is closed."""
    started: list[subprocess.Popen[str]] = []

    def start_one(times: int) -> subprocess.Popen[str]:
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(times)],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(worker)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "counted\n"
        return worker

    yield start_one
    for worker in started:
        worker.kill()
        worker.communicate()


def read(folder: Path, name: str, **labels: str) -> float | None:
    return all_workers(folder).get_sample_value(name, labels)


def test_workers_add_up(start: Start, tmp_path: Path) -> None:
    start(3)
    start(4)
    assert read(tmp_path, "served_total", route="/") == 7
    assert read(tmp_path, "seconds_count") == 7
    assert read(tmp_path, "seconds_bucket", le="1.0") == 7
    assert read(tmp_path, "busy") == 2


def test_no_count_is_lost_and_files_stay_few_while_workers_come_and_go(start: Start, tmp_path: Path) -> None:
    start(1)
    for _ in range(4):
        worker = start(10)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    assert read(tmp_path, "served_total", route="/") == 41
    assert sorted(path.name for path in tmp_path.glob("counter_*.db")) == ["counter_0.db", "counter_1.db"]


def test_a_gauge_of_a_dead_worker_is_gone(start: Start, tmp_path: Path) -> None:
    start(1)
    start(1).communicate()
    assert read(tmp_path, "busy") == 1
    start(1)
    assert read(tmp_path, "busy") == 2


def test_a_new_worker_does_not_share_a_slot_with_one_that_is_still_leaving(start: Start, tmp_path: Path) -> None:
    leaving = start(5)
    start(5)
    leaving.communicate()
    start(5)
    assert read(tmp_path, "served_total", route="/") == 15
    assert len(list(tmp_path.glob("slot-*.lock"))) == 2


def test_every_room_counts_by_slot(tmp_path: Path) -> None:
    """Also a room that does not import telemetry, and makes its metrics when it is imported."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", "import app.platform.resilience.drain"], env=environment, check=True)
    assert [path.name for path in tmp_path.glob("*.db")] == ["gauge_livesum_0.db"]


def test_forked_children_count_for_themselves(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", FORKING], env=environment, check=True)
    assert read(tmp_path, "served_total", route="/") == 202
