import gzip
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from app.platform.http.bounds import MAX_JSON_SEPARATORS, MAX_QUERY_BYTES, RequestBoundsMiddleware
from app.platform.http.problems import install_problem_handlers

LIMIT = 50_000
JSON = {"content-type": "application/json"}


def make_app() -> FastAPI:
    app = FastAPI()
    install_problem_handlers(app)
    app.add_middleware(RequestBoundsMiddleware, max_body_bytes=LIMIT)

    @app.post("/json")
    async def take_json(value: list[Any] | str) -> int:
        return len(value)

    @app.post("/raw")
    async def take_raw(request: Request) -> int:
        return len(await request.body())

    @app.get("/items/{name}")
    async def item(name: str) -> str:
        return name

    return app


client = TestClient(make_app())


def chunks(count: int, chunk: bytes) -> Iterator[bytes]:
    yield from [chunk] * count


def refused(response: Any, status: int) -> str:
    assert response.headers["content-type"] == "application/problem+json"
    assert response.status_code == status
    return str(response.json())


@pytest.mark.parametrize("path", ["/json", "/raw"])
def test_a_body_that_says_it_is_too_large_is_refused(path: str):
    said = refused(client.post(path, content=b'"' + b"x" * LIMIT, headers={"content-type": "application/json"}), 413)
    assert f"{LIMIT} bytes" in said


@pytest.mark.parametrize("path", ["/json", "/raw"])
def test_a_body_that_says_nothing_is_refused_when_it_gets_too_large(path: str):
    response = client.post(path, content=chunks(51, b"[" + b" " * 999), headers={"content-type": "application/json"})
    assert f"{LIMIT} bytes" in refused(response, 413)


@pytest.mark.parametrize("content", [b"x" * LIMIT, chunks(50, b"x" * 1_000)])
def test_a_body_of_the_limit_passes(content: Any):
    assert client.post("/raw", content=content).json() == LIMIT


def test_json_of_too_many_values_is_refused():
    assert client.post("/json", json=[1] * (MAX_JSON_SEPARATORS + 1)).json() == MAX_JSON_SEPARATORS + 1
    said = refused(client.post("/json", json=[1] * (MAX_JSON_SEPARATORS + 2)), 413)
    assert f"{MAX_JSON_SEPARATORS} values" in said


def test_commas_count_in_json_alone():
    assert client.post("/raw", content=b"," * LIMIT, headers={"content-type": "text/csv"}).json() == LIMIT


@pytest.mark.parametrize("url", ["/items/a?q=%00", "/items/a?%00=1", "/items/a%00b"])
def test_nul_characters_are_refused_wherever_they_are(url: str):
    assert "NUL" in refused(client.get(url), 422)


def test_a_long_query_is_refused():
    assert client.get("/items/a?" + "q" * MAX_QUERY_BYTES).status_code == 200
    assert "longer" in refused(client.get("/items/a?" + "q" * (MAX_QUERY_BYTES + 1)), 422)


@pytest.mark.parametrize("length", ["", "-1", "nonsense", "1e9"])
def test_a_length_that_is_none_is_left_to_the_server(length: str):
    assert client.post("/raw", content=b"abc", headers={"content-length": length}).json() == 3


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "gzip, identity", "nonsense"])
def test_a_compressed_body_is_refused_and_told_so(coding: str):
    response = client.post("/json", content=gzip.compress(b"[1]"), headers={"content-encoding": coding} | JSON)
    assert "compressed" in refused(response, 415)
    assert response.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("coding", ["", "identity", "Identity"])
def test_control_a_body_that_is_plain_is_read(coding: str):
    assert client.post("/json", content=b"[1]", headers={"content-encoding": coding} | JSON).json() == 1
