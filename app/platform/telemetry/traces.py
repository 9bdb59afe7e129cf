"""Traces: what a request did, when, as spans; W3C trace context in and out (https://www.w3.org/TR/trace-context/).

Every request's spans are gathered, and at its end it is decided whether they are told: those of a share of the trace
ids, and of every request that failed or was slow. Other services that keep the same share of ids keep the same traces.
What a stranger says about sampling is not heeded: it would cost us, not him.

Nothing of OpenTelemetry is imported here: that happens where traces are on (otlp.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import getrandbits
from time import perf_counter, time

from prometheus_client import Counter

from app.platform.telemetry.context import RequestContext, current

MAX_SPANS = 256  # of one request; the others are counted in its server span
MAX_STATEMENT_CHARACTERS = 2_048
TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")

TOLD = Counter("traces_told_total", "Requests whose spans were handed on, by why", ("reason",))

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Span:
    name: str
    span_id: int
    started: float  # seconds, perf_counter's clock
    ended: float
    attributes: Mapping[str, Value] = field(default_factory=dict)
    error: str | None = None  # an exception's name


class Trace:
    """Of one request in this process."""

    __slots__ = ("left_out", "parent_id", "sampled", "span_id", "spans", "trace_id")

    def __init__(self, trace_id: str, parent_id: int, sampled: bool) -> None:
        self.trace_id = trace_id
        self.parent_id = parent_id  # 0: begins here
        self.span_id = new_span_id()
        self.sampled = sampled
        self.spans: list[Span] = []
        self.left_out = 0

    def add(
        self, name: str, started: float, attributes: Mapping[str, Value], *, error: str | None = None, span_id: int = 0
    ) -> None:
        """A call that began at `started` and ends now."""
        if len(self.spans) < MAX_SPANS:
            span = Span(name, span_id or new_span_id(), started, perf_counter(), attributes, error)
            self.spans.append(span)
        else:
            self.left_out += 1

    def traceparent(self, span_id: int) -> str:
        return f"00-{self.trace_id}-{span_id:016x}-{'01' if self.sampled else '00'}"


@dataclass(frozen=True, slots=True)
class Finished:
    """A request that is over, with what it did."""

    trace: Trace
    method: str
    route: str
    status: int
    started: float
    ended: float
    attributes: dict[str, Value]

    @property
    def epoch(self) -> float:
        """What to add to perf_counter's times to get Unix times."""
        return time() - perf_counter()


class Tracer:
    """Decides what is told. `export` must not block; without one nothing is told."""

    def __init__(self, *, share: float, slow_seconds: float) -> None:
        self.export: Callable[[Finished], None] | None = None
        self._bound = round(share * 2**64)
        self._slow_seconds = slow_seconds

    def begin(self, traceparent: bytes | None) -> Trace:
        trace_id, parent_id = _parent(traceparent)
        return Trace(trace_id, parent_id, self.keeps(trace_id))

    def _begins(self) -> Trace | None:
        """A trace that is kept, of a request that is part of none: decided before an id is made, most often against."""
        if (low := getrandbits(64)) >= self._bound:
            return None
        return Trace(f"{getrandbits(64):016x}{low:016x}", 0, sampled=True)

    def keeps(self, trace_id: str) -> bool:
        """As OpenTelemetry's TraceIdRatioBased does."""
        return int(trace_id[16:], 16) < self._bound

    def end(self, context: RequestContext, trace: Trace, status: int, seconds: float) -> None:
        reason = self._reason(trace, status, seconds)
        if reason is None or self.export is None:
            return
        TOLD.labels(reason).inc()
        attributes: dict[str, Value] = {"headroom.request_id": context.request_id}
        for name, value in (("headroom.served_by", context.served_by), ("headroom.cache", context.cache)):
            if value is not None:
                attributes[name] = value
        ended = context.started + seconds
        self.export(Finished(trace, context.method, context.route, status, context.started, ended, attributes))

    def hit(self, traceparent: bytes | None, route: str, status: int, seconds: float) -> str | None:
        """A request that was answered from memory: it did nothing else. The trace's id, where it is told."""
        if self.export is None:
            return None
        trace = self._begins() if traceparent is None else self.begin(traceparent)
        if trace is None or not trace.sampled:
            return None
        TOLD.labels("share").inc()
        ended = perf_counter()
        memory: dict[str, Value] = {"headroom.served_by": "cache:memory", "headroom.cache": "hit"}
        self.export(Finished(trace, "GET", route, status, ended - seconds, ended, memory))
        return trace.trace_id

    def _reason(self, trace: Trace, status: int, seconds: float) -> str | None:
        if trace.sampled:
            return "share"
        if status >= 500:
            return "failed"
        return "slow" if seconds >= self._slow_seconds else None


@contextmanager
def outgoing(name: str, **attributes: Value) -> Iterator[dict[str, str]]:
    """A span around a call to somebody else; gives the headers that tell him which trace he is part of."""
    trace = current().trace
    if trace is None:
        yield {}
        return
    started, span_id = perf_counter(), new_span_id()
    try:
        yield {"traceparent": trace.traceparent(span_id)}
    except BaseException as error:
        trace.add(name, started, attributes, error=type(error).__name__, span_id=span_id)
        raise
    trace.add(name, started, attributes, span_id=span_id)


def new_span_id() -> int:
    return getrandbits(64) or 1


def _parent(traceparent: bytes | None) -> tuple[str, int]:
    if traceparent is not None and (match := TRACEPARENT.match(traceparent)) is not None:
        return match[1].decode(), int(match[2], 16)
    return f"{getrandbits(128) or 1:032x}", 0
