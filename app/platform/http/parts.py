"""Runs the parts of a batch side by side and collects what each answers."""

import asyncio
import json
import logging
from asyncio import Semaphore
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope

from app.platform.http.problems import BadRequest, DeadlineExceeded, InternalError, Problem, problem_response
from app.platform.resilience.deadlines import bounded, deadline
from app.platform.telemetry.context import RequestContext, current, request_context

MAX_PART_SECONDS = 60.0  # where the batch itself has no deadline
# Parts end this much before the batch has to, so that those that were in time are still told.
MARGIN_SECONDS = 0.05

INHERITED = frozenset({b"authorization", b"host", b"user-agent", b"accept-language", b"x-consistency-token"})
WITHHELD = frozenset({b"content-length", b"set-cookie", b"connection"})

logger = logging.getLogger(__name__)


class Part(Protocol):
    """One request of a batch, checked."""

    id: str
    url: str
    headers: dict[str, str]
    body: Any

    @property
    def method(self) -> str: ...

    @property
    def path(self) -> str: ...


class AnswersTooLarge(Problem):
    """The answers of a batch are too large together. The part was carried out; its answer was left out."""

    status = 413
    slug = "answers-too-large"
    title = "The answers of the batch are too large together"


@dataclass(slots=True)
class Budget:
    """Bytes that the answers of one batch may still take."""

    left: int

    def take(self, size: int) -> bool:
        self.left -= size
        return self.left >= 0


@dataclass(slots=True)
class Answer:
    """What a part sends, as it arrives."""

    budget: Budget
    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False
    too_large: bool = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            self._add(message.get("body", b""))
            self.complete = not message.get("more_body", False)

    def replace(self, problem: Problem, path: str) -> None:
        response = problem_response(problem, path)
        self.status, self.headers, self.body = response.status_code, response.raw_headers, bytearray(response.body)

    def _add(self, chunk: bytes) -> None:
        if self.too_large or not self.budget.take(len(chunk)):
            self.too_large = True
            self.body.clear()
        else:
            self.body += chunk


async def run_parts(
    app: ASGIApp, outer: Scope, parts: Sequence[Part], budget: Budget, places: Semaphore
) -> list[Mapping[str, Any]]:
    """Side by side, as many as there are places, each in a task and so in a context of its own; what they wrote counts
    for the batch.
    """
    context = current()
    contexts = [_part_context(context, part, number) for number, part in enumerate(parts, 1)]
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_run_part(app, outer, part, own, budget, places))
            for part, own in zip(parts, contexts, strict=True)
        ]
    for own in contexts:
        context.wal_written = max(context.wal_written, own.wal_written)
        context.queries += own.queries
        context.query_seconds += own.query_seconds
        context.waited_seconds += own.waited_seconds
    return [task.result() for task in tasks]


def _part_context(outer: RequestContext, part: Part, number: int) -> RequestContext:
    return RequestContext(
        request_id=f"{outer.request_id}-{number}",
        instance=outer.instance,
        method=part.method,
        path=part.path,
        client_address=outer.client_address,
        trace_id=outer.trace_id,
        trace=outer.trace,
        wal_required=outer.wal_required,
    )


async def _run_part(
    app: ASGIApp, outer: Scope, part: Part, context: RequestContext, budget: Budget, places: Semaphore
) -> Mapping[str, Any]:
    request_context.set(context)
    if (end := deadline.get()) is not None:
        deadline.set(end - MARGIN_SECONDS)
    answer = Answer(budget)
    if (problem := await _failure(app, outer, part, answer, places)) is not None:
        answer.replace(problem, part.path)
    headers = [*answer.headers, *context.extra_headers, (b"x-request-id", context.request_id.encode())]
    if context.cache is not None:
        headers.append((b"x-cache", context.cache.encode()))
    return {
        "id": part.id,
        "status": answer.status,
        "headers": _joined(headers),
        "body": _embedded(bytes(answer.body), answer.headers),
    }


async def _failure(app: ASGIApp, outer: Scope, part: Part, answer: Answer, places: Semaphore) -> Problem | None:
    """Run the part into `answer`; a problem when there is no answer that could be passed on."""
    try:
        body = b"" if part.body is None else json.dumps(part.body).encode()
    except RecursionError:
        return BadRequest("The JSON of the body is nested too deeply.")
    try:
        async with bounded(MAX_PART_SECONDS), places:
            await app(_part_scope(outer, part, body), _receive(body), answer.send)
    except TimeoutError:
        return None if answer.complete else DeadlineExceeded()
    except Exception:
        logger.exception("unhandled exception in a part of a batch")
    if answer.too_large:
        return AnswersTooLarge()
    return None if answer.complete else InternalError()


def _part_scope(outer: Scope, part: Part, body: bytes) -> Scope:
    path, _, query = part.url.partition("?")
    headers = [(name, value) for name, value in outer["headers"] if name in INHERITED]
    own = {name.lower().encode(): value.encode() for name, value in part.headers.items()}
    headers = [(name, value) for name, value in headers if name not in own] + list(own.items())
    if body:
        headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    kept = ("type", "app", "asgi", "http_version", "scheme", "client", "server")
    return {name: outer[name] for name in kept if name in outer} | {
        "method": part.method,
        "path": part.path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": outer.get("app_root_path", ""),
        "headers": headers,
        "state": dict(outer.get("state", {})),
    }


def _receive(body: bytes) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    disconnected: asyncio.Future[Message] = asyncio.get_running_loop().create_future()  # never: the batch waits

    async def receive() -> Message:
        return messages.pop() if messages else await disconnected

    return receive


def _joined(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Names once each, as JSON has it; repeated ones by commas (RFC 9110, section 5.3)."""
    joined: dict[str, str] = {}
    for name, value in headers:
        if name not in WITHHELD:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            joined[key] = f"{joined[key]}, {text}" if key in joined else text
    return joined


def _embedded(body: bytes, headers: list[tuple[bytes, bytes]]) -> Any:
    """JSON as JSON, without parsing it; anything else as text; null for nothing."""
    if not body:
        return None
    media_type = dict(headers).get(b"content-type", b"").partition(b";")[0].strip()
    if media_type == b"application/json" or media_type.endswith(b"+json"):
        return orjson.Fragment(body)
    return body.decode("utf-8", "replace")
