"""When a request arrived: at nginx, not when this process got round to it.

nginx says so in `X-Request-Start: t=<Unix seconds>` (a convention of Heroku's and New Relic's). Time spent in the
kernel's queue or in the server's is time that the client has waited, and counts towards the deadline.

The two clocks may differ, so the least difference seen in the last minute or two is taken for theirs, as LEDBAT does
for one-way delays (RFC 6817, section 4.2): a clock that is wrong by hours delays or expires nothing. What is seen first
has not waited, by that reckoning; a clock that jumps ahead counts as waiting until the minute is over.
"""

import re
import time
from collections.abc import Callable

from prometheus_client import Histogram
from starlette.types import Scope

HEADER = b"x-request-start"
FORM = re.compile(rb"t=(\d{1,12}\.\d{3})")
BASE_SECONDS = 60.0

QUEUE_SECONDS = Histogram(
    "http_queue_seconds",
    "Time between nginx and the process that serves the request",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)


class ArrivalClock:
    def __init__(self, clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._least = self._least_before = float("inf")
        self._turned = monotonic()

    def queued_seconds(self, scope: Scope) -> float:
        """How long the request has waited since nginx had it; 0 where a trusted proxy doesn't say."""
        sent = sent_at(scope)
        if sent is None:
            return 0.0
        difference = self._clock() - sent
        now = self._monotonic()
        if now - self._turned >= BASE_SECONDS:
            self._least_before, self._least, self._turned = self._least, difference, now
        self._least = min(self._least, difference)
        queued = difference - min(self._least, self._least_before)
        QUEUE_SECONDS.observe(queued)
        return queued


def sent_at(scope: Scope) -> float | None:
    """Unix time. uvicorn knows no port, and says 0, exactly when it has the address from a proxy that it trusts."""
    client = scope.get("client")
    if client is None or client[1] != 0:
        return None
    for name, value in scope["headers"]:
        if name == HEADER:
            return float(match[1]) if (match := FORM.fullmatch(value)) else None
    return None
