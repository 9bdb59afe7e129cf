"""Which of two takes longer, as a ratio in one run: what a machine that is busy does to both, cancels out."""

import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

Work = Callable[[], Awaitable[Any]]


async def seconds(work: Work) -> float:
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


async def timing_ratio(one: Work, other: Work, rounds: int = 15) -> float:
    """Of their medians, taken in turns."""
    pairs = [(await seconds(one), await seconds(other)) for _ in range(rounds)]
    ones, others = zip(*pairs, strict=True)
    return statistics.median(ones) / statistics.median(others)
