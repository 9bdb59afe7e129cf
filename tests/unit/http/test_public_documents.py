from collections.abc import Iterator

import pytest
from starlette.types import Message, Receive, Scope, Send

from app.platform.http.public_documents import PublicDocumentsMiddleware, PublicRule
from app.platform.http.surrogate_keys import SurrogateKeys
from app.platform.telemetry.context import RequestContext, request_context

RULE = PublicRule(max_age=60, stale_while_revalidate=600, stale_if_error=3_600, tags=("documents", "keys"))
CACHE_CONTROL = b"public, max-age=60, stale-while-revalidate=600, stale-if-error=3600"


class Documents:
    """Answers in two pieces, with `status`."""

    def __init__(self, status: int = 200) -> None:
        self.status = status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/plain"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"a docu", "more_body": True})
        await send({"type": "http.response.body", "body": b"ment"})


async def ask(
    path: str, *, method: str = "GET", status: int = 200, condition: bytes | None = None, keys: str = ""
) -> tuple[Message, bytes]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    rules = {"/one": RULE, "/many/": RULE}
    app = PublicDocumentsMiddleware(Documents(status), rules=rules, surrogate_keys=SurrogateKeys(keys))
    headers = [] if condition is None else [(b"if-none-match", condition)]
    await app({"type": "http", "method": method, "path": path, "headers": headers}, receive, send)
    return sent[0], b"".join(message["body"] for message in sent[1:])


@pytest.fixture(autouse=True)
def context() -> Iterator[RequestContext]:
    context = RequestContext("test")
    token = request_context.set(context)
    yield context
    request_context.reset(token)


@pytest.mark.parametrize("path", ["/one", "/many/this", "/many/that"])
async def test_a_public_document_says_for_how_long_it_may_be_kept(path: str) -> None:
    start, body = await ask(path)
    headers = dict(start["headers"])
    assert (start["status"], body) == (200, b"a document")
    assert headers[b"cache-control"] == CACHE_CONTROL
    assert headers[b"content-type"] == b"text/plain"


async def test_who_has_it_is_told_so() -> None:
    start, _ = await ask("/one")
    again, body = await ask("/one", condition=dict(start["headers"])[b"etag"])
    assert (again["status"], body) == (304, b"")
    assert dict(again["headers"])[b"cache-control"] == CACHE_CONTROL


@pytest.mark.parametrize(("path", "method"), [("/other", "GET"), ("/one/deeper", "GET"), ("/one", "POST")])
async def test_nothing_else_is_touched(path: str, method: str) -> None:
    start, body = await ask(path, method=method)
    assert body == b"a document"
    assert dict(start["headers"])[b"cache-control"] == b"no-store"


async def test_an_error_may_not_be_kept() -> None:
    start, _ = await ask("/one", status=503)
    assert dict(start["headers"])[b"cache-control"] == b"no-store"


@pytest.mark.parametrize(
    ("header", "sent"),
    [
        ("", []),
        ("Surrogate-Key", [(b"surrogate-key", b"documents keys")]),
        ("Cache-Tag", [(b"cache-tag", b"documents,keys")]),
    ],
)
async def test_a_cdn_is_told_by_what_to_purge(
    header: str, sent: list[tuple[bytes, bytes]], context: RequestContext
) -> None:
    await ask("/one", keys=header)
    assert context.extra_headers == sent
