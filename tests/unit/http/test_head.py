"""A HEAD is answered as its GET would be, without the body."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Message

from app.platform.http.head import HeadMiddleware


async def whole(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"a {request.method}", headers={"ETag": '"1"'})


def service_with(*middleware: Middleware) -> Starlette:
    routes = [Route("/read", whole, methods=["GET"]), Route("/written", whole, methods=["POST"])]
    return Starlette(routes=routes, middleware=middleware)


def client(*middleware: Middleware) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(service_with(*middleware))
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def test_head_is_get_without_the_body() -> None:
    async with client(Middleware(HeadMiddleware)) as service:
        read, asked = await service.get("/read"), await service.head("/read")
    assert (asked.status_code, asked.headers, asked.content) == (read.status_code, read.headers, b"")
    assert asked.headers["content-length"] == str(len("a GET"))


@pytest.mark.parametrize(("path", "status"), [("/written", 405), ("/absent", 404)])
async def test_where_there_is_no_get_there_is_no_head(path: str, status: int) -> None:
    async with client(Middleware(HeadMiddleware)) as service:
        assert (await service.head(path)).status_code == status


async def test_other_methods_are_let_through() -> None:
    async with client(Middleware(HeadMiddleware)) as service:
        assert (await service.post("/written")).text == "a POST"


async def sent_by(*middleware: Middleware) -> bytes:
    """The client above leaves the body of a HEAD out by itself."""
    bodies: list[bytes] = []
    scope = {"type": "http", "method": "HEAD", "path": "/read", "headers": [], "query_string": b"", "root_path": ""}

    async def send(message: Message) -> None:
        bodies.append(message.get("body", b""))

    await service_with(*middleware)(scope, no_more, send)
    return b"".join(bodies)


async def no_more() -> Message:
    return {"type": "http.request", "body": b""}


async def test_no_body_is_sent() -> None:
    assert await sent_by(Middleware(HeadMiddleware)) == b""


async def test_control_the_body_would_be_sent() -> None:
    assert await sent_by() == b"a HEAD"
