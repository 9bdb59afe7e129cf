import io
import json
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.platform.telemetry.context import current, request_context
from app.platform.telemetry.logs import AccessLog
from app.platform.telemetry.metrics import REQUESTS, RESPONSE_SIZE, RequestMetrics
from app.platform.telemetry.middleware import CLIENT_CLOSED_REQUEST, RequestContextMiddleware

TRACE = "0af7651916cd43dd8448eb211c80319c"


class Served:
    """An app behind the middleware, and what was logged of it."""

    def __init__(self, app: ASGIApp, **options: Any) -> None:
        self._stream = io.BytesIO()
        self._log = AccessLog(stream=self._stream)
        self.metrics = RequestMetrics()
        self.app = RequestContextMiddleware(
            app, instance="api-1", access_log=self._log, metrics=self.metrics, **options
        )

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, client=("192.0.2.7", 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **options)

    async def get(self, path: str = "/", **options: Any) -> httpx.Response:
        return await self.request("GET", path, **options)

    def lines(self) -> list[dict[str, Any]]:
        self._log.flush()
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]


def answering(
    during: Callable[[], None] = lambda: None, headers: list[tuple[bytes, bytes]] | None = None, body: bytes = b"{}"
) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        during()
        await send({"type": "http.response.start", "status": 200, "headers": headers or []})
        await send({"type": "http.response.body", "body": body})

    return app


async def test_every_answer_has_a_request_id_and_no_two_the_same() -> None:
    served = Served(answering())
    ids = {(await served.get()).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


async def test_a_sane_request_id_is_kept() -> None:
    response = await Served(answering()).get(headers={"X-Request-ID": "from.the-client_1"})
    assert response.headers["x-request-id"] == "from.the-client_1"


@pytest.mark.parametrize("sent", ["", "a b", "x" * 129, 'a"b', "ä".encode(), "a\tb", "<script>", "a\x7f"])
async def test_any_other_request_id_is_replaced(sent: str | bytes) -> None:
    response = await Served(answering()).get(headers={"X-Request-ID": sent})
    assert len(response.headers["x-request-id"]) == 32


async def test_headers_that_rooms_left_in_the_context() -> None:
    def during() -> None:
        current().cache = "HIT"
        current().served_by = "cache:redis"
        current().extra_headers.append((b"ratelimit", b'"default";r=9'))

    shown = (await Served(answering(during), expose_internals=True).get()).headers
    assert shown["x-cache"] == "HIT"
    assert shown["ratelimit"] == '"default";r=9'
    assert shown["x-instance"] == "api-1"
    assert shown["x-served-by"] == "cache:redis"


async def test_internals_stay_inside_unless_exposed() -> None:
    def during() -> None:
        current().served_by = "primary"

    hidden = (await Served(answering(during)).get()).headers
    assert "x-instance" not in hidden
    assert "x-served-by" not in hidden


async def test_an_answer_that_is_sent_to_many_is_not_changed() -> None:
    headers = [(b"content-type", b"application/json")]
    served = Served(answering(headers=headers))
    await served.get()
    await served.get()
    assert headers == [(b"content-type", b"application/json")]


async def test_one_line_per_request() -> None:
    def during() -> None:
        context = current()
        context.route = "/things/{id}"
        context.caller_id, context.organization_id = "user", "organization"
        context.queries, context.query_seconds = 2, 0.0125
        context.cache, context.served_by = "MISS", "replica:replica-1"

    served = Served(answering(during))
    headers = {"X-Request-ID": "one", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    await served.request("PATCH", "/things/7", headers=headers)
    (line,) = served.lines()
    assert line.pop("ts").endswith("Z")
    assert line.pop("duration_ms") >= 0
    assert line == {
        "level": "info",
        "event": "request",
        "request_id": "one",
        "trace_id": TRACE,
        "method": "PATCH",
        "route": "/things/{id}",
        "path": "/things/7",
        "status": 200,
        "queries": 2,
        "query_ms": 12.5,
        "queue_ms": 0.0,
        "redis_ms": 0.0,
        "own_ms": 0.0,
        "cache": "MISS",
        "served_by": "replica:replica-1",
        "caller": "user",
        "organization": "organization",
        "client": "192.0.2.7",
        "instance": "api-1",
    }


async def test_the_log_keeps_secrets_out() -> None:
    served = Served(answering())
    await served.get("/reset?token=secret-1", headers={"Authorization": "Bearer secret-2", "Cookie": "s=secret-3"})
    assert "secret" not in json.dumps(served.lines())


async def test_a_path_can_not_forge_lines_or_grow_without_bound() -> None:
    served = Served(answering())
    await served.get("/%0a%7b%22level%22%3a1%7d" + "x" * 5_000)
    (line,) = served.lines()
    assert len(line["path"]) == 512


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "nonsense",
        f"ff-{TRACE}-b7ad6b7169203331-01",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-b7ad6b7169203331-01",
    ],
)
async def test_an_unsound_traceparent_is_no_trace(traceparent: str) -> None:
    served = Served(answering())
    await served.get(headers={"traceparent": traceparent})
    assert served.lines()[0]["trace_id"] is None


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/metrics", "/metrics/fleet"])
async def test_what_machines_ask_all_day_is_not_logged_or_counted(path: str) -> None:
    served = Served(answering(lambda: setattr(current(), "route", path)))
    assert "x-request-id" in (await served.get(path)).headers
    assert not served.lines()
    assert counted("GET", "200", path) == 0


