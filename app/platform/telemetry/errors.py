"""Error reports to Sentry: what nobody expected, with the request id, and nothing that a client sent.

Whatever is logged at level error is reported, the exceptions that reach the outermost middleware among it. Sentry's
integrations with frameworks stay off: they cost 100 µs per request, and see nothing that the log does not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import sentry_sdk
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.transport import Transport
from sentry_sdk.types import Event, Hint

from app.platform.telemetry.context import RequestContext, request_context
from app.platform.telemetry.scrubbing import scrubbed
from app.platform.telemetry.traces import new_span_id

FLUSH_SECONDS = 2  # at the end of the process


def report_errors(
    dsn: str,
    *,
    environment: str,
    release: str,
    instance: str,
    expected: Sequence[type[BaseException]] = (),
    transport: Transport | None = None,
) -> None:
    """Call it where a DSN is set. `expected`: exceptions that operations bring with them, not reported."""
    sentry_sdk.init(
        dsn=dsn,
        environment=environment,
        release=release,
        server_name=instance,
        auto_enabling_integrations=False,
        integrations=[LoggingIntegration(level=None, event_level=logging.ERROR)],
        ignore_errors=list(expected),
        before_send=_describe,
        # Requests share one scope here, so breadcrumbs of one would show up in the report of another.
        max_breadcrumbs=0,
        # Local variables hold passwords and tokens.
        include_local_variables=False,
        shutdown_timeout=FLUSH_SECONDS,
        transport=transport,
    )


def _describe(event: Event, hint: Hint) -> Event:
    _use_structlogs_message(event, hint)
    _scrub(event)
    if (context := request_context.get(None)) is not None:
        event["tags"] = {
            **event.get("tags", {}),
            "request_id": context.request_id,
            "trace_id": context.trace_id or "",
            "method": context.method,
            "route": context.route,
        }
        if context.trace_id is not None:
            event["contexts"] = {**event.get("contexts", {}), "trace": _trace(context)}
    return event


def _trace(context: RequestContext) -> dict[str, object]:
    """Sentry shows the report beside the trace of this id."""
    span_id = context.trace.span_id if context.trace is not None else new_span_id()
    return {"type": "trace", "trace_id": context.trace_id or "", "span_id": f"{span_id:016x}"}


def _scrub(event: Event) -> None:
    for exception in event.get("exception", {}).get("values", ()):
        exception["value"] = scrubbed(str(exception.get("value") or ""))
    if (entry := event.get("logentry")) is not None:
        event["logentry"] = {"message": scrubbed(str(entry.get("formatted") or entry.get("message") or ""))}
    event["extra"] = {}  # whatever the line of the log was given beside its message


def _use_structlogs_message(event: Event, hint: Hint) -> None:
    message: Any = getattr(hint.get("log_record"), "msg", None)
    if isinstance(message, dict):
        event["logentry"] = {"message": str(message.get("event", ""))}
