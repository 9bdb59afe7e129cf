import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from app.platform.http.hosts import AllowedHostsMiddleware


def client(*allowed: str) -> TestClient:
    async def answer(_request: object) -> PlainTextResponse:
        return PlainTextResponse("ok")

    middleware = Middleware(AllowedHostsMiddleware, allowed=allowed, unchecked_paths=frozenset({"/livez"}))
    return TestClient(Starlette(routes=[Route("/", answer), Route("/livez", answer)], middleware=[middleware]))


@pytest.mark.parametrize(
    "host", ["api.example.com", "API.example.com", "api.example.com:8080", "a.b.internal", "[::1]:80"]
)
def test_allowed_hosts_are_answered(host: str) -> None:
    found = client("api.example.com", "*.internal", "[::1]").get("/", headers={"Host": host})
    assert found.status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "api.example.com.evil.example", "internal", "", "[::2]", "api.example.com@evil"]
)
def test_other_hosts_are_refused(host: str) -> None:
    found = client("api.example.com", "*.internal").get("/", headers={"Host": host})
    assert found.status_code == 421
    assert found.json()["type"] == "/problems/unknown-host"


def test_a_star_allows_any_host() -> None:
    assert client("*").get("/", headers={"Host": "evil.example"}).status_code == 200


def test_load_balancers_ask_by_address() -> None:
    assert client("api.example.com").get("/livez", headers={"Host": "10.0.0.7"}).status_code == 200
