"""The hot path: an answer in memory leaves before anything else looks at the request.

A request that is answered from memory in the ordinary way leaves a `Pass`: what was found out about it, and the headers
that all layers together gave its answer. Who asks the same with the same credentials is let in by it. The token is
looked up again (it may have expired or been revoked), the limit is charged, the entry is checked against its lease, the
request is logged and counted: only the layers in between are not asked what they would say again.

A request that has anything unusual goes the ordinary way, and so does one whose pass holds no longer.
"""

from collections.abc import Awaitable, Callable
from time import monotonic, time
from typing import Any, NamedTuple, Protocol

from fastapi import FastAPI
from prometheus_client import Counter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.platform.cache import Kept, ResponseCache
from app.platform.http.conditional import if_none_match, not_modified_headers
from app.platform.limits import Account, Decision, RateLimiter
from app.platform.resilience.drain import Drain
from app.platform.resilience.protocol import FINISHED
from app.platform.security.api_keys import PREFIX, ApiKeys
from app.platform.security.caller import Caller
from app.platform.security.revocation import Revocations
from app.platform.security.tokens import InvalidToken, TokenVerifier
from app.platform.telemetry.context import RequestContext
from app.platform.telemetry.logs import AccessLog, Line
from app.platform.telemetry.metrics import BatchedCounter, RequestMetrics, Series
from app.platform.telemetry.middleware import request_id_of, trace_id_of
from app.platform.telemetry.traces import Tracer

ANSWERS = Counter("hot_path_answers_total", "Requests that were answered before anything else looked at them")

# What an answer may depend on beside host, credentials, path and query, or what makes a request more than a question.
UNUSUAL = frozenset(
    (
        b"x-consistency-token",
        b"x-request-timeout-ms",
        b"origin",
        b"content-length",
        b"content-encoding",
        b"transfer-encoding",
        b"expect",
    )
)
MAX_KEY_BYTES = 2_048
OFFER = "hot_path_offer"  # in the request's state
CHARGED = "hot_path_charged"

AGE, REQUEST_ID = b"age", b"x-request-id"

NO_EXTENSIONS: dict[str, Any] = {}

Headers = list[tuple[bytes, bytes]]
Key = tuple[bytes | None, bytes | None, str, bytes]


class Offer(NamedTuple):
    """What the gateway answered from memory, and on whose account. Without limits there is no account."""

    kept: Kept
    account: Account | None
    caller: Caller
    token: str
    context: RequestContext


class Form(NamedTuple):
    """An answer, and where in its headers lies what differs from one request to the next."""

    status: int
    headers: Headers
    age_at: int
    request_id_at: int
    limits_at: int | None  # two of them
    head: bytes | None  # the same as one piece, with a place for each value that differs
    body: bytes
    line: Line
    series: Series | None
    route: str


class Pass(NamedTuple):
    offer: Offer
    etag: str | None
    full: Form
    not_modified: Form


class HotPathParts(Protocol):
    """What is needed of the process's resources."""

    @property
    def token_verifier(self) -> TokenVerifier: ...
    @property
    def api_keys(self) -> ApiKeys: ...
    @property
    def revocations(self) -> Revocations: ...
    @property
    def rate_limiter(self) -> RateLimiter: ...
    @property
    def cache(self) -> ResponseCache: ...


