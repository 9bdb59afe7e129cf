"""The outermost layer: gives each request its context, and tells of it afterwards in the log and the metrics."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable
from random import getrandbits
from time import perf_counter
from urllib.parse import quote

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.platform.telemetry.context import UNMATCHED_ROUTE, RequestContext, request_context
from app.platform.telemetry.logs import AccessLog
from app.platform.telemetry.metrics import RequestMetrics
from app.platform.telemetry.traces import Tracer

QUIET_PATHS = frozenset(("/livez", "/readyz", "/health", "/metrics", "/metrics/fleet"))  # not logged, not counted
MAX_INSTANCE_CHARACTERS = 200  # of the path, in a problem
CLIENT_CLOSED_REQUEST = 499  # nginx's code for a client that left before its answer

NO_STORE = (b"cache-control", b"no-store")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

logger = logging.getLogger(__name__)


class RequestContextMiddleware:
    """An exception that reaches it is logged (and so reported) and answered with a problem that tells nothing of it."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        instance: str,
        expose_internals: bool = False,
        access_log: AccessLog | None = None,
        metrics: RequestMetrics | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._app = app
        self._instance = instance
        self._instance_header = [(b"x-instance", instance.encode("latin-1", "replace"))] if expose_internals else []
        self._expose_internals = expose_internals
        self._access_log = access_log
        self._metrics = metrics
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
            return
        await self._app(scope, receive, send)
        if scope["type"] == "lifespan":
            if self._access_log is not None:
                self._access_log.flush()
            if self._metrics is not None:
                self._metrics.flush()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        context = self._context(scope, headers)
        response = _Response(send, context, self)
        token = request_context.set(context)
        try:
            await self._app(scope, receive, response.send)
        except Exception:
            logger.exception("unhandled exception")
            await response.crash()
        finally:
            if context.path not in QUIET_PATHS:
                self._tell(scope, headers, context, response)
            request_context.reset(token)

    def _context(self, scope: Scope, headers: dict[bytes, bytes]) -> RequestContext:
        client = scope.get("client")
        trace = self._tracer.begin(headers.get(b"traceparent")) if self._tracer is not None else None
        return RequestContext(
            request_id=request_id_of(headers.get(b"x-request-id")),
            instance=self._instance,
            method=scope["method"],
            path=scope["path"],
            client_address=client[0] if client else "",
            trace_id=trace_id_of(headers.get(b"traceparent")) if trace is None else trace.trace_id,
            trace=trace,
        )

    def response_headers(self, context: RequestContext) -> list[tuple[bytes, bytes]]:
        headers = [(b"x-request-id", context.request_id.encode()), *context.extra_headers]
        if context.cache is not None:
            headers.append((b"x-cache", context.cache.encode()))
        if self._expose_internals:
            headers += self._instance_header
            if context.served_by is not None:
                headers.append((b"x-served-by", context.served_by.encode("latin-1", "replace")))
        return headers

    def _tell(self, scope: Scope, headers: dict[bytes, bytes], context: RequestContext, response: _Response) -> None:
        seconds = perf_counter() - context.started
        if context.route == UNMATCHED_ROUTE:
            context.route = _template(scope)
        status = response.status or CLIENT_CLOSED_REQUEST
        if self._metrics is not None:
            received = _content_length(headers.get(b"content-length"))
            self._metrics.observe(context.method, status, context.route, seconds, received, response.body_bytes)
        if self._access_log is not None:
            self._access_log.write(context, status, seconds)
        if self._tracer is not None and context.trace is not None:
            self._tracer.end(context, context.trace, status, seconds)


class _Response:
    """The sending side of one request: adds headers, and sees what was sent."""

    __slots__ = ("_context", "_middleware", "_send", "body_bytes", "status")

    def __init__(self, send: Send, context: RequestContext, middleware: RequestContextMiddleware) -> None:
        self._send = send
        self._context = context
        self._middleware = middleware
        self.status = 0
        self.body_bytes = 0

    def send(self, message: Message) -> Awaitable[None]:
        """Not a coroutine itself: hands on the server's, which saves a frame per message."""
        if message["type"] == "http.response.body":
            self.body_bytes += len(message.get("body", b""))
        elif message["type"] == "http.response.start":
            self.status = message["status"]
            # A new message and a new list: a cached answer sends the same ones to everybody.
            headers = [*message.get("headers", ()), *self._middleware.response_headers(self._context)]
            message = {**message, "headers": headers}
        return self._send(message)

    async def crash(self) -> None:
        """A 500, unless an answer has begun: then the server breaks the connection off, so that the client can tell."""
        if self.status:
            return
        body = orjson.dumps(
            {
                "type": "/problems/internal-server-error",
                "title": "Internal error",
                "status": 500,
                "detail": "It was logged under the request id.",
                "instance": quote(self._context.path[:MAX_INSTANCE_CHARACTERS], errors="replace"),
                "request_id": self._context.request_id,
            }
        )
        headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body)), NO_STORE]
        await self.send({"type": "http.response.start", "status": 500, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def request_id_of(sent: bytes | None) -> str:
    """The id that was sent, if it is a sane one, else a new one."""
    if sent is not None and _REQUEST_ID.fullmatch(sent):
        return sent.decode()
    return f"{getrandbits(128):032x}"  # distinct is enough; uuid4() costs ten times as much


def trace_id_of(traceparent: bytes | None) -> str | None:
    """The trace's id in a W3C traceparent, None if there is no sound one."""
    if traceparent is None or (match := _TRACEPARENT.match(traceparent)) is None:
        return None
    return match[1].decode()


def _content_length(value: bytes | None) -> int:
    return int(value) if value is not None and value.isdigit() and len(value) < 16 else 0


def _template(scope: Scope) -> str:
    """The route's path with the names of its parameters; UNMATCHED_ROUTE where that can't be told."""
    # A route of an included router knows its path without the prefixes; FastAPI's context of it knows all.
    matched = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    if matched is not None:
        return str(matched.path)
    # Starlette's own routes (`/docs`) leave no template: without parameters, and not in a mount, the path is it.
    if "endpoint" in scope and not scope["path_params"] and "app_root_path" not in scope:
        return str(scope["path"])
    return UNMATCHED_ROUTE
