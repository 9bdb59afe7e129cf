"""What a request's commands to Redis took: for its log line, and for its trace where traces are on."""

import asyncio
from functools import partial
from time import perf_counter
from typing import Any

from app.platform.telemetry.context import RequestContext, request_context


def watch_command(command: str, answer: asyncio.Future[Any]) -> None:
    """Has to be called before anybody waits for the answer: whoever does finds it told."""
    if (context := request_context.get(None)) is not None:
        answer.add_done_callback(partial(_answered, context, command, perf_counter()))


def _answered(context: RequestContext, command: str, started: float, answer: asyncio.Future[Any]) -> None:
    now = perf_counter()
    context.redis_seconds += now - max(started, context.redis_answered)
    context.redis_answered = now
    if context.trace is not None:
        attributes: dict[str, Any] = {"db.system.name": "redis", "db.operation.name": command}
        context.trace.add(f"redis {command}", started, attributes, error=_error(answer))


def _error(answer: asyncio.Future[Any]) -> str | None:
    if answer.cancelled():
        return "CancelledError"
    return None if (error := answer.exception()) is None else type(error).__name__