def counted(method: str, status: str, handler: str) -> float:
    return REQUESTS.labels(method, status, handler)._value.get()


async def test_metrics_count_by_template_method_and_exact_status() -> None:
    def during() -> None:
        current().route = "/counted/{id}"

    served = Served(answering(during, body=b"12345"))
    for number in range(3):
        await served.get(f"/counted/{number}")
    served.metrics.flush()
    assert counted("GET", "200", "/counted/{id}") == 3
    assert RESPONSE_SIZE.labels("/counted/{id}")._sum.get() == 15


def fastapi_app() -> FastAPI:
    things = APIRouter(prefix="/things")

    @things.get("/{thing_id}")
    async def thing(thing_id: int) -> int:
        if thing_id == 404:
            raise HTTPException(404)
        return thing_id

    app, api = FastAPI(), APIRouter(prefix="/api/v1")
    app.mount("/mounted", answering())

    @app.get("/direct/{thing_id}")
    async def direct(thing_id: int) -> int:
        return thing_id

    api.include_router(things)
    app.include_router(api)
    return app


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("GET", "/api/v1/things/1", "/api/v1/things/{thing_id}"),
        ("GET", "/api/v1/things/404", "/api/v1/things/{thing_id}"),
        ("GET", "/api/v1/things/no-number", "/api/v1/things/{thing_id}"),
        ("GET", "/api/v1/nothing/like/it", "unmatched"),
        ("GET", "/direct/1", "/direct/{thing_id}"),
        ("POST", "/direct/1", "/direct/{thing_id}"),
        ("GET", "/openapi.json", "/openapi.json"),
        ("GET", "/mounted/anything", "unmatched"),
    ],
)
async def test_the_template_is_found_when_no_one_has_set_it(method: str, path: str, route: str) -> None:
    served = Served(fastapi_app())
    await served.request(method, path)
    assert served.lines()[0]["route"] == route


async def crashing(scope: Scope, receive: Receive, send: Send) -> None:
    raise ZeroDivisionError("a secret of ours")


async def test_a_crash_is_a_problem_that_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    served = Served(crashing)
    response = await served.get("/crash/ä" + "x" * 1_000)
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert int(response.headers["content-length"]) == len(response.content)
    assert response.headers["x-request-id"] == response.json()["request_id"]
    assert response.json()["instance"].startswith("/crash/%C3%A4x")
    assert len(response.json()["instance"]) < 300
    assert response.headers["cache-control"] == "no-store"
    assert "secret" not in response.text
    (line,) = served.lines()
    assert (line["status"], line["level"]) == (500, "error")
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "a secret of ours" in str(record.exc_info)


async def crashing_halfway(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise ZeroDivisionError


async def test_an_answer_that_has_begun_is_left_incomplete() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    served = Served(crashing_halfway)
    await served.app(scope, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start"]


async def test_a_client_that_left_before_its_answer() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        return None

    served = Served(app)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await served.app(scope, None, None)  # type: ignore[arg-type]
    assert served.lines()[0]["status"] == CLIENT_CLOSED_REQUEST


async def test_the_context_ends_with_the_request() -> None:
    await Served(answering()).get()
    assert request_context.get(None) is None


async def test_the_end_of_the_lifespan_flushes_the_log() -> None:
    stream = io.BytesIO()
    app = RequestContextMiddleware(answering(), instance="api-1", access_log=AccessLog(stream=stream))

    async def send(message: Message) -> None:
        pass

    await app({"type": "http", "method": "GET", "path": "/", "headers": []}, None, send)  # type: ignore[arg-type]
    assert not stream.getvalue()
    await app({"type": "lifespan"}, None, send)  # type: ignore[arg-type]
    assert stream.getvalue()
