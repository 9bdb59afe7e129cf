"""What nginx adds to the API, and what it keeps from it."""

import re
import ssl
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.local import nginx
from deploy.local.options import Options
from tests.support.native import NativeStack, free_block
from tests.support.stack import Service, temporary_folder

STATIC = Path("app/static")


@pytest.fixture
def public(stack: NativeStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.http) as client:
        yield client


@pytest.fixture
def operators(stack: NativeStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.ops) as client:
        yield client


def assert_problem(response: httpx.Response, status: int) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]


def test_the_page_and_its_style(public: httpx.Client) -> None:
    page = public.get("/")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    (style,) = re.findall(r'href="(/static/[^"]+\.css)"', page.text)
    answer = public.get(style)
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-type"] == "text/css"


def test_it_says_when_a_request_came(public: httpx.Client, operators: httpx.Client) -> None:
    """Whatever the client says: deadlines count from there."""
    assert public.get("/api/v1/auth/me", headers={"X-Request-Start": "t=1.000"}).status_code == 401
    counted = re.findall(r"^http_queue_seconds_count\{.*\} (\S+)$", operators.get("/metrics").text, re.MULTILINE)
    assert sum(map(float, counted)) > 0
    late = re.findall(r"^deadlines_exceeded_total\{.*\} (\S+)$", operators.get("/metrics").text, re.MULTILINE)
    assert sum(map(float, late)) == 0


def test_the_hash_in_a_static_name_is_that_of_its_content() -> None:
    hashed = [path for path in STATIC.iterdir() if path.suffix != ".html"]
    assert hashed
    for path in hashed:
        assert sha256(path.read_bytes()).hexdigest()[:8] == path.suffixes[0][1:], path


@pytest.mark.parametrize("path", ["/static/index.html", "/static/absent.12345678.css", "/static/"])
def test_only_hashed_names_are_static_files(public: httpx.Client, path: str) -> None:
    assert_problem(public.get(path), 404)


@pytest.mark.parametrize("path", ["/health", "/metrics", "/metrics/", "/metrics/api-1", "/nginx_status", "/%6detrics"])
def test_the_operators_pages_are_not_public(public: httpx.Client, path: str) -> None:
    assert_problem(public.get(path), 404)


def test_the_operators_see_every_instance(operators: httpx.Client) -> None:
    assert operators.get("/health").json()["status"] == "healthy"
    assert operators.get("/metrics").text.count("\nup{") == 2
    for instance in ("api-1", "api-2"):
        assert operators.get(f"/metrics/{instance}").headers["x-instance"] == instance
    assert "Active connections" in operators.get("/nginx_status").text
    assert_problem(operators.get("/api/v1/equipment"), 404)


def test_requests_are_spread_over_the_instances(public: httpx.Client) -> None:
    assert {public.get("/docs/oauth2-redirect").headers["x-instance"] for _ in range(20)} == {"api-1", "api-2"}


def test_a_sane_request_id_is_taken_over_and_another_replaced(public: httpx.Client) -> None:
    assert public.get("/livez", headers={"X-Request-ID": "order-66"}).headers["x-request-id"] == "order-66"
    assert public.get("/", headers={"X-Request-ID": "order-66"}).headers["x-request-id"] == "order-66"
    replaced = public.get("/livez", headers={"X-Request-ID": 'a"b c'}).headers["x-request-id"]
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", replaced)


