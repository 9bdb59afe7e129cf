import json
from typing import Annotated, Any, Literal

import pytest
from fastapi import FastAPI, Form, HTTPException, Query
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Message

from app.platform import errors as domain
from app.platform.http.explanations import problems_router
from app.platform.http.limit_problems import AbnormalUsage, QuotaExceeded, ReducedCapacity
from app.platform.http.pagination import ListParams
from app.platform.http.problems import (
    MAX_ERRORS,
    MAX_NAME,
    MAX_TEXT,
    BadRequest,
    ProblemDetails,
    ServiceUnavailable,
    TooManyRequests,
    ValidationProblemDetails,
    install_problem_handlers,
    problem_response,
    problem_responses,
    send_problem,
)
from app.platform.http.types import JsonObject, Line, Tags
from app.platform.telemetry.context import RequestContext, request_context


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[Line, Field(max_length=100)]
    count: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    kind: Literal["a", "b"] = "a"
    tags: Tags = []
    attributes: JsonObject = {}


class OutOfStock(domain.Conflict):
    """None is left."""

    slug = "out-of-stock"
    title = "Out of stock"


class PoolTimeout(Exception):
    pass


def make_app() -> FastAPI:
    app = FastAPI(redirect_slashes=False)
    install_problem_handlers(app, {PoolTimeout: lambda _: ServiceUnavailable(retry_after_seconds=3)})
    app.include_router(problems_router())
    failures: dict[str, Exception] = {
        "domain": OutOfStock("2 were asked for"),
        "unauthenticated": domain.Unauthenticated(),
        "problem": BadRequest("no", headers={"X-Why": "because"}),
        "http": HTTPException(404, "no such thing", {"X-Why": "because"}),
        "teapot": HTTPException(418),
        "pool": PoolTimeout(),
        "bug": RuntimeError("secret of the house"),
    }

    @app.post("/things")
    async def create(thing: Thing) -> Thing:
        return thing

    @app.get("/things")
    async def things(query: Annotated[ListParams, Query()]) -> None: ...

    @app.post("/form")
    async def form(username: Annotated[str, Form()]) -> str:
        return username

    @app.get("/fail/{how}")
    async def fail(how: str) -> None:
        raise failures[how]

    return app


client = TestClient(make_app(), raise_server_exceptions=False)


def problem(response: Any) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    assert len(response.content) < 8_000
    body: dict[str, Any] = response.json()
    ValidationProblemDetails.model_validate(body)
    assert body["status"] == response.status_code
    return body


def post(content: str | bytes, content_type: str = "application/json", path: str = "/things") -> dict[str, Any]:
    return problem(client.post(path, content=content, headers={"content-type": content_type}))


def test_a_problem_says_type_title_status_place_and_request():
    token = request_context.set(RequestContext(request_id="r-1"))
    try:
        body = json.loads(problem_response(BadRequest("why"), "/api/v1/things/ä b").body)
    finally:
        request_context.reset(token)
    assert body == {
        "type": "/problems/malformed-request",
        "title": "The request is malformed",
        "status": 400,
        "detail": "why",
        "instance": "/api/v1/things/%C3%A4%20b",
        "request_id": "r-1",
    }


@pytest.mark.parametrize(
    ("how", "status", "slug", "detail"),
    [
        ("domain", 409, "out-of-stock", "2 were asked for"),
        ("unauthenticated", 401, "unauthorized", "Not authenticated"),
        ("problem", 400, "malformed-request", "no"),
        ("http", 404, "not-found", "no such thing"),
        ("pool", 503, "service-unavailable", "Service unavailable"),
        ("bug", 500, "internal-server-error", "Internal server error"),
    ],
)
def test_every_exception_becomes_a_problem(how: str, status: int, slug: str, detail: str):
    body = problem(client.get(f"/fail/{how}"))
    assert (body["status"], body["type"], body["detail"]) == (status, f"/problems/{slug}", detail)
    assert "secret" not in str(body)


def test_a_status_without_a_type_of_its_own():
    body = problem(client.get("/fail/teapot"))
    assert (body["status"], body["type"], body["title"]) == (418, "about:blank", "I'm a Teapot")


def test_headers_of_problems():
    assert client.get("/fail/problem").headers["x-why"] == "because"
    assert client.get("/fail/http").headers["x-why"] == "because"
    assert client.get("/fail/pool").headers["retry-after"] == "3"
    assert client.get("/fail/unauthenticated").headers["www-authenticate"] == "Bearer"


