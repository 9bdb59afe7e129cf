"""Whoever is killed has sent an answer whole or not at all: that takes one write."""

import asyncio
import json
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from app.platform.http.problems import BadRequest, ProblemDetails, problem_type
from app.platform.resilience.protocol import Protocol


async def whole(request: Request) -> Response:
    return PlainTextResponse("whole")


async def nothing(request: Request) -> Response:
    return Response(status_code=204)


async def streamed(request: Request) -> Response:
    async def chunks() -> Any:
        yield "first"
        await asyncio.sleep(0.05)
        yield "second"

    return StreamingResponse(chunks())


APP = Starlette(routes=[Route("/whole", whole), Route("/nothing", nothing), Route("/streamed", streamed)])


class Wire(asyncio.Transport):
    """Notes each write, and what the connection came to."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = asyncio.Event()

    def write(self, data: Any) -> None:
        assert not self.closed.is_set()
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed.set()

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def resume_reading(self) -> None:
        pass


async def writes(kind: type[HttpToolsProtocol], path: str, method: str = "GET") -> list[bytes]:
    return await answers(kind, f"{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())


async def answers(kind: type[HttpToolsProtocol], request: bytes) -> list[bytes]:
    config = Config(APP, log_config=None, lifespan="off")
    config.load()
    wire, protocol = Wire(), kind(config, ServerState(), {})
    protocol.connection_made(wire)
    protocol.data_received(request)
    async with asyncio.timeout(5):
        await wire.closed.wait()
    return [written for written in wire.writes if written]


async def test_an_answer_is_one_write() -> None:
    [answer] = await writes(Protocol, "/whole")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nwhole")


async def test_control_uvicorns_own_are_two() -> None:
    assert len(await writes(HttpToolsProtocol, "/whole")) == 2


@pytest.mark.parametrize(("path", "method"), [("/nothing", "GET"), ("/whole", "HEAD")])
async def test_a_head_alone_is_sent(path: str, method: str) -> None:
    [answer] = await writes(Protocol, path, method)
    assert answer.endswith(b"\r\n\r\n")


async def test_a_stream_is_not_held_up() -> None:
    first, *rest = await writes(Protocol, "/streamed")
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"second" not in first
    assert b"second" in b"".join(rest)


NO_HTTP = [
    b"FOO /whole HTTP/1.1\r\n\r\n",
    b"GET /\xc3\xa4 HTTP/1.1\r\n\r\n",
    b"GET /whole HTTP/1.1\r\nX-A: a\x01b\r\n\r\n",
]


@pytest.mark.parametrize("request_", NO_HTTP, ids=["method", "path", "header"])
async def test_what_is_no_http_is_refused_by_a_problem(request_: bytes) -> None:
    [answer] = await answers(Protocol, request_)
    head, _, body = answer.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    assert head.startswith(b"HTTP/1.1 400 ")
    assert headers["content-type"] == "application/problem+json"
    assert headers["content-length"] == str(len(body))
    problem = json.loads(body)
    assert ProblemDetails.model_validate(problem).status == 400
    assert problem["request_id"] == headers["x-request-id"]
    assert problem["title"] == BadRequest.title
    assert problem["type"] == problem_type(BadRequest.slug)


async def test_a_refusal_keeps_the_request_id_that_came_before() -> None:
    [answer] = await answers(Protocol, b"GET /whole HTTP/1.1\r\nX-Request-ID: order-66\r\nX-A: a\x01b\r\n\r\n")
    assert b"x-request-id: order-66\r\n" in answer


async def test_a_refusal_doesnt_keep_the_id_of_an_earlier_request() -> None:
    earlier = b"GET /whole HTTP/1.1\r\nX-Request-ID: order-66\r\n\r\n"
    assert b"order-66" not in b"".join(await answers(Protocol, earlier + b"FOO /whole HTTP/1.1\r\n\r\n"))


async def test_control_uvicorn_refuses_it_by_a_text() -> None:
    [answer] = await answers(HttpToolsProtocol, NO_HTTP[0])
    assert b"text/plain" in answer
