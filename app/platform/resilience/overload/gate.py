"""The gate: a limited number inside, a bounded number waiting for a bounded time, and everybody else told at once.

A short queue keeps bursts from being refused; a long one would fill with requests that nobody waits for any more by the
time it is their turn (B. Maurer, "Fail at Scale", ACM Queue 13(8), 2015). Within a class it is first come, first
served, so that nobody starves; between classes the one that matters more always goes first.
"""

import asyncio
import sys
from collections import deque

from prometheus_client import Counter, Gauge, Histogram

from app.platform.resilience.overload.criticality import Criticality
from app.platform.resilience.overload.limit import AdaptiveLimit
from app.platform.telemetry.context import current

RESERVE_SHARE = 0.1  # of the limit, on top of it, for what is critical
SHEDDABLE_SHARE = 0.5  # of the limit, at most, for what is sheddable: a bulkhead around slow figures

LIMIT = Gauge("admission_limit", "Requests that may be worked on at once", multiprocess_mode="livesum")
IN_FLIGHT = Gauge("admission_in_flight", "Requests that are worked on", multiprocess_mode="livesum")
SHEDDABLE_IN_FLIGHT = Gauge(
    "admission_sheddable_in_flight", "Of those that are worked on: sheddable", multiprocess_mode="livesum"
)
WAITING = Gauge("admission_waiting", "Requests that wait for a place", multiprocess_mode="livesum")
REFUSED = Counter("admission_refused_total", "Requests refused for overload", ["criticality", "reason"])
WAIT_SECONDS = Histogram(
    "admission_wait_seconds",
    "Time that a request waited for its place, of those that had to",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
)


class Refused(Exception):
    """There is no place: the queue is full, or the wait was over."""


class Gate:
    """For one event loop. At most `max_waiting` wait, each for at most `wait_seconds`.

    `max_sheddable`: so many of what is sheddable are worked on at once, at most, however high the limit is.
    """

    def __init__(
        self, limit: AdaptiveLimit, *, max_waiting: int, wait_seconds: float, max_sheddable: int = sys.maxsize
    ) -> None:
        self.in_flight = 0
        self.waiting = 0
        self._limit = limit
        self._max_waiting = max_waiting
        self._wait_seconds = wait_seconds
        self._max_sheddable = max_sheddable
        self._sheddable = 0  # in flight
        self._queues: dict[Criticality, deque[asyncio.Future[None]]] = {level: deque() for level in Criticality}
        self._show()

    async def enter(self, level: Criticality) -> None:
        """Raises `Refused`. Whoever has entered has to leave."""
        queue = self._queues[level]
        if not queue and self._has_room(level):
            self._admit(level)
            return
        if self.waiting >= self._max_waiting and not self._displace(level):
            self._refuse(level, "full")
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(place)
        self.waiting += 1
        await self._wait(place, level)

    def leave(self, level: Criticality, route: str, seconds: float | None) -> None:
        """`seconds` that the work took; None where that tells nothing about how busy the process is."""
        in_flight = self.in_flight
        self._release(level)
        window_over = seconds is not None and self._limit.observe(route, seconds, in_flight)
        if window_over or (self._shows_load and not self.in_flight):
            self._show()

    def _show(self) -> None:
        """A few times a second, and when the load is gone: the gauges cost as much as the gate."""
        LIMIT.set(self._limit.value)
        IN_FLIGHT.set(self.in_flight)
        SHEDDABLE_IN_FLIGHT.set(self._sheddable)
        WAITING.set(self.waiting)
        self._shows_load = self.in_flight > 0

    async def _wait(self, place: asyncio.Future[None], level: Criticality) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(self._wait_seconds):
                await place
        except BaseException as error:  # cancelled too: at the request's deadline, or when the client has left
            self._give_up(place, level)
            if isinstance(error, TimeoutError):
                self._refuse(level, "waited")
            raise
        waited = loop.time() - started
        WAIT_SECONDS.observe(waited)
        current().waited_seconds += waited

    def _give_up(self, place: asyncio.Future[None], level: Criticality) -> None:
        if place.done() and not place.cancelled() and place.exception() is None:
            self._release(level)  # it was let in just then
            return
        if not place.done() or place.cancelled():
            place.cancel()
            self.waiting -= 1
        queue = self._queues[level]
        while queue and queue[0].done():
            queue.popleft()

    def _has_room(self, level: Criticality) -> bool:
        limit = self._limit.value
        if level is Criticality.CRITICAL:
            return self.in_flight < limit + max(1, int(limit * RESERVE_SHARE))
        if level is Criticality.SHEDDABLE and self._sheddable >= self._most_sheddable(limit):
            return False
        return self.in_flight < limit

    def _most_sheddable(self, limit: int) -> int:
        return max(1, min(self._max_sheddable, int(limit * SHEDDABLE_SHARE)))

    def _admit(self, level: Criticality) -> None:
        self.in_flight += 1
        self._sheddable += level is Criticality.SHEDDABLE

    def _release(self, level: Criticality) -> None:
        self.in_flight -= 1
        self._sheddable -= level is Criticality.SHEDDABLE
        self._let_in()

    def _let_in(self) -> None:
        for level, queue in self._queues.items():
            while queue and self._has_room(level):
                place = queue.popleft()
                if not place.done():
                    self.waiting -= 1
                    self._admit(level)
                    place.set_result(None)

    def _displace(self, level: Criticality) -> bool:
        """Turn away the one who came last among those who matter less."""
        for lower in reversed(Criticality):
            queue = self._queues[lower]
            while lower > level and queue:
                place = queue.pop()
                if not place.done():
                    self.waiting -= 1
                    REFUSED.labels(lower.label, "displaced").inc()
                    place.set_exception(Refused("displaced"))
                    return True
        return False

    def _refuse(self, level: Criticality, reason: str) -> None:
        REFUSED.labels(level.label, reason).inc()
        raise Refused(reason)
