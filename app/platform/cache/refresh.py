"""Answers are made anew before their time is over: in the background, by one of all processes.

When that begins is drawn at random, so that it is likely to be one who begins, and the sooner the longer the answer
takes to make (Vattani, Chierichetti and Lowenstein, "Optimal probabilistic cache stampede prevention", VLDB 2015).
Nobody waits for it: the old answer is given meanwhile, and on if it fails, until its time is over.
"""

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from prometheus_client import Counter

from app.platform.resilience.deadlines import deadline
from app.platform.telemetry.context import current, request_context

MAX_REFRESHES = 100
REFRESH_SECONDS = 10.0

REFRESHES = Counter("cache_refreshes_total", "Answers that were to be made anew in the background", ["result"])

logger = logging.getLogger(__name__)


def head_start(seconds_to_make: float) -> float:
    """Seconds before its end at which an answer is made anew: another number each time."""
    return seconds_to_make * -math.log(1.0 - random.random())


class Refreshes:
    """Of one process, one for each key, at most MAX_REFRESHES at once: beyond, they are left to later hits."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, key: str, refresh: Callable[[], Awaitable[str]]) -> None:
        """`refresh` says what became of it."""
        if key in self._tasks:
            return
        if len(self._tasks) >= MAX_REFRESHES:
            REFRESHES.labels("too_many").inc()
            return
        self._tasks[key] = asyncio.create_task(self._run(key, refresh))

    async def _run(self, key: str, refresh: Callable[[], Awaitable[str]]) -> None:
        # Begun by a request, whose line in the log, time and connection are none of its business.
        request_context.set(replace(current(), extra_headers=[], wal_written=0))
        deadline.set(time.monotonic() + REFRESH_SECONDS)
        try:
            result = await refresh()
        except Exception:
            logger.warning("an answer could not be made anew", exc_info=True)
            result = "failed"
        finally:
            del self._tasks[key]
        REFRESHES.labels(result).inc()

    async def aclose(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
