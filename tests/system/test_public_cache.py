"""nginx keeps what is the same for everybody: real nginx, and behind it an API of the test's own that counts."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from deploy.local import nginx
from deploy.local.options import Options
from tests.support.native import NativeStack, free_block
from tests.support.stack import Service, temporary_folder, wait_until

DOCUMENT = "/openapi.json"
TOGETHER = 40
EXPIRED_SECONDS = 2.1  # after a max-age of 1: nginx counts whole seconds


@dataclass
class Api:
    """What it answers with, and how often it was asked."""

    port: int
    cache_control: str = "public, max-age=60"
    status: int = 200
    seconds: float = 0.0
    asked: list[str] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.path)
        time.sleep(self.seconds)
        body = f"answer {len(self.asked)}".encode()
        handler.send_response(self.status)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("Cache-Control", self.cache_control)
        handler.send_header("ETag", f'"{len(self.asked)}"')
        handler.send_header("X-Request-ID", "of-the-first")
        handler.send_header("RateLimit", '"default";r=1;t=1')
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def api() -> Iterator[Api]:
    found = Api(free_block() + 10)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", found.port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.fixture
def home() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder


@pytest.fixture
def public(api: Api, home: Path) -> Iterator[httpx.Client]:
    port = free_block()
    options = Options(
        http_port=port, https_port=port + 1, ops_port=port + 2, api_base_port=api.port - 1, api_instances=1
    )
    nginx.prepare(home, options, {"ENVIRONMENT": "test", "RATE_LIMIT_SCALE": "100"})
    url = f"http://127.0.0.1:{port}"
    service = Service("nginx", nginx.command(home), lambda: is_up(url), home / "log", as_service=False)
    try:
        service.start()
        with httpx.Client(base_url=url, timeout=20) as client:
            yield client
    finally:
        service.stop()


def is_up(url: str) -> bool:
    try:
        return bool(httpx.get(f"{url}/").status_code)
    except httpx.TransportError:
        return False


def at_once(public: httpx.Client, path: str) -> list[httpx.Response]:
    with ThreadPoolExecutor(TOGETHER) as threads:
        return list(threads.map(lambda _: public.get(path), range(TOGETHER)))


def test_what_is_kept_is_not_asked_for_again(public: httpx.Client, api: Api) -> None:
    first, second = public.get(DOCUMENT), public.get(f"{DOCUMENT}?anything=else")
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("miss", "hit")
    assert first.text == second.text
    assert api.asked == [DOCUMENT]


def test_what_belongs_to_one_request_is_not_kept(public: httpx.Client, api: Api) -> None:
    ids = {public.get(DOCUMENT, headers={"X-Request-ID": name}).headers["x-request-id"] for name in ("a", "b")}
    assert ids == {"a", "b"}
    assert "ratelimit" not in public.get(DOCUMENT).headers


def test_who_has_it_is_told_so_by_nginx(public: httpx.Client, api: Api) -> None:
    etag = public.get(DOCUMENT).headers["etag"]
    assert public.get(DOCUMENT, headers={"If-None-Match": etag}).status_code == 304
    assert len(api.asked) == 1


def test_of_all_who_ask_at_once_one_goes_to_the_api(public: httpx.Client, api: Api) -> None:
    api.seconds = 0.3
    answers = at_once(public, DOCUMENT)
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, "answer 1")}
    assert len(api.asked) == 1


def test_control_without_the_lock_all_go(public: httpx.Client, api: Api, home: Path) -> None:
    configuration = home / "conf.d" / "headroom.conf"
    configuration.write_text(configuration.read_text().replace("proxy_cache_lock on;", ""))
    Service("reload", [*nginx.command(home), "-s", "reload"], lambda: True, home / "log", as_service=False).start()
    api.seconds = 0.3

    def all_have_gone() -> bool:
        """The old configuration may answer for a moment yet."""
        before = len(api.asked)
        at_once(public, f"/problems/{'x' * (before + 1)}")
        return len(api.asked) - before > TOGETHER / 2

    wait_until(all_have_gone, "nginx without the lock")


def test_an_old_one_goes_out_at_once_while_a_new_one_is_fetched(public: httpx.Client, api: Api) -> None:
    api.cache_control = "public, max-age=1, stale-while-revalidate=60"
    assert public.get(DOCUMENT).text == "answer 1"
    time.sleep(EXPIRED_SECONDS)
    api.seconds = 0.5
    answers = at_once(public, DOCUMENT)
    assert {answer.text for answer in answers} == {"answer 1"}
    assert "stale" in {answer.headers["x-cache"] for answer in answers}
    wait_until(lambda: public.get(DOCUMENT).text == "answer 2", "the new one")
    assert len(api.asked) == 2


@pytest.mark.parametrize("status", [503, 500, 429])
def test_an_old_one_is_better_than_an_error(public: httpx.Client, api: Api, status: int) -> None:
    api.cache_control = "public, max-age=1, stale-if-error=60"
    assert public.get(DOCUMENT).text == "answer 1"
    time.sleep(EXPIRED_SECONDS)
    api.status = status
    for _ in range(3):
        answer = public.get(DOCUMENT)
        assert (answer.status_code, answer.text) == (200, "answer 1")


def test_errors_and_everything_else_are_not_kept(public: httpx.Client, api: Api) -> None:
    api.status, api.cache_control = 404, "no-store"
    assert [public.get("/problems/absent").status_code for _ in range(2)] == [404, 404]
    api.status, api.cache_control = 200, "public, max-age=60"
    for _ in range(2):
        assert "x-cache" not in public.get("/api/v1/equipment").headers
    assert len(api.asked) == 4


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/.well-known/jwks.json", "/problems/not-found"])
def test_the_service_has_its_documents_kept(stack: NativeStack, path: str) -> None:
    with httpx.Client(base_url=stack.http) as client:
        wait_until(lambda: client.get(path).headers["x-cache"] == "hit", path)
        kept = client.get(path)
        assert "stale-while-revalidate=" in kept.headers["cache-control"]
        assert "x-instance" not in kept.headers
        assert client.get(path, headers={"If-None-Match": kept.headers["etag"]}).status_code == 304
