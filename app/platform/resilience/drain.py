"""Drain: leave without dropping a request.

On SIGTERM the process says that it is not ready, goes on serving with `Connection: close` so that the load balancer
moves its connections elsewhere, and leaves once nothing is in flight.
"""

import asyncio

from prometheus_client import Gauge
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DRAINING = Gauge("draining", "Processes that are about to leave", multiprocess_mode="livesum")


class Drain:
    """Whether this process is leaving, and how many requests it still has to answer."""

    def __init__(self) -> None:
        self.is_draining = False
        self.in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def start(self) -> None:
        self.is_draining = True
        DRAINING.set(1)

    def entered(self) -> None:
        self.in_flight += 1
        self._idle.clear()

    def left(self) -> None:
        self.in_flight -= 1
        if not self.in_flight:
            self._idle.set()

    async def wait_idle(self, seconds: float) -> bool:
        """Wait until nothing is in flight, at most `seconds`; false when something still is."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True


class DrainMiddleware:
    """Count the requests in flight; while draining, ask each client to connect anew (RFC 9112, 9.6)."""

    def __init__(self, app: ASGIApp, *, drain: Drain) -> None:
        self.app = app
        self.drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start" and self.drain.is_draining:
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        self.drain.entered()
        try:
            await self.app(scope, receive, send_closing)
        finally:
            self.drain.left()
