"""Prometheus over several worker processes: each counts in files of its own, and any of them can add up all.

The client library names the files by process id, and so leaves files behind with every recycled worker. Here they are
named by slot: a worker takes the lowest slot that no living process holds, goes on where its last holder stopped, and
so the files are as few as workers ever lived at once, and no count is lost or made twice. The kernel gives a slot back
however its holder ends, kill -9 included.

PROMETHEUS_MULTIPROC_DIR says where: one folder per instance, emptied when other code starts there. Unset: one process.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from prometheus_client import CollectorRegistry, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead


class WorkerSlot:
    """The number of this process among the living ones that count in `folder`, from 0."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._slot = self._lock = -1
        # Asked at every count: to compare process ids took 3% of an uncached request.
        os.register_at_fork(after_in_child=self._leave)

    def __call__(self) -> int:
        """The first call takes a slot, and so does the first in a forked child."""
        if self._slot < 0:
            self._lock, self._slot = self._take_lowest()
        return self._slot

    def _leave(self) -> None:
        self._slot = -1

    def _take_lowest(self) -> tuple[int, int]:
        self._folder.mkdir(parents=True, exist_ok=True)
        for slot in count():
            if (lock := _try_lock(_lock_file(self._folder, slot))) is not None:
                _forget(self._folder, slot)
                return lock, slot
        raise AssertionError("unreachable")


def _lock_file(folder: Path, slot: int) -> Path:
    return folder / f"slot-{slot}.lock"


def _try_lock(path: Path) -> int | None:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def configured_folder() -> Path | None:
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(folder) if folder else None


_slot_of_this_process: WorkerSlot | None = None


def count_by_slot() -> None:
    """Has to run before the first metric is made; does nothing in a single process."""
    global _slot_of_this_process
    if (folder := configured_folder()) is not None:
        _slot_of_this_process = WorkerSlot(folder)
        values.ValueClass = values.MultiProcessValue(process_identifier=_slot_of_this_process)  # type: ignore[no-untyped-call]


def exemplars_file() -> Path | None:
    """Of this worker alone, and gone with it; None in a single process."""
    folder, slot = configured_folder(), _slot_of_this_process
    return None if folder is None or slot is None else _exemplars_file(folder, slot())


def exemplars_files(folder: Path) -> Iterator[Path]:
    return folder.glob("exemplars_*.json")


def _exemplars_file(folder: Path, slot: int) -> Path:
    return folder / f"exemplars_{slot}.json"


def forget_dead_workers() -> None:
    """Drops the gauges of workers that have ended; counters and histograms stay, since what happened has happened.

    For a worker to call as it starts: it comes in place of one that has ended, as a rule.
    """
    if (folder := configured_folder()) is not None:
        _forget_dead_workers(folder)


def _forget_dead_workers(folder: Path) -> None:
    for path in folder.glob("slot-*.lock"):
        with _dead(path) as slot:
            if slot is not None:
                _forget(folder, slot)


def _forget(folder: Path, slot: int) -> None:
    """What told of a living process; its counts stay."""
    mark_process_dead(slot, str(folder))  # type: ignore[no-untyped-call]
    _exemplars_file(folder, slot).unlink(missing_ok=True)


@contextmanager
def _dead(path: Path) -> Iterator[int | None]:
    """The slot, held so that nobody takes it meanwhile, or None while a process lives in it."""
    lock = _try_lock(path)
    if lock is None:
        yield None
        return
    try:
        yield int(path.stem.removeprefix("slot-"))
    finally:
        os.close(lock)


def all_workers(folder: Path) -> CollectorRegistry:
    """What all workers of the instance have counted together."""
    _forget_dead_workers(folder)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]
    return registry