class HotPath:
    """`parts` is None as long as they are not open."""

    def __init__(
        self, *, access_log: AccessLog, metrics: RequestMetrics | None, drain: Drain, tracer: Tracer | None = None
    ) -> None:
        self.parts: HotPathParts | None = None
        self._access_log = access_log
        self._metrics = metrics
        self._drain = drain
        self._tracer = tracer
        self._answers = BatchedCounter(ANSWERS)

    async def __call__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        parts = self.parts
        if parts is None or scope["type"] != "http" or scope["method"] != "GET" or self._drain.is_draining:
            await app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if len(headers) != len(scope["headers"]) or not UNUSUAL.isdisjoint(headers):
            await app(scope, receive, send)
            return
        key = (headers.get(b"authorization"), headers.get(b"host"), scope["path"], scope["query_string"])
        found: Pass | None = parts.cache.memory.shortcuts.get(key)
        if found is None or not await self._serve(found, parts, scope, headers, send):
            await self._learn(app, scope, receive, send, key)

    async def _serve(
        self, found: Pass, parts: HotPathParts, scope: Scope, headers: dict[bytes, bytes], send: Send
    ) -> bool:
        """False: it has to go the ordinary way."""
        started = monotonic()
        kept, account, caller, token, _ = found.offer
        if started >= kept.due_at or not parts.cache.memory.may_serve(kept, started):
            return False
        if not still(caller, token, parts):
            return False
        limits: Headers = []
        if account is not None:
            if parts.rate_limiter.take(account, started):
                limits = account.headers()
            elif (decision := await _charged(account, kept, parts, scope)) is not None:
                limits = decision.headers()
            else:
                return False
        request_id = request_id_of(headers.get(b"x-request-id"))
        age = b"%d" % max(0, time() - kept.stored_at)
        condition = headers.get(b"if-none-match")
        form = found.full if condition is None else _form_for(condition, found)
        if not finished(scope, form, age, request_id, limits):
            told = form.headers.copy()
            told[form.age_at] = (AGE, age)
            told[form.request_id_at] = (REQUEST_ID, request_id.encode())
            if form.limits_at is not None:
                told[form.limits_at : form.limits_at + 2] = limits
            await send({"type": "http.response.start", "status": form.status, "headers": told})
            await send({"type": "http.response.body", "body": form.body})
        parts.cache.memory_hits.inc()
        self._answers.inc()
        self._tell(form, request_id, headers.get(b"traceparent"), scope, monotonic() - started)
        return True

    def _tell(self, form: Form, request_id: str, traceparent: bytes | None, scope: Scope, seconds: float) -> None:
        client = scope.get("client")
        told = self._tracer.hit(traceparent, form.route, form.status, seconds) if self._tracer is not None else None
        line = form.line(request_id, told or trace_id_of(traceparent), seconds, client[0] if client else "")
        self._access_log.write_line(line)
        if self._metrics is not None and form.series is not None:
            self._metrics.add(form.series, seconds, 0, len(form.body))

    async def _learn(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, key: Key) -> None:
        start: Message = {}

        def watched(message: Message) -> Awaitable[None]:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
            return send(message)

        state = scope.setdefault("state", {})
        await app(scope, receive, watched)
        offer: Offer | None = state.get(OFFER)
        # A 404 that was kept goes the ordinary way each time: it names the request that it answers.
        if offer is None or self.parts is None or start["status"] not in (200, 304) or size_of(key) > MAX_KEY_BYTES:
            return
        if (made := self._pass(offer, start)) is not None:
            self.parts.cache.memory.attach(offer.kept, key, made)

    def _pass(self, offer: Offer, start: Message) -> Pass | None:
        """From the headers as they went out; None if they are not laid out as `_serve` needs them."""
        answer, headers = offer.kept.answer, start["headers"]
        whole, part = list(answer.headers), not_modified_headers(answer.headers)
        own = whole if start["status"] == answer.status else part
        if headers[: len(own)] != own:
            return None
        added = headers[len(own) :]
        full = self._form(offer, answer.status, [*whole, *added], answer.body)
        not_modified = self._form(offer, 304, [*part, *added], b"")
        if full is None or not_modified is None:
            return None
        etag = dict(whole).get(b"etag")
        return Pass(offer, None if etag is None else etag.decode("latin-1"), full, not_modified)

    def _form(self, offer: Offer, status: int, headers: Headers, body: bytes) -> Form | None:
        names = [name for name, _ in headers]
        varying = (
            [AGE, REQUEST_ID, *(name for name, _ in offer.account.headers())] if offer.account else [AGE, REQUEST_ID]
        )
        if any(names.count(name) != 1 for name in varying):
            return None
        age_at, request_id_at, *limits_at = map(names.index, varying)
        if limits_at and limits_at != [limits_at[0], limits_at[0] + 1]:
            return None
        context = offer.context
        series = self._metrics.series(context.method, status, context.route) if self._metrics is not None else None
        line = self._access_log.template(context, status)
        limit_at = limits_at[0] if limits_at else None
        head = template(headers, varying)
        return Form(status, headers, age_at, request_id_at, limit_at, head, body, line, series, context.route)


def template(headers: Headers, varying: list[bytes]) -> bytes | None:
    """None where the varying ones come in another order."""
    if [name for name, _ in headers if name in varying] != varying:
        return None
    lines = (
        b"%s: %s\r\n" % (name.replace(b"%", b"%%"), b"%s" if name in varying else value.replace(b"%", b"%%"))
        for name, value in headers
    )
    return b"".join(lines)


def finished(scope: Scope, form: Form, age: bytes, request_id: str, limits: Headers) -> bool:
    """Whether the server took the answer in one piece, as ours does."""
    extension = scope.get("extensions", NO_EXTENSIONS).get(FINISHED)
    if extension is None or form.head is None:
        return False
    answer: Callable[[int, bytes, bytes], bool] = extension["answer"]
    values = (age, request_id.encode(), *[value for _, value in limits])
    return answer(form.status, form.head % values, form.body)


def size_of(key: Key) -> int:
    return sum(len(part) for part in key if part is not None)


def still(caller: Caller, token: str, parts: HotPathParts) -> bool:
    """Whether the token is good, and says what it said. Where that can't be told without waiting: no."""
    try:
        known = parts.api_keys.known(token) if token.startswith(PREFIX) else parts.token_verifier.verify(token)
    except InvalidToken:
        return False
    return known is caller and parts.revocations.is_fresh and not parts.revocations.is_revoked(caller)


def _form_for(condition: bytes, found: Pass) -> Form:
    if found.etag is not None and if_none_match(condition.decode("latin-1"), found.etag):
        return found.not_modified
    return found.full


async def _charged(account: Account, kept: Kept, parts: HotPathParts, scope: Scope) -> Decision | None:
    """Nothing is leased: it takes a trip to Redis, during which much can happen. The gateway doesn't charge again."""
    decision = scope.setdefault("state", {})[CHARGED] = await parts.rate_limiter.ask(account)
    return decision if decision.allowed and parts.cache.memory.may_serve(kept, monotonic()) else None


class Application(FastAPI):
    """FastAPI, with the hot path before its own layers too: they alone cost half of what a hit does in all."""

    def __init__(self, *, hot_path: HotPath, **options: Any) -> None:
        super().__init__(**options)
        self.hot_path = hot_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.hot_path(super().__call__, scope, receive, send)