def test_what_the_router_refuses():
    assert problem(client.get("/nowhere"))["type"] == "/problems/not-found"
    response = client.delete("/things")
    assert problem(response)["type"] == "/problems/method-not-allowed"
    assert response.headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize(
    ("content", "status", "named"),
    [
        ("{", 400, "not valid JSON"),
        ("", 422, "body"),
        ("[" * 100_000, 400, "nested too deeply"),
        ('{"a":' * 100_000, 400, "nested too deeply"),
        ("[" * 100_000 + "]" * 100_000, 400, "nested too deeply"),
        ('{"name": ' + "1" * 10_000 + "}", 400, "too many digits"),
        (b'{"name": "\xff"}', 400, "not UTF-8"),
        (b"\x00", 400, "not valid JSON"),
        ("[]", 422, "body"),
        ("null", 422, "body"),
        ("1e400", 422, "body"),
        ("{}", 422, "name"),
        ('{"name": 1}', 422, "name"),
        ('{"name": "a\\u0000b"}', 422, "name"),
        ('{"name": "\\ud800"}', 422, "name"),
        ('{"name": "a", "colour": "red"}', 422, "colour"),
        ('{"name": "a", "kind": "c"}', 422, "kind"),
        ('{"name": "a", "count": 1e400}', 422, "count"),
        ('{"name": "a", "count": NaN}', 422, "count"),
        ('{"name": "a", "count": -Infinity}', 422, "count"),
        ('{"name": "a", "count": 99999999999999999999}', 422, "count"),
        ('{"name": "a", "count": 1.5}', 422, "count"),
        ('{"name": "a", "count": "' + "9" * 5_000 + '"}', 422, "count"),
        ('{"name": "a", "tags": ' + json.dumps(["t"] * 10_000) + "}", 422, "tags"),
        ('{"name": "a", "attributes": {"x": NaN}}', 422, "attributes"),
        ('{"name": "a", "attributes": ' + '{"x":' * 200 + "1" + "}" * 200 + "}", 422, "attributes"),
        ('{"name": "a", "attributes": {"x": "\\u0000"}}', 422, "attributes"),
        ('{"name": "a", "' + "x" * 100_000 + '": 1}', 422, "xxx"),
        ('{"name": "a", "\\ud800": 1}', 422, "unicode"),
        ('{"name": "' + "x" * 100_000 + '"}', 422, "name"),
    ],
)
def test_bad_bodies_are_named_in_little_space(content: str | bytes, status: int, named: str):
    body = post(content)
    assert body["status"] == status
    assert named in json.dumps([body.get("detail"), body.get("errors")])


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists) | st.binary())
def test_no_body_is_a_server_error(content: Any):
    raw = content if isinstance(content, bytes) else json.dumps(content)
    assert post(raw)["status"] in (400, 422)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "nonsense", ""])
def test_a_body_of_another_type_is_unsupported(content_type: str):
    assert post('{"name": "a"}', content_type)["status"] == 415


def test_a_form_has_to_be_one():
    assert post('{"username": "a"}', path="/form")["status"] == 415
    assert post("user=a", "application/x-www-form-urlencoded", "/form")["errors"][0]["loc"] == ["body", "username"]


def test_errors_are_counted_listed_and_cut():
    body = post(json.dumps({f"{'k' * 100}{n}": 1 for n in range(1_000)}))
    assert len(body["errors"]) == MAX_ERRORS
    assert "1001 things" in body["detail"]
    assert all(len(step) <= MAX_NAME for error in body["errors"] for step in error["loc"])


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("limit=0", "limit"),
        ("limit=abc", "limit"),
        ("limit=" + "9" * 5_000, "limit"),
        ("limit=1e400", "limit"),
        ("page=NaN", "page"),
        ("colour=red", "colour"),
        ("total=all", "total"),
        ("cursor=" + "x" * 5_000, "cursor"),
    ],
)
def test_bad_queries_name_the_parameter(query: str, named: str):
    body = problem(client.get(f"/things?{query}"))
    assert body["status"] == 422
    assert body["errors"][0]["loc"] == ["query", named]


@given(st.text(max_size=2_000))
def test_any_detail_is_sent_bounded_and_printable(detail: str):
    body = json.loads(problem_response(BadRequest(detail), detail).body)
    assert len(body.get("detail", "")) <= MAX_TEXT
    assert body.get("detail", "").isprintable()
    assert body["instance"].isascii()


async def test_a_middleware_sends_the_same_problem():
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await send_problem(send, BadRequest("no"), "/x")
    start, body = sent
    assert start["status"] == 400
    assert (b"content-type", b"application/problem+json") in start["headers"]
    assert ProblemDetails.model_validate_json(body["body"]).detail == "no"


def test_the_document_lists_all_types_of_a_status():
    responses = problem_responses(domain.NotFound, OutOfStock, domain.Conflict, BadRequest)
    assert list(responses) == [404, 409, 400]
    assert "out-of-stock" in responses[409]["description"]
    assert "/problems/conflict" in responses[409]["description"]
    assert list(responses[404]["content"]) == ["application/problem+json"]


def test_a_type_leads_to_its_explanation():
    response = client.get("/problems/out-of-stock")
    assert response.json() == {
        "type": "/problems/out-of-stock",
        "title": "Out of stock",
        "status": 409,
        "explanation": "None is left.",
    }
    page = client.get("/problems/out-of-stock", headers={"accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    assert "None is left." in page.text
    assert problem(client.get("/problems/none-such"))["status"] == 404


def test_a_refusal_by_the_rate_limit_is_a_problem_of_the_draft():
    """draft-ietf-httpapi-ratelimit-headers-11, section 5.1."""
    body = json.loads(problem_response(QuotaExceeded(["hourly", "daily"]), "/api/v1/things").body)
    assert body["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert body["violated-policies"] == ["hourly", "daily"]
    assert body["title"] == "Request cannot be satisfied as assigned quota has been exceeded"
    assert body.keys() > {"status", "detail", "instance", "request_id"}


@pytest.mark.parametrize("kind", [QuotaExceeded, ReducedCapacity, AbnormalUsage])
def test_types_of_the_registry_are_explained_here_too(kind: type[TooManyRequests]):
    about = client.get(f"/problems/{kind.slug}").json()
    assert about["type"] == f"https://iana.org/assignments/http-problem-types#{kind.slug}"
    assert "Retry-After" in about["explanation"]
    assert kind.title in client.get(f"/problems/{kind.slug}", headers={"accept": "text/html"}).text
