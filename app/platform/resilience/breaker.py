"""Circuit breaker: stop asking a dependency that does not answer (Nygard, "Release It!", 2nd ed., chapter 5)."""

import time
from collections.abc import Callable
from typing import Literal

from prometheus_client import Counter, Gauge

BREAKER_OPEN = Gauge(
    "circuit_breaker_open", "Processes whose breaker is not closed", ["dependency"], multiprocess_mode="livesum"
)
BREAKER_OPENED = Counter("circuit_breaker_opened_total", "Times that a breaker opened", ["dependency"])

State = Literal["closed", "open", "half_open"]

FIRST_SHARE = 0.1  # of `open_seconds`: until the first probe


class CircuitBreaker:
    """Open after `failures` in a row, or when it is tripped; then a probe now and then, whose outcome closes it or not.

    The first probe is let through after a tenth of `open_seconds`, since most interruptions are short, each further one
    after twice as long as the last, at most `open_seconds`. One whose outcome is never told counts as lost by then.
    """

    def __init__(
        self, failures: int, open_seconds: float, *, name: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._threshold = failures
        self._open_seconds = open_seconds
        self._pause = open_seconds * FIRST_SHARE
        self._clock = clock
        self._failures = 0
        self._probe_at: float | None = None  # None while closed
        self._probing = False
        self._gauge = BREAKER_OPEN.labels(name)
        self._opened = BREAKER_OPENED.labels(name)

    @property
    def state(self) -> State:
        if self._probe_at is None:
            return "closed"
        return "half_open" if self._probing or self._clock() >= self._probe_at else "open"

    def allow(self) -> bool:
        """Whether to ask now. In the half-open state true is said to one caller only: the probe."""
        if self._probe_at is None:
            return True
        now = self._clock()
        if now < self._probe_at:
            return False
        self._probing = True
        self._wait(now)
        return True

    def succeeded(self) -> None:
        self._failures = 0
        self._probing = False
        if self._probe_at is not None:
            self._probe_at = None
            self._pause = self._open_seconds * FIRST_SHARE
            self._gauge.set(0)

    def failed(self) -> None:
        self._failures += 1
        if self._probing or self._failures >= self._threshold:
            self.trip()

    def trip(self) -> None:
        """Open at once: it is known that there will be no answer."""
        if self._probe_at is None:
            self._gauge.set(1)
            self._opened.inc()
            self._wait(self._clock())
        self._probing = False

    def _wait(self, now: float) -> None:
        self._probe_at = now + self._pause
        self._pause = min(2 * self._pause, self._open_seconds)
