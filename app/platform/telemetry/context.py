"""What is known about the request being served; every room adds what it learns, and the log line tells it all."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from app.platform.telemetry.traces import Trace

UNMATCHED_ROUTE = "unmatched"


class LastRead(NamedTuple):
    """Which server a caller has read from, and until when (Unix time) it may have; "*" for several."""

    server: str
    until: float


@dataclass(slots=True)
class RequestContext:
    request_id: str
    instance: str = ""
    started: float = field(default_factory=perf_counter)  # seconds, perf_counter's clock
    method: str = "GET"
    path: str = ""  # without the query string, which may carry secrets
    route: str = UNMATCHED_ROUTE  # the template, e.g. /api/v1/equipment/{id}; bounded, so it may label metrics
    client_address: str = ""
    trace_id: str | None = None  # W3C trace context: nginx passes on the client's, or begins one
    trace: Trace | None = None  # where traces are on

    caller_id: str | None = None
    organization_id: str | None = None

    served_by: str | None = None  # "cache:redis", "replica:NAME" or "primary"
    cache: str | None = None  # the value of X-Cache
    wal_required: int = 0  # bytes; reads have to be at or past this WAL position
    wal_written: int = 0  # bytes; the WAL position after the last commit of this request
    last_read: LastRead | None = None  # the caller's, before this request; reads show nothing older
    read_from: str | None = None  # the server that this request has read from

    queries: int = 0
    query_seconds: float = 0.0
    waited_seconds: float = 0.0  # for its turn, and for a connection of a pool
    redis_seconds: float = 0.0  # during which it had asked Redis something; questions asked at once count once
    redis_answered: float = 0.0  # when the last of those was answered, perf_counter's clock

    extra_headers: list[tuple[bytes, bytes]] = field(default_factory=list)  # added when the response starts


request_context: ContextVar[RequestContext] = ContextVar("request_context")


def current() -> RequestContext:
    """The context of the request being served; outside of one, a fresh one that nobody reads."""
    context = request_context.get(None)
    return RequestContext(request_id="-") if context is None else context
