"""Answers as finished bytes: recorded once on their way out, sent as often as they are asked for."""

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.platform.cache import Answer
from app.platform.http.conditional import if_none_match, not_modified_headers
from app.platform.telemetry.context import current

CONDITION = b"if-none-match"


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of that name (lower case)."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


def _without_condition(scope: Scope) -> Scope:
    """The same request, without leave to answer 304, which could not be kept."""
    return {**scope, "headers": [(name, value) for name, value in scope["headers"] if name != CONDITION]}


async def record(app: ASGIApp, scope: Scope, receive: Receive) -> Answer:
    """What the application answers to the request, whole: the condition is left to `send_answer`."""
    start: Message = {}
    body = bytearray()

    async def keep(message: Message) -> None:
        nonlocal body
        if message["type"] == "http.response.start":
            start.update(message)
        elif message["type"] == "http.response.body":
            body += message.get("body", b"")

    await app(_without_condition(scope), receive, keep)
    return Answer(start["status"], tuple(start["headers"]), bytes(body))


async def send_answer(send: Send, answer: Answer, scope: Scope, *, age_seconds: float | None = None) -> None:
    """Send it, or a 304 to a client that has it."""
    headers, status, body = list(answer.headers), answer.status, answer.body
    if status >= 400:
        headers, body = _told_to_this_request(headers, body)
    etag = next((value for name, value in headers if name == b"etag"), None)
    if status == 200 and etag is not None and if_none_match(header(scope, CONDITION), etag.decode("latin-1")):
        headers, status, body = not_modified_headers(headers), 304, b""
    if age_seconds is not None:
        headers.append((b"age", b"%d" % age_seconds))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _told_to_this_request(headers: list[tuple[bytes, bytes]], body: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """A problem names the request that it answers."""
    try:
        problem = orjson.loads(body)
    except orjson.JSONDecodeError:
        return headers, body
    if not isinstance(problem, dict) or problem.get("request_id") in (None, own := current().request_id):
        return headers, body
    body = orjson.dumps(problem | {"request_id": own})
    return [(name, b"%d" % len(body) if name == b"content-length" else value) for name, value in headers], body
