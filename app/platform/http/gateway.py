"""What every request passes before the router: who is it, may it come in, and is the answer there already.

A cached answer leaves from here, before FastAPI resolves a dependency or a pool is touched. It consists of the
bytes that the slow path sent, so that both give the same.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol
from uuid import UUID

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.platform.cache import PUBLIC, CacheRule, Hit, ResponseCache, answer_key, cache_rule_of, tag
from app.platform.http.admission import admit, identify
from app.platform.http.consistency import HEADER as CONSISTENCY_HEADER
from app.platform.http.consistency import Consistency
from app.platform.http.problems import TooManyRequests, send_problem
from app.platform.http.recording import record, send_answer
from app.platform.http.routes import RoutePolicy, RouteTable
from app.platform.limits import LimitRule, RateLimiter, limits_of
from app.platform.security.caller import Caller
from app.platform.security.tokens import TokenVerifier
from app.platform.telemetry.context import current
from app.platform.telemetry.middleware import QUIET_PATHS


class GatewayParts(Protocol):
    """What the gateway needs of the process's resources."""

    @property
    def token_verifier(self) -> TokenVerifier: ...
    @property
    def rate_limiter(self) -> RateLimiter: ...
    @property
    def cache(self) -> ResponseCache: ...
    @property
    def consistency(self) -> Consistency: ...


class Gateway:
    """Pure ASGI. `routes` and `parts` are asked at each request: they exist only once the application is built."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: Callable[[], RouteTable],
        parts: Callable[[], GatewayParts],
        default_limit: LimitRule,
    ) -> None:
        self.app = app
        self.routes = routes
        self.parts = parts
        self.default_limit = default_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in QUIET_PATHS:
            await self.app(scope, receive, send)
            return
        parts = self.parts()
        policy = self.routes().match(scope["method"], scope["path"])
        if policy is not None:
            current().route = policy.template
        caller = identify(scope, parts.token_verifier)
        limit = self._limit_of(policy)
        if not await admit(scope, caller, limit, parts.rate_limiter, parts.consistency):
            problem = TooManyRequests("The rate limit is used up; Retry-After says when to come back.")
            await send_problem(send, problem, scope["path"])
            return
        send = with_consistency_token(send, parts.consistency)
        rule = cache_rule_of(policy.endpoint) if policy is not None else None
        if rule is not None and isinstance(caller, Caller):
            await self._serve_cached(scope, receive, send, parts.cache, rule, caller)
        else:
            await self.app(scope, receive, send)

    def _limit_of(self, policy: RoutePolicy | None) -> LimitRule:
        declared = limits_of(policy.endpoint) if policy is not None else None
        return self.default_limit if declared is None else declared

    async def _serve_cached(
        self, scope: Scope, receive: Receive, send: Send, cache: ResponseCache, rule: CacheRule, caller: Caller
    ) -> None:
        context = current()
        found = await cache.lookup(*names(scope, rule, caller))
        if isinstance(found, Hit):
            context.served_by, context.cache = "cache:redis", "hit"
            await send_answer(send, found.answer, scope, age_seconds=found.age_seconds)
            return
        context.cache = "miss"
        # What is made now must not lack the last write to what it is made of: it would be kept.
        context.wal_required = max(context.wal_required, found.wal_required)
        answer = await cache.fill(found, rule.ttl_seconds, partial(record, self.app, scope, receive))
        await send_answer(send, answer, scope)


def names(scope: Scope, rule: CacheRule, caller: Caller) -> tuple[str, tuple[str, ...]]:
    """The key of the answer, and the tags that it depends on."""
    owner: UUID | str = PUBLIC if rule.per == "public" else caller.organization_id
    reader = caller.key if rule.per == "caller" else ""
    # A hit leaves before the endpoint's scopes are looked at: it is for those alone who hold what its maker held.
    scopes = " ".join(sorted(caller.scopes))
    key = answer_key(owner, reader, scopes, scope["path"], scope["query_string"].decode("latin-1"))
    return key, tuple(tag(owner, name) for name in rule.tags)


def with_consistency_token(send: Send, consistency: Consistency) -> Send:
    """Add X-Consistency-Token where the request has written."""

    async def send_with_token(message: Message) -> None:
        if message["type"] == "http.response.start" and (position := current().wal_written):
            token = (CONSISTENCY_HEADER, consistency.token(position).encode())
            message = {**message, "headers": [*message["headers"], token]}
        await send(message)

    return send_with_token