def test_large_answers_are_compressed(public: httpx.Client) -> None:
    answer = public.get("/openapi.json", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert "Accept-Encoding" in answer.headers["vary"]


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("POST", "/api/v1/auth/login", {"content": b"x" * 1_100_000}, 413),
        ("GET", "/" + "a" * 9_000, {}, 414),
        ("GET", "/livez", {"headers": {"X-Padding": "a" * 9_000}}, 431),
        ("GET", "/livez", {"headers": {"Host": "a b"}}, 400),
        ("GET", "/api/v1/absent", {}, 404),
        ("FOO", "/api/v1/equipment", {}, 400),
        ("GET", "/api/v1/equipment", {"headers": {"X-Padding": "a\x7fb"}}, 400),
    ],
    ids=["body", "url", "headers", "host", "path", "method", "control character"],
)
def test_refusals_are_problems(
    public: httpx.Client, method: str, path: str, options: dict[str, Any], status: int
) -> None:
    assert_problem(public.request(method, path, **options), status)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/", "GET, HEAD"),
        ("TRACE", "/static/page.00000000.css", "GET, HEAD"),
        ("TRACE", "/api/v1/equipment", "GET, HEAD, POST, PATCH, DELETE"),
        ("PUT", "/api/v1/equipment", "GET, HEAD, POST"),
    ],
)
def test_a_refused_method_says_which_are_allowed(public: httpx.Client, method: str, path: str, allowed: str) -> None:
    answer = public.request(method, path)
    assert_problem(answer, 405)
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/", "/docs", "/livez", "/.well-known/jwks.json", "/api/v1/auth/me"])
def test_head_is_get_without_the_body(public: httpx.Client, path: str) -> None:
    read, asked = public.get(path), public.head(path)
    assert (asked.status_code, asked.content) == (read.status_code, b"")
    assert asked.headers["content-type"] == read.headers["content-type"]


def test_the_names_of_the_servers_are_not_told(public: httpx.Client) -> None:
    assert public.get("/livez").headers["server"] == "nginx"


def test_tls(stack: NativeStack) -> None:
    certificate = stack.folder / "state" / "nginx" / "certificates" / "server.crt"
    trusting = ssl.create_default_context(cafile=certificate)
    with httpx.Client(verify=trusting) as client:
        assert client.get(f"{stack.https}/livez").status_code == 200
        assert_problem(client.get(stack.https.replace("https", "http") + "/livez"), 400)


@pytest.fixture
def lonely() -> Iterator[str]:
    """nginx as in production, and nobody behind it."""
    port = free_block()
    options = Options(http_port=port, https_port=port + 1, ops_port=port + 2, api_base_port=port + 3)
    with temporary_folder() as home:
        nginx.prepare(home, options, {"ENVIRONMENT": "production", "RATE_LIMIT_SCALE": "0.05"})
        url = f"http://127.0.0.1:{port}"
        service = Service("nginx", nginx.command(home), lambda: answers(url), home / "log", as_service=False)
        try:
            service.start()
            yield url
        finally:
            service.stop()


def answers(url: str) -> bool:
    try:
        return bool(httpx.get(url).status_code)
    except httpx.TransportError:
        return False


def test_production_moves_everything_but_the_probes_to_https(lonely: str) -> None:
    moved = httpx.get(f"{lonely}/api/v1/equipment?q=1")
    https_port = int(lonely.rpartition(":")[2]) + 1
    assert moved.status_code == 308
    assert moved.headers["location"] == f"https://127.0.0.1:{https_port}/api/v1/equipment?q=1"
    assert_problem(httpx.get(f"{lonely}/livez"), 502)


def test_without_an_instance_the_answer_is_a_problem_that_says_when_to_come_back(lonely: str) -> None:
    answer = httpx.get(f"{lonely}/readyz")
    assert_problem(answer, 502)
    assert answer.headers["retry-after"] == "1"


def test_one_address_cannot_take_everything(lonely: str) -> None:
    """10 requests a second there, 20 more in a burst."""
    https = f"https://127.0.0.1:{int(lonely.rpartition(':')[2]) + 1}"
    with httpx.Client(verify=False) as client:
        refused = [answer for answer in (client.get(f"{https}/x") for _ in range(60)) if answer.status_code == 429]
        assert len(refused) > 20
        assert_problem(refused[0], 429)
        assert client.get(f"{https}/livez").status_code == 502, "probes are not limited"
