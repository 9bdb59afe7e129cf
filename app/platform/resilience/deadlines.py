"""Deadlines: one point in time by which every wait of a request ends.

The middleware sets it once; whatever waits below (pool, statement, lock, Redis, upstream) asks for `remaining()` or
waits inside `bounded()`. The clock is `time.monotonic()`, so that threads and other loops can read it too.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from prometheus_client import Counter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.platform.resilience.arrival import ArrivalClock

DEADLINES_EXCEEDED = Counter("deadlines_exceeded_total", "Requests that were given up at their deadline")
TIMEOUT_HEADER = b"x-request-timeout-ms"

deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


class DeadlineExceeded(TimeoutError):
    """The request's time is over; nobody waits for the answer any more."""


def remaining(default: float) -> float:
    """Seconds that a wait may take: `default`, or what the request has left when that is less; never below zero."""
    end = deadline.get()
    return default if end is None else max(0.0, min(default, end - time.monotonic()))


@asynccontextmanager
async def bounded(seconds: float) -> AsyncIterator[None]:
    """Cancel the block after `seconds` (TimeoutError), or at the request's deadline if sooner (DeadlineExceeded)."""
    limit = remaining(seconds)
    try:
        async with asyncio.timeout(limit) as timeout:
            yield
    except TimeoutError:
        if timeout.expired() and limit < seconds:
            raise DeadlineExceeded from None
        raise


class DeadlineMiddleware:
    """Give each request its deadline: `default_seconds`, or less where X-Request-Timeout-Ms says so (never more).

    The time counts from the request's arrival at nginx, by `arrival`; one that is late already is not begun.
    A request whose answer has not begun by then is cancelled, and the ASGI app `expired` answers in its place. An
    answer that has begun is let go on: cutting it would only look like a broken connection.
    """

    def __init__(
        self, app: ASGIApp, *, default_seconds: float, expired: ASGIApp, arrival: ArrivalClock | None = None
    ) -> None:
        self.app = app
        self.default_seconds = default_seconds
        self.expired = expired
        self.arrival = arrival or ArrivalClock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        seconds = min(self.default_seconds, requested_seconds(scope) or self.default_seconds)
        seconds -= self.arrival.queued_seconds(scope)
        token = deadline.set(time.monotonic() + seconds)
        try:
            in_time = seconds > 0 and await self._run(seconds, scope, receive, send)
        finally:
            deadline.reset(token)
        if not in_time:
            DEADLINES_EXCEEDED.inc()
            await self.expired(scope, receive, send)

    async def _run(self, seconds: float, scope: Scope, receive: Receive, send: Send) -> bool:
        async def send_in_time(message: Message) -> None:
            if message["type"] == "http.response.start":
                timeout.reschedule(None)
            await send(message)

        timeout = asyncio.timeout(seconds)
        try:
            async with timeout:
                await self.app(scope, receive, send_in_time)
        except TimeoutError:
            if timeout.expired():
                return False
            raise
        return True


def requested_seconds(scope: Scope) -> float | None:
    """What the client asks for in X-Request-Timeout-Ms; None when it is absent or not a positive number."""
    for name, value in scope["headers"]:
        if name == TIMEOUT_HEADER:
            return int(value) / 1000 if len(value) <= 9 and value.isdigit() and int(value) > 0 else None
    return None
