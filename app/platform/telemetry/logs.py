"""Logs: one JSON object per line on stdout, each with the request id; and the access log, one line per request."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import sys
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, BinaryIO, Literal

import orjson
import structlog

from app.platform.telemetry.context import RequestContext, request_context

LogFormat = Literal["json", "console"]

MAX_PATH_CHARACTERS = 512
MAX_METHOD_CHARACTERS = 16
# In one piece, so that lines of several workers don't mix: what the kernel warrants for a pipe (PIPE_BUF), and more for
# a file, where one large write costs half of what sixteen small ones do.
PIPE_BYTES, FILE_BYTES = 4_096, 65_536
FLUSH_SECONDS = 0.05

# They have formats and handlers of their own, which would print their lines twice.
ADOPTED_LOGGERS = ("uvicorn", "uvicorn.error", "gunicorn.error", "sqlalchemy", "alembic")
SILENT_LOGGERS = ("uvicorn.access", "gunicorn.access")  # the access log here says more
CHATTY_LOGGERS = ("httpx", "httpcore", "asyncio")


def configure_logging(level: str = "info", format: LogFormat = "json") -> None:
    """Sends structlog's and the standard library's lines through one handler. May be called again."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_formatter(format))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for name in ADOPTED_LOGGERS:
        _reset(logging.getLogger(name), propagate=True)
    for name in SILENT_LOGGERS:
        _reset(logging.getLogger(name), propagate=False)
    for name in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *_shared_processors(), _to_standard_library],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _reset(logger: logging.Logger, *, propagate: bool) -> None:
    logger.handlers.clear()
    logger.propagate = propagate


def _shared_processors() -> list[structlog.types.Processor]:
    return [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        _add_request,
        _drop_uvicorns_colours,
    ]


def _add_request(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if (context := request_context.get(None)) is not None:
        event.setdefault("request_id", context.request_id)
        event.setdefault("instance", context.instance)
    return event


def _drop_uvicorns_colours(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event.pop("color_message", None)
    return event


def _to_standard_library(logger: Any, name: str, event: MutableMapping[str, Any]) -> Any:
    args, kwargs = structlog.stdlib.ProcessorFormatter.wrap_for_formatter(logger, name, dict(event))
    # structlog keeps the exception to itself; error reports look for it in the record.
    return args, {**kwargs, "exc_info": event.get("exc_info")}


def _formatter(format: LogFormat) -> logging.Formatter:
    rendering: list[structlog.types.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if format == "json":
        rendering += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]
    else:
        rendering += [structlog.dev.ConsoleRenderer(timestamp_key="ts")]
    return structlog.stdlib.ProcessorFormatter(processors=rendering, foreign_pre_chain=_shared_processors())


def _json(event: dict[str, Any], **_: object) -> str:
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()


# Of a request id, a trace id, seconds, and the client's address.
Line = Callable[[str, str | None, float, str], bytes]


class AccessLog:
    """One line per request, without personal data: no query string, no e-mail address, no token.

    Lines wait up to FLUSH_SECONDS for company, since a write per line is what costs most; `flush` at the end of the
    process. If nobody reads them, they are dropped: requests don't wait for their log.
    """

    def __init__(self, format: LogFormat = "json", stream: BinaryIO | None = None) -> None:
        self._stream = sys.stdout.buffer if stream is None else stream
        self._line: Callable[[RequestContext, int, float], bytes] = _json_line if format == "json" else _console_line
        self._format = format
        self._most = FILE_BYTES if _is_file(self._stream) else PIPE_BYTES
        self._waiting = bytearray()
        self._timer: asyncio.TimerHandle | None = None

    def write(self, context: RequestContext, status: int, seconds: float) -> None:
        self.write_line(self._line(context, status, seconds))

    def template(self, context: RequestContext, status: int) -> Line:
        """Makes the lines of requests that are answered alike, for `write_line`."""
        return (_json_template if self._format == "json" else _console_template)(context, status)

    def write_line(self, line: bytes) -> None:
        if len(self._waiting) + len(line) > self._most:
            self.flush()
        self._waiting += line
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            waiting, self._waiting = self._waiting, bytearray()
            with suppress(OSError):
                self._stream.write(waiting)
                self._stream.flush()


def _is_file(stream: BinaryIO) -> bool:
    """Which appends in one piece, however much it is; a stream without a descriptor is none."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except OSError:
        return False


def own_seconds(context: RequestContext, seconds: float) -> float:
    """What is left without what it waited for; 0 where queries and Redis were waited for at once."""
    return max(0.0, seconds - context.waited_seconds - context.query_seconds - context.redis_seconds)


def _json_line(context: RequestContext, status: int, seconds: float) -> bytes:
    return orjson.dumps(
        {
            "ts": datetime.now(UTC),
            "level": "error" if status >= 500 else "info",
            "event": "request",
            "request_id": context.request_id,
            "trace_id": context.trace_id,
            "method": context.method[:MAX_METHOD_CHARACTERS],
            "route": context.route,
            "path": context.path[:MAX_PATH_CHARACTERS],
            "status": status,
            "duration_ms": round(seconds * 1_000, 3),
            "queries": context.queries,
            "query_ms": round(context.query_seconds * 1_000, 3),
            "queue_ms": round(context.waited_seconds * 1_000, 3),
            "redis_ms": round(context.redis_seconds * 1_000, 3),
            "own_ms": round(own_seconds(context, seconds) * 1_000, 3),
            "cache": context.cache,
            "served_by": context.served_by,
            "caller": context.caller_id,
            "organization": context.organization_id,
            "client": context.client_address,
            "instance": context.instance,
        },
        option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE,
    )


def _console_line(context: RequestContext, status: int, seconds: float) -> bytes:
    parts = (
        f"{datetime.now():%H:%M:%S}",
        context.method[:MAX_METHOD_CHARACTERS],
        context.path[:MAX_PATH_CHARACTERS],
        str(status),
        f"{seconds * 1_000:.1f} ms",
        f"{context.queries} queries",
        context.served_by or "-",
        context.request_id,
    )
    return ascii("  ".join(parts))[1:-1].encode() + b"\n"


def _json_template(context: RequestContext, status: int) -> Line:
    """Costs a third of making each line by itself."""
    varying = dict.fromkeys(("ts", "request_id", "trace_id", "duration_ms", "own_ms", "client"), b"%s")
    parts = []
    waited_for_nothing = replace(context, queries=0, query_seconds=0.0, waited_seconds=0.0, redis_seconds=0.0)
    for name, value in orjson.loads(_json_line(waited_for_nothing, status, 0.0)).items():
        fixed = orjson.dumps(value).replace(b"%", b"%%")
        parts.append(b'"%s":%s' % (name.encode(), varying.get(name, fixed)))
    template = b"{%s}\n" % b",".join(parts)
    dumps = orjson.dumps

    def line(request_id: str, trace_id: str | None, seconds: float, client: str) -> bytes:
        now = dumps(datetime.now(UTC), option=orjson.OPT_UTC_Z)
        trace = b"null" if trace_id is None else dumps(trace_id)
        milliseconds = b"%.3f" % (seconds * 1_000)
        return template % (now, dumps(request_id), trace, milliseconds, milliseconds, dumps(client))

    return line


def _console_template(context: RequestContext, status: int) -> Line:
    def line(request_id: str, trace_id: str | None, seconds: float, client: str) -> bytes:
        own = replace(context, request_id=request_id, trace_id=trace_id, client_address=client)
        return _console_line(own, status, seconds)

    return line
