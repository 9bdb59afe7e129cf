"""Lets requests through the gate, before anything has worked on them."""

from collections.abc import Callable, Collection
from time import monotonic

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.platform.resilience.overload.criticality import Criticality
from app.platform.resilience.overload.gate import Gate, Refused
from app.platform.telemetry.context import current

EVENT_STREAM = b"text/event-stream"

Classify = Callable[[Scope], tuple[str, Criticality]]


class OverloadMiddleware:
    """`classify` names a request's route and how much it matters; `refused` answers those for whom there is no place.

    What matters to the process itself, `exempt_paths`, is never held up. A place is held until the answer is complete;
    an event stream gives its place back as it begins, since it lasts for hours and mostly waits.
    """

    def __init__(
        self, app: ASGIApp, *, gate: Gate, classify: Classify, refused: ASGIApp, exempt_paths: Collection[str] = ()
    ) -> None:
        self.app = app
        self.gate = gate
        self.classify = classify
        self.refused = refused
        self.exempt_paths = exempt_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self.exempt_paths:
            await self.app(scope, receive, send)
            return
        route, level = self.classify(scope)
        try:
            await self.gate.enter(level)
        except Refused:
            await self.refused(scope, receive, send)
            return
        visit = _Visit(self.gate, route, level, send)
        try:
            await self.app(scope, receive, visit.send)
        finally:
            visit.end()


class _Visit:
    """One request's stay behind the gate."""

    __slots__ = ("_gate", "_level", "_over", "_route", "_send", "_started", "_status")

    def __init__(self, gate: Gate, route: str, level: Criticality, send: Send) -> None:
        self._gate = gate
        self._route = route
        self._level = level
        self._send = send
        self._started = monotonic()
        self._status = 0  # none yet: given up at the deadline, or left by the client
        self._over = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            for name, value in message.get("headers", ()):
                if name == b"content-type" and value.startswith(EVENT_STREAM):
                    self.end()
        await self._send(message)

    def end(self) -> None:
        if not self._over:
            self._over = True
            self._gate.leave(self._level, self._route, monotonic() - self._started if self._tells() else None)

    def _tells(self) -> bool:
        """Refusals and cached answers are quick however busy the process is."""
        return (self._status == 0 or 200 <= self._status < 300) and current().cache != "hit"
