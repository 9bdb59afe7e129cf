import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sentry_sdk
import structlog
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from app.platform.telemetry.context import RequestContext, request_context
from app.platform.telemetry.errors import report_errors
from app.platform.telemetry.logs import configure_logging
from app.platform.telemetry.middleware import RequestContextMiddleware


class Expected(Exception):
    pass


class Collecting(Transport):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        event = envelope.get_event()
        if event is not None:
            self.events.append(json.loads(json.dumps(event)))


@pytest.fixture
def reports() -> Iterator[Collecting]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging("info")
    transport = Collecting()
    report_errors(
        "https://key@sentry.example/1",
        environment="test",
        release="1.2.3",
        instance="api-1",
        expected=[Expected],
        transport=transport,
    )
    yield transport
    sentry_sdk.init(auto_enabling_integrations=False)  # without a DSN: off again
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def raising(error: Exception, password: str = "a secret of a client") -> None:
    raise error


async def serve(run: Callable[[], None], query: bytes = b"") -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        run()

    async def send(message: Any) -> None:
        pass

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/login",
        "query_string": query,
        "headers": [(b"x-request-id", b"one"), (b"authorization", b"Bearer a secret of a client")],
    }
    await RequestContextMiddleware(app, instance="api-1")(scope, None, send)  # type: ignore[arg-type]


async def test_a_crash_is_reported_once_with_the_request_id(reports: Collecting) -> None:
    await serve(lambda: raising(ZeroDivisionError("unforeseen")), query=b"token=a secret of a client")
    (event,) = reports.events
    assert event["exception"]["values"][-1]["type"] == "ZeroDivisionError"
    assert event["tags"]["request_id"] == "one"
    assert event["tags"]["method"] == "POST"
    assert (event["environment"], event["release"], event["server_name"]) == ("test", "1.2.3", "api-1")


async def test_a_report_holds_nothing_that_the_client_sent(reports: Collecting) -> None:
    await serve(lambda: raising(ZeroDivisionError()), query=b"token=a secret of a client")
    frames = reports.events[0]["exception"]["values"][-1]["stacktrace"]["frames"]
    assert not any("vars" in frame for frame in frames)
    for frame in frames:  # the source around a frame is ours, and this test's source names the secret
        for lines in ("pre_context", "context_line", "post_context"):
            frame.pop(lines, None)
    assert "a secret of a client" not in json.dumps(reports.events)


async def test_what_operations_expect_is_not_reported(reports: Collecting) -> None:
    await serve(lambda: raising(Expected()))
    assert not reports.events


def test_one_requests_story_does_not_show_in_anothers_report(reports: Collecting) -> None:
    logging.getLogger("app").warning("a secret of a client")
    logging.getLogger("app").error("unforeseen")
    assert "a secret of a client" not in json.dumps(reports.events)


def test_what_is_logged_as_an_error_is_reported(reports: Collecting) -> None:
    token = request_context.set(RequestContext("two"))
    try:
        raising(ValueError("unforeseen"))
    except ValueError:
        structlog.get_logger("app").exception("the hook failed", hook="invalidate")
    structlog.get_logger("app").error("no exception at all", attempt=3)
    request_context.reset(token)
    first, second = reports.events
    assert first["exception"]["values"][-1]["type"] == "ValueError"
    assert (first["logentry"]["message"], second["logentry"]["message"]) == ("the hook failed", "no exception at all")
    assert second["tags"]["request_id"] == "two"


def test_less_than_an_error_is_not_reported(reports: Collecting) -> None:
    logging.getLogger("app").warning("foreseen")
    assert not reports.events
