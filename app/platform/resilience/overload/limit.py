"""How many requests a process should work on at once, found by how they fare.

More in flight than the bottleneck can work on (a pool of connections, the event loop) only makes each of them slower.
So the time that requests take now is compared with what the same routes take when there is room, and the limit follows
the ratio, the gradient, as in Netflix's concurrency-limits (https://github.com/Netflix/concurrency-limits, Gradient2;
described in "Performance Under Load", 2018):

    gradient = tolerance * usual / measured, between 0.5 and 1
    limit    = limit * gradient + sqrt(limit), smoothed

The square root is the room that is always tried for; it is what lets the limit grow. Two things differ. Times are
compared route by route, since a mix of 1 ms and 100 ms requests has no usual time. And the usual time is learnt while
there is room: under pressure it rises hardly at all, or a long overload would pass for normal and lift the limit.
"""

import math
import time
from collections.abc import Callable

TOLERANCE = 1.5  # times as long as usual is still fine
SMOOTHING = 0.2  # of the way to the new limit, per window
WINDOW_SECONDS = 0.1
WINDOW_SAMPLES = 10
LEARN_SECONDS = 5.0  # time constants: of the usual time, while there is room, or when it falls
LEARN_SECONDS_BUSY = 300.0  # and when it rises under pressure: the work itself may have become slower
MAX_ROUTES = 1_000


class UsualTimes:
    """Seconds that each route takes while there is room. Routes over `MAX_ROUTES` are not learnt."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def of(self, route: str, measured: float) -> float:
        return self._seconds.get(route, measured)

    def learn(self, route: str, measured: float, window_seconds: float, *, busy: bool) -> None:
        usual = self._seconds.get(route)
        if usual is None:
            if len(self._seconds) < MAX_ROUTES:
                self._seconds[route] = measured
            return
        constant = LEARN_SECONDS_BUSY if busy and measured > usual else LEARN_SECONDS
        self._seconds[route] = usual + (measured - usual) * -math.expm1(-window_seconds / constant)


class AdaptiveLimit:
    """Between `least` and `most`; begins at `least`. One event loop's."""

    def __init__(self, *, least: int, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        if not 1 <= least <= most:
            raise ValueError(f"a limit between {least} and {most}")
        self.value = least
        self._least, self._most = least, most
        self._limit = float(least)
        self._clock = clock
        self._usual = UsualTimes()
        self._window: dict[str, tuple[int, float]] = {}  # route: requests, their seconds together
        self._samples = 0
        self._peak = 0
        self._began = clock()

    def observe(self, route: str, seconds: float, in_flight: int) -> bool:
        """A request that was worked on for so long, among so many. True when a window ended with it."""
        count, total = self._window.get(route, (0, 0.0))
        self._window[route] = count + 1, total + seconds
        self._samples += 1
        self._peak = max(self._peak, in_flight)
        elapsed = self._clock() - self._began
        if self._samples < WINDOW_SAMPLES or elapsed < WINDOW_SECONDS:
            return False
        self._close(elapsed)
        return True

    def _close(self, elapsed: float) -> None:
        busy = self._peak >= self._limit / 2
        measured = sum(total for _, total in self._window.values())
        usual = sum(count * self._usual.of(route, total / count) for route, (count, total) in self._window.items())
        if busy:  # else the limit held nobody back, and nothing is learnt about it
            self._follow(TOLERANCE * usual / max(measured, 1e-9))
        for route, (count, total) in self._window.items():
            self._usual.learn(route, total / count, elapsed, busy=busy)
        self._window, self._samples, self._peak = {}, 0, 0
        self._began = self._clock()

    def _follow(self, ratio: float) -> None:
        gradient = max(0.5, min(1.0, ratio))
        target = self._limit * gradient + math.sqrt(self._limit)
        smoothed = self._limit + SMOOTHING * (target - self._limit)
        self._limit = max(float(self._least), min(float(self._most), smoothed))
        self.value = int(self._limit)
