import asyncio
from contextvars import ContextVar
from time import monotonic, perf_counter
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Header, Request, Response
from fastapi.testclient import TestClient
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from app.platform.errors import Conflict, NotFound
from app.platform.http.batch import batch_router
from app.platform.http.problems import install_problem_handlers
from app.platform.http.types import Text
from app.platform.resilience.deadlines import deadline
from app.platform.telemetry.context import RequestContext, current, request_context

MAX_RESPONSE_BYTES = 10_000
seen: ContextVar[str] = ContextVar("seen", default="nothing")


class Note(BaseModel):
    text: Text


class Outer:
    """What stands around the app: a context and a deadline for each request."""

    def __init__(self, app: ASGIApp, seconds: float = 5) -> None:
        self.app = app
        self.seconds = seconds
        self.context = RequestContext("outer", wal_required=5, client_address="192.0.2.1")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.context = RequestContext("outer", wal_required=5, client_address="192.0.2.1")
        request_context.set(self.context)
        deadline.set(monotonic() + self.seconds)
        await self.app(scope, receive, send)


def make_app() -> FastAPI:
    app = FastAPI(redirect_slashes=False)
    install_problem_handlers(app)
    meeting = asyncio.Barrier(3)

    @app.get("/api/v1/echo")
    async def echo(request: Request) -> dict[str, Any]:
        context = current()
        context.extra_headers.append((b"ratelimit", b"r=1"))
        context.cache = "MISS"
        return {
            "query": dict(request.query_params),
            "headers": dict(request.headers),
            "request_id": context.request_id,
            "wal_required": context.wal_required,
            "client": context.client_address,
            "state": request.scope["state"].get("caller"),
        }

    @app.post("/api/v1/notes", status_code=201)
    async def add(note: Note) -> Note:
        context = current()
        context.wal_written = len(note.text)
        context.queries += 2
        return note

    @app.delete("/api/v1/notes/{name}", status_code=204)
    async def delete(name: str) -> None:
        if name == "missing":
            raise NotFound()

    @app.patch("/api/v1/notes/{name}")
    async def change(name: str, if_match: Annotated[str | None, Header()] = None) -> str:
        raise Conflict(f"{name} {if_match}")

    @app.get("/api/v1/meet")
    async def meet(name: str) -> str:
        before = seen.get()
        seen.set(name)
        await meeting.wait()
        return f"{before}, {seen.get()}"

    @app.get("/api/v1/sleep")
    async def sleep() -> None:
        await asyncio.sleep(30)

    @app.get("/api/v1/bug")
    async def bug() -> None:
        raise RuntimeError("secret of the house")

    @app.get("/api/v1/large")
    async def large(size: int) -> str:
        return "x" * size

    @app.get("/api/v1/text")
    async def text() -> Response:
        return Response("plain\n", media_type="text/plain", headers={"set-cookie": "a=b"})

    async def below(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["caller"] = scope["path"]
        if scope["path"].endswith("/broken"):
            raise RuntimeError("below the app")
        await app(scope, receive, send)

    app.include_router(
        batch_router(
            lambda _: below, prefix="/api/v1/", max_requests=4, max_response_bytes=MAX_RESPONSE_BYTES, max_at_once=4
        ),
        prefix="/api/v1",
    )
    return app


outer = Outer(make_app())
client = TestClient(outer, raise_server_exceptions=False)


def part(url: str, method: str = "GET", id: str = "p", **fields: Any) -> dict[str, Any]:
    return {"id": id, "method": method, "url": url, **fields}


def run(*parts: dict[str, Any], headers: dict[str, str] | None = None) -> list[dict[str, Any]]:
    requests = [{**each, "id": each["id"] + str(index)} for index, each in enumerate(parts)]
    response = client.post("/api/v1/batch", json={"requests": requests}, headers=headers)
    assert response.status_code == 200, response.text
    answers: list[dict[str, Any]] = response.json()["responses"]
    assert [answer["id"] for answer in answers] == [each["id"] for each in requests]
    return answers


def refused(parts: Any) -> list[Any]:
    response = client.post("/api/v1/batch", json={"requests": parts})
    assert response.status_code == 422, response.text
    errors: list[Any] = response.json()["errors"]
    return errors


def test_each_part_has_its_own_status_headers_and_body():
    (
        got,
        made,
        gone,
        missing,
        conflict,
    ) = (
        *run(
            part("/api/v1/echo?a=1&b=%20"),
            part("/api/v1/notes", "POST", body={"text": "hello"}),
            part("/api/v1/notes/x", "DELETE"),
            part("/api/v1/notes/missing", "DELETE"),
        ),
        *run(part("/api/v1/notes/a%2Fb", "PATCH", headers={"If-Match": '"1"'}, body={})),
    )
    assert (got["status"], got["body"]["query"]) == (200, {"a": "1", "b": " "})
    assert (made["status"], made["body"]) == (201, {"text": "hello"})
    assert (gone["status"], gone["body"]) == (204, None)
    assert (missing["status"], missing["body"]["type"]) == (404, "/problems/not-found")
    assert missing["headers"]["content-type"] == "application/problem+json"
    assert missing["body"]["request_id"] == "outer-4"
    assert conflict["status"] == 404


def test_headers_that_a_part_sets_reach_it():
    [conflict] = run(part("/api/v1/notes/x", "PATCH", headers={"If-Match": '"1"'}, body={}))
    assert conflict["body"]["detail"] == 'x "1"'


def test_a_part_inherits_who_asks_and_nothing_else():
    sent = {
        "authorization": "Bearer t",
        "x-consistency-token": "c",
        "cookie": "a=b",
        "x-request-id": "r",
        "accept": "x",
    }
    [answer] = run(part("/api/v1/echo"), headers=sent)
    headers = answer["body"]["headers"]
    assert headers["authorization"] == "Bearer t"
    assert headers["x-consistency-token"] == "c"
    assert set(headers) == {"host", "authorization", "x-consistency-token", "user-agent"}
    assert (answer["body"]["wal_required"], answer["body"]["client"]) == (5, "192.0.2.1")


def test_a_part_may_bring_a_consistency_token_of_its_own():
    [answer] = run(
        part("/api/v1/echo", headers={"X-Consistency-Token": "mine"}), headers={"x-consistency-token": "outer"}
    )
    assert answer["body"]["headers"]["x-consistency-token"] == "mine"


def test_parts_have_contexts_of_their_own():
    first, second = run(part("/api/v1/echo"), part("/api/v1/echo"))
    assert (first["headers"]["x-request-id"], second["headers"]["x-request-id"]) == ("outer-1", "outer-2")
    assert first["headers"]["ratelimit"] == "r=1"
    assert first["headers"]["x-cache"] == "MISS"
    assert first["body"]["state"] == "/api/v1/echo"
    assert outer.context.extra_headers == []


def test_what_the_parts_wrote_counts_for_the_batch():
    run(*(part("/api/v1/notes", "POST", body={"text": "x" * length}) for length in (3, 9, 1)))
    assert (outer.context.wal_written, outer.context.queries) == (9, 6)


def test_parts_run_side_by_side_and_do_not_mix():
    answers = run(*(part(f"/api/v1/meet?name={name}") for name in "abc"))
    assert [answer["body"] for answer in answers] == ["nothing, a", "nothing, b", "nothing, c"]


def test_a_part_that_fails_leaves_the_others():
    bug, broken, fine = run(part("/api/v1/bug"), part("/api/v1/broken"), part("/api/v1/large?size=1"))
    assert (bug["status"], broken["status"], fine["status"]) == (500, 500, 200)
    assert bug["body"]["type"] == broken["body"]["type"] == "/problems/internal-server-error"
    assert "secret" not in str([bug, broken])


def test_a_part_that_is_late_leaves_the_others(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outer, "seconds", 0.3)
    started = perf_counter()
    late, fine = run(part("/api/v1/sleep"), part("/api/v1/large?size=1"))
    assert (late["status"], fine["status"]) == (504, 200)
    assert late["body"]["type"] == "/problems/deadline-exceeded"
    assert perf_counter() - started < 5


def test_answers_are_bounded_together():
    size = MAX_RESPONSE_BYTES // 2
    answers = run(*(part(f"/api/v1/large?size={size}") for _ in range(2)), part("/api/v1/large?size=1"))
    assert sorted(answer["status"] for answer in answers) == [200, 413, 413]
    assert {answer["body"]["type"] for answer in answers if answer["status"] == 413} == {"/problems/answers-too-large"}


def test_what_is_not_json_is_told_as_text():
    [answer] = run(part("/api/v1/text"))
    assert answer["body"] == "plain\n"
    assert "set-cookie" not in answer["headers"]
    assert "content-length" not in answer["headers"]


@pytest.mark.parametrize(
    "url",
    [
        "/livez",
        "/api/v1",
        "/api/v2/echo",
        "http://host/api/v1/echo",
        "//host/api/v1/echo",
        "api/v1/echo",
        "/api/v1/echo#x",
        "/api/v1/echo x",
        "/api/v1\\echo",
        "/api/v1/ä",
        "/api/v1/e%00",
        "/api/v1/echo?q=%00",
        "/api/v1/batch",
        "/api/v1/batch/",
        "/api/v1/batch?x",
        "/api/v1/b%61tch",
        "/api/v1/batch%0a",
        "/api/v1/" + "x" * 2_048,
        "",
        1,
    ],
)
def test_only_paths_of_the_api_and_no_batch_within_a_batch(url: Any):
    [error] = refused([part("/api/v1/echo", id="a"), part(url, id="b")])
    assert error["loc"] == ["body", "requests", 1, "url"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("method", "TRACE"),
        ("method", "get"),
        ("id", ""),
        ("id", "x" * 65),
        ("id", "a b"),
        ("headers", {"Authorization": "Bearer other"}),
        ("headers", {"Host": "other"}),
        ("headers", {"X-Forwarded-For": "other"}),
        ("headers", {"If-Match": "a\r\nAuthorization: b"}),
        ("headers", {"If-Match": "\x00"}),
        ("headers", {"If-Match": "ä"}),
        ("headers", {"If-Match": "x" * 3_000}),
        ("headers", [1]),
        ("colour", "red"),
    ],
)
def test_parts_are_checked(field: str, value: Any):
    [error] = refused([{**part("/api/v1/echo"), field: value}])
    assert error["loc"][:4] == ["body", "requests", 0, field]


@pytest.mark.parametrize("parts", [[], [part("/api/v1/echo", id=str(n)) for n in range(5)], None, "x", [1]])
def test_the_number_of_parts_is_bounded(parts: Any):
    assert refused(parts)[0]["loc"][:2] == ["body", "requests"]


def test_ids_differ():
    assert "differ" in refused([part("/api/v1/echo"), part("/api/v1/echo")])[0]["msg"]


@pytest.mark.parametrize("body", ["NaN", "1e400", '"\\ud800"', '{"text": "\\ud800"}', "[" * 700 + "]" * 700])
def test_bodies_that_no_endpoint_takes_are_problems_of_their_part(body: str):
    content = '{"requests": [{"id": "a", "method": "POST", "url": "/api/v1/notes", "body": HERE}]}'.replace(
        "HERE", body
    )
    response = client.post("/api/v1/batch", content=content, headers={"content-type": "application/json"})
    if response.status_code == 200:
        assert response.json()["responses"][0]["status"] in (400, 422)
    else:
        assert response.status_code == 400
